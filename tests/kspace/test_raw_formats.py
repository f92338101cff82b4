"""fastMRI, ISMRMRD and BART files: the same reconstruction as from the plain array, and every rule of the readers."""

from __future__ import annotations

from dataclasses import replace

import h5py
import ismrmrd
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.kspace.formats import RawKspace, read_coil_maps, read_kspace
from any2all.kspace.fourier import fft2c, ifft2c
from any2all.kspace.orientation import oriented
from any2all.kspace.prepare import prepare
from any2all.kspace.reconstruct import sense
from any2all.kspace.simulate import birdcage_maps, simulate_kspace
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_builders import P_L_S, Readout, header_xml, lines_of, write_bart, write_fastmri, write_ismrmrd
from scipy.spatial.transform import Rotation

MATRIX, FOV = (48, 40, 1), (192.0, 200.0, 5.0)


@pytest.fixture(scope="module")
def kspace(phantom: np.ndarray) -> np.ndarray:
    """(2, 4, 48, 40), every other line and 16 calibration lines."""
    images = phantom[:, ::2, ::2]
    return simulate_kspace(images, coils=4, acceleration=2, acs_lines=16, noise_std=0.002, phase="smooth").kspace


@pytest.fixture(scope="module")
def plain(kspace: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The reconstruction of the plain array."""
    path = tmp_path_factory.mktemp("plain") / "a.npy"
    np.save(path, kspace)
    return reconstruction(read_kspace(path))


def reconstruction(raw: RawKspace) -> np.ndarray:
    return sense(prepare(raw, 0.002))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_fastmri_gives_the_same_image(tmp_path, kspace, plain):
    raw = read_kspace(write_fastmri(tmp_path / "a.h5", kspace, header_xml(MATRIX, FOV)))
    assert raw.voxel_size_mm == (4.0, 5.0, 5.0) and raw.affine is None
    assert relative(reconstruction(raw), plain) < 1e-5


@pytest.mark.parametrize("suffix", [".h5", ".mrd"])
def test_ismrmrd_gives_the_same_image_in_whichever_order_it_was_acquired(tmp_path, kspace, plain, suffix):
    lines = lines_of(kspace, origin=(3, -2, 40))
    for line in lines:  # interleaved: the counter is not where a slice lies
        line.slice = 1 - line.slice
    lines = [lines[i] for i in np.random.default_rng(0).permutation(len(lines))]
    raw = read_kspace(write_ismrmrd(tmp_path / f"a{suffix}", header_xml(MATRIX, FOV), lines))
    np.testing.assert_array_equal(raw.kspace, kspace)
    # LPS (3, -2, 40) is the centre, which index N // 2 is: RAS x grows against W, y against H
    np.testing.assert_allclose(raw.affine, [[0, 0, -5, 97], [0, -4, 0, 98], [5, 0, 0, 40], [0, 0, 0, 1]], atol=1e-4)
    assert relative(reconstruction(raw), plain) < 1e-5


@pytest.mark.parametrize("named", [".cfl", ".hdr"])
def test_bart_gives_the_same_image(tmp_path, kspace, plain, named):
    write_bart(tmp_path / "a", kspace, {0: 2, 1: 3, 3: 1, 13: 0})
    raw = read_kspace(tmp_path / f"a{named}")
    np.testing.assert_array_equal(raw.kspace, kspace)
    assert relative(reconstruction(raw), plain) < 1e-5


def test_maps_in_barts_format_the_first_set_counts(tmp_path, kspace):
    maps = np.stack([np.broadcast_to(birdcage_maps((48, 40), 4), kspace.shape), np.zeros_like(kspace)])
    path = write_bart(tmp_path / "maps", maps, {0: 3, 1: 4, 3: 2, 4: 0, 13: 1})
    np.testing.assert_array_equal(read_coil_maps(path, kspace), maps[0])


def test_undersampled_fastmri_takes_its_mask_but_no_zeros_for_data(tmp_path, kspace):
    """The mask of a test file counts the columns that were filled up with zeros."""
    mask = kspace.any(axis=(0, 1, 2))
    padded = kspace.copy()
    padded[..., :5] = 0
    raw = read_kspace(write_fastmri(tmp_path / "a.h5", padded, header_xml(MATRIX, FOV), mask))
    assert not raw.mask[:, :5].any() and (raw.mask[:, 5:] == mask[5:]).all()
    assert any("hold zeros and count as not measured" in note for note in raw.notes)


def test_single_coil_fastmri(tmp_path, kspace):
    raw = read_kspace(write_fastmri(tmp_path / "a.h5", kspace[:, 0], header_xml(MATRIX, FOV)))
    np.testing.assert_array_equal(raw.kspace, kspace[:, :1])


@pytest.mark.parametrize("kind", ["fastmri", "ismrmrd"])
def test_readout_oversampling_is_removed_exactly(tmp_path, phantom, kind):
    """Twice the field of view along the readout: what is left is the k-space of the phantom alone."""
    maps = birdcage_maps((96, 80), 3)
    coils = maps * phantom[:, None]
    wide = np.zeros((2, 3, 192, 80), np.complex64)
    wide[:, :, 48:144] = coils
    xml = header_xml((192, 80, 1), (480.0, 200.0, 5.0), recon_x=240.0)
    if kind == "fastmri":
        raw = read_kspace(write_fastmri(tmp_path / "a.h5", fft2c(wide), xml))
    else:
        raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", xml, lines_of(fft2c(wide))))
        np.testing.assert_allclose(raw.affine @ [0, 48, 40, 1], [0, 0, 0, 1], atol=1e-4)
    assert raw.voxel_size_mm == pytest.approx((2.5, 2.5, 5.0)) and raw.mask.all()
    assert relative(raw.kspace, fft2c(coils)) < 1e-6
    assert any("96 of 192 rows" in note for note in raw.notes)


def test_oversampling_stays_where_the_echo_is_asymmetric(tmp_path, kspace):
    cut = kspace.copy()
    cut[:, :, :10] = 0
    raw = read_kspace(write_fastmri(tmp_path / "a.h5", cut, header_xml(MATRIX, FOV, recon_x=96.0)))
    assert raw.kspace.shape == kspace.shape and not raw.mask[:10].any()
    assert any("oversampling was kept" in note for note in raw.notes)


def test_partial_fourier_and_asymmetric_echo_are_placed_by_their_centres(tmp_path, kspace):
    """Counters start at the first measured line, samples at the first measured one: the rest is not measured."""
    lines = []
    for line in lines_of(kspace):
        if line.line >= 12:
            lines.append(Readout(line.samples[:, 8:], line.line - 12, slice=line.slice, centre=16))
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", header_xml(MATRIX, FOV, centres=(8, None)), lines))
    expected = kspace.copy()
    expected[:, :, :8], expected[..., :12] = 0, 0
    np.testing.assert_array_equal(raw.kspace, expected)
    np.testing.assert_array_equal(raw.mask, expected.any(axis=(0, 1)))
    assert prepare(raw, 0.002).true_acceleration == pytest.approx(48 * 40 / expected[0, 0].astype(bool).sum())


def test_samples_to_discard_and_reversed_readouts(tmp_path, kspace):
    lines = []
    for line in lines_of(kspace[:1]):
        noisy = np.concatenate([np.full((4, 3), 9), line.samples, np.full((4, 2), 9)], axis=1)
        reverse = line.line % 4 == 0
        samples, discard, centre = (noisy[:, ::-1], (2, 3), 53 - 1 - 27) if reverse else (noisy, (3, 2), 27)
        lines.append(Readout(samples, line.line, flags=(22,) * reverse, centre=centre, discard=discard))
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", header_xml(MATRIX, FOV), lines))
    np.testing.assert_array_equal(raw.kspace, kspace[:1])


def calibration_flags(line):
    """Of every second line near the middle, as of 40 lines at R = 2."""
    return (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,) * (abs(line.line - 20) < 8 and line.line % 2 == 1)


def test_what_is_not_imaging_is_sorted_out(tmp_path, kspace):
    """Noise, navigators, another repetition, averages, calibration lines of this and of another resolution."""
    rng = np.random.default_rng(1)
    lines = []
    for line in lines_of(kspace):
        flags = calibration_flags(line)
        for average, change in ((0, 0.5), (1, -0.5)):
            counters = (("average", average),)
            lines.append(Readout(line.samples + change, line.line, slice=line.slice, flags=flags, counters=counters))
        lines.append(Readout(line.samples * 7, line.line, slice=line.slice, counters=(("repetition", 1),)))
    lines.append(Readout(lines[0].samples * 5, 20, flags=(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,)))
    lines.append(Readout(np.ones((4, 12)), 20, flags=(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,)))
    lines.append(Readout(np.ones((4, 48)), 3, flags=(ismrmrd.ACQ_IS_NAVIGATION_DATA,)))
    lines.append(Readout(np.ones((4, 48)), 3, flags=(ismrmrd.ACQ_IS_PHASECORR_DATA,)))
    noise = rng.normal(size=(2, 4, 20000))
    lines.insert(0, Readout(noise[0] + 1j * noise[1], flags=(ismrmrd.ACQ_IS_NOISE_MEASUREMENT,), dwell_us=10.0))
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", header_xml(MATRIX, FOV), lines))
    np.testing.assert_allclose(raw.kspace, kspace, atol=1e-5)
    # E|n|^2 = 2, twice the bandwidth doubles it, and two averages halve it
    np.testing.assert_allclose(raw.noise_covariance, 2 * np.eye(4), atol=0.1)
    for words in (
        "2 navigation, correction or other lines were dropped",
        "the first of 2 repetitions was taken",
        "1 calibration lines of another resolution were dropped",
        "2 averages of a line were averaged",
        "1 noise scans",
    ):
        assert any(words in note for note in raw.notes), words


@pytest.mark.parametrize("counter", ["contrast", "set", "phase", "repetition"])
def test_calibration_lines_of_another_contrast_are_left_out(tmp_path, kspace, counter):
    block = np.abs(np.arange(40) - 20) < 8
    lines = []
    for line in lines_of(kspace):
        flags = calibration_flags(line)
        for number, factor in ((0, 1.0), (1, -0.8)):
            counters = ((counter, number),)
            lines.append(Readout(line.samples * factor, line.line, slice=line.slice, flags=flags, counters=counters))
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", header_xml(MATRIX, FOV), lines))
    np.testing.assert_allclose(raw.kspace, kspace, atol=1e-5)
    shared = [line for line in lines if not line.flags or line.counters[0][1] == 1]  # all calibration is of the other
    raw = read_kspace(write_ismrmrd(tmp_path / "b.h5", header_xml(MATRIX, FOV), shared))
    odd = np.flatnonzero(block & (np.arange(40) % 2 == 1))
    np.testing.assert_allclose(raw.kspace[..., odd], -0.8 * kspace[..., odd], atol=1e-5)


@pytest.mark.parametrize("gone", ["lines", "samples", "corners"])
def test_ismrmrd_that_was_filled_up_with_zeros_counts_them_as_not_measured(tmp_path, kspace, gone):
    y, x = np.meshgrid(*(np.abs(np.arange(n) - n // 2) / (n // 2) for n in kspace.shape[2:]), indexing="ij")
    kept = {"lines": (np.arange(40) % 2 == 0) | (x < 0.3), "samples": (y < 0.6) | (x > 2), "corners": x**2 + y**2 < 1}
    mask = np.broadcast_to(kept[gone], y.shape)
    lines = [
        Readout((kspace * mask)[z, :, :, w], line=w, slice=z, position=(0, 0, 5.0 * z))
        for z in range(len(kspace))
        for w in range(kspace.shape[3])
    ]
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", header_xml(MATRIX, FOV), lines))
    assert (raw.mask == (mask & kspace.any(axis=(0, 1)))).all()
    assert any("hold zeros in all slices and coils and count as not measured" in note for note in raw.notes)


def test_lines_of_several_places_that_are_counted_as_one_slice_are_refused(tmp_path, kspace):
    lines = [replace(line, slice=0) for line in lines_of(kspace)]
    with pytest.raises(Any2allError, match="counted as one slice lie in several places"):
        read_kspace(write_ismrmrd(tmp_path / "a.h5", header_xml(MATRIX, FOV), lines))


@pytest.mark.parametrize("whole", [True, False])
def test_zeros_inside_a_mask_count_as_not_measured(tmp_path, kspace, whole):
    y, x = np.meshgrid(*(np.abs(np.arange(n) - n // 2) / (n // 2) for n in kspace.shape[2:]), indexing="ij")
    ellipse = (x**2 + y**2 < 1) & kspace.any(axis=(0, 1))
    given = np.ones(kspace.shape[2:] if whole else kspace.shape[3:], np.float32)
    np.savez(tmp_path / "a.npz", kspace=kspace * ellipse, mask=given, voxel_size_mm=[4.0, 4.0, 5.0])
    raw = read_kspace(tmp_path / "a.npz")
    assert (raw.mask == ellipse).all() and any("hold zeros" in note for note in raw.notes)


def test_what_a_file_says_twice_is_told(tmp_path, kspace):
    both = {"noise_covariance": np.eye(4), "noise_std": 0.1, "affine": np.diag([5.0, 4.0, 4.0, 1.0])}
    np.savez(tmp_path / "a.npz", kspace=kspace, voxel_size_mm=[1.0, 1.0, 1.0], **both)
    raw = read_kspace(tmp_path / "a.npz")
    assert "the file's noise_covariance counts, not its noise_std" in raw.notes
    assert "the file's affine counts, not its voxel_size_mm" in raw.notes and raw.voxel_size_mm == (4, 4, 5)
    np.savez(tmp_path / "b.npz", kspace=kspace, voxel_size_mm=[1.0, 1.0, 1.0], noise_std=0.1)
    assert not any("counts, not" in note for note in read_kspace(tmp_path / "b.npz").notes)


@pytest.mark.parametrize("factor", [1.0, np.pi / 24])
def test_a_trajectory_that_hardly_leaves_the_middle_is_doubted(tmp_path, factor):
    angles = np.arange(40) * 2.4
    spokes = np.linspace(-24, 23, 48)[None, :, None] * np.stack([np.sin(angles), np.cos(angles)], -1)[:, None]
    samples = np.ones((1, 2, 40, 48), np.complex64)
    given = {"trajectory": spokes * factor, "matrix": [48, 48], "voxel_size_mm": [4.0, 4.0, 5.0]}
    np.savez(tmp_path / "a.npz", kspace=samples, **given)
    doubts = [note for note in read_kspace(tmp_path / "a.npz").notes if "is its unit right?" in note]
    assert len(doubts) == (factor != 1.0)


TURNS = {
    "as it is": (P_L_S, (0, 0, 0)),
    "readout from left": (((1, 0, 0), (0, 1, 0), (0, 0, 1)), (0, 0, 0)),
    "all backwards": (((0, -1, 0), (-1, 0, 0), (0, 0, -1)), (0, 0, 0)),
    "swapped and backwards": (((-1, 0, 0), (0, 1, 0), (0, 0, -1)), (0, 0, 0)),
    "oblique": (((0, -1, 0), (1, 0, 0), (0, 0, 1)), (12, -8, 20)),
}


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("case", TURNS)
def test_geometry_of_the_header_puts_every_voxel_where_it_is(tmp_path, case, odd):
    """Turned to (S, P, L) exactly: the image at every point of space is that of the readouts as they were stored."""
    directions, angles = TURNS[case]
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    directions = tuple(tuple(turn @ np.array(d, float)) for d in directions)
    h, w = (13, 11) if odd else (12, 10)
    rng = np.random.default_rng(2)
    image = (rng.normal(size=(3, 2, h, w)) + 1j * rng.normal(size=(3, 2, h, w))).astype(np.complex64)
    xml, origin = header_xml((h, w, 1), (3.0 * h, 2.0 * w, 5.0)), (7, -11, 30)
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", xml, lines_of(fft2c(image), 6.0, directions, origin)))
    turned = oriented(raw)
    found = ifft2c(turned.kspace)
    for index in [(0, 0, 0), (1, 3, 7), (2, h - 1, w - 1), (0, h // 2, w // 2)]:
        read, phase, normal = (np.array(d, float) for d in directions)
        lps = np.array(origin, float) + 6 * index[0] * normal
        lps = lps + 3 * (index[1] - h // 2) * read + 2 * (index[2] - w // 2) * phase
        there = np.linalg.solve(turned.affine, [-lps[0], -lps[1], lps[2], 1])[:3]
        z, y, x = np.rint(there).astype(int)
        np.testing.assert_allclose(there, [z, y, x], atol=1e-4)
        np.testing.assert_allclose(found[z, :, y, x], image[index[0], :, index[1], index[2]], atol=1e-5)
    axes = turned.affine[:3, :3] / np.linalg.norm(turned.affine[:3, :3], axis=0)
    assert axes[2, 0] > 0.8 and axes[1, 1] < -0.8 and axes[0, 2] < -0.8


def test_3d_data_is_taken_apart_along_z_or_along_the_readout(tmp_path):
    rng = np.random.default_rng(3)
    volume = (rng.normal(size=(2, 12, 10, 6)) + 1j * rng.normal(size=(2, 12, 10, 6))).astype(np.complex64)

    def transformed(axes):
        shifted = np.fft.ifftshift(volume, axes=axes)
        return np.fft.fftshift(np.fft.fftn(shifted, axes=axes, norm="ortho"), axes=axes).astype(np.complex64)

    kspace = transformed((1, 2, 3))
    write_bart(tmp_path / "full", kspace, {3: 0, 0: 1, 1: 2, 2: 3})
    full = read_kspace(tmp_path / "full.cfl")
    np.testing.assert_allclose(full.kspace, np.moveaxis(transformed((1, 2)), 3, 0), atol=1e-5)
    mask = rng.random((10, 6)) < 0.5
    write_bart(tmp_path / "some", kspace * mask, {3: 0, 0: 1, 1: 2, 2: 3})
    some = read_kspace(tmp_path / "some.cfl")
    np.testing.assert_allclose(some.kspace, np.moveaxis(transformed((2, 3)), 1, 0) * mask, atol=1e-5)
    np.testing.assert_array_equal(some.mask, mask)
    # with a geometry, slices lie across the axis that rises: here the readout, of a sagittal scan
    sagittal = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    readouts = [
        Readout(kspace[:, :, w, d], w, d, directions=sagittal, position=(1, 2, 3)) for w in range(10) for d in range(6)
    ]
    raw = read_kspace(write_ismrmrd(tmp_path / "a.h5", header_xml((12, 10, 6), (36.0, 20.0, 24.0)), readouts))
    np.testing.assert_allclose(raw.kspace, np.moveaxis(transformed((2, 3)), 1, 0), atol=1e-5)
    np.testing.assert_allclose(raw.affine @ [6, 5, 3, 1], [-1, -2, 3, 1], atol=1e-4)
    assert raw.voxel_size_mm == pytest.approx((2, 4, 3))
    with pytest.raises(Any2allError, match="no axis that is fully sampled"):
        scattered = kspace * (rng.random(kspace.shape[1:]) < 0.5)
        read_kspace(write_bart(tmp_path / "none", scattered, {3: 0, 0: 1, 1: 2, 2: 3}))


# -- refusals --------------------------------------------------------------------------------------------------------


def test_damaged_bart_pairs_are_refused_in_words(tmp_path, kspace):
    path = write_bart(tmp_path / "a", kspace, {0: 2, 1: 3, 3: 1, 13: 0})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Any2allError, match=r"^T1: the .cfl file does not have the size that its .hdr says; got '\d+"):
        read_kspace(path, "T1")
    for text in ("", "# Dimensions\n", "# Dimensions\n4 -3", "# Dimensions\n4 x", "# Dimensions\n" + "2 " * 17):
        path.with_suffix(".hdr").write_text(text)
        with pytest.raises(Any2allError, match="holds no dimensions"):
            read_kspace(path)
    path.with_suffix(".hdr").write_text("# Dimensions\n" + "999999999 " * 3)
    with pytest.raises(Any2allError, match="too large"):
        read_kspace(path)
    path.with_suffix(".hdr").unlink()
    with pytest.raises(Any2allError, match=r"the .hdr file that belongs to the .cfl is missing; got 'a.hdr'"):
        read_kspace(path)
    echoes = write_bart(tmp_path / "b", kspace, {0: 2, 1: 3, 3: 1, 5: 0})
    with pytest.raises(Any2allError, match="dimensions that are not used here; got 'dimension 5 is 2'"):
        read_kspace(echoes)


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("no xml", "header is no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "defines entities"),
        ("<a/>", "has no encoding"),
        (header_xml((48, 41, 1), FOV), r"matrix that its header says; .* allowed: \(slices, coils, 48, 41\)"),
        (header_xml((48, 0, 1), FOV), "no encoded matrix"),
        (header_xml(MATRIX, (0.0, 1.0, 1.0)), "no field of view"),
    ],
)
def test_headers_that_cannot_be_used_are_refused_in_words(tmp_path, kspace, xml, words):
    with pytest.raises(Any2allError, match=r"^T1: .*" + words):
        read_kspace(write_fastmri(tmp_path / "a.h5", kspace, xml), "T1")


def test_ismrmrd_that_does_not_fit_together_is_refused_in_words(tmp_path, kspace):
    lines, xml = lines_of(kspace), header_xml(MATRIX, FOV)

    def refused(words: str, readouts: list[Readout], header: str = xml) -> None:
        (tmp_path / "a.h5").unlink(missing_ok=True)
        with pytest.raises(Any2allError, match=r"^T1: .*" + words):
            read_kspace(write_ismrmrd(tmp_path / "a.h5", header, readouts), "T1")

    refused("trajectory of this raw data is not read; got 'epi'", lines, header_xml(MATRIX, FOV, trajectory="epi"))
    refused("lines lie outside of the encoded matrix: encoding step 1", [*lines, Readout(lines[0].samples, 40)])
    of_slices = [replace(line, partition=3 * line.slice) for line in lines]  # a second counter of the slice
    assert read_kspace(write_ismrmrd(tmp_path / "b.h5", xml, of_slices)).kspace.shape == kspace.shape
    slab = [replace(line, partition=number % 4) for number, line in enumerate(lines)]  # 3-D data, but not to the header
    refused("outside of the encoded matrix: encoding step 2; got '0 to 3 about 0'; allowed: '?1 lines", slab)
    refused("coils changes from line to line", [*lines, Readout(np.ones((3, 48)), 3)])
    refused("does not fit into the encoded matrix", [Readout(np.ones((4, 50)), 3)])
    refused("no imaging lines", [Readout(np.ones((4, 48)), flags=(19,))])
    refused("much larger than what was measured", lines[:1], header_xml((16384, 16384, 1), FOV))
    uneven = [Readout(np.ones((4, 48)), slice=z, position=(0, 0, p)) for z, p in enumerate((0, 5, 12))]
    refused("do not lie at equal distances", uneven)


def test_a_file_that_points_out_of_itself_is_refused(tmp_path, kspace):
    np.save(tmp_path / "secret.npy", kspace)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kspace"] = kspace
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("other.h5", "/kspace")
    with pytest.raises(Any2allError, match="refers to another place"):
        read_kspace(tmp_path / "a.h5")


@pytest.fixture(scope="module")
def whole_files(kspace, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    small = kspace[:1, :2, 16:32, 12:28]
    xml = header_xml((16, 16, 1), FOV)
    files = [write_fastmri(folder / "f.h5", small, xml), write_ismrmrd(folder / "i.h5", xml, lines_of(small))]
    bart = write_bart(folder / "b", small, {0: 2, 1: 3, 3: 1, 13: 0})
    return {file.name: file.read_bytes() for file in (*files, bart, bart.with_suffix(".hdr"))}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["f.h5", "i.h5", "b.cfl", "b.hdr"]), st.integers(0, 10**6), st.integers(0, 3), st.randoms())
def test_damaged_files_of_every_kind_are_read_or_refused_in_words(
    tmp_path_factory, whole_files, name, cut, kind, random
):
    """Cut anywhere, or with bytes changed: an Any2allError or finite data, never anything else."""
    data = bytearray(whole_files[name])
    if kind < 2:
        data = data[: cut % len(data)]
    else:
        for _ in range(8 * kind):
            data[random.randrange(len(data))] = random.randrange(256)
    folder = tmp_path_factory.mktemp("damaged")
    for other, content in whole_files.items():
        (folder / other).write_bytes(bytes(data) if other == name else content)
    try:
        raw = read_kspace(folder / name, "T1")
    except Any2allError as error:
        assert error.key.startswith("T1")
    else:
        assert np.isfinite(raw.kspace).all()
