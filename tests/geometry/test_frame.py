"""The prior's grid laid into raw data: same field of view, aligned FFT centres, the head inside."""

from dataclasses import replace

import numpy as np
import pytest
from any2all.diffusion.prior import PriorCard
from any2all.frame import lay_frame
from any2all.geometry import Grid, Volume
from any2all.inputs import Inputs, RawData
from any2all.kspace.acquisition import Acquisition
from any2all.physics.grids import index_map
from any2all.stack import load_stack


def card() -> PriorCard:
    return PriorCard("0", "per_modality", "v", {}, (80, 64), (2.8, 2.8, 3.0), load_stack())


def raw(size, spacing, slices=5, name="T1", shift=(0.0, 0.0)) -> RawData:
    affine = np.array([[0, 0, -spacing[1], 40.0], [0, -spacing[0], 0, 90.0], [4.0, 0, 0, -10.0], [0, 0, 0, 1.0]])
    grid = Grid((slices, *size), affine)
    h, w = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    radius = ((h - size[0] / 2 - shift[0]) * spacing[0]) ** 2 + ((w - size[1] / 2 - shift[1]) * spacing[1]) ** 2
    mask = np.broadcast_to(radius < 70**2, grid.shape).copy()
    acquisition = Acquisition(
        np.zeros((slices, 1, *size), np.complex64),
        np.ones(size, np.float32),
        np.ones((1, 1, *size), np.complex64),
        0.01,
    )
    return RawData(name, acquisition, Volume(mask.astype(np.float32), grid), mask, 1.0, None)


@pytest.mark.parametrize("size, spacing", [((230, 230), (1.0, 1.0)), ((256, 192), (0.9, 1.1)), ((81, 160), (3.0, 1.5))])
def test_frame_shares_the_fft_centre_and_spacing_of_the_cropped_kspace(size, spacing):
    item = raw(size, spacing)
    frame = lay_frame(Inputs((), (item,), item.first), card())
    assert frame.grid.shape[0] == 5 and all(n % 8 == 0 for n in frame.grid.shape[1:])
    middle = [3, frame.grid.shape[1] // 2, frame.grid.shape[2] // 2]
    assert item.grid.index_of(frame.grid.at(middle)) == pytest.approx([3, size[0] // 2, size[1] // 2])
    for axis in (0, 1):
        assert frame.grid.spacing_mm[axis + 1] == pytest.approx(size[axis] * spacing[axis] / frame.encoded[axis])
        assert frame.grid.spacing_mm[axis + 1] == pytest.approx(2.8, rel=0.03)
        scale, _ = index_map(size[axis], frame.encoded[axis])
        assert frame.grid.spacing_mm[axis + 1] == pytest.approx(scale * spacing[axis])


def test_a_head_off_centre_widens_the_matrix_with_a_warning():
    item = raw((230, 230), (1.0, 1.0), shift=(0, 35))
    frame = lay_frame(Inputs((), (item,), item.first), card())
    assert frame.grid.shape[2] > 64 and "larger than the 80×64" in frame.warnings[0]
    reach = np.abs(frame.grid.index_of(item.grid.at([0, 115, 115 + 35 + 69]))[2])
    assert reach < frame.grid.shape[2]


def test_slices_without_a_head_are_not_sampled():
    item = raw((100, 100), (2.2, 2.2), slices=6)
    item.mask[:2] = False
    frame = lay_frame(Inputs((), (item,), item.first), card())
    assert frame.first_slice == 2 and frame.grid.shape[0] == 4 and frame.whole.shape[0] == 6
    assert frame.grid.at([0, 0, 0]) == pytest.approx(frame.whole.at([2, 0, 0]))


def test_raw_data_on_two_grids_takes_the_first_ones_and_says_so():
    first, second = raw((100, 100), (2.2, 2.2)), raw((120, 100), (2.0, 2.2), name="T2FLAIR")
    frame = lay_frame(Inputs((), (first, second), first.first), card())
    assert frame.carries(first) and not frame.carries(second)
    assert frame.warnings == ("T2FLAIR lies on another grid than T1: its operator changes grids",)


def test_raw_data_whose_slices_cross_is_solved_as_a_volume_and_said_so():
    first, second = raw((100, 100), (2.2, 2.2)), raw((120, 100), (2.0, 2.2), name="T2FLAIR")
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    second = replace(second, first=Volume(second.first.data, second.grid.moved(turn)))
    frame = lay_frame(Inputs((), (first, second), first.first), card())
    assert frame.carries(first) and "slices of T2FLAIR cross the sampled ones at 29 degrees" in frame.warnings[1]


def test_transverse_raw_data_lends_its_grid_whichever_comes_first():
    sagittal, transverse = raw((100, 100), (2.2, 2.2)), raw((120, 100), (2.0, 2.2), name="T2FLAIR")
    turned = Grid(sagittal.grid.shape, sagittal.grid.affine[:, [2, 1, 0, 3]])
    sagittal = replace(sagittal, first=Volume(sagittal.first.data, turned))
    assert lay_frame(Inputs((), (sagittal, transverse), transverse.first), card()).carries(transverse)
    alone = lay_frame(Inputs((), (sagittal,), sagittal.first), card())
    assert alone.anchor is None and alone.grid.codes == ("S", "P", "L") and not alone.carries(sagittal)
