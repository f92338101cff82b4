"""How long sampling will take on this device: passes counted, one batch timed (contract 1: presets say their time)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from .diffusion.prior import NetworkPrior
from .samplers import Sampler, build_sampler
from .study.presets import PRESETS, preset_settings


@dataclass(frozen=True)
class Forecast:
    """What sampling will do: ``headline`` in words, ``slices`` to sample, ``seconds`` that it should take."""

    headline: str
    slices: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.headline} of {self.slices} slices: about {max(1, round(self.seconds))} s of sampling"


def preset_seconds(prior: NetworkPrior, slices: int = 16) -> dict[str, dict[str, float]]:
    """Seconds of sampling a slice for each preset, where only images are given and where raw data is (the whole stack).

    Measured on this device over ``slices`` slices, the best of three times; only a ``per_modality`` prior has presets.
    """
    if prior.noise_levels != "per_modality":
        return {}
    cost = _timed(prior, (min(slices, 16), prior.channels, *prior.card.matrix), times=3)
    found: dict[str, dict[str, float]] = {}
    for preset in PRESETS:
        found[preset] = {}
        for kind, raw in (("images", False), ("raw", True)):
            settings = preset_settings(preset, one_pass=not raw)
            sampler = build_sampler(settings, prior.stack, prior.stack.names, prior.mean_network)
            found[preset][kind] = _seconds_of(sampler, prior, cost, settings.samples, raw, True)
    return found


def expected_seconds(
    sampler: Sampler,
    prior: NetworkPrior,
    matrix: tuple[int, int],
    slices: int,
    samples: int,
    undersampled: bool,
    missing: bool,
    batch_size: int = 16,
) -> float:
    """Seconds that sampling should take, from one timed batch; data-consistency solves are not in it.

    Args:
        sampler, prior: what will run.
        matrix: (H, W) of the sampled grid.
        slices, samples: how many.
        undersampled, missing: whether any modality is.
        batch_size: rows (slice of a sample) that the network sees at once.
    """
    rows = slices * samples
    cost = _timed(prior, (min(batch_size, rows), prior.channels, *matrix))
    return _seconds_of(sampler, prior, cost, rows, undersampled, missing)


def _seconds_of(
    sampler: Sampler, prior: NetworkPrior, cost: tuple[float, float], rows: int, undersampled: bool, missing: bool
) -> float:
    """Seconds of ``rows`` slices of a sample, each costing what `_timed` found."""
    of_steps = [sampler.passes_of_step(*pair, prior.schedule, undersampled) for pair in sampler.pairs(prior.schedule)]
    products = sum(passes - 1 for passes in of_steps) * rows
    plain = sampler.passes(prior.schedule, undersampled, missing) * rows - products
    per_pass, with_product = cost
    # a product costs at least a pass: one of the two may have been timed while others used the processor
    return plain * per_pass + products * max(with_product - per_pass, per_pass)


def _timed(prior: NetworkPrior, shape: tuple[int, int, int, int], times: int = 1) -> tuple[float, float]:
    """Seconds for each row: of a pass, and of a pass with one vector–Jacobian product; the best of some times."""
    x = torch.zeros(shape, device=prior.device)
    levels = torch.full(shape[:2], 500, dtype=torch.long, device=prior.device)

    def product() -> None:
        y = x.clone().requires_grad_(True)
        with torch.enable_grad():
            torch.autograd.grad(prior.x0_hat(y, levels).sum(), y)

    @torch.no_grad()
    def forward() -> None:
        prior.x0_hat(x, levels)

    return _seconds(forward, prior, times) / shape[0], _seconds(product, prior, times) / shape[0]


def _seconds(work, prior: NetworkPrior, times: int) -> float:
    """The shortest of some runs after a first one, which sets up kernels."""
    spent = []
    for _ in range(1 + times):
        _wait(prior)
        started = time.perf_counter()
        work()
        _wait(prior)
        spent.append(time.perf_counter() - started)
    return min(spent[1:])


def _wait(prior: NetworkPrior) -> None:
    if prior.device.type == "cuda":
        torch.cuda.synchronize(prior.device)
