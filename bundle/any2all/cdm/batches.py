"""From a training batch to what each network of CDM sees and must predict: ``prepare_batch`` of the three stages.

A batch holds ``image`` (B, M, H, W) in the prior range and ``present`` (B, M) bool. A modality that a subject does not
have is never offered as available and carries no loss. Random numbers come from torch alone, which
`training.handlers.SeedNoise` seeds, so that a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..diffusion.prior import has_fast_bf16
from ..diffusion.schedule import Schedule, cosine_schedule
from .mdn import MDN, sample_missing
from .mrm import MRM, random_mask
from .standardise import Standardisation, representations

Prepared = tuple[Tensor, Any, tuple[Tensor, ...], dict[str, Any]]


def draw_available(present: Tensor, empty: float = 0.0) -> Tensor:
    """Random available sets (B, M) bool: proper subsets of the present modalities, every size equally often.

    A set is empty with probability ``empty``; otherwise it holds at least one modality, also where only one is present.
    """
    count = present.sum(1, keepdim=True)
    draws = torch.rand(len(present), 1, device=present.device)
    size = 1 + (draws * (count - 1)).floor().long().clamp(min=0)
    size = torch.minimum(size, (count - 1).clamp(min=1))
    order = torch.rand(present.shape, device=present.device).masked_fill(~present, 2.0).argsort(1).argsort(1)
    available = present & (order < size)
    return available & (torch.rand(len(present), 1, device=present.device) >= empty)


@dataclass(frozen=True)
class MaskedImages:
    """Stage ``mrm``: every present image by itself, ``mask_ratio`` of its patches hidden."""

    patches: Any
    count: int
    mask_ratio: float = 0.75

    def __call__(self, batch: Mapping[str, Tensor], device: Any = None, non_blocking: bool = False) -> Prepared:
        images, present = _on(batch, device, non_blocking)
        row, modality = present.nonzero(as_tuple=True)
        x = images[row, modality][:, None]
        masked = random_mask(len(x), self.count, self.mask_ratio, x.device)
        return x, (self.patches(x), masked), (modality, masked), {}


@dataclass(frozen=True)
class FrozenEncoder:
    """MRM as the later stages use it: frozen, standardised, under bf16 autocast where the device has it."""

    mrm: MRM
    standardisation: Standardisation

    @torch.no_grad()
    def __call__(self, images: Tensor, which: Tensor) -> Tensor:
        """Standardised y_0 (B, M, features) of the images that ``which`` (B, M) bool marks, else 0."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=has_fast_bf16(images.device)):
            return representations(self.mrm, self.standardisation, images, which)


@dataclass(frozen=True)
class NoisyRepresentations:
    """Stage ``mdn``: y_t of modalities that are not available, with the representations of those that are.

    Args:
        encoder: gives y_0.
        draws: available sets, levels and noises drawn for each slice; encoding is what costs.
        empty: how often nothing is available, which trains the unconditional diffusion as well.
        conditioned: False trains the unconditional diffusion only.
        schedule: of y_t.
    """

    encoder: FrozenEncoder
    draws: int = 8
    empty: float = 0.15
    conditioned: bool = True
    schedule: Schedule = field(default_factory=cosine_schedule)

    def __call__(self, batch: Mapping[str, Tensor], device: Any = None, non_blocking: bool = False) -> Prepared:
        images, present = _on(batch, device, non_blocking)
        y0 = self.encoder(images, present).repeat_interleave(self.draws, dim=0)
        present = present.repeat_interleave(self.draws, dim=0)
        given = draw_available(present, self.empty if self.conditioned else 1.0)
        row, modality = (present & ~given).nonzero(as_tuple=True)
        target, known, given = y0[row, modality], y0[row], given[row]
        levels = torch.randint(1, self.schedule.steps + 1, row.shape, device=row.device)
        signal, noise = (plane[:, 0, 0] for plane in self.schedule.planes(levels[:, None], target.dtype))
        y = signal * target + noise * torch.randn_like(target)
        return y, target, (levels, modality, known, given), {}


@dataclass(frozen=True)
class GuidedImages:
    """Stage ``cunet``: masked images with guidance by encoded y_0, by MDN's samples, or by none.

    y_0 of the truth carries the mean intensity of its own modality, which no sample can know; samples keep the network
    from relying on it. Rows without guidance (as in classifier-free guidance) make the null column a fair comparison.

    Args:
        encoder: gives y_0.
        mdn: frozen; draws samples conditioned on the available modalities.
        encoded, sampled: share of rows guided by y_0 and by samples; the rest have none.
        steps: of DDIM for those samples.
        schedule: of MDN.
    """

    encoder: FrozenEncoder
    mdn: MDN
    encoded: float = 0.425
    sampled: float = 0.425
    steps: int = 5
    schedule: Schedule = field(default_factory=cosine_schedule)

    def __call__(self, batch: Mapping[str, Tensor], device: Any = None, non_blocking: bool = False) -> Prepared:
        images, present = _on(batch, device, non_blocking)
        available = draw_available(present)
        pattern = torch.rand(len(images), 1, device=images.device)
        by_truth, by_sample = (
            pattern < self.encoded,
            (pattern >= self.encoded) & (pattern < self.encoded + self.sampled),
        )
        known = self.encoder(images, torch.where(by_sample, available, present & ~available & by_truth))
        wanted = by_sample & ~available
        drawn = self._drawn(known, available, wanted)
        guided = wanted | (by_truth & present & ~available)
        return (
            images,
            (images, available, present),
            (available, torch.where(by_sample[..., None], drawn, known), guided),
            {},
        )

    @torch.no_grad()
    def _drawn(self, known: Tensor, available: Tensor, wanted: Tensor) -> Tensor:
        start = torch.randn_like(known)
        with torch.autocast(known.device.type, torch.bfloat16, enabled=has_fast_bf16(known.device)):
            return sample_missing(self.mdn, start, wanted, known, available, self.schedule, self.steps)


class RepresentationLoss(torch.nn.Module):
    """Mean squared error of the predicted y_0, in units of its variance within its modality."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction.float() - target).square().mean()


def _on(batch: Mapping[str, Tensor], device: Any, non_blocking: bool) -> tuple[Tensor, Tensor]:
    return tuple(torch.as_tensor(batch[key]).to(device, non_blocking=non_blocking) for key in ("image", "present"))
