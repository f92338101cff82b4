"""r_k², the prior's own measured error by level, modality and set of clean companions (METHOD §3, `calibrated`)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .prior import NetworkPrior

CALIBRATION_LEVELS = (1, 15, 40, 80, 140, 220, 310, 410, 510, 610, 710, 800, 880, 950, 985, 1000)


@dataclass(frozen=True)
class Calibration:
    """``table[companions][modality][i]`` is r² (x range) at ``levels[i]``; companions: sorted names joined by "+"."""

    levels: tuple[int, ...]
    table: dict[str, dict[str, tuple[float, ...]]]

    def error_variance(self, modality: str, companions: frozenset[str], level: int) -> float:
        """r_k² at any level, linear in log r² between the measured levels.

        Companions that were never measured fall back to the largest measured subset of them.
        """
        values = self._row(modality, companions)
        i = min(max(bisect_left(self.levels, level), 1), len(self.levels) - 1)
        low, high = self.levels[i - 1], self.levels[i]
        weight = min(max((level - low) / (high - low), 0.0), 1.0)
        return math.exp((1 - weight) * math.log(values[i - 1]) + weight * math.log(values[i]))

    def _row(self, modality: str, companions: frozenset[str]) -> tuple[float, ...]:
        for size in range(len(companions), -1, -1):
            for subset in combinations(sorted(companions), size):
                row = self.table.get("+".join(subset), {}).get(modality)
                if row is not None:
                    return row
        raise KeyError(f"no calibration for {modality}")

    def to_json(self) -> dict[str, Any]:
        table = {s: {m: [float(f"{v:.4g}") for v in row] for m, row in by.items()} for s, by in self.table.items()}
        return {"levels": list(self.levels), "table": table}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Calibration:
        table = {s: {m: tuple(row) for m, row in by.items()} for s, by in document["table"].items()}
        return cls(tuple(document["levels"]), table)


def companion_sets(channels: int) -> Iterator[tuple[int, ...]]:
    """Every proper subset of the channels, the empty one included."""
    for size in range(channels):
        yield from combinations(range(channels), size)


@torch.inference_mode()
def measure_calibration(
    prior: NetworkPrior,
    slices: Tensor,
    levels: Sequence[int] = CALIBRATION_LEVELS,
    sets: Sequence[tuple[int, ...]] | None = None,
    seed: int = 0,
) -> Calibration:
    """Measure r_k² on complete validation slices (B, M, H, W), x range: companions clean, all other channels at k."""
    generator = torch.Generator().manual_seed(seed)
    names, table = prior.stack.names, {}
    for companions in sets if sets is not None else companion_sets(prior.channels):
        rows: dict[str, list[float]] = {names[m]: [] for m in range(prior.channels) if m not in companions}
        for level in levels:
            eps = torch.randn(slices.shape, generator=generator).to(slices.device)
            k = torch.full(slices.shape[:2], level, dtype=torch.long, device=slices.device)
            k[:, list(companions)] = 0
            x0_hat = prior.x0_hat(prior.schedule.add_noise(slices, eps, k), k).clamp(-1, 1)
            error = (x0_hat - slices).square().mean(dim=(0, 2, 3))
            for m in range(prior.channels):
                if m not in companions:
                    rows[names[m]].append(max(float(error[m]), 1e-8))
        table["+".join(sorted(names[m] for m in companions))] = {m: tuple(row) for m, row in rows.items()}
    return Calibration(tuple(levels), table)
