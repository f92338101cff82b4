"""How near stacks lie to what the prior was trained on: a draw nearer than held-out slices do may be a memory.

The distance of two slices is the root mean square difference in u over the pixels of the modalities that both have,
the query mirrored left to right or not (training mirrors, too). A blurred image is near to everything: distances tell
of memory only beside images as sharp as the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ..errors import Any2allError


@dataclass(frozen=True)
class Nearest:
    """For each query (N,): RMS in u to the nearest slice of the bank, which it is, over how many modalities.

    The distance is infinite, and no modality shared, where the bank has nothing in common with a query.
    """

    rms_u: Tensor
    index: Tensor
    channels: Tensor


def nearest(
    query: Tensor, bank: Tensor, bank_present: Tensor | None = None, query_present: Tensor | None = None
) -> Nearest:
    """The nearest slices of a bank.

    The candidates come from one matrix product; the distance of the winner is then taken exactly, so a copy has 0.

    Args:
        query: (N, M, H, W) in the prior range.
        bank: (B, M, H, W) in the prior range.
        bank_present, query_present: bool (B, M) and (N, M), which modalities there are; None: all.

    Raises:
        Any2allError: an empty bank, or slices of another shape.
    """
    if not len(bank) or query.shape[1:] != bank.shape[1:]:
        raise Any2allError(
            "the bank holds no slice like the query's",
            key="bank",
            value=tuple(bank.shape),
            allowed=str(query.shape[1:]),
        )
    bank_present = _everything(bank) if bank_present is None else bank_present
    query_present = _everything(query) if query_present is None else query_present
    both = [_closest(seen, bank, query_present, bank_present) for seen in (query, query.flip(-1))]
    at_mirrored = both[1][0] < both[0][0]
    index = torch.where(at_mirrored, both[1][1], both[0][1])
    shared = query_present & bank_present[index]
    return Nearest(torch.where(at_mirrored, both[1][0], both[0][0]), index, shared.sum(1))


@dataclass(frozen=True)
class Likeness:
    """Distances of draws to the training slices beside those of held-out slices, in u.

    Attributes:
        median, tenth: median and 10 % quantile of the draws' distances.
        median_held_out, tenth_held_out: of the held-out slices'.
        nearer: probability that a draw lies nearer to training than a held-out slice; 0.5 when they are alike.
        p_value: Mann–Whitney U test (1947) of nearer > 0.5. Slices of one head are no independent values: it is too
            small then.
        n, n_held_out: how many.
    """

    median: float
    tenth: float
    median_held_out: float
    tenth_held_out: float
    nearer: float
    p_value: float
    n: int
    n_held_out: int


def compare_distances(draws: Sequence[float] | Tensor, held_out: Sequence[float] | Tensor) -> Likeness:
    """Compare the distances (N,) of draws with those (H,) of held-out slices. Raises Any2allError without either."""
    of_draws, of_held_out = np.asarray(draws, np.float64), np.asarray(held_out, np.float64)
    for key, values in (("draws", of_draws), ("held_out", of_held_out)):
        if not values.size or not np.isfinite(values).all():
            raise Any2allError("distances to training slices are needed", key=key, value=values.tolist()[:5])
    test = stats.mannwhitneyu(of_draws, of_held_out, alternative="less")
    return Likeness(
        median=float(np.median(of_draws)),
        tenth=float(np.quantile(of_draws, 0.1)),
        median_held_out=float(np.median(of_held_out)),
        tenth_held_out=float(np.quantile(of_held_out, 0.1)),
        nearer=1 - float(test.statistic) / (of_draws.size * of_held_out.size),
        p_value=float(test.pvalue),
        n=of_draws.size,
        n_held_out=of_held_out.size,
    )


def _closest(query: Tensor, bank: Tensor, query_present: Tensor, bank_present: Tensor) -> tuple[Tensor, Tensor]:
    """Exact distance (N,) in u and index (N,) of the slice that the expanded square |q - b|² puts first."""
    q, b = _zeroed(query, query_present), _zeroed(bank, bank_present)
    has_q, has_b = query_present.to(q), bank_present.to(b)
    squared = _energy(q) @ has_b.T + has_q @ _energy(b).T - 2 * q.flatten(1) @ b.flatten(1).T
    pixels = (has_q @ has_b.T) * query[0, 0].numel()
    index = torch.where(pixels > 0, squared / pixels, torch.inf).argmin(dim=1)
    shared = (query_present & bank_present[index])[:, :, None, None]
    exact = ((query - bank[index]).masked_fill(~shared, 0)).square().sum(dim=(1, 2, 3))
    distance = (exact / pixels.gather(1, index[:, None])[:, 0]).sqrt() / 2  # x = 2u - 1
    return torch.where(shared.any(dim=1).flatten(), distance, torch.inf), index


def _everything(images: Tensor) -> Tensor:
    return torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)


def _zeroed(images: Tensor, present: Tensor) -> Tensor:
    return images.masked_fill(~present[:, :, None, None], 0)


def _energy(images: Tensor) -> Tensor:
    """Σ x² of every modality, (N, M)."""
    return images.square().sum(dim=(2, 3))
