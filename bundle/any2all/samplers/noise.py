"""Seeded noise for whole volumes: every slice and sample draws its own, whatever the batch (METHOD §5, "Seeds").

Along z the noise may be correlated, ζ_z = ρ ζ_{z-1} + sqrt(1 - ρ²) ξ_z, ζ_0 = ξ_0: each slice's marginal stays exactly
N(0, I), while neighbouring slices make similar choices, which calms the flicker of a 2-D prior.

Samples may come in antithetic pairs (Hammersley & Morton, Proc. Camb. Phil. Soc. 52, 1956): the second draws the
noise of the first with its sign turned. Each is as likely as any other sample, and their mean is free of all that is
odd in the noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

START = -1


@dataclass
class VolumeNoise:
    """Noise ζ of one subject's samples.

    Args:
        shape: (M, H, W) of one slice.
        seed: the study's seed.
        subject: the subject's name; other subjects draw other noise from the same seed.
        rho: correlation of neighbouring slices, 0 ≤ ρ < 1; one for all channels, or one for each.
        first_slice: which slice of the volume row index 0 is; a subset of slices draws what the whole volume would.
        first_sample: which sample row index 0 is, likewise.
        antithetic: sample 2i + 1 draws the negative of what sample 2i draws.
        dtype: of what is returned; draws are float32 on the CPU, so every device sees the same numbers.
    """

    shape: tuple[int, int, int]
    seed: int = 0
    subject: str = ""
    rho: float | tuple[float, ...] = 0.0
    first_slice: int = 0
    first_sample: int = 0
    antithetic: bool = False
    dtype: torch.dtype = torch.float32
    _last: dict[int, tuple[int, int, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def draw(self, step: int, rows: Sequence[tuple[int, int]]) -> Tensor:
        """ζ for rows of (slice, sample) at a step (START for the initial noise) → (len(rows), M, H, W)."""
        index = [(self.first_slice + z, self.first_sample + sample) for z, sample in rows]
        return torch.stack([self._signed(step, z, sample) for z, sample in index]).to(self.dtype)

    def _signed(self, step: int, z: int, sample: int) -> Tensor:
        second = self.antithetic and sample % 2 == 1
        return -self._correlated(step, z, sample - 1) if second else self._correlated(step, z, sample)

    def _correlated(self, step: int, z: int, sample: int) -> Tensor:
        rho = torch.tensor(self.rho, dtype=torch.float32).reshape(-1, 1, 1)
        if not rho.any():
            return self._white(step, z, sample)
        last_step, last_z, zeta = self._last.get(sample, (None, -1, None))
        if last_step != step or last_z > z:
            last_z, zeta = 0, self._white(step, 0, sample)
        for slice_index in range(last_z + 1, z + 1):
            zeta = rho * zeta + (1 - rho.square()).sqrt() * self._white(step, slice_index, sample)
        self._last[sample] = (step, z, zeta)
        return zeta

    def _white(self, step: int, z: int, sample: int) -> Tensor:
        return torch.randn(self.shape, generator=seeded(self.seed, self.subject, z, sample, step))


def seeded(*parts: int | str) -> torch.Generator:
    """A CPU generator of its own for these parts, such as (seed, subject, slice, sample)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
