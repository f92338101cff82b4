"""PSNR and SSIM against closed forms and a second implementation; what stands in a result's metrics."""

import numpy as np
import pytest
import torch
from any2all.evaluation.predictions import Prediction
from any2all.evaluation.records import Record
from any2all.geometry import Grid, Volume
from any2all.output import ModalityResult
from any2all.scores.metrics import compare, psnr, ssim
from any2all.stack import load_stack
from monai.metrics import PSNRMetric, SSIMMetric
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

STACK = load_stack()
GRID = Grid((3, 48, 40), np.array([[0, 0, -4.0, 80], [0, -4.0, 0, 96], [6.0, 0, 0, 0], [0, 0, 0, 1]]))


def pair(seed=0):
    """A smooth image in [0, 1] and the same with noise, (3, 48, 40)."""
    rng = np.random.default_rng(seed)
    z, h, w = np.meshgrid(*(np.linspace(0, 1, n) for n in GRID.shape), indexing="ij")
    truth = 0.5 + 0.4 * np.sin(7 * h + z) * np.cos(5 * w)
    return (truth + rng.normal(0, 0.1, truth.shape)).clip(0, 1), truth


def head(value=600.0):
    z, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in GRID.shape), indexing="ij")
    return np.where(h**2 + w**2 < 0.7, value * (1 + 0.2 * np.sin(9 * h)), 0.0).astype(np.float32)


def result(name, role, mean, truth):
    return ModalityResult(name, role, Volume(mean, GRID), STACK[name].units, truth=Volume(truth, GRID))


def test_psnr_of_a_known_error():
    truth = np.zeros((2, 8, 8))
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0)
    assert psnr(truth + 10.0, truth, data_range=100.0) == pytest.approx(20.0)
    half = np.zeros(truth.shape, bool)
    half[0] = True
    assert psnr(truth + 0.1 * half, truth) == pytest.approx(20.0 + 10 * np.log10(2))
    assert psnr(truth + 0.1 * half, truth, mask=half) == pytest.approx(20.0)
    assert psnr(truth, truth) == float("inf")


def test_psnr_and_ssim_agree_with_monai():
    estimate, truth = pair()
    e, t = (torch.from_numpy(x)[:, None] for x in (estimate, truth))
    # MONAI averages dB over images; of one image both are the same
    assert psnr(estimate[:1], truth[:1]) == pytest.approx(float(PSNRMetric(1.0)(e[:1], t[:1])), abs=1e-5)
    metric = SSIMMetric(2, data_range=1.0, kernel_type="gaussian", win_size=11, kernel_sigma=1.5)
    assert ssim(estimate, truth) == pytest.approx(float(metric(e, t).mean()), abs=2e-4)
    assert ssim(truth, truth) == pytest.approx(1.0) and ssim(estimate, truth) < 0.9


def test_metrics_inside_the_head_agree_with_scikit_image():
    """PSNR of the masked pixels as of a list of numbers; SSIM as the mean of scikit-image's own map there."""
    estimate, truth = pair()
    inside = np.zeros(truth.shape, bool)
    inside[:2, 10:30, 8:30] = True
    found = Prediction("c", "t", "m", (0, 1, 2), 1, 0.1, {"CT": estimate[None].astype(np.float32)}, "mark")
    scored = Record.of(found, "CT", truth, ["a"] * 3, False, inside)
    by_slice = [peak_signal_noise_ratio(truth[z][inside[z]], estimate[z][inside[z]], data_range=1) for z in (0, 1)]
    expected = -10 * np.log10(np.mean([10 ** (-value / 10) for value in by_slice]))
    assert scored.psnr_head == pytest.approx(expected, abs=1e-4) and np.isnan(scored.mse_head[2])
    maps = [
        structural_similarity(
            t, e, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )[1]
        for t, e in zip(truth, estimate)
    ]
    assert scored.ssim_head[:2] == pytest.approx([maps[z][inside[z]].mean() for z in (0, 1)], abs=1e-5)
    assert scored.on([1]).psnr_head == pytest.approx(by_slice[1], abs=1e-4) and scored.on([2]).psnr_head is None
    whole = Record.of(found, "CT", truth, ["a"] * 3, False, np.ones_like(inside))
    assert whole.psnr_head == pytest.approx(whole.psnr) and whole.ssim_head != pytest.approx(scored.ssim_head[0])
    assert Record.of(found, "CT", truth, ["a"] * 3, False).summary()["psnr_head_db"] is None


def test_an_image_smaller_than_the_window_has_no_ssim():
    assert np.isnan(ssim(np.zeros((2, 40, 8)), np.zeros((2, 40, 8))))


def test_a_reconstruction_is_compared_on_the_truths_scale():
    truth = head()
    scores = compare(result("T2FLAIR", "reconstructed", 0.9 * truth, truth), STACK["T2FLAIR"]).metrics
    # the 99.5th percentile of the head is u = 0.75, so u = value / scale
    scale = np.percentile(truth[truth > 0], 99.5) / 0.75
    expected = -20 * np.log10(np.sqrt(((0.1 * truth / scale) ** 2).mean()))
    assert scores["psnr"] == pytest.approx(expected, abs=0.05)
    assert scores["psnr_head"] < scores["psnr"] and scores["data_range"] == "u in [0, 1]"


def test_a_synthetic_image_is_compared_in_u_and_beside_its_rivals():
    hu = np.where(head() > 0, 40.0, -1000.0).astype(np.float32)
    off, worse = hu + 20 * (hu > 0), hu + 100 * (hu > 0)
    rival = {"mean_image": Volume(worse, GRID)}
    scores = compare(result("CT", "synthetic", off, hu), STACK["CT"], rival).metrics
    # -100 … 150 HU spans u = 0.2 … 0.7, so 20 HU are 0.04
    inside = (hu > 0).mean()
    assert scores["psnr"] == pytest.approx(-10 * np.log10(0.04**2 * inside), abs=0.02)
    assert scores["psnr_mean_image"] == pytest.approx(-10 * np.log10(0.2**2 * inside), abs=0.02)
    assert scores["ssim_mean_image"] < scores["ssim"]


def test_without_a_truth_there_is_no_score():
    output = ModalityResult("CT", "synthetic", Volume(head(), GRID), "HU")
    assert compare(output, STACK["CT"]).metrics is None
