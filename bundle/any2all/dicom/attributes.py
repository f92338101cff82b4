"""The attributes of a derived series, module by module (DICOM PS3.3: CT, MR and PET Image IODs).

Means and standard deviations are written as the image class of their modality: every viewer shows those, with their
geometry. A Parametric Map would name a standard deviation better, but it must not say SECONDARY, and few viewers open
it; Secondary Capture holds no geometry. Series Description, Image Type and Derivation Description say what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage, generate_uid

from .series import MANUFACTURER
from .source import SourceSeries, SourceSlice
from .values import Slices, Stored, decimal

_CLASSES = {"MR": MRImageStorage, "CT": CTImageStorage, "PT": PositronEmissionTomographyImageStorage}
_PET_UNITS = {"SUV": "GML"}
_FIRST_NUMBER = 9001
_UCUM = {"HU": "[hnsf'U]", "SUV": "g/ml{SUVbw}", "SUVr": "1", "a.u.": "[arb'U]"}


@dataclass(frozen=True)
class Derived:
    """What is said of one series of results.

    Attributes:
        modality: of DICOM: MR, CT or PT.
        name: of the stack, such as T2FLAIR.
        statistic: mean or std.
        role: synthetic or reconstructed.
        network: what made it, ``prior`` or ``cdm``.
        prior_version, prior_sha256: of its weights.
        sampler: what made it, in words.
        number: Series Number.
    """

    modality: str
    name: str
    statistic: str
    role: str
    units: str
    software: str
    network: str
    prior_version: str
    prior_sha256: str
    sampler: str
    number: int

    @property
    def description(self) -> str:
        """Series Description: what it is comes first."""
        return f"{self.role.upper()} {MANUFACTURER} {self.name}" + (" std" if self.statistic == "std" else "")

    @property
    def derivation(self) -> str:
        """Derivation Description."""
        what = "uncertainty (one standard deviation)" if self.statistic == "std" else "mean of samples"
        how = "filled in without any data of this modality" if self.role == "synthetic" else "from undersampled data"
        who = "a diffusion prior" if self.network == "prior" else self.network
        return f"{self.name}, {how} by {who} ({self.sampler}): {what}, in {self.units}. An estimate, not for diagnosis."


def series_attributes(
    derived: Derived, patient: Dataset, study_uid: str, frame_of_reference_uid: str, data: np.ndarray
) -> Dataset:
    """What all slices of a series share, but for their pixels; ``data`` of all of them, for the window."""
    now = datetime.now()
    shared = Dataset()
    _patient_and_study(shared, patient, study_uid)
    shared.Modality = derived.modality
    shared.SeriesInstanceUID = generate_uid(prefix=None)
    shared.SeriesNumber = derived.number
    shared.SeriesDescription = derived.description
    shared.SeriesDate, shared.SeriesTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    shared.PatientPosition = patient.get("PatientPosition", "")
    shared.BodyPartExamined = patient.get("BodyPartExamined", "") or "HEAD"
    shared.FrameOfReferenceUID = frame_of_reference_uid
    shared.PositionReferenceIndicator = patient.get("PositionReferenceIndicator", "")
    shared.Manufacturer = MANUFACTURER
    shared.ManufacturerModelName = f"{derived.network} {derived.prior_version}"
    shared.SoftwareVersions = derived.software
    shared.ContributingEquipmentSequence = Sequence([_equipment(derived, now)])
    shared.SOPClassUID = _CLASSES[derived.modality]
    shared.InstanceCreationDate, shared.InstanceCreationTime = shared.SeriesDate, shared.SeriesTime
    shared.ContentDate, shared.ContentTime = shared.SeriesDate, shared.SeriesTime
    shared.AcquisitionDate = shared.AcquisitionTime = ""
    shared.AcquisitionNumber = ""
    shared.DerivationDescription = derived.derivation
    shared.ImageComments = f"{derived.description}. An estimate, not for diagnosis."
    shared.BurnedInAnnotation = "NO"
    shared.LossyImageCompression = "00"
    shared.add_new(0x0008001C, "CS", "YES")  # Synthetic Data, newer than this pydicom's dictionary
    _window(shared, data, derived)
    {"MR": _mr, "CT": _ct, "PT": _pet}[derived.modality](shared, derived)
    return shared


def slice_attributes(
    slices: Slices, values: Stored, k: int, derived: Derived, sources: list[tuple[SourceSeries, SourceSlice, bool]]
) -> Dataset:
    """What slice k adds: place, pixels, and the slices that it was made from (with: whether it lies on it)."""
    own = Dataset()
    own.SOPInstanceUID = generate_uid(prefix=None)
    own.InstanceNumber = k + 1
    own.ImagePositionPatient = [decimal(float(x)) for x in slices.positions[k]]
    own.ImageOrientationPatient = [decimal(float(x)) for x in slices.orientation]
    own.PixelSpacing = [decimal(float(x)) for x in slices.spacing]
    own.SliceThickness = decimal(slices.between_mm)
    _pixels(own, values, k)
    own.RescaleSlope, own.RescaleIntercept = values.slope, values.intercept
    if derived.modality != "PT":
        own.RescaleType = "HU" if derived.units == "HU" else "US"
        own.RealWorldValueMappingSequence = Sequence([_real_world(values, derived)])
    if derived.modality == "PT":
        own.ImageIndex = k + 1
        own.NumberOfSlices = slices.data.shape[2]
    if sources:
        _references(own, sources)
    return own


def code(value: str, scheme: str, meaning: str) -> Sequence:
    """A code sequence of one item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def _patient_and_study(shared: Dataset, patient: Dataset, study_uid: str) -> None:
    for element in patient:
        if element.keyword not in ("PatientPosition", "PositionReferenceIndicator", "BodyPartExamined"):
            shared[element.tag] = element
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        if keyword not in shared:
            setattr(shared, keyword, "")
    for keyword in ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"):
        if keyword not in shared:
            setattr(shared, keyword, "")
    if "SpecificCharacterSet" not in shared:
        shared.SpecificCharacterSet = "ISO_IR 100"
    shared.StudyInstanceUID = study_uid


def _equipment(derived: Derived, now: datetime) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = code("109102", "DCM", "Processing Equipment")
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = f"{derived.network} {derived.prior_version}"
    item.SoftwareVersions = derived.software
    item.ContributionDateTime = now.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = f"{derived.role} image; weights sha256 {derived.prior_sha256}"
    return item


def _image_type(third: str, derived: Derived) -> list[str]:
    return ["DERIVED", "SECONDARY", third, derived.role.upper(), *(["STD"] if derived.statistic == "std" else [])]


def _mr(shared: Dataset, derived: Derived) -> None:
    shared.ImageType = _image_type("OTHER", derived)
    shared.ScanningSequence = "RM"  # research mode: no sequence of a scanner made this image
    shared.SequenceVariant = "NONE"
    for keyword in (
        "ScanOptions",
        "MRAcquisitionType",
        "RepetitionTime",
        "EchoTime",
        "InversionTime",
        "EchoTrainLength",
    ):
        setattr(shared, keyword, "")


def _ct(shared: Dataset, derived: Derived) -> None:
    shared.ImageType = _image_type("AXIAL", derived)
    shared.KVP = ""


def _pet(shared: Dataset, derived: Derived) -> None:
    """No dose, tracer or times: they would be invented, and a viewer would make another SUV of them."""
    shared.ImageType = _image_type("OTHER", derived)
    shared.Units = _PET_UNITS.get(derived.units, "NONE")
    shared.CountsSource = "EMISSION"
    shared.SeriesType = ["STATIC", "IMAGE"]
    shared.CorrectedImage = shared.CollimatorType = ""
    shared.DecayCorrection = "NONE"
    shared.FrameReferenceTime = "0"
    shared.ActualFrameDuration = ""
    shared.RadiopharmaceuticalInformationSequence = Sequence()
    shared.PatientOrientationCodeSequence = Sequence()
    shared.PatientGantryRelationshipCodeSequence = Sequence()


def _pixels(own: Dataset, values: Stored, k: int) -> None:
    plane = np.ascontiguousarray(values.stored[:, :, k].T)
    own.SamplesPerPixel = 1
    own.PhotometricInterpretation = "MONOCHROME2"
    own.Rows, own.Columns = plane.shape
    own.BitsAllocated = own.BitsStored = 16
    own.HighBit = 15
    own.PixelRepresentation = int(plane.dtype.kind == "i")
    own.PixelData = plane.astype(plane.dtype.newbyteorder("<")).tobytes()


def _real_world(values: Stored, derived: Derived) -> Dataset:
    item = Dataset()
    signed = values.stored.dtype.kind == "i"
    kind = "SS" if signed else "US"
    item.add_new(0x00409216, kind, int(values.stored.min()))  # Real World Value First Value Mapped
    item.add_new(0x00409211, kind, int(values.stored.max()))  # Real World Value Last Value Mapped
    item.RealWorldValueSlope, item.RealWorldValueIntercept = float(values.slope), float(values.intercept)
    item.LUTExplanation = f"{derived.name} in {derived.units}"[:64]
    item.LUTLabel = derived.units[:16]
    item.MeasurementUnitsCodeSequence = code(_UCUM.get(derived.units, "1"), "UCUM", derived.units)
    return item


def _window(shared: Dataset, data: np.ndarray, derived: Derived) -> None:
    if derived.units == "HU" and derived.statistic == "mean":
        shared.WindowCenter, shared.WindowWidth = "40", "160"
        return
    low, high = (float(v) for v in np.percentile(data[::2, ::2, ::2], (1, 99.5)))
    shared.WindowCenter, shared.WindowWidth = decimal((low + high) / 2), decimal(max(high - low, 1e-6))


def _references(own: Dataset, sources: list[tuple[SourceSeries, SourceSlice, bool]]) -> None:
    """Source Image Sequence, and the series (of this study, of others) that its images belong to."""
    images, by_study = [], {}
    for series, one, preserved in sources:
        item = _reference(series, one)
        item.PurposeOfReferenceCodeSequence = code("121322", "DCM", "Source image for image processing operation")
        item.SpatialLocationsPreserved = "YES" if preserved else "NO"
        images.append(item)
        listed = Dataset()
        listed.SeriesInstanceUID = series.series_uid
        listed.ReferencedInstanceSequence = Sequence([_reference(series, one)])
        by_study.setdefault(series.study_uid, []).append(listed)
    own.SourceImageSequence = Sequence(images)
    here = sources[0][0].study_uid
    own.ReferencedSeriesSequence = Sequence(by_study.pop(here))
    others = []
    for uid, series in by_study.items():
        other = Dataset()
        other.StudyInstanceUID, other.ReferencedSeriesSequence = uid, Sequence(series)
        others.append(other)
    if others:
        own.StudiesContainingOtherReferencedInstancesSequence = Sequence(others)


def _reference(series: SourceSeries, one: SourceSlice) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = series.sop_class_uid, one.uid
    if series.multi_frame:
        item.ReferencedFrameNumber = one.frame
    return item


def modality_of(kind: str) -> str:
    """DICOM's Modality for a kind of the stack."""
    return {"MR": "MR", "CT": "CT", "PET": "PT"}[kind]


def series_number(index: int) -> int:
    """Series Number of the n-th series of results, beyond those of scanners."""
    return _FIRST_NUMBER + index
