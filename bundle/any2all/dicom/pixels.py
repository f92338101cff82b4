"""Stored pixel values of a file, whatever its transfer syntax: pydicom's decoders, else GDCM through SimpleITK."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from ..errors import Any2allError
from .header import quiet
from .planes import refused

_ITEM = b"\xfe\xff\x00\xe0"  # begins compressed pixel data
_PIXEL_ATTRIBUTES = """Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel
PhotometricInterpretation NumberOfFrames SOPInstanceUID PixelData"""


def stored_values(path: Path) -> np.ndarray:
    """Stored values (frames, rows, columns) of one file, before any rescaling.

    Raises:
        Any2allError: a colour image, pixel data that are missing, too short or not what the transfer syntax says, or
            a transfer syntax that nothing here can decode.
    """
    try:
        with quiet():
            return _stored_values(pydicom.dcmread(path, force=True), path)
    except Any2allError:
        raise
    except Exception as error:  # pydicom raises a dozen kinds on a broken file; each means the same to the user
        raise refused("a file is damaged or truncated", f"{path.name} ({type(error).__name__})") from None


def _stored_values(image: Dataset, path: Path) -> np.ndarray:
    shape = (int(image.get("NumberOfFrames") or 1), int(image.Rows), int(image.Columns))
    syntax = image.file_meta.get("TransferSyntaxUID") if hasattr(image, "file_meta") else None
    if syntax is None:
        syntax = ImplicitVRLittleEndian if image.is_implicit_VR else ExplicitVRLittleEndian
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = syntax
    if image.get("SamplesPerPixel", 1) != 1 or not str(image.get("PhotometricInterpretation", "")).startswith("MONO"):
        said = f"{image.get('PhotometricInterpretation')}, {image.get('SamplesPerPixel', 1)} values per pixel"
        raise refused("this is a colour image", said, "one value per pixel")
    if "PixelData" not in image:
        raise refused("a file has no pixel data", path.name)
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise refused("the transfer syntax is not known", str(syntax), "one of the DICOM standard")
    if not syntax.is_compressed:
        _check_native(image, shape, path)
    stored = int(image.BitsStored)
    return _significant(
        _decoded(image, shape, path), int(image.BitsAllocated), stored, int(image.get("HighBit", stored - 1))
    )


def _check_native(image: Dataset, shape: tuple[int, int, int], path: Path) -> None:
    expected, there = int(np.prod(shape)) * int(image.BitsAllocated) // 8, len(image.PixelData)
    if image.PixelData[:4] == _ITEM and there != expected:
        raise refused(
            "the pixel data are compressed, but the transfer syntax says that they are not",
            f"{path.name}, {image.file_meta.TransferSyntaxUID.name}",
        )
    if there < expected:
        raise refused("the pixel data are truncated", f"{path.name}: {there} bytes", f"{expected} bytes")


def _decoded(image: Dataset, shape: tuple[int, int, int], path: Path) -> np.ndarray:
    reasons = []
    for decode in (_by_pydicom, _by_gdcm):
        try:
            values = decode(image)
        except Exception as error:  # decoders raise their own kinds; the next one may know the syntax
            reasons.append(" ".join(str(error).split())[:80] or type(error).__name__)
            continue
        if values.size == np.prod(shape):
            return values.reshape(shape)
        reasons.append(f"{values.size} values decoded instead of {int(np.prod(shape))}")
    raise refused(
        "the pixel data cannot be decoded",
        f"{path.name}, transfer syntax {image.file_meta.TransferSyntaxUID.name} ({reasons[0]})",
        hint="the file is damaged, or says the wrong transfer syntax; else convert it to an uncompressed one",
    )


def _by_pydicom(image: Dataset) -> np.ndarray:
    return np.asarray(image.pixel_array)


def _by_gdcm(image: Dataset) -> np.ndarray:
    """Through a file that holds the pixels only, so that GDCM rescales nothing."""
    import SimpleITK as sitk

    bare = Dataset()
    for keyword in _PIXEL_ATTRIBUTES.split():
        if keyword in image:
            bare[keyword] = image[keyword]
    bare.SOPClassUID = SecondaryCaptureImageStorage
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = image.file_meta.TransferSyntaxUID
    bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID
    bare.is_little_endian, bare.is_implicit_VR = True, False
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "pixels.dcm")
            bare.save_as(file, write_like_original=False)
            return sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _significant(values: np.ndarray, allocated: int, stored: int, high: int) -> np.ndarray:
    """Without the bits above the stored ones (old scanners keep overlays there), sign extended."""
    if stored >= allocated or values.dtype.itemsize * 8 != allocated or values.dtype.kind not in "iu":
        return values
    shifted = np.left_shift(values, allocated - 1 - high)
    return np.right_shift(shifted, allocated - stored)
