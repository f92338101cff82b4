"""C-UNet: available modalities in, all modalities out, guided by representations of the missing ones (CDM).

Every residual block is scaled and shifted by an embedding of the M representations and the availability mask (FiLM).
A learned null token stands for a representation where there is none: where the modality is available, where a training
subject has no such image, and in the null-guidance column of the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..diffusion.network import size_multiple

GROUPS = 8
WIDTHS = (32, 64, 96, 160)


class GuidedBlock(nn.Module):
    """Residual block of two convolutions; the embedding scales and shifts what enters the second."""

    def __init__(self, channels_in: int, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, channels_in), nn.Conv2d(channels_in, channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * channels)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        scale, shift = self.film(embedding)[..., None, None].chunk(2, dim=1)
        h = self.conv2(nn.functional.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class CUNet(nn.Module):
    """U-Net over masked images and availability planes with FiLM guidance.

    Args:
        modalities: M.
        features: length of a representation.
        widths: of the resolution levels; images must be divisible by `size_multiple`.
        blocks: residual blocks of each level on the way down, and again on the way up. One at full resolution, where a
            block costs most, keeps training on one processor core possible.
        embedding: width of the guidance embedding.

    Raises:
        ValueError: not as many blocks as widths, or a width that the group norm cannot take.
    """

    def __init__(
        self,
        modalities: int,
        features: int = 128,
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[int] = (1, 2, 2, 2),
        embedding: int = 256,
    ) -> None:
        super().__init__()
        if len(blocks) != len(widths):
            raise ValueError(f"{len(blocks)} numbers of blocks for {len(widths)} widths")
        self.multiple = size_multiple(widths)
        self.null_token = nn.Parameter(0.02 * torch.randn(modalities, features))
        self.guide = nn.Sequential(
            nn.Linear(modalities * (features + 1), embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.enter = nn.Conv2d(2 * modalities, widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for above, width, count in zip([widths[0], *widths], widths, blocks):
            self.shrink.append(nn.Identity() if not len(self.down) else nn.Conv2d(above, above, 3, 2, 1))
            self.down.append(_level(above, width, count, embedding))
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for below, width, count in zip(widths[:0:-1], widths[-2::-1], blocks[-2::-1]):
            self.grow.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(below, width, 3, padding=1)))
            self.up.append(_level(2 * width, width, count, embedding))
        self.leave = nn.Sequential(
            nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], modalities, 3, padding=1)
        )

    def forward(self, images: Tensor, available: Tensor, guidance: Tensor, guided: Tensor) -> Tensor:
        """All modalities (B, M, H, W) in the prior range, unclamped.

        Args:
            images: (B, M, H, W); what ``available`` (B, M) bool does not mark is not looked at.
            guidance: standardised representations (B, M, features).
            guided: where they count (B, M) bool; the null token stands elsewhere and wherever a modality is available.
        """
        mask = available.to(images.dtype)
        embedding = self.guide(torch.cat([self._tokens(guidance, guided & ~available).flatten(1), mask], dim=1))
        planes = mask[..., None, None].expand_as(images)
        masked = torch.where(available[..., None, None], images, torch.zeros_like(images))
        h = self.enter(torch.cat([masked, planes], dim=1).contiguous(memory_format=torch.channels_last))
        seen = []
        for shrink, level in zip(self.shrink, self.down):
            h = _through(level, shrink(h), embedding)
            seen.append(h)
        for grow, level, beside in zip(self.grow, self.up, seen[-2::-1]):
            h = _through(level, torch.cat([grow(h), beside], dim=1), embedding)
        return self.leave(h)

    def _tokens(self, guidance: Tensor, guided: Tensor) -> Tensor:
        return torch.where(guided[..., None], guidance, self.null_token.to(guidance.dtype))


def _level(channels_in: int, channels: int, blocks: int, embedding: int) -> nn.ModuleList:
    return nn.ModuleList(
        GuidedBlock(channels_in if first else channels, channels, embedding)
        for first in [True] + [False] * (blocks - 1)
    )


def _through(level: nn.ModuleList, h: Tensor, embedding: Tensor) -> Tensor:
    for block in level:
        h = block(h, embedding)
    return h


class SynthesisLoss(nn.Module):
    """L_Syn: L1 over missing modalities plus ``on_available`` times L1 over available ones.

    ``forward(prediction (B, M, H, W), (images, available (B, M), present (B, M)))`` → scalar. A modality that a subject
    does not have carries no loss.
    """

    def __init__(self, on_available: float = 0.1) -> None:
        super().__init__()
        self.on_available = on_available

    def forward(self, prediction: Tensor, target: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        images, available, present = target
        error = (prediction.float() - images).abs().mean(dim=(2, 3))
        return _mean(error, present & ~available) + self.on_available * _mean(error, present & available)


def _mean(error: Tensor, where: Tensor) -> Tensor:
    return (error * where).sum() / where.sum().clamp(min=1)
