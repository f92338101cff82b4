"""What each sampler draws when nothing is measured, against x_0 ~ N(0, 0.5²) (METHOD §6)."""

from __future__ import annotations

import pytest
import torch
from any2all.diffusion.oracles import GaussianPrior
from any2all.physics.measurements import Channel, Measurements
from any2all.samplers.ancestral import Ancestral
from any2all.samplers.base import Problem
from any2all.samplers.mcs import MCS
from any2all.samplers.mds import MDS
from any2all.samplers.mps import MPS
from any2all.samplers.noise import VolumeNoise
from oracle_tasks import WhitePrior

STD = 0.5
TOLERANCE = 0.02
NOTHING = Measurements((Channel.missing(),))

CASES = [
    *((Ancestral(n, clamp=False), bound) for n, bound in ((10, 0.76), (50, 0.93), (150, 0.98), (1000, 0.996))),
    *((MCS(n, eta=0.0, clamp=False), bound) for n, bound in ((10, 0.84), (50, 0.97), (150, 0.99), (1000, 0.998))),
    *((MDS(n, clamp=False), bound) for n, bound in ((50, 0.84), (150, 0.86), (1000, 0.87))),
    *((MDS(n, eta_convention="ddim", clamp=False), bound) for n, bound in ((50, 0.95), (150, 0.98), (1000, 0.997))),
    *((MCS(n, solver="dpm", clamp=False), bound) for n, bound in ((10, 1.036), (20, 1.014))),
]


def label(sampler) -> str:
    kind = {"mds": getattr(sampler, "eta_convention", ""), "mcs": getattr(sampler, "solver", "")}.get(sampler.name, "")
    return f"{sampler.name}{kind and '-' + kind}-{sampler.steps}"


@pytest.mark.parametrize(("sampler", "bound"), CASES, ids=[label(s) for s, _ in CASES])
def test_std_ratio(sampler, bound):
    problem = Problem.of(NOTHING, (4, 1, 96, 96))
    x = sampler.sample(WhitePrior(STD), problem, VolumeNoise((1, 96, 96), dtype=torch.float64))
    ratio = float(x.std()) / STD
    print(f"\n{label(sampler)}: std ratio {ratio:.3f}, bound {bound} ± {TOLERANCE}")
    assert ratio == pytest.approx(bound, abs=TOLERANCE)
    assert abs(float(x.mean())) < 4 * STD / x.numel() ** 0.5


def test_a_correlated_prior_is_drawn_with_its_covariance():
    """Generation of whole stacks: the covariance of ancestral samples is the prior's."""
    mean = torch.tensor([0.2, -0.1], dtype=torch.float64)
    covariance = torch.tensor([[0.25, 0.15], [0.15, 0.16]], dtype=torch.float64)
    white = torch.eye(16, dtype=torch.float64)
    prior = GaussianPrior(mean[:, None, None].expand(2, 4, 4), torch.kron(covariance, white))
    problem = Problem.of(Measurements((Channel.missing(),) * 2), (150, 2, 4, 4))
    noise = VolumeNoise((2, 4, 4), dtype=torch.float64)
    x = Ancestral(150, clamp=False).sample(prior, problem, noise, batch_size=150)[0]
    pixels = x.transpose(0, 1).flatten(1)
    torch.testing.assert_close(pixels.mean(1), mean, atol=0.04, rtol=0)
    torch.testing.assert_close(torch.cov(pixels), covariance, atol=0.02, rtol=0.05)


def test_with_nothing_measured_guidance_does_nothing():
    """MPS is then the ancestral sampler, and MDS (`ddim`) and MCS are the same DDIM, number for number."""
    problem, prior = Problem.of(NOTHING, (2, 1, 4, 4)), WhitePrior(STD)

    def draw(sampler):
        return sampler.sample(prior, problem, VolumeNoise((1, 4, 4), dtype=torch.float64))

    torch.testing.assert_close(draw(MPS(30)), draw(Ancestral(30)), rtol=0, atol=1e-12)
    torch.testing.assert_close(draw(MDS(30, eta_convention="ddim")), draw(MCS(30)), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        draw(MDS(30, eta_convention="ddim", eta=1.0, clamp=False)), draw(Ancestral(30, clamp=False)), rtol=0, atol=1e-12
    )
