"""The factors on the std: what they are measured from, and that they bring the coverage to its level."""

from types import SimpleNamespace

import numpy as np
import torch
from any2all.scores.uncertainty import held_by
from any2all.spread import std_of
from any2all.stack import Stack
from any2all.training import detail
from any2all.training.dispersion import LEVEL, measure_std_scale


def test_every_output_gets_a_factor_and_raw_ones_two(tiny_prior):
    slices = torch.rand(3, 6, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scales = measure_std_scale(tiny_prior, slices)
    raw = {m.name for m in tiny_prior.stack.modalities if m.raw_data}
    assert set(scales) == {"reconstructed", "synthetic"}
    assert set(scales["reconstructed"]) <= raw and set(scales["synthetic"]) <= set(tiny_prior.stack.names)
    assert scales["synthetic"] and all(factor > 0 for part in scales.values() for factor in part.values())


def test_a_single_mr_image_has_no_companion_and_no_factor_but_for_its_raw_data(tiny_prior, monkeypatch):
    first = tiny_prior.stack.modalities[0]
    others = [m.model_copy(update={"raw_data": False}) for m in tiny_prior.stack.modalities[1:]]
    asked = []

    def noisy(prior, truth, m, given, raw):
        asked.append((m, given, raw))
        return truth + 0.1 * torch.randn((4, *truth.shape), generator=torch.Generator().manual_seed(m))

    monkeypatch.setattr("any2all.training.dispersion._draw", noisy)
    monkeypatch.setattr(tiny_prior, "stack", tiny_prior.stack.model_copy(update={"modalities": (first, *others)}))
    scales = measure_std_scale(tiny_prior, torch.rand(3, 6, 32, 32) * 2 - 1)
    assert set(scales["reconstructed"]) == {"T1"} and set(scales["synthetic"]) == {m.name for m in others}
    assert (0, (), False) not in asked  # nothing is drawn from nothing


def test_a_single_mr_image_has_another_companion_for_its_detail(tiny_prior, monkeypatch):
    """A stack of T1 and CT ended in a traceback here, after all of its training."""
    asked = []
    rendering = SimpleNamespace(images=torch.zeros(4, 2, 8, 8), affine=np.eye(4))
    monkeypatch.setattr(detail, "load_head_labels", lambda file: None)
    monkeypatch.setattr(detail, "render", lambda *_: rendering)
    monkeypatch.setattr(detail, "_detail_of", lambda prior, volumes, *names: asked.append(names) or 0.1)
    for names, pairs in ((("T1", "CT"), [("T1", "CT")]), (("CT", "T1"), [("T1", "CT")]), (("T1",), [])):
        stack = Stack(modalities=tuple(tiny_prior.stack[name] for name in names))
        found = detail.measure_detail(SimpleNamespace(stack=stack, card=tiny_prior.card), "head.nii.gz")
        assert asked == pairs and list(found) == [name for name, _ in pairs]
        asked.clear()


def test_the_factor_brings_the_coverage_to_its_level(tiny_prior, monkeypatch):
    """Samples that agree three times too well: the factor is about three, and the interval of any few holds 90 %."""
    truth = torch.full((4, 6, 32, 32), 0.5)
    generator = torch.Generator().manual_seed(1)

    def too_sure(prior, truth, m, given, raw):
        centre = truth + 0.06 * torch.randn(truth.shape, generator=generator)
        return centre + 0.02 * torch.randn((8, *truth.shape), generator=generator)

    monkeypatch.setattr("any2all.training.dispersion._draw", too_sure)
    factor = measure_std_scale(tiny_prior, 2 * truth - 1)["synthetic"]["CT"]
    samples = too_sure(None, truth, 4, (), False)[:, :, 4].numpy()
    assert 2.8 < factor < 3.4
    for count in (2, 4, 8):
        few = samples[:count]
        std = factor * std_of(few)
        assert abs(held_by(few, truth[:, 4].numpy(), np.ones((4, 32, 32), bool), std, LEVEL) - LEVEL) < 0.05
