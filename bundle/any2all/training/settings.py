"""The first step of ``train.json``: settings that would end the run later are refused before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..diffusion.prior import usable_device
from ..errors import Any2allError
from ..geometry.reading import SPACING_RANGE_MM
from ..stack import Stack
from ..workflow import as_count
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


def check_spacing(spacing_mm: Any) -> None:
    """Raise Any2allError where a spacing is not [H, W, slice] in mm."""
    lowest, highest = SPACING_RANGE_MM
    listed = isinstance(spacing_mm, (list, tuple)) and len(spacing_mm) == 3
    if not listed or not all(_is_number(value) and lowest <= value <= highest for value in spacing_mm):
        allowed = f"[H, W, slice], each {lowest} to {highest} mm"
        raise Any2allError("no usable spacing", key="spacing_mm", value=spacing_mm, allowed=allowed)


def check_counts(counts: Mapping[str, Any], least: int = 1) -> None:
    """Raise Any2allError for a setting that is no whole number from ``least``."""
    for key, value in counts.items():
        as_count(value, key, least)


def check_numbers(numbers: Mapping[str, Any], most: float | None = None) -> None:
    """Raise Any2allError for a setting that is no number from 0 (to ``most``)."""
    for key, value in numbers.items():
        if not _is_number(value) or not 0 <= value <= (math.inf if most is None else most):
            allowed = "from 0" + (f" to {most:g}" if most is not None else "")
            raise Any2allError("this number cannot be used", key=key, value=value, allowed=allowed)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def scales_of(stack: Stack) -> list[Any]:
    """What the channels of a stack are to a network: names, in their order, and how each comes to its range."""
    return [[modality.name, modality.normalisation.model_dump(mode="json")] for modality in stack.modalities]
