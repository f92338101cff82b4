"""Two undersampled modalities on different grids: the operator changes grids, and k-space stays as it was measured."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from any2all.diffusion.prior import PriorCard
from any2all.errors import Any2allError
from any2all.frame import lay_frame
from any2all.geometry import Grid, Volume, canonical, read_volume, resample
from any2all.inputs import Inputs, RawData
from any2all.kspace.reconstruct import first_reconstruction
from any2all.kspace.simulate import simulate_kspace
from any2all.other_grids import crosses, crossing, elsewhere
from any2all.physics.measurements import Measurements
from any2all.physics.operators import MulticoilFourier
from any2all.physics.regrid import RegriddedFourier
from any2all.physics.solve import DataConsistency
from any2all.restore import Restoring, reconstructed
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


def crossing_grid(codes: str, shape: tuple, spacing: tuple, turn: tuple = (0, 0, 0)) -> Grid:
    """About (1, -2, 3) mm, axes growing to ``codes``."""
    turned = canonical_grid((9, 9, 9), (1.0, 1.0, 1.0), turn=turn).affine[:3, :3]
    axes = {"S": turned[:, 0], "P": turned[:, 1], "L": turned[:, 2]}
    axes |= {"I": -axes["S"], "A": -axes["P"], "R": -axes["L"]}
    affine = np.eye(4)
    affine[:3, :3] = np.stack([axes[code] * mm for code, mm in zip(codes, spacing)], axis=1)
    affine[:3, 3] = np.array((1, -2, 3)) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


CROSSING = {
    "sagittal": crossing_grid("LSP", (42, 22, 72), (4.0, 4.0, 3.0)),
    "thin sagittal slices, other directions, turned": crossing_grid("RAI", (66, 80, 24), (2.5, 2.6, 3.6), (3, 4, -5)),
    "thick coronal slices": crossing_grid("ASR", (20, 24, 64), (9.0, 4.0, 3.0)),
    "tilted by 25 degrees": crossing_grid("SPL", (20, 70, 60), (5.0, 3.0, 3.0), (25, 0, 0)),
}


@pytest.mark.parametrize("case", CROSSING)
def test_slices_that_cross_the_frame_are_explained_by_its_volume(case):
    """They show more of the head than the frame's eight slices: what lies beyond these is not the volume's to explain.

    Solved at R = 2 from nothing, with all of the prior's doubt; the outermost slices share a voxel with what is beyond.
    """
    other = raw("T2FLAIR", CROSSING[case], acceleration=2, acs=16)
    frame = framed(other)
    assert crosses(other.grid, frame.grid) and any("solved as one volume" in w for w in frame.warnings)
    assert any("shows" in w and "T2FLAIR" in w for w in frame.warnings)
    channel = crossing(other, frame.grid)
    assert channel.operator.image_shape == frame.grid.shape and channel.data.shape[:2] == (1, other.grid.shape[0])
    u = torch.from_numpy(head(frame.grid))
    misfit = float((channel.operator.forward(u[None]) - channel.data).norm() / channel.data.norm())
    solver = DataConsistency(Measurements((channel,)).in_prior_range().channels[0], iterations=60)
    x = solver.proximal(torch.full_like(u, -1)[None], 100.0, torch.zeros(1, dtype=torch.long))[0]
    error = float(((x + 1) / 2 - u)[1:-1].norm() / u[1:-1].norm())
    print(f"{case}: misfit of the truth {misfit:.3f}, error of the solve {error:.3f}")
    assert misfit < 0.2 and error < 0.06


@pytest.mark.parametrize("case", CROSSING)
def test_samples_return_to_slices_that_cross(case):
    other = raw("T2FLAIR", CROSSING[case], acceleration=2, acs=16)
    frame = framed(other)
    truth = torch.from_numpy(other.truth.data)
    found = reconstructed(torch.from_numpy(head(frame.grid))[None], other, frame, CARD, (0, "a"))[0]
    error = float((found - truth).norm() / truth.norm())
    print(f"{case}: {error:.4f}")
    assert found.shape == truth.shape and error < 0.03


def test_what_the_volume_shows_between_thick_crossing_slices_survives():
    """On the reference's thin slices the sample is kept, and not what the thick ones hold of it."""
    thick = crossing_grid("LSP", (16, 48, 72), (12.0, 4.0, 3.0))
    first, other = raw("T1", ANCHOR), raw("T2FLAIR", thick, acceleration=2, acs=16)
    inputs = Inputs((), (first, other), first.first)
    frame = lay_frame(inputs, CARD)
    samples = torch.from_numpy(head(frame.grid))[None]
    found = Restoring(inputs, frame, CARD, CARD.stack, False, {}).output("T2FLAIR", samples).mean
    assert found.grid.same_as(ANCHOR)
    solved = reconstructed(samples, other, frame, CARD, (0, "a"))[0].numpy()
    interpolated = resample(Volume(solved, thick), ANCHOR).data
    truth = head(ANCHOR)
    error, of_thick = (float(np.linalg.norm(i - truth) / np.linalg.norm(truth)) for i in (found.data, interpolated))
    print(f"{error:.3f}, interpolated between thick slices {of_thick:.3f}")
    assert error < 0.03 and error < 0.7 * of_thick


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


def write_sagittal(desk, name: str) -> np.ndarray:
    """k-space of the phantom's sagittal slices at R = 2, two of its voxels thick, growing to R, S and A (.npz).

    Returns the slices (32, 12, 64).
    """
    volume = canonical(read_volume(desk.folder / f"{name}.nii.gz", name)).data[:, ::-1, ::-1]
    slices = volume.reshape(12, 64, 32, 2).mean(3).transpose(2, 0, 1)
    made = simulate_kspace(slices, 4, 2, 16, noise_std=4.0)
    arrays = {"kspace": made.kspace, "mask": made.mask, "coil_maps": made.coil_maps, "noise_std": 4.0}
    np.savez(desk.folder / f"{name}.npz", **arrays, voxel_size_mm=[6.0, 4.0, 8.0])
    return slices


SHADING = ((0.4, 64, (64, 1, 1)), (0.3, 64, (64, 1)), (0.3, 12, (12,)))  # so that no axis is like its reverse


@pytest.mark.parametrize("companion", [True, False])
def test_a_study_of_sagittal_raw_data(desk, companion):
    """Whatever the random prior says of it, T2FLAIR comes back the right way round: beside T1 on T1's grid, alone on
    its own."""
    lopsided = sum(w * np.linspace(-1, 1, n).reshape(s) for w, n, s in SHADING)
    desk.rewrite("T2FLAIR", lambda data: data * (1 + lopsided))
    slices = write_sagittal(desk, "T2FLAIR")
    entries = {"T1": {"status": "available", "file": "T1.nii.gz"}} if companion else {}
    entries["T2FLAIR"] = {"status": "undersampled", "kspace": "T2FLAIR.npz", "orientation": "RSA"}
    desk.only({"name": "mcs", "steps": 5, "samples": 1, "consistency": "moment"}, **entries)
    desk.document |= {"registration": "none", "outputs": ["T2FLAIR"]}
    result = desk.run()
    assert any("T2FLAIR couples slices" in w for w in result.warnings)
    made, truth = desk.output("T2FLAIR"), desk.image("T2FLAIR")
    found, given = made.get_fdata(), truth.get_fdata()
    if companion:
        assert np.abs(made.affine - truth.affine).max() < 1e-5
        assert result.outputs[0].effective_resolution_mm == (4.0, 8.0, 6.0)
    else:
        assert nib.aff2axcodes(made.affine) == ("R", "S", "A")
        np.testing.assert_allclose(made.affine[:3, 3], (-124, -126, -33), atol=1e-3)
        given, file = slices, np.load(desk.folder / "T2FLAIR.npz")
        operator = MulticoilFourier(torch.from_numpy(file["mask"]), torch.from_numpy(file["coil_maps"]))
        data = operator.forward(torch.from_numpy(found.astype(np.float32))).numpy()
        assert np.linalg.norm(data - file["kspace"]) < 0.1 * np.linalg.norm(file["kspace"])
    assert found.shape == given.shape

    def error(image: np.ndarray) -> float:
        return float(np.linalg.norm(found - image) / np.linalg.norm(given))

    upright, turned = error(given), [error(np.flip(given, axis)) for axis in range(3)]
    print(f"{companion}: {upright:.3f}, turned {turned}")
    # on T1's grid slices of 8 mm are interpolated to 4 mm
    assert upright < (0.25 if companion else 0.15) and upright < 0.75 * min(turned)


def test_mps_refuses_raw_data_that_couples_slices(desk):
    write_sagittal(desk, "T2FLAIR")
    entry = {"status": "undersampled", "kspace": "T2FLAIR.npz", "orientation": "RSA"}
    desk.only({"name": "mps", "steps": 5, "samples": 1}, T2FLAIR=entry)
    with pytest.raises(Any2allError, match="mps works slice by slice, and T2FLAIR is undersampled"):
        desk.run()
    assert desk.untouched
