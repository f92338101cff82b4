"""deepinv's samplers on our prior: the denoiser and the operator against closed forms, then what they draw."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from any2all.diffusion.oracles import GaussianPrior
from any2all.errors import Any2allError
from any2all.evaluation import deepinv_import
from any2all.evaluation.deepinv_import import import_deepinv, is_available, standing_in
from any2all.evaluation.deepinv_peers import DeepinvDiffPIR, DeepinvDPS, PriorDenoiser, StackedOperator
from any2all.evaluation.peers import measurements_of
from any2all.kspace.simulate import simulate_kspace
from any2all.physics.solve import DataConsistency
from any2all.stack import load_stack

STACK = load_stack()
SIZE = 4
MEAN_U, STD_U, LIKENESS = 0.5, 0.1, 0.9  # of the Gaussian stack: every pixel, and between its channels

needs_deepinv = pytest.mark.skipif(
    not is_available(), reason="deepinv cannot be imported: pip install 'any2all[peers]'"
)


def gaussian() -> GaussianPrior:
    """Pixels N(0.5, 0.1²) in u, alike in all channels by 0.9 and in neighbours by 0.5, with a NetworkPrior's facts."""
    across = torch.full((len(STACK), len(STACK)), LIKENESS, dtype=torch.float64).fill_diagonal_(1)
    line = 0.5 ** (torch.arange(SIZE)[:, None] - torch.arange(SIZE)).abs().double()
    covariance = (2 * STD_U) ** 2 * torch.kron(across, torch.kron(line, line))
    prior = GaussianPrior(torch.full((len(STACK), SIZE, SIZE), 2 * MEAN_U - 1, dtype=torch.float64), covariance)
    prior.stack, prior.device = STACK, torch.device("cpu")
    return prior


def stacks(count: int = 2) -> torch.Tensor:
    """Draws of `gaussian` in u."""
    return ((gaussian().draw(count, seed=3) + 1) / 2).float()


def measured(u: torch.Tensor, acceleration: int = 2):
    """k-space of T2FLAIR and T1 as an image."""
    kspace = simulate_kspace(u[:, STACK.index("T2FLAIR")].numpy(), 3, acceleration, noise_std=0.01, seed=1)
    return {"T2FLAIR": kspace}, {"T1": u[:, STACK.index("T1")]}


def test_a_package_that_is_broken_or_absent_is_stood_in_for_and_forgotten():
    with standing_in(["torchvision_of_no_use"]):
        from torchvision_of_no_use.transforms.functional import rotate

        with pytest.raises(ImportError, match="rotate is needed here"):
            rotate(1)
    assert not any(name.startswith("torchvision_of_no_use") for name in sys.modules)
    with pytest.raises(ImportError):
        import torchvision_of_no_use  # noqa: F401


def test_without_deepinv_the_peer_says_how_to_get_it(tiny_prior, monkeypatch):
    monkeypatch.delitem(sys.modules, "deepinv", raising=False)
    monkeypatch.setattr(deepinv_import.importlib.util, "find_spec", lambda name: None)
    assert not is_available()
    measurements, images = measured(stacks())
    with pytest.raises(Any2allError, match=r"any2all\[peers\]"):
        DeepinvDPS(tiny_prior).predict(measurements, images, ["T2FLAIR"])


def test_what_they_can(tiny_prior):
    peer = DeepinvDPS(tiny_prior)
    able = peer.capabilities
    assert able.any_mask and able.kspace and able.mixed and able.samples and not able.unconditional
    assert peer.can(["T2FLAIR"], ["T1"], "CT") and peer.can(["T2FLAIR"], [], "T2FLAIR")
    assert not peer.can([], ["T1"], "T1") and not peer.can([], [], "CT") and not peer.can([], ["T1"], "MRA")


def test_the_denoiser_is_the_posterior_mean_of_a_gaussian():
    """E[u | u + σ ε] = m + C (C + σ² I)⁻¹ (u_σ - m) at every σ between clean and noise."""
    prior = gaussian()
    covariance, u = prior.covariances[0] / 4, stacks(3).double()
    for k in (40, 300, 700, 950):
        sigma = prior.schedule.sigma2(k) ** 0.5 / 2
        noisy = u + sigma * torch.randn(u.shape, dtype=u.dtype, generator=torch.Generator().manual_seed(k))
        gain = torch.linalg.solve(covariance + sigma**2 * torch.eye(len(covariance)), covariance)
        expected = MEAN_U + (noisy - MEAN_U).flatten(1) @ gain
        assert PriorDenoiser(prior).level(sigma) == k
        torch.testing.assert_close(PriorDenoiser(prior)(noisy, sigma).flatten(1), expected, rtol=0, atol=1e-6)


def test_levels_follow_sigma_and_stay_on_the_schedule():
    denoiser = PriorDenoiser(gaussian())
    levels = [denoiser.level(sigma) for sigma in (0.0, 0.01, 0.1, 1.0, 76.0, 1e6)]
    assert levels == sorted(levels) and levels[0] == 1 and levels[-1] == 1000
    for sigma, k in zip((0.01, 0.1, 1.0, 76.0), levels[1:]):
        assert denoiser.prior.schedule.sigma2(k) ** 0.5 / 2 == pytest.approx(sigma, rel=0.15)


def operator() -> StackedOperator:
    return StackedOperator(measurements_of(STACK, *measured(stacks())), len(STACK))


def test_the_stacked_operator_is_adjoint_and_holds_the_data():
    """<A u, y> = <u, A^H y>; what A makes of the truth differs from the data by the noise alone."""
    a, truth = operator(), stacks()
    u = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    y = torch.randn(a.data.shape, generator=torch.Generator().manual_seed(2))
    assert a.data.shape == (2, 1 + 2 * 3, SIZE, SIZE)
    torch.testing.assert_close((a.forward(u) * y).sum(), (u * a.adjoint(y)).sum(), rtol=1e-5, atol=1e-5)
    noise = a.forward(truth) - a.data
    assert noise[:, 0].abs().max() == 0
    sampled = noise[:, 1:][noise[:, 1:] != 0]
    assert sampled.std() == pytest.approx(a.sigma, rel=0.2) and a.sigma == pytest.approx(0.01 / 2**0.5)
    assert (a.adjoint(y)[:, STACK.index("CT")] == 0).all()


@needs_deepinv
def test_deepinvs_own_checks_of_the_physics():
    """Its adjointness test, and its proximal step against our exact one."""
    a = operator()
    physics = a.physics(import_deepinv())
    assert abs(float(physics.adjointness_test(torch.rand(2, len(STACK), SIZE, SIZE)))) < 1e-4
    start, gamma, m = torch.rand(2, len(STACK), SIZE, SIZE), 30.0, STACK.index("T2FLAIR")
    found = physics.prox_l2(start, a.data, gamma, max_iter=200, tol=1e-7)
    expected = DataConsistency(a.measurements.channels[m]).proximal(start[:, m], gamma)
    torch.testing.assert_close(found[:, m], expected, rtol=0, atol=1e-4)
    t1 = STACK.index("T1")
    torch.testing.assert_close(found[:, t1], (start[:, t1] + gamma * a.data[:, 0]) / (1 + gamma), rtol=0, atol=1e-4)
    assert torch.equal(found[:, STACK.index("CT")], start[:, STACK.index("CT")])


# DiffPIR puts the given image in place and lets the network spread it: it hardly informs a missing channel.
CELLS = [
    (DeepinvDPS, {"steps": 200, "weight": 100.0}, "CT"),
    (DeepinvDiffPIR, {"lamda": 1.0}, "T2FLAIR"),
]


@needs_deepinv
@pytest.mark.parametrize("kind, settings, target", CELLS, ids=["DPS-CT", "DiffPIR-T2FLAIR"])
def test_they_sample_near_the_posterior_of_a_gaussian(kind, settings, target):
    """Bias of the mean of 4 samples in posterior stds, from T1 and half the k-space of T2FLAIR."""
    prior, given, m = gaussian(), measured(stacks(1)), STACK.index(target)
    samples = kind(prior, **settings).predict(*given, [target], samples=4, seed=1)[target]
    exact = prior.posterior(measurements_of(STACK, *given))
    mean, std = (exact.mean[:, m] + 1) / 2, exact.variance[:, m].sqrt() / 2
    bias = ((samples.mean(0) - mean) / std).square().mean().sqrt()
    blind = ((MEAN_U - mean) / std).square().mean().sqrt()
    print(f"bias {bias:.2f} stds, of the prior's mean {blind:.2f}; spread {samples.std(0).mean() / std.mean():.2f}")
    assert bias < 1.0 and bias < blind / 2


@needs_deepinv
@pytest.mark.parametrize(
    "kind, settings", [(DeepinvDPS, {"steps": 4}), (DeepinvDiffPIR, {"steps": 5})], ids=["DPS", "DiffPIR"]
)
def test_the_cost_is_what_is_spent_and_rows_do_not_know_each_other(kind, settings, tiny_prior, monkeypatch):
    u = torch.rand(2, len(STACK), 32, 32, generator=torch.Generator().manual_seed(0))
    measurements, images = measured(u, 4)
    spent, original = [0], tiny_prior.x0_hat

    def counted(x, levels):
        spent[0] += len(x)
        result = original(x, levels)
        if result.requires_grad:
            result.register_hook(lambda gradient: spent.__setitem__(0, spent[0] + len(gradient)))
        return result

    monkeypatch.setattr(tiny_prior, "x0_hat", counted)
    peer, state = kind(tiny_prior, **settings), torch.get_rng_state()
    found = peer.predict(measurements, images, ["T2FLAIR", "CT"], samples=2, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    assert spent[0] == 4 * peer.passes(measurements, images)
    assert found["CT"].shape == (2, 2, 32, 32) and found["CT"].isfinite().all()
    first = {"T2FLAIR": measurements["T2FLAIR"].select([0])}, {"T1": images["T1"][:1]}
    alone = peer.predict(*first, ["CT"], samples=1, seed=5)["CT"]
    torch.testing.assert_close(alone[0, 0], found["CT"][0, 0])
    other = replace(peer, name="other").predict(*first, ["CT"], samples=1, seed=5)["CT"]
    assert not torch.equal(found["CT"][0, 0], found["CT"][1, 0]) and not torch.equal(alone, other)
