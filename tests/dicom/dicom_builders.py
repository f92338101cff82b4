"""DICOM files made with pydicom: classic MR, CT and PET, and enhanced multi-frame MR, at any angle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

CLASSES = {"MR": MRImageStorage, "CT": CTImageStorage, "PT": PositronEmissionTomographyImageStorage}
NAME, NUMBER = "Qwertz^Ottokar", "PX4711Z"
PERSON = {
    "PatientName": NAME,
    "PatientID": NUMBER,
    "PatientBirthDate": "19510314",
    "PatientSex": "O",
    "AccessionNumber": "ACC99887",
    "ReferringPhysicianName": "Doktor^Zimtstern",
    "StudyDate": "20240229",
    "StudyTime": "101500",
    "StudyID": "77",
}
STUDY_UID, FRAME_UID = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
MPRAGE = {
    "SeriesDescription": "t1_mprage_sag",
    "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SK", "SP", "MP"],
    "MRAcquisitionType": "3D",
    "RepetitionTime": 2300.0,
    "EchoTime": 2.98,
    "InversionTime": 900.0,
    "FlipAngle": 9.0,
    "MagneticFieldStrength": 3.0,
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"],
}
FLAIR = {
    "SeriesDescription": "t2_tirm_tra_dark-fluid",
    "ScanningSequence": ["SE", "IR"],
    "SequenceVariant": ["SK", "SP", "MP"],
    "MRAcquisitionType": "2D",
    "RepetitionTime": 9000.0,
    "EchoTime": 92.0,
    "InversionTime": 2500.0,
    "EchoTrainLength": 16,
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
}
CT = {
    "SeriesDescription": "Head 3.0 H31s",
    "BodyPartExamined": "HEAD",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "KVP": "120",
    "RescaleType": "HU",
}
PET = {
    "SeriesDescription": "PET brain AC",
    "ImageType": ["ORIGINAL", "PRIMARY"],
    "Units": "BQML",
    "CorrectedImage": ["DECY", "ATTN", "SCAT", "DTIM"],
    "DecayCorrection": "START",
    "PatientWeight": "80",
    "SeriesDate": "20240229",
    "SeriesTime": "103000",
    "AcquisitionDate": "20240229",
    "AcquisitionTime": "103005",
    "ActualFrameDuration": "600000",
    "FrameReferenceTime": "300000",
}
HALF_LIFE, DOSE = 6586.2, 370e6


def turned(axial_deg: float = 20.0, tilt_deg: float = 12.0) -> np.ndarray:
    """Direction cosines (columns: next column, next row, normal) of an oblique volume, LPS."""
    a, b = np.radians([axial_deg, tilt_deg])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x


def affine_of(
    directions: np.ndarray, spacing: tuple[float, float, float], origin: tuple[float, float, float]
) -> np.ndarray:
    """LPS affine of (column, row, slice)."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing)
    affine[:3, 3] = origin
    return affine


OBLIQUE = affine_of(turned(), (1.25, 1.5, 3.3), (-61.2, -75.4, -40.7))
AXIAL = affine_of(np.eye(3), (4.0, 4.0, 6.0), (-126.0, -126.0, -33.0))


def ras(lps: np.ndarray) -> np.ndarray:
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def pattern(shape: tuple[int, int, int] = (24, 20, 8), high: int = 3000, seed: int = 0) -> np.ndarray:
    """Stored values (column, row, slice) without any symmetry."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.add.outer(np.arange(shape[0]) * 3, np.arange(shape[1]) * 7), np.arange(shape[2]) * 31)
    return np.clip(ramp + rng.integers(0, 40, shape), 0, high).astype(np.uint16)


def tracer() -> Sequence:
    item = Dataset()
    item.RadiopharmaceuticalStartTime = "093000"
    item.RadionuclideTotalDose = DOSE
    item.RadionuclideHalfLife = HALF_LIFE
    return Sequence([item])


def basic(modality: str, tags: dict[str, Any], uid: str | None = None, **person: str) -> Dataset:
    """What every slice of a series shares."""
    shared = Dataset()
    shared.SOPClassUID = CLASSES[modality]
    shared.Modality = modality
    shared.Manufacturer = "Testvendor"
    shared.StudyInstanceUID, shared.FrameOfReferenceUID = STUDY_UID, FRAME_UID
    shared.SeriesInstanceUID = uid or generate_uid(prefix=None)
    shared.SeriesNumber = 1
    for keyword, value in {**PERSON, **person, **tags}.items():
        if value is None:
            if keyword in shared:
                delattr(shared, keyword)
        else:
            setattr(shared, keyword, value)
    if modality == "PT" and "RadiopharmaceuticalInformationSequence" not in tags:
        shared.RadiopharmaceuticalInformationSequence = tracer()
    return shared


def pixels(dataset: Dataset, values: np.ndarray) -> None:
    """``values`` (frames, rows, columns) or (rows, columns), 16 bits."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(values.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(values).tobytes()


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.update(dataset)
    file.is_little_endian, file.is_implicit_VR = True, False
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, write_like_original=False)
    return path


def classic(
    modality: str,
    stored: np.ndarray,
    lps: np.ndarray,
    tags: dict[str, Any],
    rescale: Any = None,
    uid: str | None = None,
    **person: str,
) -> list[Dataset]:
    """One data set for each slice of ``stored`` (column, row, slice). ``rescale(k)`` → slope, intercept."""
    slices = []
    for k in range(stored.shape[2]):
        one = basic(modality, tags, uid or f"{STUDY_UID}.{abs(hash(tags.get('SeriesDescription'))) % 10**9}", **person)
        one.SOPInstanceUID, one.InstanceNumber = generate_uid(prefix=None), k + 1
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        one.ImagePositionPatient = [f"{x:.10g}" for x in (lps @ [0, 0, k, 1])[:3]]
        one.ImageOrientationPatient = [f"{x:.10g}" for x in (lps[:3, :2] / spacing[:2]).T.ravel()]
        one.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
        one.SliceThickness = "99"
        if rescale is not None:
            one.RescaleSlope, one.RescaleIntercept = (f"{x:.10g}" for x in rescale(k))
        pixels(one, stored[:, :, k].T)
        slices.append(one)
    return slices


def write_all(slices: list[Dataset], folder: Path, order: list[int] | None = None, suffix: str = "") -> Path:
    """Files whose names follow ``order`` (default: reversed, so that file order says nothing)."""
    order = order or list(range(len(slices)))[::-1]
    for place, k in enumerate(order):
        save(slices[k], folder / f"IM{place:04d}{suffix}")
    return folder


def group(**inner: Any) -> Dataset:
    item = Dataset()
    for keyword, value in inner.items():
        setattr(item, keyword, value)
    return item


def enhanced(kind: str, stored: np.ndarray, lps: np.ndarray, rescale: Any, tags: dict[str, Any]) -> Dataset:
    """An Enhanced CT or PET object: the geometry of `enhanced_mr`, the tags given."""
    image = enhanced_mr(stored, lps, rescale)
    for keyword in ("MRAcquisitionType", "EchoPulseSequence", "PulseSequenceName"):
        delattr(image, keyword)
    for item in image.SharedFunctionalGroupsSequence:
        for keyword in [element.keyword for element in item if element.keyword.startswith("MR")]:
            delattr(item, keyword)
    image.Modality = kind
    image.SOPClassUID = {"CT": EnhancedCTImageStorage, "PT": EnhancedPETImageStorage}[kind]
    for keyword, value in tags.items():
        setattr(image, keyword, value)
    return image


def enhanced_mr(stored: np.ndarray, lps: np.ndarray, rescale: Any, tags: dict[str, Any] | None = None) -> Dataset:
    """An Enhanced MR object (T2 FLAIR protocol) whose frames lie in a shuffled order."""
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    order = np.random.default_rng(3).permutation(stored.shape[2])
    image = basic("MR", {"SeriesDescription": "3D FLAIR VISTA", "SeriesNumber": 7, **(tags or {})})
    image.SOPClassUID, image.SOPInstanceUID = EnhancedMRImageStorage, generate_uid(prefix=None)
    image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    image.MRAcquisitionType, image.EchoPulseSequence, image.PulseSequenceName = "3D", "SPIN", "VISTA"
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([group(PixelSpacing=[float(spacing[1]), float(spacing[0])])])
    cosines = [f"{x:.10g}" for x in (lps[:3, :2] / spacing[:2]).T.ravel()]
    shared.PlaneOrientationSequence = Sequence([group(ImageOrientationPatient=cosines)])
    timing = group(RepetitionTime=4800.0, FlipAngle=90.0, EchoTrainLength=170)
    shared.MRTimingAndRelatedParametersSequence = Sequence([timing])
    shared.MREchoSequence = Sequence([group(EffectiveEchoTime=340.0)])
    modifier = group(InversionRecovery="YES", InversionTimes=[1650.0])
    shared.MRModifierSequence = Sequence([modifier])
    frame_kind = group(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], AcquisitionContrast="FLUID_ATTENUATED")
    shared.MRImageFrameTypeSequence = Sequence([frame_kind])
    image.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in order:
        slope, intercept = rescale(int(k))
        own = Dataset()
        position = [f"{x:.10g}" for x in (lps @ [0, 0, k, 1])[:3]]
        own.PlanePositionSequence = Sequence([group(ImagePositionPatient=position)])
        own.FrameContentSequence = Sequence([group(StackID="1", InStackPositionNumber=int(k) + 1)])
        own.PixelValueTransformationSequence = Sequence(
            [group(RescaleSlope=f"{slope:.10g}", RescaleIntercept=f"{intercept:.10g}", RescaleType="US")]
        )
        frames.append(own)
    image.PerFrameFunctionalGroupsSequence = Sequence(frames)
    image.NumberOfFrames = len(order)
    pixels(image, stored[:, :, order].transpose(2, 1, 0))
    return image
