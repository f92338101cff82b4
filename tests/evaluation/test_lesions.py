"""Errors and contrasts of lesions against closed forms, brute-force distances and scikit-image's components."""

import numpy as np
import pytest
from any2all.evaluation.lesions import RING_PX, lesion_scores
from scipy.spatial.distance import cdist
from skimage.measure import label


def brain_with_lesions():
    """Brain (2, 48, 48) of 0.4 with three bright lesions and a dark one of ±0.2, and a single pixel; lesions, brain."""
    h, w = np.meshgrid(*[np.arange(48)] * 2, indexing="ij")
    brain = np.stack([np.hypot(h - 23.5, w - 23.5) < 22] * 2)
    lesion, image = np.zeros(brain.shape, bool), np.where(brain, 0.4, 0.0)
    for z, at, size, value in (
        (0, (12, 20), 4, 0.6),
        (0, (30, 14), 5, 0.6),
        (1, (20, 30), 6, 0.6),
        (1, (34, 20), 5, 0.2),
    ):
        part = (z, slice(at[0], at[0] + size), slice(at[1], at[1] + size))
        lesion[part], image[part] = True, value
    lesion[0, 20, 38], image[0, 20, 38] = True, 0.6
    return image, lesion, brain


def faded(image, lesion, part):
    """The same with lesions of so much of their contrast."""
    return np.where(lesion, 0.4 + part * (image - 0.4), image)


def test_a_perfect_estimate_keeps_everything():
    image, lesion, brain = brain_with_lesions()
    scores = lesion_scores(image, image, lesion, brain)
    assert scores.rmse_lesion == scores.rmse_rest == 0.0 and scores.contrast_ratio == 1.0
    assert scores.n_lesion_voxels == lesion.sum() == 16 + 25 + 36 + 25 + 1
    assert [c.contrast_truth for c in scores.components] == pytest.approx([0.2, 0.2, 0.2, -0.2])
    assert scores.detection == 1.0 and scores.n_visible == 4 and scores.skipped == 1  # the single pixel


def test_faded_lesions_have_a_known_error_and_contrast():
    image, lesion, brain = brain_with_lesions()
    estimate = np.where(brain & ~lesion, image + 0.01, faded(image, lesion, 0.7))
    scores = lesion_scores(estimate, image, lesion, brain)
    assert scores.rmse_lesion == pytest.approx(0.06) and scores.rmse_rest == pytest.approx(0.01)
    bright = lesion.sum() - 2 * 25  # the dark lesion takes back as much as a bright one gives
    assert scores.contrast_truth == pytest.approx(0.2 * bright / lesion.sum())
    assert scores.contrast_estimate == pytest.approx(0.7 * scores.contrast_truth - 0.01)
    assert scores.contrast_ratio == pytest.approx(scores.contrast_estimate / scores.contrast_truth)


@pytest.mark.parametrize(("part", "detected"), [(0.6, 1.0), (0.4, 0.0), (-1.0, 0.0), (1.8, 1.0)])
def test_half_of_the_contrast_counts_as_detected(part, detected):
    image, lesion, brain = brain_with_lesions()
    assert lesion_scores(faded(image, lesion, part), image, lesion, brain).detection == detected


def test_one_lost_lesion_of_four():
    image, lesion, brain = brain_with_lesions()
    estimate = image.copy()
    estimate[1, 34:39, 20:25] = 0.4  # the dark one
    assert lesion_scores(estimate, image, lesion, brain).detection == 0.75


def test_ring_and_components_agree_with_brute_force():
    _, lesion, brain = brain_with_lesions()
    image = np.random.default_rng(0).uniform(size=lesion.shape)
    scores = lesion_scores(image, image, lesion, brain, least_pixels=1)
    assert len(scores.components) == sum(label(plane, connectivity=2).max() for plane in lesion) == 5
    rings = np.zeros(lesion.shape, bool)
    for z, plane in enumerate(lesion):
        pixels = np.argwhere(np.ones_like(plane))
        distance = cdist(pixels, np.argwhere(plane)).min(axis=1).reshape(plane.shape)
        rings[z] = brain[z] & (distance >= RING_PX[0]) & (distance <= RING_PX[1])
    assert scores.contrast_truth == pytest.approx(image[lesion].mean() - image[rings].mean())
    part = label(lesion[1], connectivity=2) == 1
    distance = cdist(np.argwhere(np.ones_like(part)), np.argwhere(part)).min(axis=1).reshape(part.shape)
    ring = brain[1] & (distance >= 2) & (distance <= 5)  # no other lesion is near
    expected = image[1][part].mean() - image[1][ring].mean()
    first = next(c for c in scores.components if c.slice == 1)
    assert first.contrast_truth == pytest.approx(expected)


def test_a_neighbouring_lesion_is_no_part_of_a_ring():
    brain = np.ones((1, 32, 32), bool)
    lesion = np.zeros(brain.shape, bool)
    lesion[0, 10:14, 8:12] = lesion[0, 10:14, 15:19] = True  # 4 pixels apart
    image = np.where(lesion, 0.8, 0.4)
    assert [c.contrast_truth for c in lesion_scores(image, image, lesion, brain).components] == pytest.approx([0.4] * 2)


def test_what_the_truth_does_not_show_is_neither_found_nor_lost():
    image, lesion, brain = brain_with_lesions()
    invisible = np.where(lesion, 0.41, image)
    scores = lesion_scores(image, invisible, lesion, brain)
    assert scores.detection is None and scores.n_visible == 0 and scores.contrast_ratio is None
    assert len(scores.components) == 4


def test_without_lesions_brain_or_ring_there_is_nothing_to_measure():
    image, lesion, brain = brain_with_lesions()
    healthy = lesion_scores(image + 0.1, image, np.zeros_like(lesion), brain)
    assert healthy.rmse_lesion is None and healthy.contrast_truth is None and healthy.detection is None
    assert healthy.rmse_rest == pytest.approx(0.1) and healthy.n_lesion_voxels == 0
    outside = lesion_scores(image, image, lesion, np.zeros_like(brain))
    assert outside.rmse_rest is None and outside.n_lesion_voxels == 0
    everywhere = lesion_scores(image, image, brain, brain)
    assert everywhere.contrast_truth is None and everywhere.skipped == 2 and everywhere.rmse_rest is None
