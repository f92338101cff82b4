"""Reading one 3-D image and refusing, in words, what is none."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import Any2allError
from .grid import Grid, Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".mha")
MOST_VOXELS = 2**30
SPACING_RANGE_MM = (0.05, 50.0)
MOST_SHEAR = 0.02  # cosine between two axes: rounding of a header, but not a tilted gantry
_HEADER_BYTES = 1 << 16
_LINES = re.IGNORECASE | re.MULTILINE
_NRRD_END = re.compile(rb"\r?\n\r?\n")
_NRRD_ELSEWHERE = re.compile(rb"^\s*data ?file\s*:(?!=)", _LINES)
_NRRD_GEOMETRY = re.compile(rb"^\s*space directions\s*:", _LINES)
_MHA_END = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*LOCAL[ \t]*\r?\n", _LINES)
_MHA_GEOMETRY = re.compile(rb"^\s*(TransformMatrix|Orientation|Rotation)\s*=", _LINES)


def read_volume(path: str | Path, key: str) -> Volume:
    """Read a 3-D image (NIfTI, NRRD, MHA) with its RAS affine.

    Args:
        path: the file.
        key: the study key that names it, for the words of an error.

    Returns:
        The volume in the file's own axis order.

    Raises:
        Any2allError: no such file, unknown or unreadable format, not 3-D, no usable geometry, NaN or infinite
            values, a constant image.
    """
    path = Path(path)
    name = path.name.lower()
    if not path.is_file():
        raise Any2allError("the file does not exist", key=key, value=path.name, code="invalid_image")
    if name.endswith(NIFTI_SUFFIXES):
        data, affine = _read_nifti(path, key)
    elif name.endswith(ITK_SUFFIXES):
        data, affine = _read_itk(path, key)
    else:
        raise _refused("unknown image format", key, path.name, allowed=NIFTI_SUFFIXES + ITK_SUFFIXES)
    _check_affine(affine, key)
    _check_data(data, key)
    return Volume(data, Grid(data.shape, affine))


def _refused(
    message: str, key: str, value: object = None, allowed: object = None, hint: str | None = None
) -> Any2allError:
    return Any2allError(message, key=key, value=value, allowed=allowed, hint=hint, code="invalid_image")


def _read_nifti(path: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise ValueError("not a NIfTI file")
        shape, kind = image.shape, image.get_data_dtype().kind
        coded = image.header["sform_code"] > 0 or image.header["qform_code"] > 0
        units = image.header.get_xyzt_units()[0]
    except Exception as error:  # nibabel raises a dozen kinds on a broken file; each means the same to the user
        raise _unreadable(path, key, error) from error
    shape = _three_axes(shape, key)
    if kind not in "iuf":
        raise _refused("the image does not hold one real number per voxel", key, str(image.get_data_dtype()))
    if not coded:
        raise _refused("the image has no geometry (sform and qform codes are 0)", key, path.name)
    if units not in ("mm", "unknown"):
        raise _refused("the image's geometry is not in mm", key, units, allowed=("mm",))
    try:
        _check_gzip(path)
        data = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except Exception as error:  # a truncated file shows itself only here
        raise _unreadable(path, key, error) from error
    return data, np.asarray(image.affine, dtype=np.float64)


def _check_gzip(path: Path) -> None:
    """Read a .gz to its end, where its checksum stands: nibabel stops short of it and takes damaged voxels."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass


def _read_itk(path: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK as sitk

    _check_itk_header(path, key)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, key, error) from error
    shape = _three_axes(reader.GetSize(), key)
    if reader.GetNumberOfComponents() != 1:
        raise _refused("the image does not hold one real number per voxel", key, reader.GetNumberOfComponents())
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        data = sitk.GetArrayFromImage(reader.Execute()).T.reshape(shape)
    except RuntimeError as error:
        raise _unreadable(path, key, error) from error
    affine = np.eye(4)
    affine[:3, :3] = np.array(reader.GetDirection()[:]).reshape(len(reader.GetSize()), -1)[:3, :3]
    affine[:3, :3] *= np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    return np.ascontiguousarray(data), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS


def _check_itk_header(path: Path, key: str) -> None:
    """Data in the file itself (a header may name any other file of the machine), and a geometry.

    What ITK could read otherwise than this does is refused: a header without an end, a line ended by a bare CR, a
    second ``ElementDataFile`` (the last one would count).
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    nrrd = path.name.lower().endswith(".nrrd")
    end = (_NRRD_END if nrrd else _MHA_END).search(head)
    header = head[: end.end()] if end else b""
    elsewhere = _NRRD_ELSEWHERE.search(header) if nrrd else header.lower().count(b"elementdatafile") != 1
    if not end or elsewhere or re.search(rb"\r(?!\n)", header):
        raise _refused("the image's data are not in the file itself", key, path.name, allowed="one file that holds all")
    if not (_NRRD_GEOMETRY if nrrd else _MHA_GEOMETRY).search(header):
        raise _refused("the image has no geometry", key, path.name)


def _unreadable(path: Path, key: str, error: Exception) -> Any2allError:
    reason = " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__
    return _refused(f"the file is unreadable or truncated ({reason[:120]})", key, path.name)


def _three_axes(shape: tuple[int, ...], key: str) -> tuple[int, int, int]:
    """A 3-D shape; further axes of length 1 are dropped."""
    shape = tuple(int(n) for n in shape)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise _refused("the image is not 3-D", key, " x ".join(map(str, shape)), hint="give one volume per file")
    if min(shape[:3]) < 2 or np.prod(shape[:3], dtype=np.float64) > MOST_VOXELS:
        raise _refused(
            "the image has too few or too many voxels",
            key,
            " x ".join(map(str, shape[:3])),
            allowed=f"at least 2 along every axis, at most {MOST_VOXELS} in all",
        )
    return shape[0], shape[1], shape[2]


def _check_affine(affine: np.ndarray, key: str) -> None:
    columns = affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    lowest, highest = SPACING_RANGE_MM
    if not np.isfinite(affine).all() or not ((spacing >= lowest) & (spacing <= highest)).all():
        raise _refused(
            "the image's voxel size is not usable",
            key,
            np.array2string(spacing, precision=4),
            allowed=f"{lowest} to {highest} mm along every axis",
        )
    cosines = np.abs((columns / spacing).T @ (columns / spacing) - np.eye(3)).max()
    if cosines > MOST_SHEAR:
        raise _refused(
            "the image's axes are not at right angles",
            key,
            f"cosine {cosines:.3f}",
            allowed=f"at most {MOST_SHEAR}",
            hint="resample a tilted acquisition first",
        )


def _check_data(data: np.ndarray, key: str) -> None:
    if not np.isfinite(data).all():
        raise _refused("the image holds NaN or infinite values", key, f"{int((~np.isfinite(data)).sum())} voxels")
    if float(data.min()) == float(data.max()):
        raise _refused("the image is constant", key, float(data.min()))
