"""``python -m any2all.demo``: the main job on the study that ships with the bundle, scored against its truth."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from .diffusion.prior import load_prior
from .output import ModalityResult, Result
from .pipeline import run_study
from .run import Run
from .scores.text import markdown_table
from .training.finish import mean_image_file
from .workflow import StageProgress, announce, front_door

BUNDLE = Path(__file__).parents[1]
STUDY = BUNDLE / "demo" / "study.json"
TRUTH = BUNDLE / "demo" / "truth"
MODEL = BUNDLE / "models" / "model.pt"
ORIGIN = (
    "subject16 is a validation head: the prior was not trained on it, but settings were chosen with it. "
    "It is rendered from a label map, not scanned; no real CT or PET was involved anywhere."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demonstration. Leaves the process with status 2 when the prior or the output folder cannot be used."""
    options = _parser().parse_args(arguments)
    started, progress = time.perf_counter(), StageProgress()
    with front_door():
        try:
            prior = load_prior(options.model)
            run = Run(progress, truth=TRUTH, mean_image=mean_image_file(options.model), announce=announce)
            result = run_study(STUDY, prior, options.output, overwrite=True, run=run)
        finally:
            progress.close()
    print(summary(result, options.output, time.perf_counter() - started))


def summary(result: Result, folder: Path, seconds: float) -> str:
    """The demonstration's last lines: what was made, how good it is beside its baselines, and where it lies."""
    slices = min(result.reference.grid.shape)
    lines = [
        f"{result.subject}: {', '.join(o.name for o in result.outputs)} on {slices} slices "
        f"in {seconds:.0f} s ({result.headline}).",
        "PSNR in dB and SSIM against the truth, in u in [0, 1] on the reference grid:",
        "",
        markdown_table(("output", "PSNR", "SSIM", "baseline", "PSNR", "SSIM", "beaten"), _rows(result.outputs)),
        "",
        *(f"note: {warning}" for warning in result.warnings),
        ORIGIN,
        f"Report: {folder / 'report.png'}   Volumes and summary.json: {folder}",
    ]
    return "\n".join(lines)


def _rows(outputs: Sequence[ModalityResult]) -> list[tuple[str, ...]]:
    """One row for each output and rival."""
    rows = []
    for output in outputs:
        scores = output.metrics or {}
        rivals = [k.removeprefix("psnr_") for k in scores if k.startswith("psnr_") and k != "psnr_head"]
        own = (f"{scores['psnr']:.2f}", f"{scores['ssim']:.3f}") if scores else ("–", "–")
        for rival in rivals:
            theirs = (scores[f"psnr_{rival}"], scores[f"ssim_{rival}"])
            beaten = scores["psnr"] > theirs[0]
            words = (rival.replace("_", " "), f"{theirs[0]:.2f}", f"{theirs[1]:.3f}", "yes" if beaten else "NO")
            rows.append((output.name, *own, *words))
        if not rivals:
            missing = "none (the prior has no mean image)" if output.role == "synthetic" else "none"
            rows.append((output.name, *own, missing, "–", "–", "–"))
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder of the results (replaced)")
    parser.add_argument("--model", type=Path, default=MODEL, help="weights, their card beside them")
    return parser


if __name__ == "__main__":
    main()
