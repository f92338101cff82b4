"""Reading: what is taken, and the words for what is refused."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from any2all.errors import Any2allError
from any2all.geometry import read_volume

AFFINE = np.array([[-1.0, 0.02, 0.1, 60], [0.02, 1.0, 0.2, -70], [-0.05, -0.1, 3.0, -40], [0, 0, 0, 1]])
q, _ = np.linalg.qr(AFFINE[:3, :3])
AFFINE[:3, :3] = q * np.sign(np.diag(q)) * np.array([-1, 1, 1]) * np.array([1.1, 0.9, 3.0])


def noise(shape=(12, 10, 8)):
    return np.random.default_rng(0).normal(100, 30, shape).astype(np.float32)


def save(path, data=None, affine=AFFINE, code=1):
    image = nib.Nifti1Image(noise() if data is None else data, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def refusal(path, words):
    with pytest.raises(Any2allError, match=words) as caught:
        read_volume(path, "modalities.T1.file")
    assert caught.value.key == "modalities.T1.file" and "\n" not in str(caught.value)
    assert str(path.parent) not in str(caught.value), "no path of the machine in the words"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_with_its_affine(tmp_path, name):
    volume = read_volume(save(tmp_path / name), "k")
    assert np.array_equal(volume.data, noise())
    assert np.allclose(volume.grid.affine, AFFINE, atol=1e-5)


def test_scaled_integers_and_a_trailing_axis(tmp_path):
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5, 1), AFFINE)
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "a.nii")
    raw = nib.load(tmp_path / "a.nii").get_fdata()[..., 0]
    assert np.allclose(read_volume(tmp_path / "a.nii", "k").data, raw)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_itk_formats_have_the_geometry_of_nifti(tmp_path, suffix):
    image = sitk.ReadImage(str(save(tmp_path / "a.nii.gz")))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}", "k")
    assert np.allclose(volume.grid.affine, AFFINE, atol=1e-4)
    assert np.array_equal(volume.data, noise())


def test_missing_and_unknown_files(tmp_path):
    refusal(tmp_path / "none.nii.gz", "does not exist")
    (tmp_path / "a.dcm").write_bytes(b"x")
    refusal(tmp_path / "a.dcm", "unknown image format.*nii")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("content", [b"", b"no image at all" * 100])
def test_rubbish(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name, "unreadable|no geometry|not in the file")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_truncated_files(tmp_path, name):
    whole = tmp_path / f"whole{name[1:]}"
    sitk.WriteImage(sitk.ReadImage(str(save(tmp_path / "b.nii", noise((30, 30, 30))))), str(whole))
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: int(0.6 * len(content))])
    refusal(tmp_path / name, "unreadable or truncated")


def test_damaged_gzip(tmp_path):
    content = bytearray(save(tmp_path / "b.nii.gz", noise((30, 30, 30))).read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    (tmp_path / "a.nii.gz").write_bytes(bytes(content))
    refusal(tmp_path / "a.nii.gz", "unreadable")


def with_value(value):
    data = noise()
    data[3, 4, 5] = value
    return data


@pytest.mark.parametrize(
    "data, words",
    [
        (noise((6, 6, 6, 3)), "not 3-D"),
        (noise((6, 6, 1)), "too few"),
        (noise((6, 6)), "not 3-D"),
        (with_value(np.nan), "NaN"),
        (with_value(np.inf), "infinite"),
        (np.full((6, 6, 6), 7.0, np.float32), "constant"),
        (noise((6, 6, 6)).astype(np.complex64), "one real number"),
    ],
)
def test_images_that_are_none(tmp_path, data, words):
    refusal(save(tmp_path / "a.nii.gz", data), words)


def test_geometry_that_is_none(tmp_path):
    refusal(save(tmp_path / "a.nii", code=0), "no geometry")
    singular = AFFINE.copy()
    singular[:3, 2] = 0
    refusal(broken_sform(tmp_path / "b.nii", singular), "voxel size")
    refusal(broken_sform(tmp_path / "c.nii", AFFINE * np.array([1000, 1000, 1000, 1.0])), "voxel size")
    refusal(broken_sform(tmp_path / "d.nii", AFFINE * np.nan), "voxel size")
    flat = AFFINE.copy()
    flat[:3, 2] = 3 * flat[:3, 1]
    refusal(broken_sform(tmp_path / "e.nii", flat), "right angles")
    tilted = np.diag([1.0, 1, 3, 1])
    tilted[1, 2] = 1.0
    refusal(broken_sform(tmp_path / "f.nii", tilted), "right angles")


def test_a_header_that_rounds_its_axes_is_taken(tmp_path):
    rounded = np.diag([1.0, 1, 3, 1])
    rounded[1, 2] = 0.03
    assert np.allclose(read_volume(broken_sform(tmp_path / "a.nii", rounded), "k").grid.affine, rounded)


def broken_sform(path, affine):
    header = nib.Nifti1Header()
    header.set_data_shape((6, 6, 6))
    header.set_data_dtype(np.float32)
    header["sform_code"] = 1
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock + bytes(4) + noise((6, 6, 6)).tobytes())
    return path


def test_units_other_than_mm(tmp_path):
    image = nib.Nifti1Image(noise(), AFFINE)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    refusal(tmp_path / "a.nii", "not in mm")


def test_headers_may_not_name_other_files(tmp_path):
    image = sitk.ReadImage(str(save(tmp_path / "a.nii.gz")))
    sitk.WriteImage(image, str(tmp_path / "b.mhd"))
    header = (tmp_path / "b.mhd").read_text()
    (tmp_path / "b.mha").write_text(header)
    refusal(tmp_path / "b.mha", "not in the file itself")
    refusal(tmp_path / "b.mhd", "unknown image format")
    sitk.WriteImage(image, str(tmp_path / "c.nrrd"))
    raw = (tmp_path / "c.nrrd").read_bytes()
    (tmp_path / "d.nrrd").write_bytes(raw.replace(b"encoding:", b"data file: c.raw\nencoding:", 1))
    refusal(tmp_path / "d.nrrd", "not in the file itself")


@pytest.mark.parametrize(
    "hide",
    [
        lambda head, secret: head.replace(b"encoding:", b"content: a\rdata file: " + secret + b"\nencoding:", 1),
        lambda head, secret: head.replace(b"encoding:", b"data file: " + secret + b"\nencoding:", 1),
        lambda head, secret: head.replace(
            b"encoding:", b"#" * (1 << 16) + b"\ndata file: " + secret + b"\nencoding:", 1
        ),
    ],
)
def test_an_nrrd_header_cannot_name_another_file(tmp_path, hide):
    """ITK ends a line at a bare CR and reads on beyond any length."""
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(range(256)) * 64)
    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(tmp_path / "a.nrrd"))
    good = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "b.nrrd").write_bytes(hide(good, str(secret).encode()))
    refusal(tmp_path / "b.nrrd", "not in the file itself")


def test_an_mha_header_cannot_name_another_file(tmp_path):
    """Of two names ITK reads the one that is not local."""
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(range(256)) * 64)
    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(tmp_path / "a.mha"))
    good, local = (tmp_path / "a.mha").read_bytes(), b"ElementDataFile = LOCAL\n"
    assert local in good
    other = b"ElementDataFile = " + str(secret).encode() + b"\n"
    (tmp_path / "b.mha").write_bytes(good.replace(local, other + local, 1))
    refusal(tmp_path / "b.mha", "not in the file itself")


def test_nrrd_without_geometry(tmp_path):
    body = gzip.compress(noise().tobytes())
    head = b"NRRD0004\ntype: float\ndimension: 3\nsizes: 12 10 8\nendian: little\nencoding: gzip\n\n"
    (tmp_path / "a.nrrd").write_bytes(head + body)
    refusal(tmp_path / "a.nrrd", "no geometry")
