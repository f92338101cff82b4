"""y_0, standardised per modality and per dimension.

Nearly all of y_0's variance lies between modalities, so a diffusion on it would learn a constant for each. What differs
from image to image within a modality gets unit variance here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .mrm import MRM

SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation (M, features) of y_0 over training images."""

    mean: Tensor
    std: Tensor

    def apply(self, y: Tensor, modality: Tensor) -> Tensor:
        """y_0 (B, features) of modalities (B,) → zero mean, unit variance over training images."""
        return (y - self.mean.to(y.device)[modality]) / self.std.to(y.device)[modality]

    def to_json(self) -> dict[str, Any]:
        return {key: [[float(f"{x:.6g}") for x in row] for row in getattr(self, key)] for key in ("mean", "std")}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Standardisation:
        return cls(*(torch.tensor(document[key], dtype=torch.float32) for key in ("mean", "std")))

    @classmethod
    def fit(cls, parts: Iterable[tuple[Tensor, Tensor]], modalities: int) -> Standardisation:
        """From parts (y_0 (n, features), modality (n,)); a modality that never occurs gets mean 0 and std 1."""
        rows, kinds = zip(*parts)
        y, modality = torch.cat(rows).double(), torch.cat(kinds)
        mean, std = torch.zeros(modalities, y.shape[1]), torch.ones(modalities, y.shape[1])
        for m in range(modalities):
            own = y[modality == m]
            if len(own) > 1:
                mean[m], std[m] = own.mean(0).float(), own.std(0, correction=0).clamp(min=SMALLEST_STD).float()
        return cls(mean, std)


def representations(mrm: MRM, standardisation: Standardisation, images: Tensor, which: Tensor) -> Tensor:
    """Standardised y_0 (B, M, features) of the images (B, M, H, W) that ``which`` (B, M) bool marks; 0 elsewhere."""
    out = images.new_zeros(*which.shape, mrm.features)
    row, modality = which.nonzero(as_tuple=True)
    if len(row):
        y = mrm.encode(images[row, modality][:, None], modality).float()
        out[row, modality] = standardisation.apply(y, modality)
    return out
