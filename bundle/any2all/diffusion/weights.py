"""Weights as they are stored: half precision, or 8 bits with one scale for each output channel.

Eight bits halve the file. A row of a tensor (its first axis: an output channel of a convolution or a linear layer) is
kept as round(w / s), s = max |w| / 127, so no weight moves by more than s / 2. Vectors (biases, norms) stay in half
precision: there are few of them, and they have no rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import Any2allError

Bits = Literal[8, 16]
SCALE = ".scale"  # added to a tensor's name; its scales (rows,) are stored beside it
LARGEST = 127
SMALLEST_SCALE = 1e-30  # of a row of zeros


def as_bits(value: Any) -> Bits:
    """A config's ``weight_bits``. Raises Any2allError for anything but 8 and 16."""
    if value not in get_args(Bits):
        raise Any2allError("weights cannot be stored so", key="weight_bits", value=value, allowed=get_args(Bits))
    return value


def packed(state: Mapping[str, Tensor], bits: Bits = 16) -> dict[str, Tensor]:
    """A state dict as it is written; whatever is not floating point stays as it is. See the module."""
    stored: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.detach().cpu()
        if not value.is_floating_point():
            stored[name] = value
        elif bits == 16 or value.dim() < 2:
            stored[name] = value.half()
        else:
            rows = value.float().flatten(1)
            # rounded before it divides, so that the integers belong to the stored scale; half precision would not
            # reach down to the scales of rows of small weights
            scale = (rows.abs().amax(1) / LARGEST).clamp(min=SMALLEST_SCALE).bfloat16()
            whole = (rows / scale.float()[:, None]).round().clamp(-LARGEST, LARGEST)
            stored[name], stored[name + SCALE] = whole.to(torch.int8).view_as(value), scale
    return stored


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in float32 that `packed` was given, but for the rounding."""
    state: dict[str, Tensor] = {}
    for name, value in stored.items():
        if value.dtype == torch.int8 and name + SCALE in stored:
            scale = stored[name + SCALE].float().reshape(-1, *[1] * (value.dim() - 1))
            state[name] = value.float() * scale
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in stored):
            state[name] = value.float() if value.is_floating_point() else value
    return state
