"""``train.json`` on small phantoms: settings and looks into what a run left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigWorkflow

BUNDLE = Path(__file__).parents[2] / "bundle"
CONFIGS = BUNDLE / "configs"
SMALL: dict[str, Any] = {
    "network": {
        "channels": [16, 16, 32, 32],
        "num_res_blocks": [1, 1, 1, 1],
        "attention_levels": [False, False, False, True],
        "num_head_channels": 16,
        "norm_num_groups": 8,
    },
    "matrix": [32, 32],
    "spacing_mm": [8.0, 8.0, 6.0],
    "batch_size": 2,
    "workers": 0,
    "minutes": None,
    "epoch_length": 20,
    "checkpoint_every": 20,
    "dataset_dir": None,
    "device": "$torch.device('cpu')",
}


def workflow(*files: str, **overrides: Any) -> ConfigWorkflow:
    made = ConfigWorkflow([str(CONFIGS / file) for file in files], workflow_type="train", **{**SMALL, **overrides})
    made.initialize()
    return made


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def events(folder: Path) -> Any:
    """What TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[Any]:
    return events(folder).Scalars(tag)


def averaged(state: dict[str, Any]) -> int:
    return int(state["ema"]["n_averaged"])


def steps(state: dict[str, Any]) -> set[int]:
    return {int(entry["step"]) for entry in state["optimizer"]["AdamW"]["state"].values()}
