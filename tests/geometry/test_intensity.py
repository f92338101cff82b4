"""Intensity: maps to and from u, the head mask and the scale of one subject."""

import numpy as np
import pytest
import torch
from any2all.errors import Any2allError
from any2all.intensity import from_u, head_mask, scale_of, to_u
from any2all.stack import load_stack

STACK = load_stack()


def ball(shape=(20, 64, 64), radius=0.7):
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return sum(a**2 for a in axes) < radius**2


@pytest.mark.parametrize("name", STACK.names)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_round_trip_is_exact_beyond_the_range_too(name, library):
    normalisation = STACK[name].normalisation
    u = np.linspace(-0.2, 1.3, 301)
    values = torch.from_numpy(u) if library == "torch" else u
    back = to_u(from_u(values, normalisation, 812.0), normalisation, 812.0)
    assert type(back) is type(values)
    assert np.abs(np.asarray(back) - u).max() < 1e-9


def test_ct_knots_follow_the_stack_file():
    normalisation = STACK["CT"].normalisation
    assert to_u(np.array(normalisation.values), normalisation) == pytest.approx(normalisation.u)
    assert to_u(np.array([25], dtype=np.int16), normalisation) == pytest.approx(0.45)


def test_missing_mr_gets_the_scale_of_the_stack_file():
    normalisation = STACK["T2"].normalisation
    assert from_u(np.array([0.5]), normalisation) == pytest.approx(0.5 * normalisation.scale_when_missing)


def test_scale_maps_the_percentile_to_the_target():
    normalisation = STACK["T1"].normalisation
    head = ball()
    image = np.where(head, np.random.default_rng(0).uniform(100, 900, head.shape), 0.0)
    u = to_u(image, normalisation, scale_of(image, head, normalisation))
    assert np.percentile(u[head], normalisation.percentile) == pytest.approx(normalisation.target, rel=1e-6)


def test_empty_head_is_refused():
    with pytest.raises(Any2allError, match="no head"):
        scale_of(np.ones((4, 8, 8)), np.zeros((4, 8, 8), bool), STACK["T1"].normalisation)


@pytest.mark.parametrize("background, head_value, noise", [(0, 400, 0.0), (0, 400, 15.0), (-1000, 40, 20.0)])
def test_head_mask_finds_the_head_and_fills_dark_holes(background, head_value, noise):
    head = ball()
    image = np.where(head, float(head_value), float(background))
    image[9:11, 30:34, 30:34] = background  # a ventricle or a sinus
    image += np.abs(np.random.default_rng(1).normal(0, 1, image.shape)) * noise
    image[:, 2:4, 2:60] = head_value  # a head rest, apart from the head
    mask = head_mask(image)
    assert 2 * (mask & head).sum() / (mask.sum() + head.sum()) > 0.99


def test_head_mask_survives_padding_outside_the_bore():
    head = ball()
    image = np.where(head, 40.0, -1000.0)
    image[:, :6] = -3024.0
    assert (head_mask(image) == head).mean() > 0.999


def test_constant_image_has_no_head():
    assert not head_mask(np.full((4, 20, 20), 7.0)).any()
