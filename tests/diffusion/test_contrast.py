"""Contrasts that a network does not hear are read from the noisy stack: against a world in which the answer is known.

The world: a given image of tissue classes, and a second one whose brightness in each class is drawn anew for each
subject. A deaf prior estimates its mean, whatever the noisy image says.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from any2all.diffusion.contrast import CLASSES, CONTRAST_LEVELS, SPREAD, Contrast, measure_contrast, tissue_classes
from any2all.diffusion.schedule import cosine_schedule
from any2all.physics.image_operators import SeparableBlur
from any2all.physics.measurements import Channel, Measurements
from any2all.physics.operators import Identity
from any2all.samplers import MCS, Problem
from any2all.samplers.noise import VolumeNoise

NAMES, IMAGE, STD = ("T1", "PET"), (40, 40), 0.2


class DeafPrior:
    """x0_hat of what is given is itself, of all else the mean of all subjects, 0."""

    noise_levels, channels = "per_modality", 2

    def __init__(self, contrast: Contrast | None = None) -> None:
        self.schedule, self.contrast, self.stack = cosine_schedule(), contrast, SimpleNamespace(names=NAMES)

    def x0_hat(self, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return torch.where((levels == 0)[..., None, None], x, 0.0)


def subjects(number: int, seed: int = 0) -> torch.Tensor:
    """(number, 2, H, W) in the prior range."""
    generator = torch.Generator().manual_seed(seed)
    guide = torch.rand(number, *IMAGE, generator=generator) * 2 - 1
    amount = STD * torch.randn(number, CLASSES, generator=generator)
    return torch.stack([guide, (amount[:, None] @ tissue_classes(guide)).view(guide.shape)], 1)


def known(std: float = STD) -> Contrast:
    sigma = std**2 / SPREAD * torch.eye(CLASSES).expand(len(CONTRAST_LEVELS), -1, -1)
    return Contrast("T1", CONTRAST_LEVELS, {name: sigma for name in NAMES})


def noised(x0: torch.Tensor, level: int) -> tuple[torch.Tensor, torch.Tensor]:
    levels = torch.tensor([0, level]).expand(len(x0), -1)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    return cosine_schedule().add_noise(x0, eps, levels), levels


def test_the_classes_share_every_pixel_between_them():
    phi = tissue_classes(torch.tensor([[[-1.0, -0.8, 0.0, 1.0, 3.0]]]))
    torch.testing.assert_close(phi.sum(1), torch.ones(1, 5))
    assert phi.argmax(1).tolist() == [[0, 1, 4, 8, 8]]


@pytest.mark.parametrize("level", [100, 500, 800])
def test_the_correction_is_the_posterior_mean(level):
    x0 = subjects(64)
    x, levels = noised(x0, level)
    prior = DeafPrior()
    corrected = known().corrected(prior.x0_hat(x, levels), x, levels, prior.schedule)

    phi, sigma2 = tissue_classes(x0[:, 0]).double(), prior.schedule.sigma2(level)
    evidence = x[:, 1].flatten(1).double() / prior.schedule.at(level) ** 0.5
    gain = STD**2 * phi.mT @ torch.linalg.inv(phi @ phi.mT * STD**2 + sigma2 * torch.eye(CLASSES)) @ phi
    exact = (gain @ evidence[..., None])[..., 0].view(len(x0), *IMAGE)
    torch.testing.assert_close(corrected[:, 1].double(), exact, atol=2e-3, rtol=0)
    torch.testing.assert_close(corrected[:, 0], x0[:, 0])


def test_where_nothing_is_said_nothing_changes():
    x0 = subjects(4)
    x, levels = noised(x0, 1000)
    prior = DeafPrior()
    x0_hat = prior.x0_hat(x, levels)
    torch.testing.assert_close(known().corrected(x0_hat, x, levels, prior.schedule), x0_hat, atol=1e-3, rtol=0)


def test_the_covariance_is_measured_and_comes_back_from_json():
    measured = measure_contrast(DeafPrior(), subjects(400), levels=(200, 700))
    measured = Contrast.from_json(measured.to_json(), NAMES)
    assert (measured.guide, measured.levels, tuple(measured.covariance)) == ("T1", (200, 700), NAMES)
    sigma = measured.covariance["PET"]
    given = sigma[0].diagonal()[2:-2].sqrt()  # classes at the ends have half as many pixels
    assert 0.7 * STD < given.mean() < STD  # in one set of three the guide is not given: there are no classes to see
    assert (sigma - torch.diag_embed(sigma.diagonal(dim1=1, dim2=2))).abs().max() < 0.2 * STD**2


def test_every_level_and_modality_has_its_own_covariance():
    """Σ of a level between two measured ones lies between theirs, and is that of the channel."""
    eye = torch.eye(CLASSES)
    contrast = Contrast("T1", (200, 600), {"T1": torch.stack([eye, 4 * eye]), "PET": torch.stack([eye, 16 * eye])})
    for level, of_t1, of_pet in ((100, 1.0, 1.0), (200, 1.0, 1.0), (400, 2.5, 8.5), (600, 4.0, 16.0), (900, 4.0, 16.0)):
        expected = torch.tensor([1 / of_t1, 1 / of_pet]) / SPREAD
        torch.testing.assert_close(contrast._precisions[level].diagonal(dim1=1, dim2=2)[:, 0], expected)


def test_a_level_that_is_surer_corrects_more():
    x0, prior = subjects(8), DeafPrior()
    x, levels = noised(x0, 500)
    x0_hat = prior.x0_hat(x, levels)
    small, large = torch.eye(CLASSES) * 1e-5, torch.eye(CLASSES)

    def moved(at_500: torch.Tensor, pet: bool = True) -> float:
        table = torch.stack([small, at_500, small])
        rest = torch.stack([small] * 3)
        contrast = Contrast("T1", (400, 500, 600), {"T1": rest if pet else table, "PET": table if pet else rest})
        return float((contrast.corrected(x0_hat, x, levels, prior.schedule) - x0_hat)[:, 1].square().mean().sqrt())

    assert moved(large) > 5 * moved(small)
    assert moved(large, pet=False) == moved(small)  # another channel's covariance is none of its business


def test_a_card_that_is_sorted_says_the_same_and_one_for_another_stack_is_refused():
    contrast = Contrast("T1", (200, 600), {n: torch.rand(2, CLASSES, CLASSES) for n in NAMES})
    document = contrast.to_json()
    in_other_order = {**document, "covariance": dict(sorted(document["covariance"].items()))}
    assert list(in_other_order["covariance"]) != list(NAMES)
    assert list(Contrast.from_json(in_other_order, NAMES).covariance) == list(NAMES)
    rows = document["covariance"]
    for damaged in (
        {**document, "guide": "T2"},
        {**document, "levels": [200]},
        {**document, "levels": [600, 200]},
        {**document, "covariance": {"T1": rows["T1"]}},
        {**document, "covariance": {**rows, "PET": rows["PET"][:1]}},
        {**document, "covariance": {**rows, "PET": [row[:-8] for row in rows["PET"]]}},
    ):
        with pytest.raises(ValueError, match="contrast"):
            Contrast.from_json(damaged, NAMES)


@pytest.mark.parametrize("measured", ["nothing", "slices alone", "slices together"])
def test_chains_that_are_fed_with_data_are_left_alone(monkeypatch, measured):
    """With data only the second time, when the reconstruction is given and the missing image starts anew."""
    called, real = [], Contrast.corrected
    monkeypatch.setattr(Contrast, "corrected", lambda *a: called.append(a[2].shape) or real(*a))
    u, shape, steps = (subjects(3)[:, 0] + 1) / 2, (3, 2, *IMAGE), 4
    channel = {
        "nothing": Channel.available(u),
        "slices alone": Channel.degraded(Identity(), u, 0.05),
        "slices together": Channel.degraded(SeparableBlur((3, *IMAGE), (1.0, 1.5, 1.5), torch.float32), u[None], 0.05),
    }[measured]
    for other in (Channel.missing(), Channel.available(u)):
        called.clear()
        problem = Problem.of(Measurements((channel, other)), shape)
        MCS(steps, consistency="calibrated").sample(DataPrior(known()), problem, VolumeNoise(shape[1:]))
        assert len(called) == (steps if measured == "nothing" or other.data is None else 0)


class DataPrior(DeafPrior):
    """Knows how large its error is, as data consistency asks."""

    def error_variance(self, m: int, companions: frozenset[int], k: int) -> float:
        return 0.05


def test_samples_differ_in_contrast_as_subjects_do():
    x0 = subjects(1)
    given = Measurements((Channel.available((x0[:, 0] + 1) / 2), Channel.missing()))
    problem = Problem.of(given, (1, 2, *IMAGE))
    phi = tissue_classes(x0[:, 0])

    def spread(contrast: Contrast | None) -> float:
        samples = MCS(40, eta=1.0).sample(DeafPrior(contrast), problem, VolumeNoise((2, *IMAGE)), 200, 200)
        amount = torch.linalg.solve(phi @ phi.mT, phi @ samples[:, :, 1].flatten(2).mT)[..., 0]
        return float(amount[:, 1:-1].std(0).mean())

    assert spread(None) < 0.05 * STD
    assert 0.75 * STD < spread(known()) < 1.1 * STD
