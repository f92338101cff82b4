"""Type 1 and 2 attributes of the IODs that are written, from the module tables of DICOM PS3.3, and a check with them.

Type 1: there with a value. Type 2: there, perhaps empty. Conditional ones are listed where their condition holds for
every image that is written here (an axial image with pixel data, not lossy, derived).
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage

COMMON = {
    "Patient (C.7.1.1)": ("", "PatientName PatientID PatientBirthDate PatientSex"),
    "General Study (C.7.2.1)": (
        "StudyInstanceUID",
        "StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber",
    ),
    "General Series (C.7.3.1)": ("Modality SeriesInstanceUID", "SeriesNumber PatientPosition"),
    "Frame of Reference (C.7.4.1)": ("FrameOfReferenceUID", "PositionReferenceIndicator"),
    "General Equipment (C.7.5.1)": ("", "Manufacturer"),
    "General Image (C.7.6.1)": ("", "InstanceNumber ContentDate ContentTime"),
    "Image Plane (C.7.6.2)": ("PixelSpacing ImageOrientationPatient ImagePositionPatient", "SliceThickness"),
    "Image Pixel (C.7.6.3)": (
        "SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit "
        "PixelRepresentation PixelData",
        "",
    ),
    "VOI LUT (C.11.2)": ("WindowCenter WindowWidth", ""),
    "SOP Common (C.12.1)": ("SOPClassUID SOPInstanceUID SpecificCharacterSet", ""),
}
MR = {
    "MR Image (C.8.3.1)": (
        "ImageType SamplesPerPixel PhotometricInterpretation BitsAllocated ScanningSequence SequenceVariant",
        "ScanOptions MRAcquisitionType RepetitionTime EchoTime EchoTrainLength InversionTime",
    )
}
CT = {
    "CT Image (C.8.2.1)": (
        "ImageType SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit "
        "RescaleIntercept RescaleSlope",
        "KVP AcquisitionNumber",
    )
}
PET = {
    "PET Series (C.8.9.1)": (
        "SeriesDate SeriesTime Units CountsSource SeriesType NumberOfSlices DecayCorrection",
        "CorrectedImage CollimatorType",
    ),
    "PET Isotope (C.8.9.2)": ("", "RadiopharmaceuticalInformationSequence"),
    "NM/PET Patient Orientation (C.8.4.6)": (
        "",
        "PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence",
    ),
    "PET Image (C.8.9.4)": (
        "ImageType SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit RescaleIntercept "
        "RescaleSlope FrameReferenceTime ImageIndex",
        "AcquisitionDate AcquisitionTime ActualFrameDuration",
    ),
}
SEQUENCES = {  # items of sequences: type 1
    "ContributingEquipmentSequence": "PurposeOfReferenceCodeSequence Manufacturer",
    "SourceImageSequence": "ReferencedSOPClassUID ReferencedSOPInstanceUID PurposeOfReferenceCodeSequence",
    "ReferencedSeriesSequence": "SeriesInstanceUID ReferencedInstanceSequence",
    "ReferencedInstanceSequence": "ReferencedSOPClassUID ReferencedSOPInstanceUID",
    "StudiesContainingOtherReferencedInstancesSequence": "StudyInstanceUID ReferencedSeriesSequence",
    "PurposeOfReferenceCodeSequence": "CodeValue CodingSchemeDesignator CodeMeaning",
    "MeasurementUnitsCodeSequence": "CodeValue CodingSchemeDesignator CodeMeaning",
    "RealWorldValueMappingSequence": "RealWorldValueFirstValueMapped RealWorldValueLastValueMapped "
    "RealWorldValueSlope RealWorldValueIntercept LUTExplanation LUTLabel MeasurementUnitsCodeSequence",
}
IODS = {MRImageStorage: MR, CTImageStorage: CT, PositronEmissionTomographyImageStorage: PET}
ENUMERATED = {
    "PhotometricInterpretation": {"MONOCHROME1", "MONOCHROME2"},
    "BurnedInAnnotation": {"YES", "NO"},
    "LossyImageCompression": {"00", "01"},
    "ScanningSequence": {"SE", "IR", "GR", "EP", "RM"},
    "CountsSource": {"EMISSION", "TRANSMISSION"},
    "DecayCorrection": {"NONE", "START", "ADMIN"},
    "SpatialLocationsPreserved": {"YES", "NO", "REORIENTED_ONLY"},
}
LENGTHS = {"CS": 16, "DS": 16, "IS": 12, "LO": 64, "SH": 16, "UI": 64, "ST": 1024, "LT": 10240, "DA": 8, "AS": 4}


def complaints(image: Dataset) -> list[str]:
    """What of an image is against the tables, as a validator would say it."""
    found = []
    for module, (first, second) in {**COMMON, **IODS[image.SOPClassUID]}.items():
        for keyword in first.split():
            if keyword not in image or image[keyword].value in (None, "", []):
                found.append(f"{module}: {keyword} is type 1 and has no value")
        found += [f"{module}: {k} is type 2 and missing" for k in second.split() if k not in image]
    if image.SOPClassUID == PositronEmissionTomographyImageStorage and float(image.RescaleIntercept) != 0:
        found.append("PET Image: RescaleIntercept is not 0")
    if image.SOPClassUID == CTImageStorage and image.ImageType[2] not in ("AXIAL", "LOCALIZER"):
        found.append("CT Image: ImageType value 3")
    return found + _of_elements(image)


def _of_elements(image: Dataset) -> list[str]:
    found = []
    for element in image:
        values = element.value if element.VM > 1 else [element.value]
        if element.VR == "SQ":
            needed = SEQUENCES.get(element.keyword, "").split()
            for item in element.value:
                found += [f"{element.keyword}: {k} is missing" for k in needed if not item.get(k) and item.get(k) != 0]
                found += _of_elements(item)
        elif element.VR in LENGTHS:
            raw = [str(getattr(value, "original_string", value)) for value in values if value is not None]
            found += [f"{element.keyword}: longer than its type allows" for v in raw if len(v) > LENGTHS[element.VR]]
        if element.keyword in ENUMERATED and not set(map(str, values)) <= ENUMERATED[element.keyword]:
            found.append(f"{element.keyword}: {values} is not enumerated")
    return found
