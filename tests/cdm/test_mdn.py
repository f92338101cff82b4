"""MDN: a DDIM step in closed form, what it looks at, and a Gaussian toy whose answer is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from any2all.cdm.batches import NoisyRepresentations, RepresentationLoss, draw_available
from any2all.cdm.mdn import MDN, ddim_step, sample_missing
from any2all.cdm.moments import Moments, Samples, check_samples, moments
from any2all.diffusion.schedule import cosine_schedule
from any2all.scores.statistics import Interval

SCHEDULE = cosine_schedule()
FEATURES, RHO = 8, 0.8


def test_a_ddim_step_in_closed_form():
    y0, eps = torch.randn(2, 5, 7).unbind()
    at, after = SCHEDULE.at(600), SCHEDULE.at(250)
    y = math.sqrt(at) * y0 + math.sqrt(1 - at) * eps
    wanted = math.sqrt(after) * y0 + math.sqrt(1 - after) * eps
    assert torch.allclose(ddim_step(y, y0, SCHEDULE, 600, 250), wanted, atol=1e-5)
    assert torch.allclose(ddim_step(y, y0, SCHEDULE, 600, 0), y0, atol=1e-6)


def test_what_is_not_given_is_not_looked_at():
    mdn = MDN(3, FEATURES, 16, 2)
    y, known = torch.randn(4, FEATURES), torch.randn(4, 3, FEATURES)
    given = torch.tensor([[True, False, False]]).expand(4, 3)
    levels, modality = torch.full((4,), 500), torch.tensor([1, 2, 1, 2])
    other = torch.where(given[..., None], known, 7.0)
    assert torch.equal(mdn(y, levels, modality, known, given), mdn(y, levels, modality, other, given))
    assert not torch.allclose(mdn(y, levels, modality, known + 1, given), mdn(y, levels, modality, known, given))


def test_available_sets_are_proper_subsets_of_what_is_present():
    torch.manual_seed(0)
    present = torch.rand(2000, 6) < 0.6
    present[:, 0] = True
    available, count = draw_available(present), present.sum(1)
    assert not (available & ~present).any() and (available.sum(1) >= 1).all()
    several = count > 1
    assert (available.sum(1) < count)[several].all()
    sizes = draw_available(torch.ones(5000, 6, dtype=torch.bool)).sum(1).bincount(minlength=6)[1:]
    assert (sizes.double() / 5000 - 0.2).abs().max() < 0.03
    assert draw_available(present, empty=0.3).any(1).double().mean() == pytest.approx(0.7, abs=0.05)


def pairs(count: int, seed: int) -> torch.Tensor:
    """(count, 2, FEATURES): two modalities of unit variance whose features correlate with RHO."""
    first, own = torch.randn(2, count, FEATURES, generator=torch.Generator().manual_seed(seed)).unbind()
    return torch.stack([first, RHO * first + math.sqrt(1 - RHO**2) * own], dim=1)


class Pairs:
    """Stands in for the encoder: the "images" are the representations themselves."""

    def __call__(self, images: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        return images[..., 0]


@pytest.fixture(scope="module")
def toy() -> MDN:
    """A small MDN trained on `pairs` with the batches of its stage."""
    torch.manual_seed(0)
    mdn = MDN(2, FEATURES, width=48, blocks=2, embedding=32)
    steps = 700
    optimizer = torch.optim.AdamW(mdn.parameters(), 6e-3)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    prepare, present = NoisyRepresentations(Pairs(), draws=4, empty=0.3), torch.ones(64, 2, dtype=torch.bool)
    for step in range(steps):
        y, target, arguments, _ = prepare({"image": pairs(64, step)[..., None], "present": present})
        optimizer.zero_grad()
        RepresentationLoss()(mdn(y, *arguments), target).backward()
        optimizer.step()
        fall.step()
    return mdn.eval()


@torch.no_grad()
def draws(mdn: MDN, truth: torch.Tensor, conditioned: bool, seed: int = 9) -> torch.Tensor:
    """Samples of the second modality, given the first or nothing."""
    start = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
    given = torch.tensor([[conditioned, False]]).expand(len(truth), 2)
    wanted = torch.tensor([[False, True]]).expand(len(truth), 2)
    out = sample_missing(mdn, start, wanted, truth, given, SCHEDULE)
    assert not out[:, 0].any()
    return out[:, 1]


def test_samples_of_a_gaussian_have_its_moments(toy):
    truth = pairs(3000, seed=10_000)
    known, expected = truth[:, 0], truth[:, 1]
    drawn = {name: draws(toy, truth, name == "source") for name in ("source", "none")}
    for name, y in drawn.items():
        covariance = torch.cov(y.T)
        spread = covariance.diagonal()
        between = covariance - torch.diag(spread)
        with_known = float((y * known).mean())
        error = float((y - expected).square().mean())
        print(f"{name}: mean {y.mean(0).abs().max():.3f}, variance {spread.min():.3f}-{spread.max():.3f}, "
              f"others {between.abs().max():.3f}, with the known {with_known:.3f}, error {error:.3f}")  # fmt: skip
        assert y.mean(0).abs().max() < 0.12 and between.abs().max() < 0.12
        assert spread.min() > 0.75 and spread.max() < 1.2
    assert float((drawn["source"] * known).mean()) == pytest.approx(RHO, abs=0.08)
    assert abs(float((drawn["none"] * known).mean())) < 0.06
    errors = {name: float((y - expected).square().mean()) for name, y in drawn.items()}
    assert errors["source"] == pytest.approx(2 * (1 - RHO**2), abs=0.12)  # truth and draw, each with its own spread
    assert errors["none"] > 1.6


def test_a_draw_is_a_function_of_its_start(toy):
    truth = pairs(6, seed=3)
    whole = draws(toy, truth, True)
    assert torch.equal(draws(toy, truth, True), whole)
    assert not torch.allclose(draws(toy, truth, True, seed=10), whole)


def test_one_rendering_is_stored_without_an_interval():
    close = Moments(0.1, 0.2, 1.0)
    alone = Samples("CT", (0.4, 0.7), close, close, 0.5, 1.5, Interval(1.0, None, None, 1))
    assert alone.to_json()["closer"] == [1.0]


def test_moments_by_hand():
    truth = torch.tensor([[0.0, 1.0], [0.0, -1.0], [2.0, 0.0], [-2.0, 0.0]])  # covariance diag(2, 1/2)
    same = moments(truth[None].repeat(3, 1, 1), truth)
    assert (same.mean_error, same.covariance_error, same.variance_ratio) == pytest.approx((0, 0, 1)) and (
        same.within_bounds
    )
    moved = moments(2 * truth[None] + torch.tensor([0.3, 0.4]), truth)
    assert moved.mean_error == pytest.approx(0.5 / math.sqrt(2)) and moved.variance_ratio == pytest.approx(4)
    assert moved.covariance_error == pytest.approx(3) and not moved.within_bounds
    turned = moments(truth.flip(1)[None], truth)  # the same variance along other axes
    assert turned.variance_ratio == pytest.approx(1) and not turned.within_bounds
    assert turned.covariance_error == pytest.approx(1.5 * math.sqrt(2) / math.hypot(2, 0.5))


@pytest.mark.parametrize("shift, within", [(0.0, True), (0.6, False)])
def test_the_samples_of_a_trained_network_are_held_to_bounds_and_to_their_slices(shift, within, toy, monkeypatch):
    """Against exact values of the Gaussian: a draw and the truth differ by 2 (1 - rho²) given the other, else by 2."""
    monkeypatch.setattr("any2all.cdm.moments.FrozenEncoder", lambda mrm, standardisation: Pairs())

    def shifted(y, levels, *arguments):
        return toy(y, levels, *arguments) + shift

    cdm = SimpleNamespace(
        mdn=shifted,
        mrm=None,
        card=SimpleNamespace(standardisation=None),
        stack=SimpleNamespace(names=("first", "second")),
        schedule=SCHEDULE,
        device="cpu",
    )
    truth = pairs(1200, seed=20_000)
    found = check_samples(cdm, truth[..., None], [str(i // 100) for i in range(1200)], samples=2)
    for one in found:
        print(one.to_json())
        assert one.given.within_bounds is within
        assert one.head == pytest.approx((0, 1), abs=0.1)
        if not shift:
            assert one.distance == pytest.approx(2 * (1 - RHO**2), abs=0.12)
            assert one.distance_nothing == pytest.approx(2, abs=0.25)
        assert one.closer.mean == pytest.approx(one.distance_nothing - one.distance)
        assert one.closer.low > 0.8 and one.closer.n_groups == 12
