"""``python -m any2all.cdm.validate --model runs/cdm/cunet/cdm.pt``: does the guidance help, on validation heads?

PSNR of missing modalities of renderings of the validation head, for the four guidances; and how far y_0 of the true
images moves the C-UNet's error on training heads, which tells a representation without information from one that MDN
cannot predict. No test subject is looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from ..evaluation.text import markdown_table
from ..training.cohort import DataSplits, data_folder, validation_slices
from ..training.validation import psnr
from ..workflow import front_door
from .predictor import CDM, Guidance, load_cdm

TARGETS, SOURCES = ("CT", "PET"), ("T1", "T2star", "T2FLAIR")


def columns(
    cdm: CDM, slices: Tensor, given: Sequence[str], targets: Sequence[str], samples: int
) -> dict[str, dict[str, float]]:
    """PSNR in dB by target, then by guidance: of one sample, and of the mean of ``samples`` where they are drawn.

    ``slices`` (B, M, H, W) are complete and in the prior range.
    """
    available = [cdm.stack.index(name) for name in given]
    table: dict[str, dict[str, float]] = {target: {} for target in targets}
    for guidance in get_args(Guidance):
        truth = slices if guidance == "oracle" else None
        drawn = cdm.predict(slices, available, samples, guidance=guidance, truth=truth)
        for target in targets:
            m = cdm.stack.index(target)
            table[target][guidance] = psnr(drawn[0, :, m], slices[:, m])
            if len(drawn) > 1:
                table[target][f"{guidance}, mean of {len(drawn)}"] = psnr(drawn[:, :, m].mean(0), slices[:, m])
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    with front_door():
        cdm, folder = load_cdm(options.model), data_folder()
        for split in ("validation", "train"):
            heads = DataSplits(folder, split).head_labels[: options.heads]
            parts = [
                validation_slices(head, cdm.stack, cdm.card.matrix, cdm.card.spacing_mm, options.slices, (100, 101))
                for head in heads
            ]
            scores = columns(cdm, torch.cat(parts), options.given, options.targets, options.samples)
            print(f"\nPSNR in dB, {split} heads, {sum(map(len, parts))} slices, from {' + '.join(options.given)}")
            names = list(next(iter(scores.values())))
            rows = [(target, *(f"{scores[target][name]:.2f}" for name in names)) for target in options.targets]
            print(markdown_table(("target", *names), rows), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.cdm.validate", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/cdm/cunet/cdm.pt"))
    parser.add_argument("--given", nargs="+", default=SOURCES)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--slices", type=int, default=12, help="of each rendering; a head is rendered twice")
    parser.add_argument("--heads", type=int, default=2, help="heads of a split, where it has as many")
    return parser


if __name__ == "__main__":
    main()
