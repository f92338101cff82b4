r"""What a noisy stack says of tissue contrasts, put right where the network did not hear it (ours).

Notation
    ==========  ====================================================================================
    φ_j         J hat functions over [-1, 1] of the guide's x0_hat: its soft tissue classes, Σ_j φ_j = 1
    Φ           their values, pixels × J, for each slice
    σ_k²        (1 - abar_k) / abar_k, the noise of x_k / sqrt(abar_k) (see `schedule`)
    Σ           covariance of the network's error by class, measured for each modality and level
    ==========  ====================================================================================

The mean of a noisy image over a thousand pixels of one tissue is known thirty times better than a pixel is, so even at
k = 700 it nearly tells how bright that tissue should be. A convolutional network takes means out (group normalisation)
and hardly uses them: with T1, T2star and T2FLAIR given and PET at k = 500, 93 % of the error of PET's mean can still be
read from x_k. Such a network does not keep to a contrast that a chain has begun with but returns to the average one at
every step: samples differ too little in what concerns a whole tissue. With e = x_0 - x0_hat = Φ a + …, a ~ N(0, Σ), and
r = x_k / sqrt(abar_k) - x0_hat = e + σ_k n, the posterior mean of a is that of a linear Gaussian model:

    1.  â = (Φᵀ Φ / σ_k² + Σ⁻¹)⁻¹ Φᵀ r / σ_k²
    2.  x0_hat ← x0_hat + Φ â

At k = 1000 x_k says nothing and nothing changes; given images stay as they are. The classes are those of one guide for
all modalities, since a noisy image's own classes follow its noise.

Measured on validation (10 steps, 8 samples): the error of a tissue's mean was 4.0 (rendered) and 2.5 (real) times the
std that samples have of it, and is 1.3 and 1.0 times that; PSNR of the centred means is the same within 0.05 dB. Of
chains that are fed with measured data this is left out: those know their contrasts from the data, and on the real
subject three modalities at R = 4 lost 1.5 dB by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .schedule import Schedule, T

if TYPE_CHECKING:
    from .prior import NetworkPrior

CLASSES = 9
CONTRAST_LEVELS = (15, 80, 220, 410, 610, 800, 950)
# Of Σ. Few steps lose part of a spread, and Σ is the mean over many sets of given images. Errors of tissue means over
# the std of samples, validation, rendered and real: 1.5 and 1.2 with 1.0, 1.3 and 1.0 with 1.5.
SPREAD = 1.5
LEAST_VARIANCE = 1e-6  # of an error by class, (x range)²
LEAST_PIXELS = 10.0  # a class of fewer pixels has no mean worth the name when Σ is measured


@dataclass(frozen=True, eq=False)
class Contrast:
    """Σ of the network's error by class of the guide.

    Attributes:
        guide: the modality whose x0_hat makes the classes.
        levels: where Σ was measured; between them it is interpolated, outside them it stays.
        covariance: per modality, in the stack's order, (len(levels), J, J) in (x range)².
    """

    guide: str
    levels: tuple[int, ...]
    covariance: dict[str, Tensor]

    def corrected(self, x0_hat: Tensor, x: Tensor, levels: Tensor, schedule: Schedule) -> Tensor:
        """Steps 1 and 2 for x0_hat and x (B, M, H, W) at levels (B, M)."""
        signal, noise = schedule.planes(levels, x.dtype)
        hidden = noise > 0  # given images keep what they are
        noise2 = torch.where(hidden, noise.square(), 1.0)
        phi = tissue_classes(x0_hat[:, list(self.covariance).index(self.guide)])
        evidence = (hidden * signal * (x - signal * x0_hat) / noise2).flatten(2)  # r / σ_k²
        channels = torch.arange(x.shape[1], device=x.device)
        system = hidden * (signal.square() / noise2) * (phi @ phi.mT)[:, None]
        system = system + self._precisions.to(x)[levels, channels]
        amount = torch.linalg.solve(system, (evidence @ phi.mT)[..., None])[..., 0]
        return x0_hat + hidden * (amount @ phi).view(x.shape)

    @cached_property
    def _precisions(self) -> Tensor:
        """Σ⁻¹ at every level of every modality (T + 1, M, J, J)."""
        k = torch.arange(T + 1.0, dtype=torch.float64).clamp(self.levels[0], self.levels[-1])
        known = torch.tensor(self.levels, dtype=torch.float64)
        high = torch.searchsorted(known, k).clamp(1, len(known) - 1)
        part = ((k - known[high - 1]) / (known[high] - known[high - 1]))[:, None, None, None]
        table = SPREAD * torch.stack(list(self.covariance.values()), 1).double()
        values, axes = torch.linalg.eigh((1 - part) * table[high - 1] + part * table[high])
        return (axes / values.clamp(min=LEAST_VARIANCE)[..., None, :] @ axes.mT).float()

    def to_json(self) -> dict[str, Any]:
        upper = torch.triu_indices(CLASSES, CLASSES)
        rows = {
            name: [" ".join(f"{v:.4g}" for v in sigma[upper[0], upper[1]].tolist()) for sigma in table]
            for name, table in self.covariance.items()
        }
        return {"guide": self.guide, "levels": list(self.levels), "covariance": rows}

    @classmethod
    def from_json(cls, document: dict[str, Any], names: Sequence[str]) -> Contrast:
        """Of a stack with these modalities; ValueError, KeyError or TypeError where the document is not for it."""
        guide, levels, known = document["guide"], tuple(document["levels"]), document["covariance"]
        upper, tables = torch.triu_indices(CLASSES, CLASSES), {}
        if guide not in names or set(known) != set(names) or len(levels) < 2 or list(levels) != sorted(set(levels)):
            raise ValueError(f"the contrast of guide {guide!r} at levels {levels} is not for {', '.join(names)}")
        for name in names:
            rows = [[float(v) for v in row.split()] for row in known[name]]
            if len(rows) != len(levels) or any(len(row) != upper.shape[1] for row in rows):
                raise ValueError(f"the contrast of {name} needs {len(levels)} rows of {upper.shape[1]} values")
            table = torch.zeros(len(rows), CLASSES, CLASSES)
            table[:, upper[0], upper[1]] = torch.tensor(rows)
            tables[name] = table + table.mT - torch.diag_embed(torch.diagonal(table, dim1=1, dim2=2))
        return cls(guide, levels, tables)


def tissue_classes(guide: Tensor) -> Tensor:
    """Φᵀ of guide images (B, H, W) in the prior range → (B, J, H W)."""
    place = (guide.clamp(-1, 1) + 1) / 2 * (CLASSES - 1)
    centres = torch.arange(CLASSES, device=guide.device, dtype=guide.dtype).view(1, -1, 1)
    return (1 - (place.flatten(1)[:, None] - centres).abs()).clamp(min=0)


@torch.inference_mode()
def measure_contrast(
    prior: NetworkPrior, slices: Tensor, levels: Sequence[int] = CONTRAST_LEVELS, seed: int = 0, batch_size: int = 28
) -> Contrast:
    """Measure Σ on complete slices (B, M, H, W), x range: second moments of the errors' least-squares fit by class.

    Seen with no companion clean, with each one, and with all others: for sets between these it differs little.
    """
    generator, names = torch.Generator().manual_seed(seed), prior.stack.names
    every = range(len(names))
    sets = [(), *((m,) for m in every), *(tuple(n for n in every if n != m) for m in every)]
    total = torch.zeros(len(names), len(levels), CLASSES, CLASSES, dtype=torch.float64)
    count = torch.zeros(len(names), 1, 1)
    for companions in sets:
        hidden = [m for m in every if m not in companions]
        count[hidden] += len(slices)
        for i, level in enumerate(levels):
            for x in slices.split(batch_size):
                k = torch.full(x.shape[:2], level, dtype=torch.long, device=x.device)
                k[:, list(companions)] = 0
                eps = torch.randn(x.shape, generator=generator).to(x.device)
                x0_hat = prior.x0_hat(prior.schedule.add_noise(x, eps, k), k)
                phi = tissue_classes(x0_hat[:, 0])
                few = LEAST_PIXELS * torch.eye(CLASSES, device=x.device)
                amount = torch.linalg.solve(phi @ phi.mT + few, phi @ (x - x0_hat).flatten(2).mT)  # (b, J, M)
                moments = torch.einsum("bjm,bim->mji", amount, amount).cpu().double()
                total[hidden, i] += moments[hidden]
    return Contrast(names[0], tuple(levels), {n: (total[m] / count[m]).float() for m, n in enumerate(names)})
