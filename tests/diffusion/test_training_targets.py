"""What training draws, noises and weighs (METHOD §2)."""

from __future__ import annotations

import pytest
import torch
from any2all.diffusion.prior import x0_from_prediction
from any2all.diffusion.schedule import cosine_schedule
from any2all.errors import Any2allError
from any2all.training.handlers import EMA
from any2all.training.levels import LevelMixture, draw_levels
from any2all.training.noising import NoisedChannelLoss, PrepareNoisyStack, min_snr_weight

DRAWS = 40_000


def levels_of(present, recipe="per_modality"):
    return draw_levels(present, recipe, 1000, LevelMixture(), torch.Generator().manual_seed(0))


def test_fractions_of_the_patterns():
    levels = levels_of(torch.ones(DRAWS, 6, dtype=torch.bool))
    noised = levels > 0
    assert bool(noised.any(1).all()) and int(levels.min()) == 0 and int(levels.max()) == 1000
    equal = (levels == levels[:, :1]).all(1)
    low = torch.where(noised, levels, 2000).amin(1)
    companions = (~noised).any(1) & (low == levels.amax(1))
    assert float(equal.float().mean()) == pytest.approx(0.40, abs=0.01)
    assert float(companions.float().mean()) == pytest.approx(0.45, abs=0.01)
    assert float((~equal & ~companions).float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float((low[companions] == 1000).float().mean()) == pytest.approx(0.15, abs=0.015)
    assert float(levels[equal].float().mean()) == pytest.approx(500.5, abs=10)
    sizes = (~noised)[companions].sum(1)
    assert torch.bincount(sizes, minlength=6)[1:].float().div(len(sizes)).tolist() == pytest.approx([0.2] * 5, abs=0.02)


def test_idle_channels_are_pure_noise_beside_others_at_one_level():
    present = torch.ones(DRAWS, 6, dtype=torch.bool)
    present[: DRAWS // 2, 3:] = False

    def drawn(idle):
        mixture = LevelMixture(equal=0.4, companions=0.6, pure_noise=0.0, idle=idle)
        return draw_levels(present, "per_modality", 1000, mixture, torch.Generator().manual_seed(0))

    without, levels = drawn(0.0), drawn(0.3)
    low = torch.where(present & (levels > 0), levels, 2000).amin(1)
    assert bool(((levels == 0) | (levels == low[:, None]) | (levels == 1000)).all())
    assert bool((low < 1000).float().mean() > 0.99), "someone is left to learn from"
    idle = ((levels == 1000) & (low < 1000)[:, None] & present).any(1)
    possible = (present & (without > 0)).sum(1) > 1
    assert float(idle[possible].float().mean()) == pytest.approx(0.3, abs=0.01) and not bool(idle[~possible].any())
    assert bool((levels[~present] == 1000).all()) and torch.equal(levels == 0, without == 0)


def test_absent_channels_are_pure_noise_and_someone_present_is_noised():
    generator = torch.Generator().manual_seed(1)
    present = torch.rand(DRAWS, 6, generator=generator) < 0.5
    present[:, 0] |= ~present.any(1)
    levels = levels_of(present)
    assert bool((levels[~present] == 1000).all())
    several = present.sum(1) > 1
    clean = ((levels == 0) & present).any(1)
    assert float(clean[several].float().mean()) == pytest.approx(0.45, abs=0.01)
    noised = ((levels > 0) & present).any(1)
    # only an independent draw of 0 for a lone modality leaves nothing to learn: 0.15 / 1001 of such stacks
    assert bool(noised[several].all()) and float(noised.float().mean()) > 0.9995


def test_shared_levels_are_equal_and_ask_for_complete_stacks():
    levels = levels_of(torch.ones(DRAWS, 6, dtype=torch.bool), "shared")
    assert bool((levels == levels[:, :1]).all()) and int(levels.min()) == 1 and int(levels.max()) == 1000
    with pytest.raises(ValueError, match="complete stacks"):
        levels_of(torch.tensor([[True, False]]), "shared")


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_targets_lead_back_to_the_image(kind):
    torch.manual_seed(0)
    prepare = PrepareNoisyStack(prediction=kind)
    image, present = torch.rand(64, 6, 4, 4, dtype=torch.float64) * 2 - 1, torch.rand(64, 6) < 0.7
    x_k, (target, weight), (levels,), _ = prepare({"image": image, "present": present})
    x0 = x0_from_prediction(target, x_k, levels, prepare.schedule, kind)
    learned = weight > 0
    torch.testing.assert_close(x0[learned], image[learned], atol=1e-8, rtol=1e-6)
    assert torch.equal(learned, (levels > 0) & present)
    clean = (levels == 0) & present
    assert torch.equal(x_k[clean], image[clean])
    absent = x_k[~present]
    assert float(absent.std()) == pytest.approx(1.0, abs=0.05), "an absent channel is noise, whatever its image holds"


def test_a_mixture_of_companions_and_pure_noise_is_a_regression():
    torch.manual_seed(0)
    prepare = PrepareNoisyStack(mixture=LevelMixture.of({"equal": 0.0, "companions": 1.0, "pure_noise": 1.0}))
    image, present = torch.rand(500, 6, 2, 2) * 2 - 1, torch.rand(500, 6) < 0.8
    x_k, (target, weight), (levels,), _ = prepare({"image": image, "present": present})
    hidden, given = levels == 1000, levels == 0
    assert bool((hidden | given).all()) and bool((present | hidden).all())
    assert torch.equal(x_k[given], image[given]) and torch.equal(weight > 0, hidden & present)
    seen = x_k * prepare.schedule.planes(levels, x_k.dtype)[0]  # the network's own scaling
    assert float(seen[hidden].abs().max()) < 5e-4
    torch.testing.assert_close(target[hidden & present], -image[hidden & present], atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"equal": 0.7, "companions": 0.5}, "equal \\+ companions"),
        ({"pure_noise": -1}, "mixture.pure_noise"),
        ({"equals": 1}, "mixture.equals: unknown fraction"),
    ],
)
def test_a_mixture_is_made_of_fractions(settings, words):
    with pytest.raises(Any2allError, match=words):
        LevelMixture.of(settings)


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_min_snr_weighs_the_error_of_x0(kind):
    """Weight times error of the prediction is min(SNR, 5) times the error of x0_hat, at every level."""
    schedule, levels = cosine_schedule(), torch.arange(1, 991)[:, None]
    x, wrong = torch.zeros(990, 1, 1, 1, dtype=torch.float64), torch.ones(990, 1, 1, 1, dtype=torch.float64)
    x0_error = x0_from_prediction(wrong, x, levels, schedule, kind).square().flatten()
    snr = schedule.abar[1:991] / (1 - schedule.abar[1:991])
    weight = min_snr_weight(levels, schedule, kind)
    torch.testing.assert_close(weight.flatten(), snr.clamp(max=5.0) * x0_error)
    assert float(min_snr_weight(torch.tensor([[0]]), schedule, kind)) == 0.0


def test_weights_scale_the_loss_of_their_channel():
    image, present = torch.rand(8, 6, 4, 4), torch.ones(8, 6, dtype=torch.bool)
    losses = {}
    for weighting in ("plain", "min_snr"):
        torch.manual_seed(0)
        x_k, target, (levels,), _ = PrepareNoisyStack(weighting=weighting)({"image": image, "present": present})
        losses[weighting] = float(NoisedChannelLoss()(torch.zeros_like(x_k), target))
        learned = levels > 0
    error = target[0].square().mean(dim=(2, 3))[learned]
    weight = min_snr_weight(levels, cosine_schedule(), "v")[learned]
    assert losses["plain"] == pytest.approx(float(error.mean()), rel=1e-5)
    assert losses["min_snr"] == pytest.approx(float((weight * error).mean()), rel=1e-5)
    with pytest.raises(Any2allError, match="loss_weighting"):
        PrepareNoisyStack(weighting="p2")


def test_the_loss_ignores_clean_and_absent_channels():
    wanted = torch.zeros(2, 3, 4, 4)
    weight = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    prediction = torch.zeros_like(wanted)
    prediction[0, 1], prediction[1, :2] = 100.0, 100.0
    loss = NoisedChannelLoss()
    assert float(loss(prediction, (wanted, weight))) == 0.0
    prediction[0, 0] = 3.0
    assert float(loss(prediction, (wanted, weight))) == pytest.approx(9.0 / 3)
    assert float(loss(prediction, (wanted, torch.zeros_like(weight)))) == 0.0


def test_ema_starts_fast_and_ends_at_its_decay():
    network = torch.nn.Linear(1, 1, bias=False)
    ema, expected = EMA(network, decay=0.6), None
    for n in range(30):
        value = float(n % 5)
        torch.nn.init.constant_(network.weight, value)
        ema(None)
        decay = min(0.6, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.averaged.module.weight.item() == pytest.approx(expected, rel=1e-5)
