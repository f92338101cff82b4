"""``python -m any2all.cdm.train --minutes 60``: the three stages of CDM, one after another.

Each stage is ``configs/train_cdm.json`` with its share of the time, in a folder of its own; ``cunet/cdm.pt`` is the
finished CDM. After a stop (Ctrl-C, SIGTERM) the same command goes on from the last checkpoint; a finished stage is
loaded, not trained again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from .card import STAGES

CONFIGS = Path(__file__).parents[2] / "configs"
SHARES = {"mrm": 0.20, "mdn": 0.13, "cunet": 0.67}  # of the time; the C-UNet alone works on pixels


def run_stage(stage: str, output_dir: str | Path, files: Sequence[str | Path] = (), **overrides: Any) -> None:
    """Train one stage of ``output_dir`` to its end and finish its file.

    Args:
        stage: ``mrm``, ``mdn`` or ``cunet``.
        output_dir: folder of all stages.
        files: more config files, read after ``train.json`` and ``train_cdm.json``.
        overrides: config values, such as ``minutes``.
    """
    every = [CONFIGS / "train.json", CONFIGS / "train_cdm.json", *files]
    settings = {"stage": stage, "output_dir": str(Path(output_dir) / stage), **overrides}
    workflow = ConfigWorkflow([str(file) for file in every], workflow_type="train", **settings)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    chosen = STAGES if options.stage == "all" else (options.stage,)
    for stage in chosen:
        minutes = options.minutes * (SHARES[stage] if options.stage == "all" else 1.0)
        print(f"stage {stage}: {minutes:.1f} minutes", flush=True)
        run_stage(stage, options.output_dir, options.config, **{**options.set, "minutes": minutes})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.cdm.train", description=__doc__)
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--minutes", type=float, default=60.0, help="of all chosen stages together")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/cdm"))
    parser.add_argument("--config", type=Path, action="append", default=[], help="a config file on top")
    parser.add_argument("--set", type=json.loads, default={}, help='config values as JSON, such as {"workers": 0}')
    return parser


if __name__ == "__main__":
    main()
