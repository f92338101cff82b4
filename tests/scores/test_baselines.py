"""Rivals get the same data, lie on the reference grid in its units, and the mean image lies on the head."""

import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.frame import head_extent
from any2all.geometry import Volume, prior_grid, resample
from any2all.inputs import aligned, read_inputs
from any2all.intensity import to_u
from any2all.scores.baselines import baselines_of, load_mean_image
from any2all.study import load_study


@pytest.fixture
def inputs(small_study, tiny_prior):
    spec = load_study(small_study / "study.json", tiny_prior.stack)
    return aligned(read_inputs(spec, tiny_prior.stack), spec, tiny_prior.stack)


def test_reconstructions_are_on_the_reference_and_sense_is_the_better_one(inputs, tiny_prior):
    rivals = baselines_of("T2FLAIR", inputs, tiny_prior.card, tiny_prior.stack, None)
    truth = inputs.raw[0].truth
    reference = inputs.reference.grid
    assert list(rivals) == ["zero_filled", "SENSE"] and all(v.grid is reference for v in rivals.values())
    there = resample(truth, reference).data
    errors = {name: np.sqrt(((v.data - there) ** 2).mean()) for name, v in rivals.items()}
    assert errors["SENSE"] < 0.5 * errors["zero_filled"] and errors["SENSE"] < 0.1 * there.max()


@pytest.mark.parametrize("shift", [(0, 0), (2, -3), (-2, 2)])
def test_the_mean_image_is_laid_on_the_head_wherever_it_lies_on_its_own_grid(inputs, tiny_prior, shift):
    """A mean image that is this very head, moved on its grid, comes to lie on the head again."""
    stack, card = tiny_prior.stack, tiny_prior.card
    anchor, bounds = head_extent(inputs)
    grid = prior_grid(anchor, card.spacing_mm, card.matrix, bounds)
    image = inputs.images[0]
    u = resample(image.volume, grid).data[6] / image.scale
    mean = np.roll(np.repeat(u[None], len(stack), axis=0), shift, axis=(1, 2))
    rival = baselines_of("CT", inputs, card, stack, mean)["mean_image"]
    assert rival.grid is inputs.reference.grid and -1000 <= rival.data.min() < -950
    on_reference = Volume(to_u(rival.data, stack["CT"].normalisation), rival.grid)
    placed = resample(on_reference, grid).data[6]

    def likeness(down, right):
        return np.corrcoef(placed.ravel(), np.roll(u, (down, right), (0, 1)).ravel())[0, 1]

    best = max((likeness(down, right), down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))
    assert best[1:] == (0, 0) and best[0] > 0.95


def test_without_a_mean_image_a_synthetic_output_has_no_rival(inputs, tiny_prior):
    assert baselines_of("CT", inputs, tiny_prior.card, tiny_prior.stack, None) == {}


def test_a_mean_image_of_another_prior_is_refused(tmp_path, tiny_prior):
    assert load_mean_image(tmp_path / "model_mean.npy", tiny_prior.card) is None
    np.save(tmp_path / "model_mean.npy", np.zeros((6, 80, 64), np.float16))
    with pytest.raises(Any2allError, match="does not belong to this prior"):
        load_mean_image(tmp_path / "model_mean.npy", tiny_prior.card)
    np.save(tmp_path / "model_mean.npy", np.zeros((6, *tiny_prior.card.matrix), np.float16))
    assert load_mean_image(tmp_path / "model_mean.npy", tiny_prior.card).dtype == np.float32
