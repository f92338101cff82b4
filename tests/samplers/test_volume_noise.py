"""AR(1) noise along z: every slice stays N(0, I), neighbours agree by rho (METHOD §5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from any2all.physics.measurements import Channel, Measurements
from any2all.samplers.base import Problem
from any2all.samplers.mcs import MCS
from any2all.samplers.noise import START, VolumeNoise
from oracle_tasks import WhitePrior

SLICES, SHAPE = 12, (2, 64, 64)


def volume(rho, step=0, sample=0, **settings):
    return VolumeNoise(SHAPE, rho=rho, **settings).draw(step, [(z, sample) for z in range(SLICES)])


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_marginals_and_correlation(rho):
    zeta = volume(rho)
    assert float(zeta.mean((1, 2, 3)).abs().max()) < 0.05
    assert zeta.std((1, 2, 3)).tolist() == pytest.approx([1.0] * SLICES, abs=0.03)
    kurtosis = ((zeta / zeta.std()) ** 4).mean()
    assert float(kurtosis) == pytest.approx(3.0, abs=0.1)
    for lag in (1, 2, 3):
        measured = [correlation(zeta[z], zeta[z + lag]) for z in range(SLICES - lag)]
        assert measured == pytest.approx([rho**lag] * len(measured), abs=0.05)
        print(f"\nrho {rho}, lag {lag}: {sum(measured) / len(measured):.3f}, bound {rho**lag:.3f} ± .05")


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_steps_samples_subjects_and_seeds_are_independent(rho):
    zeta = volume(rho)
    others = [{"step": 1}, {"step": START}, {"sample": 1}, {"seed": 1}, {"subject": "p02"}]
    for other in (volume(rho, **change) for change in others):
        assert abs(correlation(zeta, other)) < 0.02


def test_order_of_asking_changes_nothing():
    noise, zeta = VolumeNoise(SHAPE, rho=0.7), volume(0.7)
    for rows in ([5, 3, 4], [0, 1], [11], [11], [2, 10]):
        assert torch.equal(noise.draw(0, [(z, 0) for z in rows]), zeta[rows])
        noise.draw(1, [(0, 0)])
    mixed = noise.draw(0, [(3, 0), (3, 1), (4, 0), (4, 1)])
    assert torch.equal(mixed[::2], zeta[3:5]) and torch.equal(mixed[1::2], volume(0.7, sample=1)[3:5])


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_antithetic_samples_come_in_pairs(rho):
    pairs = [volume(rho, sample=k, antithetic=True) for k in range(4)]
    assert torch.equal(pairs[1], -pairs[0]) and torch.equal(pairs[3], -pairs[2])
    assert abs(correlation(pairs[0], pairs[2])) < 0.02
    assert torch.equal(pairs[2], volume(rho, sample=2))
    assert torch.equal(volume(rho, sample=0, first_sample=3, antithetic=True), pairs[3])


def test_a_copy_of_the_noise_does_not_carry_on_the_recursion_of_the_first():
    noise = VolumeNoise(SHAPE, rho=0.7)
    noise.draw(0, [(0, 0)])
    other = replace(noise, subject="p02")
    assert torch.equal(other.draw(0, [(0, 0)]), VolumeNoise(SHAPE, subject="p02").draw(0, [(0, 0)]))


def test_samples_keep_their_spread_and_take_over_the_correlation():
    problem = Problem.of(Measurements((Channel.missing(),)), (6, 1, 64, 64))

    def draw(rho):
        noise = VolumeNoise((1, 64, 64), rho=rho, dtype=torch.float64)
        return MCS(20, clamp=False).sample(WhitePrior(0.5), problem, noise)[0]

    rough, smooth = draw(0.0), draw(0.8)
    assert float(smooth.std()) == pytest.approx(float(rough.std()), rel=0.03)
    assert correlation(smooth[:-1], smooth[1:]) == pytest.approx(0.8, abs=0.03)
    assert abs(correlation(rough[:-1], rough[1:])) < 0.03


def test_channels_may_differ_in_their_correlation():
    rho = (0.0, 0.8)
    zeta = VolumeNoise((2, 64, 64), rho=rho).draw(0, [(z, 0) for z in range(6)])
    for m, expected in enumerate(rho):
        measured = (zeta[1:, m] * zeta[:-1, m]).mean()
        assert float(measured) == pytest.approx(expected, abs=0.03)
    alone = VolumeNoise((2, 64, 64), rho=0.8).draw(0, [(z, 0) for z in range(6)])
    torch.testing.assert_close(zeta[:, 1], alone[:, 1])
