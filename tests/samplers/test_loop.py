"""The loop: batches, seeds, progress, cancelling, and the two trivial ends of the problem."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from any2all.diffusion.oracles import GaussianPrior
from any2all.errors import Cancelled
from any2all.physics.measurements import Channel, Measurements
from any2all.samplers.ancestral import Ancestral
from any2all.samplers.base import Problem
from any2all.samplers.mcs import MCS
from any2all.samplers.mds import MDS
from any2all.samplers.mps import MPS
from any2all.samplers.noise import VolumeNoise
from oracle_tasks import IMAGE, field_covariance, flair_task, joint_covariance, undersampled

PRIOR, MEASUREMENTS = flair_task(slices=3)
SHAPE = (3, *PRIOR.shape)
SAMPLERS = [
    Ancestral(8, clamp=False),
    MPS(8, clamp=False),
    MDS(8, clamp=False),
    MDS(4, faithful=True),
    MCS(5, clamp=False),
    MCS(5, consistency="calibrated", clamp=False),
    MCS(5, solver="dpm", clamp=False),
]
IDS = ["ancestral", "mps", "mds", "mds-faithful", "mcs-moment", "mcs-calibrated", "mcs-dpm"]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)


class CountingPrior:
    """The prior, counting rows that pass through it and vector–Jacobian products taken of its result."""

    def __init__(self, prior) -> None:
        self.prior, self.schedule, self.noise_levels = prior, prior.schedule, prior.noise_levels
        self.channels, self.error_variance, self.contrast = prior.channels, prior.error_variance, prior.contrast
        self.calls = self.passes = self.products = 0

    def x0_hat(self, x, levels):
        self.calls, self.passes = self.calls + 1, self.passes + len(x)
        x0_hat = self.prior.x0_hat(x, levels)
        if x0_hat.requires_grad:
            x0_hat.register_hook(self._product)
        return x0_hat

    def _product(self, gradient):
        self.products += len(gradient)


def noise(seed=0, subject="p01", rho=0.0, **settings):
    return VolumeNoise(PRIOR.shape, seed, subject, rho, **settings, dtype=torch.float64)


def draw(sampler, problem=None, prior=PRIOR, **settings):
    problem = Problem.of(MEASUREMENTS, SHAPE) if problem is None else problem
    return sampler.sample(prior, problem, settings.pop("noise", noise()), **{"samples": 2, **settings})


@each_sampler
def test_batch_size_changes_nothing(sampler):
    whole = draw(sampler, batch_size=6)
    for batch_size in (1, 4):
        torch.testing.assert_close(draw(sampler, batch_size=batch_size), whole, rtol=1e-8, atol=1e-9)


@each_sampler
def test_seeds(sampler):
    """The same seed repeats, with the same sampler object too; another seed, subject or sample is another draw."""
    first = draw(sampler, noise=noise(seed=1))
    assert torch.equal(first, draw(sampler, noise=noise(seed=1)))
    for other in (noise(seed=2), noise(seed=1, subject="p02")):
        assert float((draw(sampler, noise=other) - first)[..., 1, :, :].abs().mean()) > 0.01
    assert float((first[0] - first[1])[:, 1].abs().mean()) > 0.01
    fewer = draw(sampler, noise=noise(seed=1), samples=1)
    torch.testing.assert_close(fewer[0], first[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_a_subset_of_slices_comes_out_as_in_the_whole_volume(rho):
    whole = draw(MCS(6, clamp=False), noise=noise(rho=rho))
    part = Problem.of(MEASUREMENTS.select(torch.tensor([1, 2])), (2, *PRIOR.shape))
    some = draw(MCS(6, clamp=False), part, noise=noise(rho=rho, first_slice=1))
    torch.testing.assert_close(some, whole[:, 1:], rtol=1e-8, atol=1e-9)


@each_sampler
def test_progress_counts_passes_and_never_falls(sampler):
    prior, seen = CountingPrior(PRIOR), []
    draw(sampler, prior=prior, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    done, total = [d for d, _ in seen], seen[0][1]
    assert done == sorted(done) and len(set(done)) == len(done)
    assert done[-1] == total and {t for _, t in seen} == {total}
    assert prior.passes + prior.products == total


def test_without_raw_data_a_step_of_mcs_costs_one_pass():
    given = Measurements((MEASUREMENTS.channels[0], Channel.missing()))
    prior, seen = CountingPrior(PRIOR), []
    draw(MCS(5), Problem.of(given, SHAPE), prior, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5 * 6, 5 * 6) and prior.passes == 30 and prior.products == 0


@each_sampler
def test_cancelling_is_honoured_within_one_step(sampler):
    prior, asked = CountingPrior(PRIOR), []

    def cancelled() -> bool:
        asked.append(prior.calls)
        return len(asked) > 5

    with pytest.raises(Cancelled):
        draw(sampler, prior=prior, batch_size=4, cancelled=cancelled)
    assert prior.calls == 5, "one call per batch and step, none after the answer was yes"


@pytest.mark.parametrize("sampler", [MDS(12), MCS(6), MCS(6, solver="dpm"), MCS(1)])
def test_all_available_is_the_identity(sampler):
    images = torch.rand(3, 2, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = Problem.of(Measurements(tuple(Channel.available(images[:, m]) for m in range(2))), SHAPE)
    x = draw(sampler, problem)
    torch.testing.assert_close(x, (2 * images - 1).expand(2, *SHAPE), rtol=0, atol=1e-12)


def test_given_images_are_kept_exactly():
    given = 2 * MEASUREMENTS.channels[0].data - 1
    for sampler in (MDS(12), MCS(6), MCS(6, solver="dpm")):
        assert torch.equal(draw(sampler)[:, :, 0], given.expand(2, -1, -1, -1))


# Level 1000 still holds 5e-5 of the signal. With k-space, r_k² is that of an idle channel at level k, which would tell
# more: the two iterations start from another preconditioner.
@pytest.mark.parametrize(
    ("channel", "tolerance"), [(Channel.missing(), 2e-3), (MEASUREMENTS.channels[1], 0.03)], ids=["missing", "k-space"]
)
def test_an_idle_channel_leaves_the_others_as_if_it_were_not_in_the_stack(channel, tolerance):
    correlation = torch.tensor([[1.0, 0.5, 0.7], [0.5, 1.0, 0.8], [0.7, 0.8, 1.0]])
    field = field_covariance(1.2)
    three = GaussianPrior(torch.zeros(3, *IMAGE), joint_covariance([0.5] * 3, correlation, field))
    two = GaussianPrior(torch.zeros(2, *IMAGE), joint_covariance([0.5] * 2, correlation[:2, :2], field))
    channels = (MEASUREMENTS.channels[0], channel)
    z3 = VolumeNoise((3, *IMAGE), dtype=torch.float64)

    class FirstTwo(VolumeNoise):
        def draw(self, step, rows):
            return z3.draw(step, rows)[:, :2]

    settings = dict(clamp=False, steps=8)
    with_idle = MCS(idle=frozenset({2}), **settings).sample(
        three, Problem.of(Measurements((*channels, Channel.missing())), (3, 3, *IMAGE)), z3
    )
    without = MCS(**settings).sample(
        two, Problem.of(Measurements(channels), SHAPE), FirstTwo(PRIOR.shape, dtype=torch.float64)
    )
    torch.testing.assert_close(with_idle[:, :, :2], without, rtol=0, atol=tolerance)


def test_clamp_holds_the_prior_range():
    wild = GaussianPrior(torch.zeros(PRIOR.shape), 9 * PRIOR.covariances[0])
    problem = Problem.of(Measurements((Channel.missing(),) * 2), SHAPE)
    for sampler in (Ancestral(12), MDS(12), MCS(6), MCS(6, solver="dpm")):
        assert float(draw(sampler, problem, wild).abs().max()) <= 1
        assert float(draw(dataclasses.replace(sampler, clamp=False), problem, wild).abs().max()) > 1


def test_two_raw_channels_with_other_coils_are_sampled_together():
    """Nothing given: both images come from k-space of their own, and fit it to its noise."""
    truth = (PRIOR.draw(3, seed=6) + 1) / 2
    measurements = Measurements((undersampled(truth[:, 0], 2, 6, seed=1), undersampled(truth[:, 1], 2, 3, seed=2)))
    problem = Problem.of(measurements, SHAPE)
    for sampler in (MCS(10, clamp=False), MCS(10, solver="dpm", clamp=False), MDS(50, gamma=50.0, clamp=False)):
        x = draw(sampler, problem, samples=1)[0]
        for m, channel in enumerate(problem.measurements.channels):
            residual = channel.data - channel.operator.forward(x[:, m])
            sampled = channel.operator.mask.mean() * residual.numel()
            rms = float((residual.abs().square().sum() / sampled).sqrt())
            assert rms < 1.5 * channel.noise_std or sampler.name == "mds"
            assert rms < 6 * channel.noise_std


def test_missing_images_are_sampled_again_given_the_reconstruction():
    """Refilling leaves what was measured alone, and is a draw of the missing channel given that reconstruction."""
    measurements = Measurements((Channel.missing(), MEASUREMENTS.channels[1]))
    problem, seen = Problem.of(measurements, SHAPE), []
    once = draw(MCS(6, clamp=False, refill=False), problem)
    twice = draw(MCS(6, clamp=False), problem, progress=lambda done, total: seen.append((done, total)))
    assert torch.equal(once[:, :, 1], twice[:, :, 1]) and not torch.equal(once[:, :, 0], twice[:, :, 0])
    done, totals = zip(*seen)
    assert list(done) == sorted(done) and set(totals) == {done[-1]} == {6 * MCS(6).passes(PRIOR.schedule, True, True)}
    for k in range(2):
        given = Measurements((Channel.missing(), Channel.available((once[k, :, 1] + 1) / 2)))
        own = noise(subject="p01/refill", first_sample=k)
        alone = draw(MCS(6, clamp=False), Problem.of(given, SHAPE), samples=1, noise=own)
        torch.testing.assert_close(twice[k, :, 0], alone[0, :, 0])


@pytest.mark.parametrize("consistency, bound", [("calibrated", 1e-9), ("moment", 0.05)])
def test_antithetic_samples_are_draws_like_any_other_and_their_mean_has_little_noise(consistency, bound):
    """A Gaussian prior's sampler is affine in its noise, up to the length of the steps of CG in `moment`."""
    sampler = MCS(6, clamp=False, consistency=consistency)
    pairs, single = draw(sampler, samples=4), draw(dataclasses.replace(sampler, antithetic=False), samples=4)
    torch.testing.assert_close(pairs[::2], single[::2])

    def noise_of_mean(x):
        return float((x[:2].mean(0) - x[2:].mean(0))[:, 1].square().mean() / x[:, :, 1].var(0).mean())

    of_pairs, of_single = noise_of_mean(pairs), noise_of_mean(single)
    print(f"\n{consistency}: pair's mean has {of_pairs:.4f} of the variance, bound {bound}; unpaired {of_single:.2f}")
    assert of_pairs < bound and of_single > 0.3


@pytest.mark.parametrize("sampler", [MPS(5), MDS(5)], ids=["mps", "mds"])
def test_the_samplers_of_the_paper_draw_independent_samples(sampler):
    """They take the noise as it comes: unpaired by default, where `MCS` pairs it."""
    unpaired, paired = draw(sampler), draw(sampler, noise=noise(antithetic=True))
    assert torch.equal(unpaired[0], paired[0])
    assert float((unpaired[1] - paired[1])[:, 1].abs().mean()) > 0.01


def test_nothing_is_refilled_that_nobody_asked_for():
    problem = Problem.of(Measurements((Channel.missing(), MEASUREMENTS.channels[1])), SHAPE)
    once = draw(MCS(6, clamp=False, refill=False), problem)
    assert torch.equal(draw(MCS(6, clamp=False, wanted=frozenset({1})), problem), once)
    assert not torch.equal(draw(MCS(6, clamp=False, wanted=frozenset({0})), problem), once)
