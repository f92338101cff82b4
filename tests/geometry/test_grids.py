"""Grids: orientation, resampling there and back, the prior's grid, overlap."""

import time

import nibabel as nib
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.geometry import (
    CANONICAL_CODES,
    Grid,
    Volume,
    canonical,
    check_overlap,
    field_of_view_overlap,
    head_bounds,
    overlap,
    prior_grid,
    resample,
    to_grid,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation


def oblique(degrees, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * np.array(spacing)
    affine[:3, 3] = origin
    return affine


def signed_permutation(order, signs, shape):
    """Affine of an array that is permuted and flipped, relative to the array before."""
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        change[old, new] = sign
        change[old, 3] = shape[old] - 1 if sign < 0 else 0
    return change


def smooth(grid, scale=18.0):
    """A function of RAS mm, so that its exact value on any grid is known."""
    x, y, z = np.moveaxis(grid.at(np.stack(np.indices(grid.shape), axis=-1)), -1, 0)
    return Volume(2 + np.sin(x / scale) + np.cos(y / (1.3 * scale)) + np.sin(z / scale + 1), grid)


@settings(deadline=None)
@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.tuples(*[st.floats(-40, 40)] * 3),
    st.tuples(*[st.floats(0.4, 6)] * 3),
)
def test_canonical_and_back_moves_voxels_without_changing_them(order, signs, degrees, spacing):
    shape = (5, 7, 6)
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    affine = oblique(degrees, spacing, (-30, 10, 60)) @ signed_permutation(order, signs, (99, 99, 99))
    here = Volume(data, Grid(shape, affine))
    there = canonical(here)
    assert np.array_equal(np.sort(there.data.ravel()), np.sort(data.ravel()))
    index = np.array(np.unravel_index(there.data.argmax(), there.data.shape))
    source = np.array(np.unravel_index(data.argmax(), shape))
    assert np.allclose(there.grid.at(index), here.grid.at(source), atol=1e-9)
    back = to_grid(there, here.grid)
    assert np.array_equal(back.data, data) and back.grid is here.grid


@pytest.mark.parametrize("code", ["RAS", "LPS", "LIA", "PSR", "AIL", "SPL"])
def test_canonical_axes(code):
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(code))
        ),
        (8, 9, 10),
    )
    volume = canonical(Volume(np.zeros((8, 9, 10)) + 1, Grid((8, 9, 10), affine)))
    assert volume.grid.codes == CANONICAL_CODES


def test_rows_grow_to_posterior_and_columns_to_the_patients_left():
    grid = Grid((20, 30, 40), oblique((0, 0, 0), (1, 1, 1), (-10, -15, -20)))
    x = grid.at(np.stack(np.indices(grid.shape), axis=-1))
    right, anterior, superior = (canonical(Volume(f, grid)).data for f in (x[..., 0], x[..., 1], x[..., 2]))
    assert superior[-1, 0, 0] > superior[0, 0, 0]
    assert anterior[0, 0, 0] > anterior[0, -1, 0]
    assert right[0, 0, 0] > right[0, 0, -1], "RAS x grows to the right; column 0 is the patient's right"


@pytest.mark.parametrize("order, bound", [(1, 0.01), (3, 1e-4)])
def test_resampling_hits_known_values_on_an_oblique_anisotropic_grid(order, bound):
    source = smooth(Grid((60, 60, 60), oblique((3, -5, 8), (2, 2, 2), (-60, -50, -55))))
    target = Grid((11, 40, 23), oblique((-10, 20, 30), (4, 1, 2), (-15, -20, -25)))
    got = resample(source, target, order=order, antialias=False)
    inside = (source.grid.index_of(target.at(np.stack(np.indices(target.shape), -1))) > 8).all(-1)
    inside &= (source.grid.index_of(target.at(np.stack(np.indices(target.shape), -1))) < 51).all(-1)
    assert inside.mean() > 0.5
    assert np.abs(got.data - smooth(target).data)[inside].max() < bound


def test_a_sheared_grid_is_resampled_exactly_too():
    affine = np.array([[2, 0.6, 0, -50], [0, 2, 0.3, -50], [0, 0, 2, -50], [0, 0, 0, 1.0]])
    target = Grid((20, 20, 20), oblique((5, 5, 5), (1, 1, 1), (-5, -5, -5)))
    got = resample(smooth(Grid((50, 50, 50), affine)), target, order=3, antialias=False)
    assert np.abs(got.data - smooth(target).data).max() < 1e-3


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_few_samples_along_an_axis_go_on_as_their_mirror_and_not_as_what_else_is_in_memory(size, axis):
    """Against SciPy, from half a voxel before the first of few samples to half a voxel behind the last, and beyond."""
    shape = np.insert((20, 24), axis, size)
    source = Volume(np.random.default_rng(size).random(shape), Grid(tuple(shape), np.eye(4)))
    count = 4 * size + 4
    first, step = np.insert((2.0, 2.5), axis, -0.9), np.insert((0.6, 0.7), axis, 0.25)
    target = source.grid.scaled(tuple(np.insert((20, 20), axis, count)), first, step)
    got = np.moveaxis(resample(source, target, order=3, fill=-7.0).data, axis, 0)
    place = first[axis] + step[axis] * np.arange(count)
    beyond = (place < -0.5) | (place >= size - 0.5)
    index = target.at(np.stack(np.indices(target.shape), -1)).transpose(3, 0, 1, 2)
    data = np.repeat(source.data, 3, axis) if size == 1 else source.data
    expected = np.moveaxis(map_coordinates(data.astype(float), index, order=3, mode="mirror"), axis, 0)
    assert 0 < beyond.sum() < count and (got[beyond] == -7.0).all()
    np.testing.assert_allclose(got[~beyond], expected[~beyond], atol=1e-5)


def test_outside_is_filled():
    source = Volume(np.full((10, 10, 10), 40.0), Grid((10, 10, 10), np.eye(4)))
    got = resample(source, Grid((14, 10, 10), oblique((0, 0, 0), (1, 1, 1), (-2.25, 0, 0))), fill=-1000.0)
    assert (got.data[:2] == -1000).all() and (got.data[2:12] == 40).all() and (got.data[12:] == -1000).all()


def test_antialias_removes_what_a_coarse_grid_cannot_hold():
    stripes = np.zeros((64, 64, 64), np.float32)
    stripes[:, ::2] = 1.0
    source = Volume(stripes, Grid(stripes.shape, np.eye(4)))
    target = Grid((64, 20, 64), oblique((0, 0, 0), (1, 3, 1), (0, 1.1, 0)))
    assert resample(source, target).data[:, 2:-2].std() < 0.03
    assert resample(source, target, antialias=False).data[:, 2:-2].std() > 0.2


def test_resampling_is_quick():
    source = Volume(
        np.random.default_rng(0).random((48, 230, 230)), Grid((48, 230, 230), oblique((1, 2, 3), (3, 1, 1)))
    )
    target = Grid((48, 80, 80), oblique((1, 2, 3), (3, 2.9, 2.9)))
    start = time.process_time()
    resample(source, target, order=3)
    assert time.process_time() - start < 3.0  # 0.3 to 0.6 s of a core, whatever else runs there


def canonical_grid(shape, spacing, degrees=(0, 0, 0), centre=(4.0, -6.0, 9.0)):
    axes = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0.0]]) * np.array(spacing)  # columns S, P, L in RAS
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ axes
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def test_prior_grid_keeps_thick_slices_and_covers_the_field_of_view():
    anchor = canonical_grid((36, 230, 230), (4.0, 1.0, 1.0), (3, -2, 4))
    grid = prior_grid(anchor, (3.0, 3.0, 3.0), (64, 64))
    assert grid.codes == CANONICAL_CODES and grid.shape == (36, 80, 80)
    assert grid.spacing_mm == pytest.approx((4, 3, 3))
    assert grid.centre_mm == pytest.approx(anchor.centre_mm)
    slices = anchor.index_of(grid.at([[0, 5, 7], [35, 2, 1]]))[:, 0]
    assert slices == pytest.approx([0, 35], abs=1e-9), "the anchor's own slices"


def test_prior_grid_puts_thin_slices_together_and_centres_on_the_head():
    anchor = canonical_grid((160, 256, 256), (1.0, 1.0, 1.0))
    mask = np.zeros(anchor.shape, bool)
    mask[30:150, 20:200, 60:190] = True
    bounds = head_bounds(mask, anchor)
    assert bounds[1] == pytest.approx([19.5, 199.5])
    grid = prior_grid(anchor, (3.0, 3.0, 3.0), (64, 64), bounds)
    assert grid.shape == (54, 64, 64) and grid.spacing_mm == pytest.approx((3, 3, 3))
    corners = anchor.index_of(grid.centre_mm)
    assert corners[1:] == pytest.approx([109.5, 124.5]) and corners[0] == pytest.approx(79.5)


def test_prior_grid_grows_with_the_head():
    anchor = canonical_grid((30, 256, 256), (3.0, 1.0, 1.0))
    mask = np.ones(anchor.shape, bool)
    grid = prior_grid(anchor, (2.0, 2.0, 3.0), (96, 96), head_bounds(mask, anchor))
    assert grid.shape == (30, 128, 128)


def test_head_bounds_along_another_images_axes():
    anchor = canonical_grid((40, 64, 64), (3.0, 2.0, 2.0))
    other = canonical_grid((100, 128, 128), (1.0, 1.0, 1.0))
    mask = np.zeros(other.shape, bool)
    mask[10:90, 30:100, 30:101] = True
    bounds = head_bounds(mask, other, anchor)
    assert np.diff(bounds, axis=1)[:, 0] == pytest.approx([80, 70, 71], abs=1e-6)
    with pytest.raises(Any2allError, match="no head"):
        head_bounds(np.zeros((2, 2, 2), bool), Grid((2, 2, 2), np.eye(4)))


def test_overlap_of_shifted_boxes():
    grid = Grid((20, 20, 20), np.eye(4))
    mask = np.zeros(grid.shape, bool)
    mask[5:15, 5:15, 5:15] = True
    assert overlap(mask, grid, mask, grid) == 1.0
    shifted = Grid(grid.shape, oblique((0, 0, 0), origin=(5, 0, 0)))
    assert overlap(mask, grid, mask, shifted) == pytest.approx(0.5, abs=0.02)


def test_images_of_different_places_are_refused():
    here = canonical_grid((20, 100, 100), (3.0, 2.0, 2.0))
    beside = here.moved(oblique((0, 0, 0), origin=(10, 400, 0)))
    assert field_of_view_overlap(here, here) == 1.0
    assert field_of_view_overlap(here, canonical_grid((4, 20, 20), (3, 2, 2))) == pytest.approx(1.0)
    check_overlap({"T1": here, "T2": here.moved(oblique((5, 5, 5), origin=(20, 0, 0)))}, "T1")
    with pytest.raises(Any2allError, match=r"modalities\.T2.*does not overlap") as caught:
        check_overlap({"T1": here, "T2": beside}, "T1")
    assert caught.value.key == "modalities.T2"


def test_an_image_that_covers_far_more_than_a_head_is_refused_before_any_memory_is_taken():
    """2 x 2000 x 2000 voxels of 50 mm are a small file; the prior's grid over them would need 57 GiB."""
    huge = Grid((2, 2000, 2000), np.diag([50.0, 50.0, 50.0, 1.0]))
    with pytest.raises(Any2allError, match="far more than a head"):
        prior_grid(huge, (2.8, 2.8, 3.0), (80, 64))
