r"""MDN, the modality-decoupled diffusion network: a diffusion on representations, not on pixels (CDM).

    q(y_t | y_0) = N(sqrt(abar_t) y_0, (1 - abar_t) I),      y_0 standardised, t = 0 … T

The network predicts y_0. It is conditioned on the representations of the available modalities; with nothing available
it is the unconditional diffusion of the paper's abstract.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..diffusion.schedule import Schedule, cosine_schedule, uniform_pairs
from ..samplers.updates import ddim_update, noise_estimate

STEPS = 20
PERIOD = 10_000.0


class ResidualLinear(nn.Module):
    """h + Linear(SiLU(LayerNorm(h) (1 + scale) + shift)), scale and shift from the embedding.

    How much of y_t counts depends on the level and on what else is known.
    """

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm, self.linear, self.film = (
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.Linear(embedding, 2 * width),
        )

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding).chunk(2, dim=1)
        return h + self.linear(nn.functional.silu(self.norm(h) * (1 + scale) + shift))


class MDN(nn.Module):
    """Predicts y_0 of one modality from y_t, the level, which modality it is, and what is known of the others.

    The layers predict what is missing from sqrt(abar_t) y_t, the linear estimate of a y_0 of unit variance, in units of
    sqrt(1 - abar_t): y_0 ≈ sqrt(abar_t) y_t + sqrt(1 - abar_t) F(y_t, t, …).

    Args:
        modalities: M.
        features: length of y_0.
        width: of the linear layers.
        blocks: residual blocks.
        embedding: width of the embedding of time, modality and mask, which scales and shifts every block.
        levels: T.

    Raises:
        ValueError: an odd embedding; half of it are sines and half cosines.
    """

    def __init__(
        self,
        modalities: int,
        features: int = 128,
        width: int = 512,
        blocks: int = 6,
        embedding: int = 128,
        levels: int = 1000,
    ) -> None:
        super().__init__()
        if embedding % 2:
            raise ValueError(f"an embedding of {embedding}: an even number is needed")
        self.embedding = embedding
        abar = cosine_schedule(levels).abar
        self.register_buffer("signal", abar.sqrt().float(), persistent=False)
        self.register_buffer("noise", (1 - abar).sqrt().float(), persistent=False)
        self.enter, self.leave = nn.Linear(features, width), nn.Linear(width, features)
        self.condition = nn.Linear(modalities * (features + 1), width)
        self.modality, self.given = nn.Embedding(modalities, embedding), nn.Linear(modalities, embedding)
        self.time = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.blocks = nn.ModuleList(ResidualLinear(width, embedding) for _ in range(blocks))

    def forward(self, y: Tensor, levels: Tensor, modality: Tensor, known: Tensor, given: Tensor) -> Tensor:
        """y_0 (N, features) predicted.

        Args:
            y: y_t (N, features).
            levels: t (N,), 0 … T.
            modality: of every row (N,).
            known: standardised representations (N, M, features); what ``given`` does not mark is not looked at.
            given: which modalities are available (N, M) bool.
        """
        mask = given.to(y.dtype)
        condition = self.condition(torch.cat([(known * mask[..., None]).flatten(1), mask], dim=1))
        embedding = self.time(_waves(levels, self.embedding)) + self.modality(modality) + self.given(mask)
        h, embedding = self.enter(y) + condition, nn.functional.silu(embedding)
        for block in self.blocks:
            h = block(h, embedding)
        return self.signal[levels, None] * y + self.noise[levels, None] * self.leave(h)


def _waves(levels: Tensor, features: int) -> Tensor:
    """Sines and cosines of levels (N,) → (N, features), as in transformers."""
    rates = torch.exp(-math.log(PERIOD) * torch.arange(features // 2, device=levels.device) / (features // 2))
    angles = levels[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def ddim_step(y: Tensor, y0: Tensor, schedule: Schedule, level: int, level_next: int) -> Tensor:
    """One step of DDIM with η = 0 (Song et al., ICLR 2021, eq. 12) from t to t_next, given the predicted y_0."""
    return ddim_update(y0, noise_estimate(y, y0, schedule.at(level)), torch.zeros_like(y), schedule.at(level_next), 0.0)


def sample(
    mdn: MDN, start: Tensor, modality: Tensor, known: Tensor, given: Tensor, schedule: Schedule, steps: int = STEPS
) -> Tensor:
    """Representations (N, features) drawn by DDIM (η = 0) from ``start`` ~ N(0, I) (N, features).

    ``modality``, ``known`` and ``given`` as in `MDN.forward`. η = 0 makes the draw a function of ``start``.
    """
    y = start
    for level, level_next in uniform_pairs(steps, schedule.steps):
        levels = torch.full_like(modality, level)
        y = ddim_step(y, mdn(y, levels, modality, known, given).float(), schedule, level, level_next)
    return y


def sample_missing(
    mdn: MDN, start: Tensor, wanted: Tensor, known: Tensor, given: Tensor, schedule: Schedule, steps: int = STEPS
) -> Tensor:
    """Draws for the ``wanted`` (B, M) bool modalities of every row → (B, M, features), 0 elsewhere.

    Args:
        start: (B, M, features) ~ N(0, I).
        known: standardised representations (B, M, features) of what is ``given`` (B, M) bool.
    """
    row, modality = wanted.nonzero(as_tuple=True)
    out = torch.zeros_like(start)
    if len(row):
        out[row, modality] = sample(mdn, start[row, modality], modality, known[row], given[row], schedule, steps)
    return out
