"""The schedule against METHOD's numbers and MONAI's own schedulers."""

from __future__ import annotations

import pytest
import torch
from any2all.diffusion.schedule import cosine_schedule, log_snr_levels, uniform_pairs
from any2all.samplers.updates import ancestral_update, beta_tilde, ddim_update, noise_estimate
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

SCHEDULE = cosine_schedule()


@pytest.mark.parametrize(("level", "sigma"), [(971, 22.0), (991, 71.0), (1000, 2e4)])
def test_sigma_is_what_the_method_says(level, sigma):
    assert SCHEDULE.sigma2(level) ** 0.5 == pytest.approx(sigma, rel=0.02)


def test_abar_is_float64_clean_at_zero_and_falls():
    assert SCHEDULE.abar.dtype == torch.float64 and SCHEDULE.steps == 1000
    assert SCHEDULE.at(0) == 1.0
    assert bool((SCHEDULE.abar.diff() < 0).all())


def test_abar_equals_monai_one_index_lower():
    for scheduler in (DDPMScheduler(1000, schedule="cosine"), DDIMScheduler(1000, schedule="cosine")):
        # MONAI's table is float32; its relative error grows with the products
        torch.testing.assert_close(SCHEDULE.abar[1:].float(), scheduler.alphas_cumprod, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("level", [1000, 999, 500, 2])
def test_ancestral_step_equals_monai_ddpm(level):
    scheduler = DDPMScheduler(1000, schedule="cosine", prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(1000)
    scheduler.alphas_cumprod, scheduler.alphas = SCHEDULE.abar[1:], SCHEDULE.abar[1:] / SCHEDULE.abar[:-1]
    scheduler.betas = 1 - scheduler.alphas
    x, x0 = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, _ = scheduler.step(x0, level - 1, x, generator=torch.Generator().manual_seed(1))
    z = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    ours = ancestral_update(x, x0, z, SCHEDULE.at(level), SCHEDULE.at(level - 1))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("level", "eta"), [(1000, 0.0), (700, 0.0), (700, 0.85), (2, 1.0)])
def test_ddim_step_equals_monai_ddim(level, eta):
    scheduler = DDIMScheduler(1000, schedule="cosine", prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(1000)
    scheduler.alphas_cumprod = SCHEDULE.abar[1:]
    x, x0 = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, _ = scheduler.step(x0, level - 1, x, eta=eta, generator=torch.Generator().manual_seed(1))
    z = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    abar, abar_next = SCHEDULE.at(level), SCHEDULE.at(level - 1)
    spread = eta * beta_tilde(abar, abar_next, "ddim")
    ours = ddim_update(x0, noise_estimate(x, x0, abar), z, abar_next, spread)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)


def test_uniform_pairs_are_as_many_as_asked_and_fall_to_zero():
    for n in (1, 2, 3, 10, 20, 50, 149, 150, 333, 501, 999, 1000):
        pairs = uniform_pairs(n)
        assert len(pairs) == n and pairs[0][0] == 1000 and pairs[-1][1] == 0
        assert all(k > k_next for k, k_next in pairs)
        assert [k for k, _ in pairs[1:]] == [k_next for _, k_next in pairs[:-1]]
    assert uniform_pairs(150)[-1] == (1, 0)


@pytest.mark.parametrize("n", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(n):
    with pytest.raises(ValueError, match="1 … 1000"):
        uniform_pairs(n)


@pytest.mark.parametrize("n", [5, 10, 20, 100])
def test_log_snr_levels_are_distinct_and_uniform(n):
    levels = log_snr_levels(SCHEDULE, n)
    assert levels[0] == 991 and levels[-1] == 1 and len(levels) == len(set(levels))
    assert levels == sorted(levels, reverse=True)
    if n <= 20:
        assert len(levels) == n
        gaps = torch.log(torch.tensor([SCHEDULE.sigma2(k) for k in levels])).diff()
        # between levels 1 and 2 the table itself makes a jump of 1.4 in log-SNR
        assert float((gaps - gaps.mean()).abs().max()) < 0.75


def test_noise_has_the_level_of_its_channel():
    x0 = torch.ones(1, 3, 200, 200, dtype=torch.float64)
    eps = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noisy = SCHEDULE.add_noise(x0, eps, torch.tensor([[0, 400, 1000]]))
    assert torch.equal(noisy[:, 0], x0[:, 0])
    assert float(noisy[0, 1].mean()) == pytest.approx(SCHEDULE.at(400) ** 0.5, abs=0.02)
    assert float(noisy[0, 1].std()) == pytest.approx((1 - SCHEDULE.at(400)) ** 0.5, rel=0.02)
    torch.testing.assert_close(noisy[:, 2], eps[:, 2], rtol=1e-3, atol=1e-3)
