"""The air around the head: found where images show a head, and free of samples' noise."""

from __future__ import annotations

import torch
from any2all.diffusion.schedule import cosine_schedule
from any2all.physics.measurements import Channel, Measurements
from any2all.samplers import MCS, Problem
from any2all.samplers.noise import VolumeNoise
from any2all.samplers.surroundings import AIR, MARGIN_PX, around_the_head


def disc(radius: float = 9.0, noise: float = 0.0, slices: int = 3) -> torch.Tensor:
    """A bright head (Z, H, W) in u, with a dark hole inside."""
    y, x = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(32.0) - 15.5, indexing="ij")
    distance = (y.square() + x.square()).sqrt()
    image = ((distance < radius) & (distance > 3)).float() * 0.6
    return (image + noise * torch.randn(slices, 32, 32, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def test_air_lies_beyond_a_margin_and_holes_are_no_air():
    air = around_the_head([2 * disc(noise=0.02) - 1])
    assert air[:, 0].all() and not air[:, 15, 15].any()
    row = air[0, 16, 16:].nonzero()[0].item()
    assert 9 + MARGIN_PX - 1 <= row <= 9 + MARGIN_PX + 2


def test_what_any_image_shows_is_no_air():
    small, large = around_the_head([disc(6.0)]), around_the_head([disc(12.0)])
    assert torch.equal(around_the_head([disc(6.0), disc(12.0)]), small & large)


def test_a_large_part_apart_from_the_rest_is_no_air_and_a_speck_is():
    image = disc()
    image[:, 2:8, 2:8] = 0.6  # beyond a gap in plane
    image[:, 28:, 28:31] = 0.6
    air = around_the_head([torch.cat([image, torch.zeros(1, 32, 32), image])])  # and beyond a gap between slices
    for z in (0, 4, 6):
        assert not air[z, 2:8, 2:8].any() and not air[z, 15, 15]
    tiny = disc()
    tiny[0, 30, 30] = 0.6
    assert around_the_head([tiny])[0, 30, 30]


def test_without_a_head_there_is_no_air():
    assert not around_the_head([torch.zeros(2, 8, 8)]).any()
    assert not around_the_head([disc(), torch.zeros(3, 32, 32)]).any()
    assert not around_the_head([]).any()


class RestlessPrior:
    """x0_hat of what is not given: black, with some of the noise."""

    noise_levels, channels, contrast = "per_modality", 2, None
    schedule = cosine_schedule()

    def __init__(self, black: float, restless: float) -> None:
        self.black, self.restless = black, restless

    def x0_hat(self, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return torch.where((levels == 0)[..., None, None], x, self.black + self.restless * x)


def centred(stated: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples (4, Z, H, W) of a missing image whose mean network states one grey, and where the air is."""
    image = disc()
    problem = Problem.of(Measurements((Channel.available(image), Channel.missing())), (3, 2, 32, 32))
    sampler = MCS(5, centre=0.5, mean_network=RestlessPrior(stated, 0.0))
    samples = sampler.sample(RestlessPrior(-0.1, 0.3), problem, VolumeNoise((2, 32, 32)), 4)
    return samples[:, :, 1], around_the_head([image])


def test_centred_samples_have_no_noise_there_and_keep_it_in_the_head():
    samples, air = centred(AIR - 0.1)
    torch.testing.assert_close(samples[:, air], torch.full_like(samples[:, air], AIR - 0.1))
    assert samples[:, ~air].std(0).mean() > 0.01


def test_what_is_stated_to_be_no_air_keeps_its_spread():
    samples, air = centred(AIR + 0.1)
    assert samples[:, air].std(0).mean() > 0.05


def test_samples_that_are_not_centred_keep_their_noise():
    image = disc()
    problem = Problem.of(Measurements((Channel.available(image), Channel.missing())), (3, 2, 32, 32))
    alone = MCS(5).sample(RestlessPrior(-0.1, 0.3), problem, VolumeNoise((2, 32, 32)), 4)[:, :, 1]
    assert alone[:, around_the_head([image])].std(0).mean() > 0.01
