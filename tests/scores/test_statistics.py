"""The bootstrap over renderings against scipy's, PSNR by group against scikit-image, and the verdict on a chain."""

import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.scores.statistics import (
    Interval,
    bootstrap_mean,
    chain,
    holm,
    p_text,
    paired_bootstrap,
    paired_wilcoxon,
    psnr_of_mse,
)
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio

GROUPS = np.repeat(["a/0", "a/1", "b/0", "b/1", "b/2", "c/0"], 3)


def scores(seed=0, shift=0.0):
    """(18,) scores of six renderings that differ much between and little within."""
    rng = np.random.default_rng(seed)
    return 25 + 3 * np.random.default_rng(9).normal(size=6).repeat(3) + 0.3 * rng.normal(size=18) + shift


def test_the_interval_agrees_with_scipy():
    a, b = scores(0, 0.5), scores(1)
    found = paired_bootstrap(a, b, GROUPS)
    differences = (a - b).reshape(6, 3).mean(axis=1)
    expected = stats.bootstrap((differences,), np.mean, n_resamples=20_000, method="percentile", random_state=1)
    assert found.mean == pytest.approx(differences.mean()) and found.n_groups == 6
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.01)
    assert found == paired_bootstrap(a, b, GROUPS) and found != paired_bootstrap(a, b, GROUPS, seed=1)


def test_pairs_stay_together_and_slices_are_not_the_unit():
    a = scores()
    constant = paired_bootstrap(a + 0.7, a, GROUPS)
    assert constant.low == pytest.approx(0.7) and constant.high == pytest.approx(0.7)
    one, by_slice = bootstrap_mean(a, GROUPS), bootstrap_mean(a, np.arange(18))
    assert one.high - one.low > 1.4 * (by_slice.high - by_slice.low)
    wider = bootstrap_mean(a, GROUPS, level=0.99)
    assert wider.low < one.low < one.mean < one.high < wider.high


def test_groups_weigh_the_same_whatever_their_slices():
    found = bootstrap_mean([1.0, 1.0, 1.0, 5.0], [0, 0, 0, 1])
    assert found.mean == 3.0 and (found.low, found.high) == (1.0, 5.0)


def test_psnr_is_averaged_over_renderings_in_decibel():
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(4, 8, 8))
    estimate = truth + rng.normal(size=truth.shape) * np.array([0.1, 0.02, 0.05, 0.2])[:, None, None]
    mse = ((estimate - truth) ** 2).mean(axis=(1, 2))
    found = bootstrap_mean(mse, [0, 0, 1, 1], reduce=psnr_of_mse)
    pairs = [(truth[:2], estimate[:2]), (truth[2:], estimate[2:])]
    assert found.mean == pytest.approx(np.mean([peak_signal_noise_ratio(t, e, data_range=1) for t, e in pairs]))
    # half of the error everywhere: 6 dB, whatever the renderings
    gain = paired_bootstrap(mse / 4, mse, [0, 0, 1, 1], reduce=psnr_of_mse)
    assert gain.low == pytest.approx(gain.high) == pytest.approx(10 * np.log10(4))
    with pytest.raises(Any2allError, match="no PSNR"):
        psnr_of_mse(np.zeros(3))


def test_a_slice_that_one_of_both_lacks_is_left_out_of_both():
    groups = [0, 0, 1, 1]
    found = paired_bootstrap([1.0, None, 3.0, 4.0], [0.0, 100.0, float("nan"), 2.0], groups)
    assert found.mean == pytest.approx(1.5) and found.n_groups == 2
    with pytest.raises(Any2allError, match="no slice was measured"):
        bootstrap_mean([None, None], [0, 1])
    with pytest.raises(Any2allError, match="as many scores as slices"):
        paired_bootstrap([1.0], [1.0, 2.0], [0, 1])
    with pytest.raises(Any2allError, match="give MSE"):
        bootstrap_mean([float("inf"), 1.0], [0, 1])


def test_the_words_of_an_interval():
    assert str(Interval(1.234, 0.76, 1.56, 4)) == "+1.2 [0.8, 1.6] over 4 renderings"
    assert Interval(-0.05, -0.2, 0.1, 12).text(2) == "-0.05 [-0.20, 0.10] over 12 renderings"
    assert Interval(27.91, 27.0, 28.5, 4).text(signed=False) == "27.9 [27.0, 28.5] over 4 renderings"
    alone = bootstrap_mean([27.0, 28.0], ["x", "x"])
    assert (alone.low, alone.high, alone.n_groups) == (None, None, 1)
    assert alone.text(signed=False) == "27.5 (one head: no interval)"


def test_a_chain_holds_when_it_gains_and_no_step_falls():
    base = scores()
    rng = np.random.default_rng(3)
    wobble = 0.5 * rng.normal(size=6).repeat(3)
    wobble -= wobble.mean() + 0.05  # a step that falls by less than its interval
    steps = {"T1": base, "+T2star": base + 1, "+T2FLAIR": base + 1 + wobble}
    found = chain(steps, GROUPS)
    assert found.holds and [s.verdict for s in found.steps] == ["rises", "within its interval"]
    assert found.total.mean == pytest.approx(0.95) and found.steps[1].gain.low < 0 < found.steps[1].gain.high
    assert (found.steps[1].before, found.steps[1].after) == ("+T2star", "+T2FLAIR")


def test_a_chain_breaks_by_one_sure_fall_or_without_a_gain():
    base = scores()
    falling = chain({"a": base, "b": base + 2, "c": base + 1.5}, GROUPS)
    assert not falling.holds and falling.total.mean > 0 and falling.steps[1].verdict == "falls"
    level = chain({"a": base, "b": base}, GROUPS)
    assert not level.holds and level.steps[0].verdict == "rises"
    single = chain({"a": [1.0, 2.0], "b": [3.0, 3.0], "c": [2.9, 3.0]}, ["x", "x"])
    assert single.steps[1].verdict == "falls" and not single.holds  # without an interval any fall counts
    with pytest.raises(Any2allError, match="two steps"):
        chain({"a": base}, GROUPS)


def test_a_chain_of_mse_is_judged_in_decibel():
    mse = 10 ** (-scores() / 10)
    found = chain({"a": mse, "b": mse / 2}, GROUPS, reduce=psnr_of_mse)
    assert found.total.mean == pytest.approx(10 * np.log10(2)) and found.holds


def test_the_signed_rank_test_agrees_with_its_exact_distribution():
    """Six renderings: each of the 2^6 patterns of signs is as likely, so p is a count."""
    a, b = scores(0, 0.5), scores(1)
    differences = (a - b).reshape(6, 3).mean(axis=1)
    ranks = np.abs(differences).argsort().argsort() + 1
    signs = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1)
    sums, centre = (signs * ranks[:, None]).sum(axis=0), ranks.sum() / 2
    expected = (np.abs(sums - centre) >= abs(ranks[differences > 0].sum() - centre)).mean()
    assert paired_wilcoxon(a, b, GROUPS) == pytest.approx(expected)
    assert paired_wilcoxon(a + 9, b, GROUPS) == pytest.approx(2 / 2**6)
    assert paired_wilcoxon(a, a, GROUPS) == 1.0
    mse = 10 ** (-a / 10)
    assert paired_wilcoxon(mse / 2, mse, GROUPS, psnr_of_mse) == pytest.approx(2 / 2**6)


def test_five_renderings_are_not_tested():
    groups = np.repeat(list("abcde"), 2)
    assert paired_wilcoxon(np.arange(10.0), np.zeros(10), groups) is None and p_text(None) == "not tested"


def test_holms_correction_agrees_with_its_definition():
    p = [0.01, None, 0.04, 0.03, 0.005]
    # 4 × 0.005, 3 × 0.01, 2 × 0.03, then 0.04, which may not fall below the one before
    assert holm(p) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06), pytest.approx(0.02)]
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
    rng = np.random.default_rng(0)
    for _ in range(50):  # rejected at 5 % by step-down comparison with 0.05 / (m - rank), and by no other
        values = (rng.uniform(size=7) ** 3).tolist()
        rejected = set()
        for rank, i in enumerate(np.argsort(values)):
            if values[i] > 0.05 / (7 - rank):
                break
            rejected.add(int(i))
        assert {i for i, q in enumerate(holm(values)) if q <= 0.05} == rejected
