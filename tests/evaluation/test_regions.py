"""CT in HU and PET in SUVr, region by region, against scipy and by hand."""

import numpy as np
import pytest
from any2all.evaluation.regions import (
    REGIONS,
    CorticalSUVr,
    amyloid_coverage,
    cortical_suvr,
    ct_scores,
    dice,
    head_of_labels,
    pet_scores,
)
from any2all.intensity import to_u
from any2all.stack import load_stack
from scipy import ndimage
from scipy.spatial import distance

STACK = load_stack()
CT, PET = STACK["CT"].normalisation, STACK["PET"].normalisation
CORTEX, WHITE, CEREBELLUM, CAUDATE = 3, 41, 47, 11


def ct_head():
    """HU (3, 40, 40): a ring of bone (1000) around soft tissue (40) in air; the last slice is empty. And the head."""
    h, w = np.meshgrid(*[np.arange(40) - 19.5] * 2, indexing="ij")
    radius = np.hypot(h, w)
    plane = np.where(radius < 12, 40.0, np.where(radius < 15, 1000.0, -1000.0))
    hu = np.stack([plane, plane, np.full_like(plane, -1000.0)])
    return hu, np.stack([radius < 15, radius < 15, radius < 0])


def pet_labels():
    """Labels (4, 20, 20) of two groups: only slices 0 and 1 hold a cerebellum, of 50 pixels in all."""
    labels = np.zeros((4, 20, 20), np.int16)
    labels[:, :5], labels[:, 5:9], labels[:, 9] = CORTEX, WHITE, CAUDATE
    labels[:2, 15, :] = CEREBELLUM
    labels[0, 16, :10] = CEREBELLUM
    return labels, ["a", "a", "b", "b"]


def suvr_image(cortex, cerebellum=1.0, white=1.6, caudate=1.2):
    labels, _ = pet_labels()
    values = {CORTEX: cortex, CEREBELLUM: cerebellum, WHITE: white, CAUDATE: caudate}
    image = np.zeros(labels.shape)
    for code, value in values.items():
        image[labels == code] = value
    return image


def test_ct_errors_of_a_known_offset():
    hu, head = ct_head()
    off = np.where(head, hu + np.where(hu > 250, 100.0, 20.0), 500.0)  # wrong outside the head, where it must not count
    scores = ct_scores(to_u(off, CT), to_u(hu, CT), CT, head)
    bone = (hu > 250).sum() / head.sum()
    assert scores.mae_hu == pytest.approx(20 + 80 * bone, abs=1e-6)
    assert scores.mae_soft_hu == pytest.approx(20.0) and scores.mae_bone_hu == pytest.approx(100.0)
    assert scores.mae_hu_per_slice == [pytest.approx(scores.mae_hu)] * 2 + [None]
    assert scores.bone_dice == 1.0 and (scores.slices_without_head, scores.slices_without_bone) == (1, 1)


def test_bone_dice_agrees_with_scipy_and_counts_bone_inside_the_head_only():
    hu, head = ct_head()
    shifted = np.roll(hu, 2, axis=1)
    scores = ct_scores(to_u(shifted, CT), to_u(hu, CT), CT, head)
    one, two = (shifted > 250) & head, (hu > 250) & head
    assert scores.bone_dice == pytest.approx(1 - distance.dice(one.ravel(), two.ravel()))
    assert 0.5 < scores.bone_dice < 0.9
    assert scores.bone_dice_per_slice[0] == pytest.approx(dice(one[0], two[0]))
    # the threshold is 250 HU: the same shape at 240 HU is no bone
    faint = np.where(hu > 250, 240.0, hu)
    assert ct_scores(to_u(faint, CT), to_u(hu, CT), CT, head).bone_dice == 0.0


def test_ct_is_clipped_where_the_prior_clips_it():
    hu, head = ct_head()
    beyond = ct_scores(to_u(np.where(hu > 250, 3000.0, hu), CT), to_u(np.where(hu > 250, 2400.0, hu), CT), CT, head)
    assert beyond.mae_hu == pytest.approx(0.0, abs=1e-9)


def test_without_a_head_nothing_is_measured():
    hu, head = ct_head()
    scores = ct_scores(to_u(hu, CT), to_u(hu, CT), CT, np.zeros_like(head))
    assert scores.mae_hu is None and scores.bone_dice is None and scores.slices_without_head == 3


def test_the_head_of_labels_holds_its_sinuses():
    labels = np.zeros((2, 9, 9), np.int16)
    labels[:, 2:7, 2:7] = 515
    labels[0, 4, 4] = 0  # a sinus
    labels[1, 2, 4] = labels[1, 3, 4] = 0  # open to the outside: no part of the head
    head = head_of_labels(labels)
    assert head[0].sum() == 25 and head[1].sum() == 23


def test_regional_suvr_is_relative_to_the_cerebellum_where_there_is_enough_of_it():
    labels, groups = pet_labels()
    truth, estimate = suvr_image(1.1, cerebellum=1.1), suvr_image(1.5, cerebellum=1.2)
    scores = pet_scores(estimate / PET.maximum, truth / PET.maximum, PET, labels, groups)
    found = {(s.group, s.region): s for s in scores.regions}
    # group a: divided by each image's own cerebellum; group b: as they are
    assert found["a", "cerebral_cortex"].truth == pytest.approx(1.0)
    assert found["a", "cerebral_cortex"].error == pytest.approx(1.5 / 1.2 - 1.0)
    assert found["b", "cerebral_cortex"].error == pytest.approx(0.4)
    assert found["a", "cerebral_cortex"].referred and not found["b", "cerebral_cortex"].referred
    assert scores.groups_referred() == (1, 1)
    # caudate: 20 pixels a slice are too few; the reference itself is left out; brain stem and hippocampus are not there
    assert set(found) == {(g, r) for g in "ab" for r in ("cerebral_cortex", "cerebral_white_matter")}
    assert scores.skipped == 3 + 4
    white = 1.6 / 1.2 - 1.6 / 1.1
    assert scores.signed_error == pytest.approx((0.25 + 0.4 + white + 0) / 4)
    assert scores.absolute_error == pytest.approx((0.25 + 0.4 - white + 0) / 4)
    assert scores.of("cerebral_white_matter").signed_error == pytest.approx(white / 2)


def test_regional_means_agree_with_scipy():
    labels, _ = pet_labels()
    rng = np.random.default_rng(0)
    estimate, truth = rng.uniform(0.2, 0.8, (2, *labels.shape))
    scores = pet_scores(estimate, truth, PET, labels, [7] * 4)
    reference = ndimage.mean(estimate, np.isin(labels, REGIONS["cerebellar_cortex"]), 1)
    for score in scores.regions:
        inside = np.isin(labels, REGIONS[score.region])
        assert score.estimate == pytest.approx(ndimage.mean(estimate, inside, 1) / reference)
        assert score.pixels == inside.sum() and score.group == 7
    assert {s.region for s in scores.regions} == {"cerebral_cortex", "cerebral_white_matter", "deep_grey"}


def test_a_dark_cerebellum_is_no_reference_and_air_has_no_regions():
    labels, groups = pet_labels()
    truth = suvr_image(1.1) / PET.maximum
    scores = pet_scores(suvr_image(1.5, cerebellum=0.0) / PET.maximum, truth, PET, labels, groups)
    assert scores.groups_referred() == (0, 2)
    empty = pet_scores(truth, truth, PET, np.zeros_like(labels), groups)
    assert empty.absolute_error is None and empty.signed_error is None and empty.skipped == 2 * len(REGIONS)


def test_the_cortex_of_every_sample_and_both_states():
    labels, groups = pet_labels()
    samples = np.stack([suvr_image(value, cerebellum=0.9) for value in (1.0, 1.2, 1.8)]) / PET.maximum
    truth = suvr_image(1.7) / PET.maximum
    first, second = cortical_suvr(samples, truth, PET, labels, groups, {"a": True, "b": False})
    assert first.samples == pytest.approx((1.0 / 0.9, 1.2 / 0.9, 2.0)) and first.truth == pytest.approx(1.7)
    assert second.samples == pytest.approx((1.0, 1.2, 1.8)) and not second.referred
    assert (first.positive, second.positive) == (True, False)
    assert second.mean == pytest.approx(4 / 3) and second.std == pytest.approx(np.std([1.0, 1.2, 1.8], ddof=1))
    assert second.range == pytest.approx((1.0, 1.8))
    assert second.covers(1.05, 1.7) == {"normal": True, "range": True}
    assert second.covers(0.9, 1.7) == {"normal": True, "range": False}
    states = {"a": (1.05, 1.7), "b": (0.9, 1.7)}  # group a begins at 1.11
    coverage = amyloid_coverage([first, second], states)
    assert (coverage.normal, coverage.range, coverage.groups) == (2, 0, 2)
    assert cortical_suvr(samples, truth, PET, np.zeros_like(labels), groups, {}) == ()


def test_samples_that_know_the_status_cover_one_state_only():
    sure = CorticalSUVr("a", (1.60, 1.65, 1.7, 1.72), 1.68, True, True)
    assert sure.covers(1.68) == {"normal": True, "range": True}
    assert sure.covers(1.05, 1.68) == {"normal": False, "range": False}
    assert CorticalSUVr("a", (1.6,), 1.68, True, True).covers(1.6) == {"normal": True, "range": True}
