"""Fixtures that several rooms share: a tiny random prior (nobody needs the released weights) and a small study."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from any2all.diffusion.prior import NetworkPrior, PriorCard, build_network, load_prior, save_prior
from any2all.stack import load_stack

sys.path[:0] = [str(Path(__file__).parent / room) for room in ("cdm", "evaluation")]
from small_cdm import card_of, saved_cdm  # noqa: E402

REPOSITORY = Path(__file__).parents[1]
TINY_NETWORK = {
    "channels": [16, 16, 32, 32],
    "num_res_blocks": [1, 1, 1, 1],
    "attention_levels": [False, False, False, True],
    "num_head_channels": 16,
    "norm_num_groups": 8,
}
TINY_MATRIX = (32, 32)
TINY_SPACING_MM = (8.0, 8.0, 6.0)

torch.set_num_threads(1)


def write_tiny_model(folder: Path, noise_levels: str = "per_modality") -> Path:
    """``model.pt`` and ``prior.json`` of an untrained prior of the shipped stack; its weights are random but fixed."""
    stack = load_stack()
    card = PriorCard(
        version="0.0.0-tiny",
        noise_levels=noise_levels,
        prediction="v" if noise_levels == "per_modality" else "eps",
        network=TINY_NETWORK,
        matrix=TINY_MATRIX,
        spacing_mm=TINY_SPACING_MM,
        stack=stack,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(stack, TINY_NETWORK)
        for parameter in network.parameters():  # MONAI zeroes the last convolutions: without this the output is 0
            if parameter.dim() > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    save_prior(network, card, folder / "model.pt")
    return folder / "model.pt"


@pytest.fixture(scope="session")
def tiny_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the tiny prior's weights, its card beside them. Read-only: other tests use it as well."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny_prior"))


@pytest.fixture
def tiny_prior(tiny_model_file: Path) -> NetworkPrior:
    """The tiny prior, loaded; float32 throughout, so that processors agree."""
    return load_prior(tiny_model_file, autocast=False)


def write_tiny_cdm(folder: Path) -> Path:
    """``cdm.pt`` and ``cdm.json`` of an untrained CDM on the tiny prior's grid; its weights are random but fixed."""
    card = card_of(matrix=TINY_MATRIX, spacing_mm=TINY_SPACING_MM, version="0.0.0-tiny-cdm")
    return saved_cdm(folder, card)


@pytest.fixture(scope="session")
def tiny_cdm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the tiny CDM's weights, its card beside them. Read-only: other tests use it as well."""
    return write_tiny_cdm(tmp_path_factory.mktemp("tiny_cdm"))


def head_phantom(shape: tuple[int, int, int] = (12, 64, 64)) -> np.ndarray:
    """Head labels (Z, H, W): 0 air, 1 scalp, 2 bone, 3 white matter, 4 grey matter, 5 ventricle, 6 lesion."""
    z, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")

    def ball(radius: float, z0: float = 0.0, h0: float = 0.0, w0: float = 0.0, narrow: float = 1.0) -> np.ndarray:
        return ((z - z0) / 1.8) ** 2 + (h - h0) ** 2 + ((w - w0) / narrow) ** 2 < radius**2

    labels = np.zeros(shape, np.uint8)
    parts = [
        (ball(0.85, narrow=0.85), 1),
        (ball(0.78, narrow=0.85), 2),
        (ball(0.70, narrow=0.85), 4),
        (ball(0.58, narrow=0.85), 3),
        (ball(0.25, w0=0.12, narrow=0.4) | ball(0.25, w0=-0.12, narrow=0.4), 5),
        (ball(0.10, h0=0.25, w0=0.30), 6),
    ]
    for inside, label in parts:
        labels[inside] = label
    return labels


CONTRASTS = {  # by label of `head_phantom`
    "T1": (0, 620, 90, 800, 560, 180, 480),
    "T2": (0, 380, 50, 330, 480, 950, 720),
    "T2FLAIR": (0, 420, 60, 390, 560, 80, 900),
    "T2star": (0, 500, 30, 520, 560, 640, 580),
    "CT": (-1000, 20, 900, 28, 38, 6, 22),
    "PET": (0.0, 0.2, 0.1, 1.2, 1.0, 0.3, 0.9),
}


def write_phantom(folder: Path, name: str, seed: int = 7) -> Path:
    """``<name>.nii.gz`` of the phantom in one contrast, RAS, 12 slices of 64x64, 4x4x6 mm; a seed is another noise."""
    folder.mkdir(parents=True, exist_ok=True)
    labels, rng = head_phantom(), np.random.default_rng([seed, len(name)])
    values = np.asarray(CONTRASTS[name], np.float32)
    image = values[labels] + rng.normal(0, 0.01 * (values.max() - values[1:].min()), labels.shape)
    if name != "CT":
        image = np.abs(image)
    affine = np.diag([4.0, 4.0, 6.0, 1.0])
    affine[:3, 3] = -126.0, -126.0, -33.0
    # canonical (Z, P, L) → file order (R, A, S)
    data = np.ascontiguousarray(image.transpose(2, 1, 0)[::-1, ::-1]).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), folder / f"{name}.nii.gz")
    return folder / f"{name}.nii.gz"


def write_small_study(folder: Path, document: dict | None = None) -> Path:
    """T1.nii.gz and T2FLAIR.nii.gz (RAS, 12 slices of 64x64, 4x4x6 mm) and a study.json → path of the study.

    Default study: T1 given, T2FLAIR undersampled by simulation (R = 4), the rest missing; outputs T2FLAIR and CT.
    """
    for name in ("T1", "T2FLAIR"):
        write_phantom(folder, name)
    document = document or {
        "version": 1,
        "subject": "phantom01",
        "modalities": {
            "T1": {"status": "available", "file": "T1.nii.gz"},
            "T2FLAIR": {
                "status": "undersampled",
                "file": "T2FLAIR.nii.gz",
                "simulate": {"acceleration": 4},
            },
        },
        "outputs": ["T2FLAIR", "CT"],
        "sampler": {"name": "mcs", "steps": 5, "samples": 2, "consistency": "calibrated"},
    }
    (folder / "study.json").write_text(json.dumps(document, indent=1))
    return folder / "study.json"


@pytest.fixture
def small_study(tmp_path: Path) -> Path:
    """A folder with ``study.json``, ``T1.nii.gz`` and ``T2FLAIR.nii.gz``; the test may change what it likes in it."""
    return write_small_study(tmp_path / "study").parent


@pytest.fixture(scope="session")
def phantom_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``<modality>.nii.gz`` of the phantom in every contrast. Read-only: other tests use it as well."""
    folder = tmp_path_factory.mktemp("phantom_files")
    for name in CONTRASTS:
        write_phantom(folder, name)
    return folder


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MONAI datalist of phantoms: training p1 (complete) and p2 (T1, T2FLAIR), validation p3 (complete)."""
    folder = tmp_path_factory.mktemp("cohort")
    subjects = {"p1": list(CONTRASTS), "p2": ["T1", "T2FLAIR"], "p3": list(CONTRASTS)}
    entries = {}
    for seed, (subject, names) in enumerate(subjects.items()):
        files = {name: write_phantom(folder / subject, name, seed) for name in names}
        entries[subject] = {name: str(file.relative_to(folder)) for name, file in files.items()}
    datalist = {"training": [entries["p1"], entries["p2"]], "validation": [entries["p3"]]}
    (folder / "datalist.json").write_text(json.dumps(datalist, indent=1))
    return folder / "datalist.json"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The project's data folder (ANY2ALL_DATA, else ../shared/data beside the repository); skips aloud without it."""
    folder = Path(os.environ.get("ANY2ALL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "splits.json").is_file():
        pytest.skip(f"data folder not found at {folder}: set ANY2ALL_DATA to run this test")
    return folder
