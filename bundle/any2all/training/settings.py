"""The first step of ``train.json``: settings that would end the run later are refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..diffusion.prior import usable_device
from ..stack import Stack
from .noising import check_recipe
from .validation import check_tasks


def check_settings(
    stack: Stack,
    noise_levels: str,
    prediction: str,
    loss_weighting: str,
    validation_tasks: Sequence[Sequence[str]],
    device: torch.device | str,
) -> None:
    """Raise Any2allError for settings that the training has no use for, see ``train.json``."""
    check_recipe(noise_levels, prediction, loss_weighting)
    check_tasks(stack, validation_tasks)
    usable_device(device)
