"""What a real acquisition costs: estimated coil maps, a phase, another grid, slices that cross (``make check-data``).

One head, rendered from the validation label map, is acquired in several ways. T2FLAIR is always undersampled along W
with the same mask; T1 is an image or raw data as well. What is lost against known maps, no phase and one grid is the
price of what a scanner does not tell.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nibabel import orientations
from scipy.spatial.transform import Rotation

from .diffusion.prior import NetworkPrior
from .geometry import Grid, Volume, canonical, resample
from .intensity import head_mask, scale_of, to_u
from .kspace.simulate import equispaced_mask, simulate_kspace
from .phantom.demo_study import SEED, demo_parameters
from .phantom.labels import load_head_labels
from .phantom.render import RenderGrid, render
from .pipeline import fill_study
from .run import Run
from .scores.metrics import psnr
from .scores.text import markdown_table
from .stack import Stack
from .study import load_study
from .training.cohort import DataSplits

GIVEN, WANTED = "T1", "T2FLAIR"
SAMPLER = {"name": "mcs", "steps": 10, "samples": 1, "consistency": "calibrated"}
ACCELERATION, ACS_LINES, COILS, NOISE_U, WIDTH = 4, 24, 8, 0.01, 160
MOST_LOST_DB = 1.0  # by estimated maps, a phase and another grid together
HEAD = RenderGrid((160, 160), (1.4, 1.4), tuple(-104 + 2.0 * i for i in range(100)), 2.0, (8.0, 0.0))
CENTRE_MM = (0.0, -8.0, 10.5)  # of the slices: from the basal ganglia upward
WINDOW_U = 0.9

Where = Literal["nowhere", "one", "other", "sagittal"]


def _grid(codes: str, shape: tuple, spacing: tuple, shift: tuple = (0, 0, 0), turn: tuple = (0, 0, 0)) -> Grid:
    """About `CENTRE_MM` + ``shift``, axes growing to ``codes`` and then turned by ``turn`` degrees about x, y, z."""
    axes = orientations.axcodes2ornt(codes)
    directions = np.zeros((3, 3))
    directions[axes[:, 0].astype(int), [0, 1, 2]] = axes[:, 1]
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ directions * np.array(spacing)
    affine[:3, 3] = np.array(CENTRE_MM) + shift - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


GRIDS: dict[Where, Grid] = {
    "one": _grid("SPL", (14, 160, WIDTH), (3.0, 1.4, 1.4)),
    "other": _grid("SPL", (11, 160, WIDTH), (4.0, 1.5, 1.25), (2.0, -3.0, 1.0), (1.0, 0.0, 4.0)),
    "sagittal": _grid("LSP", (24, 160, WIDTH), (7.0, 1.4, 1.4), (0.0, 0.0, -14.5)),
}
PLACES: dict[Where, str] = {
    "nowhere": "not measured",
    "one": "transverse, on T1's grid",
    "other": "transverse, on another grid",
    "sagittal": "sagittal, on T1's grid",
}


@dataclass(frozen=True)
class Case:
    """How T2FLAIR was acquired, whether T1 is raw data as well, and whether maps and phase are unknown."""

    where: Where
    raw_t1: bool = False
    estimated: bool = False


CASES = (
    Case("nowhere"),
    Case("one"),
    Case("one", estimated=True),
    Case("other"),
    Case("other", estimated=True),
    Case("sagittal", estimated=True),
    Case("one", raw_t1=True),
    Case("one", raw_t1=True, estimated=True),
    Case("other", raw_t1=True),
    Case("other", raw_t1=True, estimated=True),
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """Truth, SENSE (None where nothing was measured) and result in u on one grid, and their PSNR in the head."""

    case: Case
    truth: np.ndarray
    made: np.ndarray
    first: np.ndarray | None
    seconds: float

    @property
    def psnr(self) -> float:
        return self._psnr(self.made)

    @property
    def sense(self) -> float | None:
        return None if self.first is None else self._psnr(self.first)

    def _psnr(self, image: np.ndarray) -> float:
        return psnr(image.clip(0, 1), self.truth.clip(0, 1), mask=head_mask(self.truth))

    @property
    def row(self) -> tuple[str, ...]:
        case, given = self.case, "k-space, R = 4" if self.case.raw_t1 else "image"
        known = "–" if case.where == "nowhere" else "estimated, smooth phase" if case.estimated else "known, no phase"
        sense = "–" if self.sense is None else f"{self.sense:.1f} dB"
        return given, PLACES[case.where], known, sense, f"{self.psnr:.1f} dB", f"{self.seconds:.0f} s"


def check_acquisitions(data: Path, prior: NetworkPrior, output: Path) -> list[str]:
    """Measure every case, print the table, draw what came out; returns what is wrong.

    Args:
        data: the data folder, of whose label maps the validation one is rendered.
        prior: fills the studies.
        output: folder of the picture.
    """
    true_r = WIDTH / equispaced_mask(WIDTH, ACCELERATION, ACS_LINES).sum()
    print(f"\n## {WANTED} as it may be acquired, rendered validation head", flush=True)
    words = f"R = {ACCELERATION}, {ACS_LINES} calibration lines: true R {true_r:.2f}, the same mask everywhere"
    print(words, flush=True)
    head = rendered_head(data, prior.stack)
    outcomes = []
    for case in CASES:
        outcomes.append(measured(case, head, prior))
        print("  " + ", ".join(outcomes[-1].row), flush=True)
    columns = ("T1", f"k-space of {WANTED}", "coil maps", "SENSE", "ours", "time")
    print("\n" + markdown_table(columns, [outcome.row for outcome in outcomes]))
    draw_outcomes(outcomes, output / "acquisitions.png")
    return verdicts(outcomes)


def rendered_head(data: Path, stack: Stack) -> dict[str, Volume]:
    """T1 and T2FLAIR of the validation head, 1.4 mm in the plane and 2 mm between slices."""
    label_map = DataSplits(data, "validation").head_labels[0]
    part = Stack(modalities=(stack[GIVEN], stack[WANTED]))
    rendering = render(load_head_labels(label_map), demo_parameters(SEED), HEAD, part)
    grid = Grid(tuple(rendering.images[:, 0].shape), rendering.affine)
    return {name: Volume(rendering.images[:, m].numpy(), grid) for m, name in enumerate(part.names)}


def measured(case: Case, head: Mapping[str, Volume], prior: NetworkPrior) -> Outcome:
    """One case as a study. Scores are on T2FLAIR's own grid; where its slices cross or it is not measured, on T1's.

    What was measured is taken to u by the truth's scale; what is synthetic has no other scale than the prior's.
    """
    own = case.where in ("one", "other")
    run, normalisation = Run(), prior.stack[WANTED].normalisation
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(case, head, prior.stack, Path(folder), WANTED if own else GIVEN)
        output = fill_study(load_study(study, prior.stack), prior, run).outputs[0]
    truth = _acquired(head[WANTED], GRIDS[case.where if own else "one"]).data
    scale = scale_of(truth, head_mask(truth), normalisation)
    truth_u = to_u(truth, normalisation, scale)
    if case.where == "nowhere":
        return Outcome(case, truth_u, to_u(canonical(output.mean).data, normalisation), None, sum(run.seconds.values()))
    made, first = (to_u(canonical(v).data, normalisation, scale) for v in (output.mean, output.shown_input))
    return Outcome(case, truth_u, made, first, sum(run.seconds.values()))


def write_study(case: Case, head: Mapping[str, Volume], stack: Stack, folder: Path, reference: str) -> Path:
    """The study of a case with its files in ``folder``."""
    t1 = _acquired(head[GIVEN], GRIDS["one"])
    modalities = {GIVEN: _raw(GIVEN, t1, case.estimated, stack, folder) if case.raw_t1 else _image(GIVEN, t1, folder)}
    if case.where != "nowhere":
        flair = _acquired(head[WANTED], GRIDS[case.where])
        modalities[WANTED] = _raw(WANTED, flair, case.estimated, stack, folder)
    document = {"version": 1, "modalities": modalities, "reference": reference, "registration": "none"}
    document |= {"outputs": [WANTED], "sampler": SAMPLER}
    (folder / "study.json").write_text(json.dumps(document))
    return folder / "study.json"


def _acquired(volume: Volume, grid: Grid) -> Volume:
    """The head on a scanner's grid, its slices as thick as they are apart."""
    there = resample(volume, grid, order=3)
    return Volume(np.maximum(there.data, 0), grid)


def _image(name: str, volume: Volume, folder: Path) -> dict[str, Any]:
    _save(volume, folder / f"{name}.nii.gz")
    return {"status": "available", "file": f"{name}.nii.gz"}


def _raw(name: str, volume: Volume, estimated: bool, stack: Stack, folder: Path) -> dict[str, Any]:
    """Simulated k-space: by the study itself, which then knows the maps, or as a file that tells of none and no noise.

    Both have the same mask and noise.
    """
    settings = {"acceleration": ACCELERATION, "acs_lines": ACS_LINES, "coils": COILS, "seed": 0}
    if not estimated:
        _save(volume, folder / f"{name}.nii.gz")
        simulate = {**settings, "noise_std": NOISE_U}
        return {"status": "undersampled", "file": f"{name}.nii.gz", "simulate": simulate}
    scale = scale_of(volume.data, head_mask(volume.data), stack[name].normalisation)
    made = simulate_kspace(volume.data, noise_std=NOISE_U * scale, phase="smooth", **settings)
    np.savez(folder / f"{name}.npz", kspace=made.kspace, mask=made.mask, affine=volume.grid.affine)
    return {"status": "undersampled", "kspace": f"{name}.npz"}


def _save(volume: Volume, file: Path) -> None:
    nib.save(nib.Nifti1Image(volume.data.astype(np.float32), volume.grid.affine), file)


def verdicts(outcomes: Sequence[Outcome]) -> list[str]:
    """Whether estimates cost less than `MOST_LOST_DB`, and slices that cross help; returns what does not hold."""
    by_case = {outcome.case: outcome.psnr for outcome in outcomes}
    failures = []
    for raw_t1 in (False, True):
        lost = by_case[Case("one", raw_t1)] - by_case[Case("other", raw_t1, estimated=True)]
        given = f"{WANTED} R = {ACCELERATION} + {GIVEN} as {'k-space' if raw_t1 else 'an image'}"
        words = f"{given}: estimated maps, a phase and another grid cost {lost:+.2f} dB"
        print(f"{words} ({'less' if lost < MOST_LOST_DB else 'NOT less'} than {MOST_LOST_DB:g})")
        failures += [words] if lost >= MOST_LOST_DB else []
    sagittal = next(outcome for outcome in outcomes if outcome.case.where == "sagittal")
    for name, rival in (("no raw data", by_case[Case("nowhere")]), ("SENSE of it", sagittal.sense)):
        words = f"sagittal raw data against {name}: {sagittal.psnr - rival:+.2f} dB"
        print(words)
        failures += [words] if sagittal.psnr <= rival else []
    return failures


def draw_outcomes(outcomes: Sequence[Outcome], file: Path) -> None:
    """Truth, first reconstruction, result and four times the error of the middle slice; a column for each case."""
    figure = Figure(figsize=(2.2 * len(outcomes), 9.6), dpi=90, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(4, len(outcomes), squeeze=False)
    for column, outcome in enumerate(outcomes):
        truth, made = outcome.truth, outcome.made
        first = np.zeros_like(truth) if outcome.first is None else outcome.first
        for row, image in enumerate((truth, first, made, 4 * np.abs(made - truth))):
            axes[row][column].imshow(image[len(truth) // 2], cmap="gray", vmin=0, vmax=WINDOW_U)
            axes[row][column].set_axis_off()
        words = ("T1 raw, " if outcome.case.raw_t1 else "") + outcome.case.where
        words += ", estimated" if outcome.case.estimated else ""
        axes[0][column].set_title(f"{words}\n{outcome.psnr:.1f} dB", color="white", fontsize=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, facecolor="black")
