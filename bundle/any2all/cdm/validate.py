"""``python -m any2all.cdm.validate --model runs/cdm/cunet/cdm.pt``: what each stage is held to, on validation data.

1. L_MRM falls: of the trained autoencoder beside an untrained one of the same sizes.
2. MDN's samples have the moments of y_0, and those given the other images are closer to the truth (`moments`).
3. Guidance helps: PSNR by guidance on renderings of the validation head and on real validation subjects (`guidance`).

``--store`` writes the numbers into the card beside the weights. No test subject is looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..evaluation.cases import real_cases
from ..scores.statistics import Interval
from ..scores.text import markdown_table
from ..training.cohort import DataSplits, data_folder, validation_slices
from ..workflow import as_count, front_door
from .card import write_card
from .guidance import GAPS, Guided, compare_guidance
from .moments import MOST_COVARIANCE_ERROR, MOST_MEAN_ERROR, VARIANCE_RATIO, Samples, check_samples
from .predictor import CDM, load_cdm
from .scores import masked_loss

TASKS = (("T2", "CT", "PET"), ("T2FLAIR",))  # filled in from all others
FIRST_SEED = 200  # neither training's own scores (0, 1) nor the manifest's renderings
REAL_SLICES = 12


def held_out_loss(cdm: CDM, slices: Tensor) -> dict[str, float]:
    """L_MRM on slices (N, M, H, W) of an untrained network of the same sizes, and of the trained one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = cdm.card.build("mrm").eval().to(cdm.device)
    slices = slices.to(cdm.device)
    return {name: masked_loss(mrm, slices)["L_MRM"] for name, mrm in (("untrained", untrained), ("trained", cdm.mrm))}


def samples_table(found: Sequence[Samples]) -> str:
    """Moments and distances of every modality."""
    header = ["given the others", "mean error", "covariance error", "variance ratio", "within bounds"]
    header += [
        "distance",
        "given nothing: mean",
        "covariance",
        "variance",
        "distance",
        "closer by",
        "the head: mean, var",
    ]
    rows = []
    for s in found:
        numbers = [f"{v:.2f}" for v in (s.given.mean_error, s.given.covariance_error, s.given.variance_ratio)]
        loose = [f"{v:.2f}" for v in (s.nothing.mean_error, s.nothing.covariance_error, s.nothing.variance_ratio)]
        row = [s.modality, *numbers, "yes" if s.given.within_bounds else "NO", f"{s.distance:.2f}"]
        rows.append([*row, *loose, f"{s.distance_nothing:.2f}", _text(s.closer), f"{s.head[0]:.2f}, {s.head[1]:.2f}"])
    return markdown_table(header, rows)


def guidance_tables(found: Sequence[Guided]) -> list[str]:
    """PSNR by guidance, and what one gains on another, with intervals."""
    names = list(dict.fromkeys(name for g in found for name in g.psnr))
    gaps = [name for name in GAPS if any(name in g.gaps for g in found)]
    first = [
        [g.target, " + ".join(g.given), *(f"{g.psnr[n]:.2f}" if n in g.psnr else "–" for n in names)] for g in found
    ]
    second = [[g.target, *(_text(g.gaps[n]) if n in g.gaps else "–" for n in gaps)] for g in found]
    return [markdown_table(["PSNR, dB", "from", *names], first), markdown_table(["gain, dB", *gaps], second)]


def _text(gap: Interval) -> str:
    return f"{gap.mean:+.2f}" if gap.low is None else f"{gap.mean:+.2f} [{gap.low:.2f}, {gap.high:.2f}]"


def real_subjects(cdm: CDM, folder: Path, samples: int) -> dict[str, list[Guided]]:
    """Every MR contrast that each real validation subject has, from its others."""
    found = {}
    for entry in DataSplits(folder, "validation").real_stacks(cdm.stack):
        subject = Path(next(iter(entry.values()))).parent.name
        cases = real_cases(subject, entry, None, cdm.stack, cdm.card.matrix, cdm.card.spacing_mm, REAL_SLICES)
        slices = 2 * cases.slices.clamp(0, 1) - 1
        found[subject] = [
            guided
            for target in cases.present
            for guided in compare_guidance(
                cdm, slices, cases.groups, [name for name in cases.present if name != target], [target], samples
            )
        ]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    with front_door():
        for key in ("renderings", "slices", "samples"):
            as_count(getattr(options, key), key)
        cdm, folder = load_cdm(options.model), data_folder()
        found = _validated(cdm, folder, options)
        if options.store:
            cdm.card.training["validation"] = found
            write_card(cdm.card, options.model)


def _validated(cdm: CDM, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Print every part, and give its numbers."""
    card, head = cdm.card, DataSplits(folder, "validation").head_labels[0]
    seeds = range(FIRST_SEED, FIRST_SEED + options.renderings)
    slices = validation_slices(head, cdm.stack, card.matrix, card.spacing_mm, options.slices, seeds)
    groups = [str(seed) for seed in seeds for _ in range(options.slices)]
    print(f"{options.renderings} renderings of {head.name}, {options.slices} slices each; intervals over renderings.")

    loss = held_out_loss(cdm, slices)
    print(f"\nL_MRM: {loss['untrained']:.4f} untrained, {loss['trained']:.4f} trained")

    drawn = check_samples(cdm, slices, groups, options.samples)
    low, high = VARIANCE_RATIO
    print(
        f"\nMDN's samples beside y_0 (units: training std). Bounds given the others: mean error {MOST_MEAN_ERROR}, "
        f"covariance error {MOST_COVARIANCE_ERROR}, variance ratio {low} to {high}\n\n{samples_table(drawn)}"
    )

    guided = []
    for missing in TASKS:
        given = [name for name in cdm.stack.names if name not in missing]
        guided += compare_guidance(cdm, slices, groups, given, missing, options.samples)
    print("", *guidance_tables(guided), sep="\n\n", flush=True)
    real = real_subjects(cdm, folder, options.samples)
    for subject, parts in real.items():
        print(f"\nReal subject {subject}, {REAL_SLICES} slices (one subject: no interval)")
        print("", *guidance_tables(parts), sep="\n\n", flush=True)
    return {
        "head": head.name.split(".")[0],
        "renderings": options.renderings,
        "slices": options.slices,
        "L_MRM": {name: round(value, 4) for name, value in loss.items()},
        "samples": {s.modality: s.to_json() for s in drawn},
        "guidance": {g.target: g.to_json() for g in guided},
        "real": {subject: {g.target: g.to_json() for g in parts} for subject, parts in real.items()},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.cdm.validate", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/cdm/cunet/cdm.pt"))
    parser.add_argument("--renderings", type=int, default=12, help="of the validation head; one has no intervals")
    parser.add_argument("--slices", type=int, default=8, help="of each rendering")
    parser.add_argument("--samples", type=int, default=4, help="draws of MDN")
    parser.add_argument("--store", action="store_true", help="write the numbers into the card beside the weights")
    return parser


if __name__ == "__main__":
    main()
