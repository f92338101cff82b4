"""The command line: presets first, then CDM, then every sampler and peer.

Seconds depend on the machine; ratios on the same prior, slices and moment depend on it much less.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..cdm.source import CDMSource
from ..demo import MODEL, STUDY
from ..diffusion.prior import NetworkPrior, load_prior
from ..study import StudySpec, load_study
from ..workflow import as_count, front_door
from . import presets, rivals, translation

SLICES, PEER_SLICES, BATCH = 4, 12, 16
NOTE = (
    "T2FLAIR from R = 4 k-space and T1, one sample of {} slices. A pass is one network evaluation, a vector–Jacobian "
    "product counts as one. Outside the network: all other time (noise, data consistency, first guess) over the time "
    "in the network, forwards and backwards. Peak: above what the process held before; it grows with the batch, not "
    "with the volume."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the presets on a few slices of the demonstration study, then all methods, and print both tables."""
    options = _parser().parse_args(arguments)
    with front_door():
        prior = load_prior(options.model, options.device)
        spec = load_study(STUDY, prior.stack)
        measured, shape = presets.some_slices(spec, prior, as_count(options.slices, "slices"))
        print(f"{shape[0]} slices of the demonstration study, {torch.get_num_threads()} threads, {platform.machine()}")
        contestants = presets.contestants(spec, prior)
        first = [presets.timed(name, how, measured, shape, prior, spec) for name, how in contestants.items()]
        print(presets.table(first), end="\n\n", flush=True)
        third = _cdm(options, spec, prior)
        more, _ = presets.some_slices(spec, prior, max(PEER_SLICES, options.slices))
        image = more.channels[prior.stack.index("T1")].data
        second, left_out = rivals.rivals(prior, image, as_count(options.batch_size, "batch_size"))
        print(rivals.table(second, f"mds-{presets.MDS_STEPS}"), NOTE.format(len(image)), sep="\n\n")
        for name, why in left_out.items():
            print(f"left out: {name}: {why}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"presets": first, "methods": rivals.to_json(second), "cdm": third}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _cdm(options: argparse.Namespace, spec: StudySpec, prior: NetworkPrior) -> list[dict[str, Any]]:
    """Print what CDM costs where there is one, and give the rows."""
    source = CDMSource(options.cdm, options.device)
    if not source.present:
        print(f"There is no {options.cdm.name} beside the prior: CDM was not timed.", end="\n\n", flush=True)
        return []
    rows = translation.rows(spec, prior, source.load(prior.card), options.slices)
    print(translation.NOTE, presets.table(rows), sep="\n\n", end="\n\n", flush=True)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.bench", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="weights, their card beside them")
    parser.add_argument("--cdm", type=Path, default=MODEL.with_name("cdm.pt"), help="CDM's weights")
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--batch_size", type=int, default=BATCH)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    return parser
