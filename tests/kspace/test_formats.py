"""Round trips of every format, and refusals with their words."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.kspace.formats import read_coil_maps, read_kspace
from any2all.kspace.simulate import equispaced_mask


@pytest.fixture
def kspace() -> np.ndarray:
    generator = np.random.default_rng(0)
    data = generator.normal(size=(2, 3, 12, 16)) + 1j * generator.normal(size=(2, 3, 12, 16))
    return (data * equispaced_mask(16, 2)).astype(np.complex64)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_round_trip(tmp_path, kspace, suffix):
    path = tmp_path / f"raw{suffix}"
    extras = {"mask": equispaced_mask(16, 2), "noise_std": 0.02, "voxel_size_mm": np.array([1.0, 1.5, 4.0])}
    extras["coil_maps"] = np.ones((3, 12, 16), np.complex64)
    if suffix == ".npy":
        np.save(path, kspace)
    elif suffix == ".npz":
        np.savez(path, kspace=kspace, **extras)
    else:
        with h5py.File(path, "w") as file:
            for name, value in {"kspace": kspace, **extras}.items():
                file[name] = value
    raw = read_kspace(path)
    np.testing.assert_array_equal(raw.kspace, kspace)
    np.testing.assert_array_equal(raw.mask, np.repeat(equispaced_mask(16, 2)[None], 12, axis=0))
    if suffix == ".npy":
        assert raw.noise_std is None and raw.coil_maps is None and raw.notes == ("mask taken from the data",)
    else:
        assert raw.noise_std == 0.02 and raw.voxel_size_mm == (1.0, 1.5, 4.0) and raw.coil_maps.shape == (1, 3, 12, 16)


def test_three_dimensions_are_one_slice(tmp_path, kspace):
    np.save(tmp_path / "a.npy", kspace[0].astype(np.complex128))
    raw = read_kspace(tmp_path / "a.npy")
    assert raw.kspace.shape == (1, 3, 12, 16) and raw.kspace.dtype == np.complex64


def test_points_that_are_not_in_every_slice_are_dropped_aloud(tmp_path, kspace):
    kspace[1, :, 3, 8] = 0
    np.save(tmp_path / "a.npy", kspace)
    raw = read_kspace(tmp_path / "a.npy")
    assert raw.mask[3, 8] == 0 and (raw.kspace[0, :, 3, 8] == 0).all() and "dropped" in raw.notes[0]


def test_data_outside_of_the_mask_is_left_out_aloud(tmp_path, kspace):
    """A mask of every second measured line (they are the odd or the even ones)."""
    lines = np.flatnonzero(kspace.any(axis=(0, 1, 2)))
    mask = np.zeros(16)
    mask[lines[::2]] = 1
    np.savez(tmp_path / "a.npz", kspace=kspace, mask=mask)
    raw = read_kspace(tmp_path / "a.npz")
    assert (raw.mask == mask).all() and not raw.kspace[..., lines[1::2]].any()
    assert raw.notes == ("50.0% of the points that hold data lie outside of the mask and were left out",)


def _with(kspace: np.ndarray, value: complex) -> np.ndarray:
    changed = kspace.copy()
    changed[0, 0, 0, 0] = value
    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k: k.real, r"must be complex; got 'float32'; allowed: complex64"),
        (lambda k: k[0, 0], r"wrong shape; got \(12, 16\); allowed: complex \(slices, coils, H, W\)"),
        (lambda k: k[None], r"wrong shape; got \(1, 2, 3, 12, 16\)"),
        (lambda k: k[:0], r"wrong shape; got \(0, 3, 12, 16\)"),
        (lambda k: _with(k, np.nan), "NaN or infinite"),
        (lambda k: _with(k, np.inf), "NaN or infinite"),
        (lambda k: 0 * k, "zero everywhere"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path, kspace, change, words):
    np.save(tmp_path / "a.npy", change(kspace))
    with pytest.raises(Any2allError, match=r"modalities\.T1\.kspace: .*" + words):
        read_kspace(tmp_path / "a.npy", "modalities.T1.kspace")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
@pytest.mark.parametrize("keep", [0, 40, 0.6])
def test_truncated_files_are_refused(tmp_path, kspace, suffix, keep):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npy":
        np.save(whole, kspace)
    elif suffix == ".npz":
        np.savez(whole, kspace=kspace)
    else:
        with h5py.File(whole, "w") as file:
            file["kspace"] = kspace
    data = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(Any2allError, match=rf"cannot be read; it may be truncated .* got 'cut{suffix}'"):
        read_kspace(cut)


def test_other_refusals(tmp_path, kspace):
    with pytest.raises(Any2allError, match=r"unknown k-space format; got 'raw.dat'; allowed: .npy, .npz, .h5"):
        read_kspace(tmp_path / "raw.dat")
    with pytest.raises(Any2allError, match="no such file; got 'raw.npy'"):
        read_kspace(tmp_path / "raw.npy")
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(Any2allError, match="cannot be read"):
        read_kspace(tmp_path / "objects.npy")
    np.savez(tmp_path / "other.npz", image=kspace)
    with pytest.raises(Any2allError, match="holds no k-space; got 'other.npz'; allowed: an array named kspace"):
        read_kspace(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"mask": np.ones(15)}, r"kspace\.mask: .* allowed: zeros and ones, \(16,\) or \(12, 16\)"),
        ({"mask": np.full(16, 0.5)}, r"kspace\.mask: the mask does not fit"),
        (
            {"coil_maps": np.ones((2, 12, 16), np.complex64)},
            r"kspace\.coil_maps: .* finite complex \(1 or 2, 3, 12, 16\)",
        ),
        ({"noise_std": -1.0}, r"kspace\.noise_std: not a positive number"),
        ({"voxel_size_mm": np.ones(2)}, r"kspace\.voxel_size_mm: .* allowed: 3 positive numbers"),
    ],
)
def test_extras_that_do_not_fit_are_refused(tmp_path, kspace, extra, words):
    np.savez(tmp_path / "a.npz", kspace=kspace, **extra)
    with pytest.raises(Any2allError, match=words):
        read_kspace(tmp_path / "a.npz")


@pytest.mark.parametrize("name", [None, "coil_maps", "kspace"])
def test_coil_maps_keep_the_support_of_every_slice(tmp_path, kspace, name):
    """Zero outside the head, as ESPIRiT leaves them, says nothing about a sampling mask."""
    maps = np.ones(kspace.shape, np.complex64)
    maps[0, ..., :9], maps[1, ..., 6:] = 0, 0
    path = tmp_path / ("maps.npy" if name is None else "maps.npz")
    np.save(path, maps) if name is None else np.savez(path, **{name: maps})
    np.testing.assert_array_equal(read_coil_maps(path, kspace), maps)


def test_coil_maps_of_another_shape_are_refused(tmp_path, kspace):
    np.save(tmp_path / "maps.npy", np.ones((2, 12, 16), np.complex64))
    with pytest.raises(Any2allError, match=r"^T1\.coil_maps: .* finite complex \(1 or 2, 3, 12, 16\)"):
        read_coil_maps(tmp_path / "maps.npy", kspace, "T1.coil_maps")
    np.savez(tmp_path / "maps.npz", mask=np.ones(16))
    with pytest.raises(Any2allError, match="holds no coil maps"):
        read_coil_maps(tmp_path / "maps.npz", kspace)
