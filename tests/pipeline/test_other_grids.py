"""Two undersampled modalities on different grids: the operator changes grids, and k-space stays as it was measured."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from any2all.diffusion.prior import PriorCard
from any2all.frame import lay_frame
from any2all.geometry import Grid, Volume
from any2all.inputs import Inputs, RawData
from any2all.kspace.reconstruct import first_reconstruction
from any2all.kspace.simulate import simulate_kspace
from any2all.other_grids import elsewhere
from any2all.physics.measurements import Measurements
from any2all.physics.regrid import RegriddedFourier
from any2all.physics.solve import DataConsistency
from any2all.restore import reconstructed
from any2all.stack import load_stack
from nibabel.processing import resample_from_to
from scipy.spatial.transform import Rotation

CARD = PriorCard("0", "per_modality", "v", {}, (64, 56), (4.0, 4.0, 5.0), load_stack())


def head(grid: Grid) -> np.ndarray:
    """A smooth head with a few blobs in it, about the origin, anywhere in space."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(grid.at(index), -1, 0)
    value = 0.7 / (1 + np.exp((np.sqrt((x / 0.85) ** 2 + y**2 + (z / 1.5) ** 2) - 85) / 3))
    for a, b, c, size in ((20, 30, 5, 12), (-30, -10, -8, 9), (5, -45, 0, 15)):
        value = value + 0.2 * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 / 4) / (2 * size**2))
    return value.astype(np.float32)


def canonical_grid(shape: tuple, spacing: tuple, centre=(0, 0, 0), turn: tuple = (0, 0, 0)) -> Grid:
    affine = np.eye(4)
    axes = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], float) * np.array(spacing)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ axes
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def raw(name: str, grid: Grid, acceleration: int = 1, acs: int = 0) -> RawData:
    truth = Volume(head(grid), grid)
    acquisition = simulate_kspace(truth.data, 4, acceleration, acs, noise_std=0.002)
    first = Volume(first_reconstruction(acquisition), grid)
    return RawData(name, acquisition, first, truth.data > 0.2, 1.0, truth)


ANCHOR = canonical_grid((8, 80, 72), (5.0, 3.0, 3.0))
OTHERS = {
    "another matrix and field of view": canonical_grid((8, 96, 64), (5.0, 2.4, 3.6), (4, -7, 0)),
    "turned in the plane": canonical_grid((8, 90, 80), (5.0, 2.6, 2.8), (3, 2, 0), (0, 0, 7)),
    "half a slice higher": canonical_grid((8, 80, 72), (5.0, 3.0, 3.0), (0, 0, 2.5)),
    "thicker and fewer slices": canonical_grid((5, 80, 72), (8.0, 3.0, 3.0), (1, 1, 1)),
    "a little tilted": canonical_grid((8, 80, 72), (5.0, 3.0, 3.0), (0, 0, 1), (2, 1, 0)),
}


def framed(other: RawData):
    first = raw("T1", ANCHOR)
    return lay_frame(Inputs((), (first, other), first.first), CARD)


@pytest.mark.parametrize("case", OTHERS)
def test_the_operator_explains_the_data_by_the_image_on_the_frame(case):
    other = raw("T2FLAIR", OTHERS[case])
    frame = framed(other)
    channel = elsewhere(other, frame.grid)
    assert isinstance(channel.operator, RegriddedFourier) and channel.data.shape[0] == frame.grid.shape[0]
    covered = channel.data.abs().flatten(1).sum(1) > 0
    u = torch.from_numpy(head(frame.grid))
    misfit = float((channel.operator.forward(u) - channel.data)[covered].norm() / channel.data.norm())
    solver = DataConsistency(Measurements((channel,)).in_prior_range().channels[0], iterations=60)
    x = solver.proximal(torch.full_like(u, -1), 100.0)
    error = float(((x + 1) / 2 - u)[covered].norm() / u[covered].norm())
    print(f"{case}: misfit of the truth {misfit:.3f}, error of the solve {error:.3f}")
    assert covered.sum() >= frame.grid.shape[0] - 2
    assert misfit < 0.02 and error < 0.02


@pytest.mark.parametrize("case", OTHERS)
def test_samples_return_to_the_other_acquisition_with_its_own_data(case):
    """Fine detail of its own grid and slices is measured again in the last solve, at R = 2."""
    other = raw("T2FLAIR", OTHERS[case], acceleration=2, acs=16)
    frame = framed(other)
    truth = torch.from_numpy(other.truth.data)
    start = torch.from_numpy(head(frame.grid))[None]
    found = reconstructed(start, other, frame, CARD, (0, "a"))[0]
    assert found.shape == truth.shape
    error = float((found - truth).norm() / truth.norm())
    print(f"{case}: {error:.4f}")
    assert error < 0.012


def test_the_same_planes_share_one_change_and_one_slice_each():
    other = raw("T2FLAIR", OTHERS["another matrix and field of view"])
    channel = elsewhere(other, framed(other).grid)
    assert channel.data.shape[1] == 4 and len(channel.operator.change._index) == 1


def test_where_nothing_was_acquired_the_prior_alone_decides():
    short = canonical_grid((3, 80, 72), (5.0, 3.0, 3.0), (0, 0, -7.5))
    other = raw("T2FLAIR", short)
    frame = framed(other)
    channel = elsewhere(other, frame.grid)
    empty = channel.data.abs().flatten(1).sum(1) == 0
    assert 3 <= int(empty.sum()) < frame.grid.shape[0]
    x0 = torch.rand(frame.grid.shape)
    solved = DataConsistency(channel).proximal(x0, 100.0)
    torch.testing.assert_close(solved[empty], x0[empty])


def test_frame_on_other_slices_keeps_the_rest_classical():
    other = raw("T2FLAIR", OTHERS["thicker and fewer slices"])
    frame = framed(other)
    lower = replace(frame, grid=frame.grid.scaled((3, *frame.grid.shape[1:]), np.zeros(3), np.ones(3)))
    found = reconstructed(torch.zeros(1, *lower.grid.shape), other, lower, CARD, (0, "a"))[0]
    np.testing.assert_array_equal(found[-1], other.first.data[-1])


@pytest.mark.parametrize("consistency", ["calibrated", "moment"])
def test_a_study_of_two_raw_modalities_on_two_grids(desk, consistency):
    """Fully sampled, so each must come back as the image it was made of, on its own grid, whatever the random prior."""
    affine = np.diag([3.5, 5.0, 6.0, 1.0])
    affine[:3, :3] = Rotation.from_euler("xyz", (0, 0, 5), degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ (np.array([72, 52, 12]) / 2) + (3, -2, 2)
    other = resample_from_to(desk.image("T2FLAIR"), ((72, 52, 12), affine), order=1)
    nib.save(other, desk.folder / "T2FLAIR.nii.gz")
    simulate = {"acceleration": 1, "noise_std": 0.002, "coils": 4}
    entries = {n: {"status": "undersampled", "file": f"{n}.nii.gz", "simulate": simulate} for n in ("T1", "T2FLAIR")}
    desk.only({"name": "mcs", "steps": 5, "samples": 1, "consistency": consistency}, **entries)
    desk.document |= {"registration": "none", "reference": "T2FLAIR", "outputs": ["T2FLAIR", "CT"]}
    result = desk.run()
    assert any("its operator changes grids" in warning for warning in result.warnings)
    made, truth = desk.output("T2FLAIR"), other.get_fdata()
    assert made.shape == (72, 52, 12) and np.abs(made.affine - affine).max() < 1e-5
    assert np.sqrt(((made.get_fdata() - truth) ** 2).mean()) < 0.02 * truth.max()
