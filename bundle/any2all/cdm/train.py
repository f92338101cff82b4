"""``python -m any2all.cdm.train --minutes 60``: the three stages of CDM, one after another.

Each stage is ``configs/train_cdm.json`` with its share of the time, in a folder of its own; ``cunet/cdm.pt`` is the
finished CDM. After a stop (Ctrl-C, SIGTERM) the same command goes on from the last checkpoint; a finished stage is
loaded, not trained again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from .card import STAGES

CONFIGS = Path(__file__).parents[2] / "configs"
SHARES = {"mrm": 0.20, "mdn": 0.13, "cunet": 0.67}  # of the time; the C-UNet alone works on pixels


def stage_workflow(stage: str, output_dir: str | Path, settings: Mapping[str, Any] | None = None) -> ConfigWorkflow:
    """``train.json`` and ``train_cdm.json`` for one stage in ``output_dir/<stage>``, these config values on top."""
    files = [str(CONFIGS / name) for name in ("train.json", "train_cdm.json")]
    folder = str(Path(output_dir) / stage)
    workflow = ConfigWorkflow(
        files, workflow_type="train", **{"stage": stage, "output_dir": folder, **(settings or {})}
    )
    workflow.initialize()
    return workflow


def run_stage(stage: str, output_dir: str | Path, settings: Mapping[str, Any] | None = None) -> None:
    """Train a stage to its end and finish its file."""
    workflow = stage_workflow(stage, output_dir, settings)
    workflow.run()
    workflow.finalize()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    chosen = STAGES if options.stage == "all" else (options.stage,)
    for stage in chosen:
        minutes = options.minutes * (SHARES[stage] if options.stage == "all" else 1.0)
        print(f"stage {stage}: {minutes:.1f} minutes", flush=True)
        run_stage(stage, options.output_dir, {**options.set, "minutes": minutes})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.cdm.train", description=__doc__)
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--minutes", type=float, default=60.0, help="of all chosen stages together")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/cdm"))
    parser.add_argument("--set", type=json.loads, default={}, help='config values as JSON, such as {"workers": 0}')
    return parser


if __name__ == "__main__":
    main()
