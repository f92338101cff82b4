"""``python -m any2all.checks --data DIR``: the path on real data, wherever the data folder is (``make check-data``).

Four checks: measured k-space against SENSE by samples held out; real images through a study (``stroke_01``); real
images with one of them undersampled on its own grid (``ms_long_01``); what estimated maps, a phase, other grids and
slices that cross cost on a rendered head (`acquisitions`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from .acquisitions import check_acquisitions
from .diffusion.prior import NetworkPrior, load_prior
from .evaluation.measured import TUNED_SENSE, VOXEL_MM, HoldOutCheck, Reconstruction, draw_comparison
from .output import read_provenance
from .output.volumes import WORDS
from .pipeline import run_study
from .run import Run
from .scores.baselines import SENSE
from .scores.text import markdown_table
from .training.cohort import DEFAULT_DATA
from .workflow import StageProgress, front_door

BUNDLE = Path(__file__).parents[1]
KSPACE = Path("kspace") / "sigpy_brain_8ch.npy"
KSPACE_AS = "T1"
SAMPLERS: dict[str, dict[str, Any]] = {
    "mds-150": {"name": "mds", "steps": 150, "samples": 1},
    "mcs-5": {"name": "mcs", "steps": 5, "samples": 1, "consistency": "calibrated"},
    "mcs-20 ×4": {"name": "mcs", "steps": 20, "samples": 4, "consistency": "moment"},
}
NO_WORSE = 0.002  # of hold-out error: less than what another draw of held-out samples changes
QUICK = {"steps": 5, "samples": 2}
TRAINING_WORDS = "trained on this very image"


@dataclass(frozen=True)
class RealStudy:
    """A subject of ``real_mr`` as a study. ``truth``: a modality that is hidden from the study and scored."""

    subject: str
    modalities: Mapping[str, Mapping[str, Any]]
    truth: str | None
    trained_on: bool


STUDIES = (
    RealStudy(
        "stroke_01",
        {"T1": {"status": "available"}, "T2": {"status": "available"}},
        truth="T2FLAIR",
        trained_on=False,
    ),
    RealStudy(
        "ms_long_01",
        {"T1": {"status": "available"}, "T2FLAIR": {"status": "undersampled", "simulate": {"acceleration": 4}}},
        truth=None,
        trained_on=True,
    ),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the checks; exit status 0 when all hold (or the data is absent), 1 when one fails, 2 on a user's error."""
    options = _parser().parse_args(arguments)
    if not (options.data / "splits.json").is_file():
        print(f"SKIPPED: no data folder at {options.data} (it holds splits.json); nothing was checked")
        return
    failures: list[str] = []
    with front_door():
        prior = load_prior(options.model)
        failures += check_kspace(options.data / KSPACE, prior, options.output)
        for study in STUDIES:
            failures += check_study(study, options.data, prior, options.output, options.preset)
        failures += check_acquisitions(options.data, prior, options.output)
    print("\n" + ("ALL CHECKS HOLD" if not failures else f"{len(failures)} CHECK(S) FAILED"))
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"results and pictures: {options.output}")
    if failures:
        sys.exit(1)


def check_kspace(file: Path, prior: NetworkPrior, output: Path) -> list[str]:
    """Measured data: every sampler beside the classical reconstructions, by hold-out error. Returns what failed."""
    print(f"\n## {file.name}, measured, as {KSPACE_AS}", flush=True)
    print(f"Voxel size {VOXEL_MM} mm is an assumption: the file does not say. No truth exists.", flush=True)
    check = HoldOutCheck.of(file)
    items = check.classical()
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, sampler) in enumerate(SAMPLERS.items()):
            if sampler["name"] == "mcs" and prior.noise_levels == "shared":
                continue
            study = check.write_study(Path(folder) / str(number), KSPACE_AS, sampler)
            with _progress() as progress:
                target = output / f"kspace_{name.replace(' ×', '_x')}"
                items.append(check.through_pipeline(name, study, prior, target, progress))
    draw_comparison(items, output / "kspace_comparison.png")
    held, sampled = int(check.held.mask.sum()), int(check.remaining.mask.sum())
    print(f"{held} of {held + sampled} sampled points were held out before maps, phase, noise and scale.\n")
    print(markdown_table(("reconstruction", "hold-out error"), [(i.name, f"{i.error:.4f}") for i in items]))
    return _verdicts(items)


def _verdicts(items: Sequence[Reconstruction]) -> list[str]:
    """Print for each sampler whether it is no worse than SENSE at its better weight; returns those that are worse."""
    sense = min(item.error for item in items if item.name in (SENSE, TUNED_SENSE))
    failures = []
    for item in items:
        if item.name in SAMPLERS:
            fine = item.error <= sense + NO_WORSE
            print(f"{item.name}: {'no worse than SENSE' if fine else 'WORSE than SENSE'} ({item.error - sense:+.4f})")
            if not fine:
                failures.append(f"measured k-space: {item.name} is worse than SENSE by {item.error - sense:.4f}")
    return failures


def check_study(study: RealStudy, data: Path, prior: NetworkPrior, output: Path, preset: str) -> list[str]:
    """A real subject through `run_study`; returns what is wrong with what came out."""
    print(f"\n## {study.subject}: " + ", ".join(f"{n} {m['status']}" for n, m in study.modalities.items()), flush=True)
    target = output / study.subject
    with tempfile.TemporaryDirectory() as folder:
        file, truth = _prepare(study, data / "real_mr" / study.subject, Path(folder), preset)
        with _progress() as progress:
            result = run_study(file, prior, target, overwrite=True, run=Run(progress, truth=truth))
        reference = nib.load(next(file.parent.glob("*.nii.gz")))
        failures = wrong_with(target, reference, [o.name for o in result.outputs])
    for item in result.outputs:
        if item.metrics:
            scores = {k: v for k, v in item.metrics.items() if isinstance(v, float)}
            print(f"{item.name}, {item.role}: " + ", ".join(f"{k} {v:g}" for k, v in scores.items()))
    for warning in result.warnings:
        print(f"note: {warning}")
    if study.trained_on:
        print(f"{study.subject} is a TRAINING subject: this shows the path, its numbers flatter the prior.")
        if not any(TRAINING_WORDS in warning for warning in result.warnings):
            failures.append("the result does not say that the prior was trained on this subject")
    print("outputs on the reference grid, with origin and summary" if not failures else f"WRONG: {'; '.join(failures)}")
    return [f"{study.subject}: {failure}" for failure in failures]


def _prepare(study: RealStudy, source: Path, folder: Path, preset: str) -> tuple[Path, Path | None]:
    """The study file with its images beside it, and a folder with the truth."""
    inside, truth = folder / "study", folder / "truth"
    inside.mkdir()
    modalities = {}
    for name, entry in study.modalities.items():
        shutil.copy(source / f"{name}.nii.gz", inside)
        modalities[name] = {**entry, "file": f"{name}.nii.gz"}
    document = {"version": 1, "subject": study.subject, "modalities": modalities, "preset": preset}
    if preset == "fast":
        document["sampler"] = QUICK
    (inside / "study.json").write_text(json.dumps(document, indent=1))
    if study.truth is None:
        return inside / "study.json", None
    truth.mkdir()
    shutil.copy(source / f"{study.truth}.nii.gz", truth)
    return inside / "study.json", truth


def wrong_with(folder: Path, reference: nib.Nifti1Image, outputs: Sequence[str]) -> list[str]:
    """What contract 2 asks and a results folder does not have, in words; empty when all is well."""
    wrong = []
    summary = json.loads((folder / "summary.json").read_text())
    for name in outputs:
        entry = summary["outputs"][name]
        files = [entry["mean"]] + ([entry["std"]] if entry["std"] else [])
        wrong += [f"{name} has no std" for _ in [0] if not entry["std"] and not entry["std_note"]]
        for file in files:
            image = nib.load(folder / file)
            words = image.header["descrip"].tobytes().rstrip(b"\0").decode()
            same = np.abs(image.affine - reference.affine).max() <= 1e-5
            facts = {
                "another shape than the reference": image.shape == reference.shape,
                "another affine than the reference": bool(same),
                "a header that does not say what it is": words.startswith(WORDS[entry["role"]]),
                "no origin in its header": read_provenance(folder / file) is not None,
                "values that are not finite": bool(np.isfinite(np.asarray(image.dataobj)).all()),
            }
            wrong += [f"{file} has {fault}" for fault, fine in facts.items() if not fine]
    missing = [file for file in summary["files"] if not (folder / file).is_file()]
    return wrong + [f"{file} is named in the summary and missing" for file in missing]


@contextmanager
def _progress() -> Iterator[StageProgress]:
    progress = StageProgress()
    try:
        yield progress
    finally:
        progress.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.checks", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="the data folder")
    parser.add_argument("--model", type=Path, default=BUNDLE / "models" / "model.pt")
    parser.add_argument("--output", type=Path, default=Path("outputs/checks"), help="folder of the results (replaced)")
    parser.add_argument("--preset", choices=("fast", "balanced", "best"), default="fast", help="for the real images")
    return parser


if __name__ == "__main__":
    main()
