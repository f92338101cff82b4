"""One file's header: is it DICOM at all, and a value of one of its frames, classic or enhanced.

Only the attributes named here are kept in memory, so that a folder of many thousand files fits.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

PHILIPS_SCALE_SLOPE = 0x2005100E
PHILIPS_SUV_FACTOR = 0x70531000
PHILIPS_ACTIVITY_FACTOR = 0x70531009
GE_SCAN_DATETIME = 0x0009100D
_IDENTITY = """SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID PatientID PatientName
IssuerOfPatientID OtherPatientIDs PatientBirthDate PatientSex PatientAge PatientWeight AccessionNumber StudyID StudyDate
StudyTime StudyDescription ReferringPhysicianName SeriesNumber SeriesDescription ProtocolName InstanceNumber
Manufacturer ManufacturerModelName ContributingEquipmentSequence BurnedInAnnotation
LossyImageCompression"""
_PIXELS = """Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel NumberOfFrames
PhotometricInterpretation PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept RescaleType"""
_GEOMETRY = """ImagePositionPatient ImageOrientationPatient PixelSpacing GantryDetectorTilt
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"""
_ACQUISITION = """Modality ImageType BodyPartExamined RepetitionTime EchoTime EffectiveEchoTime InversionTime
ScanningSequence SequenceVariant SequenceName PulseSequenceName EchoTrainLength FlipAngle MagneticFieldStrength
MRAcquisitionType ScanOptions AngioFlag ContrastBolusAgent ContrastBolusAgentSequence AcquisitionContrast
EchoPulseSequence EchoPlanarPulseSequence ComplexImageComponent VolumetricProperties DiffusionBValue ConvolutionKernel
AcquisitionNumber TemporalPositionIdentifier TriggerTime AcquisitionTime AcquisitionDate AcquisitionDateTime
ContentTime SeriesTime SeriesDate"""
_PET = """Units CorrectedImage DecayCorrection SUVType RadiopharmaceuticalInformationSequence FrameReferenceTime
ActualFrameDuration AttenuationCorrected DecayCorrected DecayCorrectionDateTime"""
_KEPT = [
    *(tag_for_keyword(word) for part in (_IDENTITY, _PIXELS, _GEOMETRY, _ACQUISITION, _PET) for word in part.split()),
    PHILIPS_SCALE_SLOPE,
    PHILIPS_SUV_FACTOR,
    PHILIPS_ACTIVITY_FACTOR,
    GE_SCAN_DATETIME,
]
_ESSENTIAL = {tag_for_keyword(word) for part in (_PIXELS, _GEOMETRY) for word in part.split()}
_GROUP_OF = {  # where an enhanced image keeps what a classic one has in its main data set
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RepetitionTime": "MRTimingAndRelatedParametersSequence",
    "FlipAngle": "MRTimingAndRelatedParametersSequence",
    "EchoTrainLength": "MRTimingAndRelatedParametersSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "InversionTimes": "MRModifierSequence",
    "InversionRecovery": "MRModifierSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "AcquisitionContrast": "MRImageFrameTypeSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "StackID": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "FrameReferenceDateTime": "FrameContentSequence",
}
_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")


class NotDicom(Exception):
    """The file cannot be read as DICOM; the text says why."""


def read_header(path: Path) -> Dataset:
    """The kept attributes of one file, without its pixels. A file is known by its content, never by its name.

    Raises:
        NotDicom: an empty file, another format, a DICOMDIR, or a header that ends too early.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
            size = path.stat().st_size
    except OSError as error:
        raise NotDicom(f"the file cannot be read: {error.strerror}") from None
    if size == 0:
        raise NotDicom("the file is empty")
    bare = start[:2] in (b"\x02\x00", b"\x08\x00") and start[128:132] != b"DICM"  # a file without the preamble
    if start[128:132] != b"DICM" and not bare:
        raise NotDicom("the file is not DICOM")
    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=bare, specific_tags=_KEPT)
            _settle(header)
        if header.file_meta.get("MediaStorageSOPClassUID") == pydicom.uid.MediaStorageDirectoryStorage:
            raise NotDicom("the file is a DICOMDIR, an index without an image")
        if not text(header, "SeriesInstanceUID") or not text(header, "SOPInstanceUID"):
            raise NotDicom("the file is not a DICOM object of a series" if not bare else "the file is not DICOM")
    except NotDicom:
        raise
    except Exception as error:  # pydicom raises a dozen kinds on a broken file; each means the same to the user
        raise NotDicom(f"the DICOM header is damaged ({type(error).__name__})") from None
    return header


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's warnings, which quote values and so might name a patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _settle(header: Dataset) -> None:
    """Decode every value now. One that cannot be is as good as missing, but for those of pixels and geometry.

    Raises:
        Exception: of pydicom's many kinds, for a damaged value of pixels or geometry.
    """
    for tag in list(header.keys()):
        try:
            _decode(header, tag)
        except Exception:  # pydicom raises a dozen kinds on a broken value
            if tag in _ESSENTIAL:
                raise
            del header[tag]


def _decode(item: Dataset, tag: int) -> None:
    element = item[tag]
    if element.VR == "SQ":
        for inner in element.value:
            for below in list(inner.keys()):
                _decode(inner, below)


def text(header: Dataset, keyword: str) -> str:
    """A value as text, '' where it is missing or unreadable; several values are joined by a backslash."""
    value = header.get(keyword)
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, (MultiValue, list, tuple)) else str(value).strip()


def words(header: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a multi-valued attribute, in capitals."""
    return tuple(word.strip().upper() for word in text(header, keyword).split("\\") if word.strip())


def numbers(value: Any) -> tuple[float, ...] | None:
    """Finite numbers, or None."""
    if value is None or value == "":
        return None
    try:
        parts = value if isinstance(value, (Sequence, MultiValue)) and not isinstance(value, str) else [value]
        found = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        return None
    return found if found and all(abs(number) < 1e30 for number in found) else None


def number(header: Dataset, keyword: str, frame: int = 0) -> float | None:
    """The first number of an attribute, of one frame where the image has several; None where there is none."""
    found = numbers(of_frame(header, frame, keyword))
    return found[0] if found else None


def private(header: Dataset, tag: int) -> Any:
    """The value of a private attribute, decoded where the file says implicit types; None where it is missing."""
    value = header[tag].value if tag in header else None
    return value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else value


def of_frame(header: Dataset, frame: int, keyword: str) -> Any:
    """An attribute of a frame: its own functional group, else the shared one, else the main data set's."""
    group = _GROUP_OF.get(keyword)
    for item in _groups(header, frame) if group else ():
        inner = item.get(group)
        if inner and keyword in inner[0]:
            return inner[0].get(keyword)
    return header.get(keyword)


def corrections(header: Dataset) -> frozenset[str]:
    """Corrected Image of a PET; of an enhanced one what its own flags say in the same words."""
    flags = {"AttenuationCorrected": "ATTN", "DecayCorrected": "DECY"}
    said = {word for keyword, word in flags.items() if text(header, keyword).upper() == "YES"}
    return frozenset(words(header, "CorrectedImage")) | said


def measured_units(header: Dataset, frame: int) -> str:
    """The unit's code in the Real World Value Mapping of a frame, '' where there is none."""
    for item in [*_groups(header, frame), header]:
        mapping = item.get("RealWorldValueMappingSequence")
        units = mapping[0].get("MeasurementUnitsCodeSequence") if mapping else None
        if units:
            return text(units[0], "CodeValue")
    return ""


def frame_type(header: Dataset, frame: int) -> tuple[str, ...]:
    """Image Type, or the Frame Type of one frame of an enhanced image, in capitals."""
    for item in _groups(header, frame):
        for name in _FRAME_TYPES:
            if item.get(name):
                found = words(item.get(name)[0], "FrameType")
                if found:
                    return found
    return words(header, "ImageType")


def _groups(header: Dataset, frame: int) -> list[Dataset]:
    own, shared = header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")
    found = [own[frame]] if own and frame < len(own) else []
    return [*found, shared[0]] if shared else found


def frame_text(header: Dataset, frame: int, keyword: str) -> str:
    """An attribute of a frame as text in capitals, '' where it is missing."""
    value = of_frame(header, frame, keyword)
    if value is None:
        return ""
    return "\\".join(map(str, value)).upper() if isinstance(value, MultiValue) else str(value).strip().upper()
