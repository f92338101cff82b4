"""The demonstration study: one rendered head as a scanner would have sent it, with the truth beside it.

``python -m any2all.phantom.demo_study LABEL_MAP FOLDER [SEED]`` writes it again.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from ..stack import Stack, load_stack
from .labels import HeadLabels, load_head_labels
from .parameters import HeadParameters, Lesions, draw_ordinary
from .render import RenderGrid, Rendering, render

MATRIX, SPACING_MM, SLICE_MM = (160, 160), (1.4, 1.4), 3.0
LOWEST_SLICE_MM, SLICES = -9.0, 14
# At these levels the nose is out of view: the head lies behind the centre.
SHIFT_MM = (8.0, 0.0)
SEED = 114
GIVEN = ("T1", "T2star", "T2FLAIR")
TRUTH = ("T2FLAIR", "CT", "PET", "T2")
# Steps of the stored integers: HU are integers, SUVr keeps three decimals, MR keeps 12 bits as scanners do.
STEPS = {"CT": 1.0, "PET": 0.001}
MR_LEVELS = 4095
SIMULATION = {"acceleration": 4, "acs_lines": 0, "coils": 8, "noise_std": 0.01, "seed": 0}


def demo_parameters(seed: int) -> HeadParameters:
    """Parameters of an ordinary whole head with a few white matter lesions, from a seed."""
    drawn = draw_ordinary(seed)
    lesions = Lesions(ms_count=12, ms_mask=None, ms_severity=0.9, caps=0.2, infarct_mm=0.0, ct_findings=())
    pose = replace(drawn.pose, flip=False, scale=(1.0, 1.0, 1.0))
    return replace(drawn, skull_stripped=False, lesions=lesions, pose=pose)


def study_document(subject: str) -> dict:
    """The study (contract 1): T1 and T2star given, T2FLAIR as simulated k-space, the rest missing."""
    modalities = {name: {"status": "available", "file": f"{name}.nii.gz"} for name in GIVEN[:2]}
    modalities["T2FLAIR"] = {"status": "undersampled", "file": "T2FLAIR.nii.gz", "simulate": dict(SIMULATION)}
    modalities |= {name: {"status": "missing"} for name in ("CT", "PET")}
    return {
        "version": 1,
        "subject": subject,
        "modalities": modalities,
        "reference": "T1",
        "outputs": ["T2FLAIR", "CT", "PET"],
        "preset": "balanced",
    }


def _write(rendering: Rendering, channel: int, name: str, file: Path) -> None:
    """One modality as int16 NIfTI in RAS order."""
    data = rendering.images[:, channel].cpu().numpy().astype(np.float64)
    step = STEPS.get(name) or float(data.max()) / MR_LEVELS
    stored = np.clip(np.rint(data / step), -32768, 32767).astype(np.int16)
    # (z, h, w) becomes (x, y, z): the affine's columns follow.
    affine = rendering.affine[:, [2, 1, 0, 3]]
    image = nib.as_closest_canonical(nib.Nifti1Image(stored.transpose(2, 1, 0), affine))
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    image.header.set_slope_inter(step, 0.0)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"Any2all rendered head, not a patient"
    nib.save(image, file)


def write_demo_study(head: HeadLabels, seed: int, folder: str | Path, stack: Stack) -> Rendering:
    """Render the demonstration study and write it.

    Writes ``study.json``, the three given images, ``truth/`` with the images that the outputs are compared with, and
    ``truth/rendering.json`` with all drawn parameters.

    Args:
        head: the label map; the shipped study uses a validation head.
        seed: of the head's parameters.
        folder: created when absent.
        stack: must hold the modalities of the study.

    Returns:
        The rendering, 1.4 mm in the plane, 14 slices 3 mm apart from the basal ganglia upward.
    """
    folder = Path(folder)
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    positions = tuple(LOWEST_SLICE_MM + SLICE_MM * i for i in range(SLICES))
    grid = RenderGrid(MATRIX, SPACING_MM, positions, SLICE_MM, SHIFT_MM)
    rendering = render(head, demo_parameters(seed), grid, stack)
    for name in GIVEN:
        _write(rendering, stack.index(name), name, folder / f"{name}.nii.gz")
    for name in TRUTH:
        _write(rendering, stack.index(name), name, folder / "truth" / f"{name}.nii.gz")
    (folder / "study.json").write_text(json.dumps(study_document(head.name), indent=2) + "\n")
    (folder / "truth" / "rendering.json").write_text(json.dumps(rendering.parameters, indent=1) + "\n")
    return rendering


if __name__ == "__main__":
    write_demo_study(
        load_head_labels(sys.argv[1]), int(sys.argv[3]) if len(sys.argv) > 3 else SEED, sys.argv[2], load_stack()
    )
