"""What raw data shows that its study can hardly mean is said, and proper data raises no doubt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.kspace.doubts import doubts
from any2all.kspace.formats import read_kspace
from any2all.kspace.prepare import prepare
from any2all.kspace.raw import check_kspace
from any2all.kspace.raw_samples import check_samples
from any2all.kspace.reconstruct import first_reconstruction
from any2all.kspace.simulate import birdcage_maps, simulate_kspace

NOISE_STD = 0.01
MAPS = birdcage_maps((96, 80), 8)
MIDDLE, EDGES, MAPS_DOUBTED, NOISE = "far from its middle", "across the edges", "unexplained", "hardly counts"


@pytest.fixture(scope="module")
def kspace(phantom) -> np.ndarray:
    made = simulate_kspace(phantom, 8, 3, acs_lines=20, noise_std=NOISE_STD, phase="smooth")
    return made.kspace


def found(kspace, maps=MAPS, noise_std=None) -> list[str]:
    acquisition = prepare(check_kspace({"kspace": kspace, **({} if maps is None else {"coil_maps": maps})}), noise_std)
    return doubts(acquisition, first_reconstruction(acquisition))


def rolled(kspace, *axes: int) -> np.ndarray:
    """K-space of the image rolled by half of its field of view, as a transform without its ifftshift leaves it."""
    for axis in axes:
        signs = (-1.0) ** np.arange(kspace.shape[axis])
        kspace = kspace * (signs[:, None] if axis == 2 else signs)
    return kspace


@pytest.mark.parametrize("maps, noise_std", [(MAPS, NOISE_STD), (37 * MAPS, NOISE_STD / 100), (None, None)])
def test_proper_data_raises_no_doubt(kspace, maps, noise_std):
    assert found(kspace, maps, noise_std) == []


def test_the_measured_brain_raises_none_and_two_of_its_coils_exchanged_do(measured_file):
    acquisition = prepare(read_kspace(measured_file))
    exchanged = replace(acquisition, coil_maps=acquisition.coil_maps[:, [1, 0, *range(2, 8)]])
    assert doubts(acquisition, first_reconstruction(acquisition)) == []
    (words,) = doubts(exchanged, first_reconstruction(exchanged))
    assert MAPS_DOUBTED in words


@pytest.mark.parametrize("change", ["conjugated", "another order", "mirrored"])
def test_coil_maps_that_are_not_those_of_the_data_are_doubted(kspace, change):
    maps = {"conjugated": MAPS.conj(), "another order": np.roll(MAPS, 3, axis=1), "mirrored": MAPS[..., ::-1]}[change]
    (words,) = found(kspace, maps)
    assert MAPS_DOUBTED in words and "% of the data's energy" in words


def test_a_zero_frequency_in_the_corner_is_doubted(kspace):
    assert MIDDLE in found(np.fft.ifftshift(kspace, axes=(-2, -1)))[0]
    with pytest.raises(Any2allError, match="calibration block is too small"):
        found(np.fft.ifftshift(kspace, axes=(-2, -1)), None)


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
def test_an_image_that_lies_across_its_edges_is_doubted(kspace, axes):
    (words,) = found(rolled(kspace, *axes), None)
    assert EDGES in words


def test_noise_in_other_units_is_doubted(kspace):
    (words,) = found(kspace, noise_std=100 * NOISE_STD)
    assert words.startswith("a noise_std of 1 is much more than the 0.0") and NOISE in words


def test_radial_data_as_well(phantom):
    heads = np.pad(phantom[:1, ::3, ::3], ((0, 0), (0, 0), (2, 3)))
    made = simulate_kspace(heads, 4, 2, noise_std=NOISE_STD, mask="radial", phase="smooth")
    raw = check_samples({"kspace": made.kspace, "trajectory": made.trajectory, "matrix": [32, 32]}, "kspace")
    maps = birdcage_maps((32, 32), 4)

    def of(coil_maps, noise_std=NOISE_STD) -> list[str]:
        acquisition = prepare(raw.with_maps(coil_maps, "maps"), noise_std)
        return doubts(acquisition, first_reconstruction(acquisition))

    assert of(maps) == []
    assert [MAPS_DOUBTED in words for words in of(maps[:, ::-1])] == [True]
    assert [NOISE in words for words in of(maps, 1.0)] == [True]
