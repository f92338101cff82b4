"""What derived series refer to: the source's identifiers, its geometry, and (from its own files) the patient."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from ..errors import Any2allError
from ..geometry import Grid
from .planes import LPS_TO_RAS
from .series import scan

_SAME_PLACE_MM = 0.01
_PERSON = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge")
_STUDY = ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber", "StudyDescription")
_PLACE = ("PatientPosition", "PositionReferenceIndicator", "BodyPartExamined")


@dataclass(frozen=True)
class SourceSlice:
    """One plane of a source series: object, frame (from 1), position and orientation in LPS mm."""

    uid: str
    frame: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True)
class SourceSeries:
    """One source series, its slices in the order of the image's third axis."""

    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    sop_class_uid: str
    slices: tuple[SourceSlice, ...]

    @property
    def multi_frame(self) -> bool:
        return len({one.uid for one in self.slices}) < len(self.slices)

    def lies_on(self, grid: Grid) -> bool:
        """Whether slice k of a grid with the axes (column, row, slice) is slice k of this series."""
        if len(self.slices) != grid.shape[2]:
            return False
        to_lps = LPS_TO_RAS @ grid.affine
        corners = np.array([one.position for one in self.slices])
        expected = to_lps[:3, 3] + np.arange(grid.shape[2])[:, None] * to_lps[:3, 2]
        first = self.slices[0].orientation
        along = to_lps[:3, :2] / np.linalg.norm(to_lps[:3, :2], axis=0)
        same_axes = np.abs(along.T.ravel() - first).max() < 1e-4
        return bool(same_axes and np.abs(corners - expected).max() < _SAME_PLACE_MM)

    def nearest(self, centre: np.ndarray) -> SourceSlice:
        """The slice whose plane is nearest to a point (LPS mm)."""
        return min(self.slices, key=lambda one: abs(float(one.normal @ (centre - np.array(one.position)))))


def read_source(file: Path) -> dict[str, SourceSeries]:
    """The series of each modality in a ``dicom_source.json``.

    Raises:
        Any2allError: the file is none.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return {name: _series(entry) for name, entry in document["modalities"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        raise Any2allError("this is no dicom_source.json", key="source", value=file.name) from None


def _series(entry: Mapping) -> SourceSeries:
    slices = tuple(
        SourceSlice(s["uid"], int(s["frame"]), tuple(map(float, s["position"])), tuple(map(float, s["orientation"])))
        for s in entry["slices"]
    )
    names = ("study_uid", "series_uid", "frame_of_reference_uid", "sop_class_uid")
    return SourceSeries(*(str(entry[name]) for name in names), slices)


def patient_of(dicom_folder: Path, sources: Sequence[SourceSeries]) -> Dataset:
    """Patient, study and place attributes of the first source series, from its own files or those of its study.

    Raises:
        Any2allError: no series of that study is in the folder.
    """
    there = {one.uid: one for one in scan(dicom_folder).series}
    for source in sources:
        one = there.get(source.series_uid)
        if one is not None and source.study_uid == sources[0].study_uid:
            header = pydicom.dcmread(one.files[0], stop_before_pixels=True, force=True)
            kept = Dataset()
            for keyword in ("SpecificCharacterSet", *_PERSON, *_STUDY, *_PLACE):
                if keyword in header:
                    kept[keyword] = header[keyword]
            return kept
    raise _not_here(sources[0].series_uid)


def check_holds(dicom_folder: Path, sources: Iterable[SourceSeries]) -> None:
    """Raise Any2allError where a folder of DICOM files has none of the series that a study came from."""
    uids = {one.series_uid for one in sources}
    if uids.isdisjoint(one.uid for one in scan(dicom_folder).series):
        raise _not_here(", ".join(sorted(uids)))


def _not_here(series_uid: str) -> Any2allError:
    message = "the series that the study came from is not in this folder"
    return Any2allError(message, key="dicom_dir", value=series_uid)


def pseudonymous(subject: str) -> Dataset:
    """A patient who is known by the subject's name only."""
    kept = Dataset()
    kept.SpecificCharacterSet = "ISO_IR 192"
    kept.PatientName = kept.PatientID = subject
    kept.PatientIdentityRemoved = "YES"
    kept.DeidentificationMethod = "Any2all: patient, study and dates left out"
    return kept
