"""Files become series: grouped by patient, study and series, and split where one series holds several volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ..errors import Any2allError
from .header import NotDicom, frame_type, number, numbers, of_frame, read_header, text

_SAME_DIRECTION = 1e-3  # of the direction cosines of one volume
_SAME_PLACE_MM = 1e-3
MANUFACTURER = "Any2all"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image plane. ``number`` counts the frames of its file from 0; geometry is LPS mm, None where it is missing.

    Attributes:
        orientation: (6,) direction cosines toward the next column, then toward the next row.
        spacing: (2,) distance of rows, of columns.
    """

    file: Path
    header: Dataset
    number: int
    position: np.ndarray | None
    orientation: np.ndarray | None
    spacing: np.ndarray | None

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the plane; needs an orientation."""
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True, eq=False)
class Series:
    """The planes of one volume.

    Attributes:
        patient: tells patients apart within one scan; never written.
        part: what tells this volume from the others of the same series, '' where it is alone.
        skip: why this is never an input, whatever its geometry; None for an image.
    """

    uid: str
    study_uid: str
    patient: tuple[str, ...]
    frames: tuple[Frame, ...]
    part: str = ""
    skip: str | None = None

    @property
    def header(self) -> Dataset:
        """Of the first file."""
        return self.frames[0].header

    @property
    def number(self) -> int | None:
        """Series Number."""
        found = number(self.header, "SeriesNumber")
        return None if found is None else int(found)

    @property
    def description(self) -> str:
        """Series Description, else Protocol Name."""
        return text(self.header, "SeriesDescription") or text(self.header, "ProtocolName")

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(frame.file for frame in self.frames))

    @property
    def image_type(self) -> tuple[str, ...]:
        """Image Type of the first frame, in capitals."""
        return frame_type(self.header, self.frames[0].number)


@dataclass(frozen=True)
class Scan:
    """What a folder holds: volumes, and the files that are none with the reason."""

    series: tuple[Series, ...]
    skipped: tuple[tuple[Path, str], ...] = ()

    @property
    def patients(self) -> tuple[tuple[str, ...], ...]:
        """Patients in the order of their first file."""
        return tuple(dict.fromkeys(one.patient for one in self.series))

    def of(self, patient: tuple[str, ...]) -> Scan:
        """One patient's part; files that belong to nobody are left out."""
        return replace(self, series=tuple(one for one in self.series if one.patient == patient), skipped=())


@dataclass
class _Group:
    frames: list[Frame] = field(default_factory=list)
    uids: set[str] = field(default_factory=set)


def find_series(folder: str | Path) -> list[Series]:
    """The volumes in a folder at any depth, see `scan`."""
    return list(scan(folder).series)


def scan(source: str | Path | Sequence[Path]) -> Scan:
    """Look at every file of a folder (at any depth), or of these files and folders.

    A file is known by its content. A DICOMDIR, hidden files and linked folders are left out; a second copy of the
    same object is skipped.

    Raises:
        Any2allError: there is no such folder.
    """
    groups: dict[tuple, _Group] = {}
    skipped: list[tuple[Path, str]] = []
    for path in _files(source):
        try:
            header = read_header(path)
        except NotDicom as reason:
            skipped.append((path, str(reason)))
            continue
        patient = tuple(_identity(header, word) for word in ("PatientID", "IssuerOfPatientID", "PatientName"))
        group = groups.setdefault(
            (patient, text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID")), _Group()
        )
        uid = text(header, "SOPInstanceUID")
        if uid in group.uids:
            skipped.append((path, "the file is a second copy of the same object"))
            continue
        group.uids.add(uid)
        group.frames += frames_of(path, header)
    found = [one for key, group in groups.items() for one in _volumes(key, group.frames)]
    return Scan(tuple(found), tuple(skipped))


def _identity(header: Dataset, keyword: str) -> str:
    """What names a patient, however a scanner wrote it: ``DOE^JOHN^^^`` is ``Doe^John``."""
    return " ".join(text(header, keyword).rstrip("^ ").casefold().split())


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM object of a series."""
    try:
        read_header(path)
    except NotDicom:
        return False
    return True


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """The planes of one file."""
    return [
        Frame(
            path,
            header,
            n,
            _vector(of_frame(header, n, "ImagePositionPatient"), 3),
            _vector(of_frame(header, n, "ImageOrientationPatient"), 6),
            _vector(of_frame(header, n, "PixelSpacing"), 2),
        )
        for n in range(max(1, int(number(header, "NumberOfFrames") or 1)))
    ]


def _vector(value: object, length: int) -> np.ndarray | None:
    found = numbers(value)
    return np.array(found) if found is not None and len(found) == length else None


def first_dicom(folder: Path, deep: bool = True) -> Path | None:
    """The first DICOM file of a folder, or None; ``deep``: at any depth."""
    paths = _walked(folder) if deep else (path for path in sorted(folder.iterdir()) if path.is_file())
    return next((path for path in paths if is_dicom(path)), None)


def _files(source: str | Path | Sequence[Path]) -> Iterator[Path]:
    if isinstance(source, (str, Path)) and not Path(source).is_dir():
        raise Any2allError("there is no such folder", key="source", value=str(source))
    for path in [Path(source)] if isinstance(source, (str, Path)) else source:
        yield from _walked(path) if path.is_dir() else [path]


def _walked(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(where, name) for name in sorted(names) if not name.startswith(".") and name.upper() != "DICOMDIR"
        )


def _volumes(key: tuple, frames: list[Frame]) -> list[Series]:
    """One series, or one for each volume that it holds."""
    patient, study_uid, uid = key
    images = [frame for frame in frames if number(frame.header, "Rows") and number(frame.header, "Columns")]
    if not images:
        return [Series(uid, study_uid, patient, tuple(frames), skip="it holds no image")]
    parts = _split([("", images)], _always)
    parts = [part for name, some in parts for part in _split_repeated(name, some)]
    return [Series(uid, study_uid, patient, tuple(some), name, skip_reason(some[0])) for name, some in parts]


def skip_reason(frame: Frame) -> str | None:
    """Why a series is never an input by what it says of itself; geometry is checked when it is read."""
    header, kind = frame.header, set(frame_type(frame.header, frame.number))
    makers = [
        text(header, "Manufacturer"),
        *(text(e, "Manufacturer") for e in header.get("ContributingEquipmentSequence") or []),
    ]
    if MANUFACTURER in makers:
        return "Any2all made it: an estimate is never an input"
    modality = text(header, "Modality").upper()
    if modality not in ("MR", "CT", "PT"):
        return f"its Modality is {modality or 'not given'}, not MR, CT or PT"
    name = f" {text(header, 'SeriesDescription')} ".lower()
    if kind & {"LOCALIZER", "SCOUT"} or any(
        word in name for word in ("localizer", "localiser", "scout", "topogram", "survey")
    ):
        return "it is a localizer"
    if kind & {"MIP", "MNIP", "MINIP", "MIN IP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "VOLUME_RENDER"}:
        return "it is a projection through a volume (MIP), not a measured image"
    if "DERIVED" in kind and kind & {"MPR", "REFORMATTED", "RESAMPLED", "CSA MPR", "CURVED_MPR"}:
        return "it is a reformatted copy of another series (MPR)"
    if kind & {"ADC", "FA", "TRACEW", "TENSOR", "EADC", "MEAN_DIFFUSIVITY"}:
        return "it is a diffusion map"
    if kind & {"SCREEN SAVE", "SCREENSAVE", "REPORT"}:
        return "it is a picture of a screen"
    return None


def _always(frame: Frame) -> Hashable:
    """What differs between two volumes that one series holds."""
    header, n = frame.header, frame.number
    echo = number(header, "EffectiveEchoTime", n) or number(header, "EchoTime", n)
    values = {
        "kind": "/".join(frame_type(header, n)),
        "part": str(of_frame(header, n, "ComplexImageComponent") or ""),
        "stack": str(of_frame(header, n, "StackID") or ""),
        "echo time": None if echo is None else round(echo, 1),
        "inversion time": number(header, "InversionTime", n),
        "b": number(header, "DiffusionBValue", n),
        "kernel": str(of_frame(header, n, "ConvolutionKernel") or ""),
        "time point": number(header, "TemporalPositionIndex", n) or number(header, "TemporalPositionIdentifier", n),
    }
    return tuple(values.items())


def _split(parts: list[tuple[str, list[Frame]]], key: Callable[[Frame], Hashable]) -> list[tuple[str, list[Frame]]]:
    """Parts by orientation and by what ``key`` says, named by what differs between them."""
    found: dict[tuple, list[Frame]] = {}
    directions: list[np.ndarray] = []
    for _, frames in parts:
        for frame in frames:
            found.setdefault((_direction(frame, directions), key(frame)), []).append(frame)
    differing = [i for i in range(len(next(iter(found))[1])) if len({k[1][i] for k in found}) > 1]
    several = len({k[0] for k in found}) > 1
    return [
        (
            ", ".join([f"orientation {k[0] + 1}"] * several + [f"{k[1][i][0]} {k[1][i][1]}" for i in differing]),
            frames,
        )
        for k, frames in found.items()
    ]


def _direction(frame: Frame, known: list[np.ndarray]) -> int:
    """Number of the frame's orientation among those seen so far."""
    if frame.orientation is None:
        return -1
    for i, other in enumerate(known):
        if np.abs(frame.orientation - other).max() < _SAME_DIRECTION:
            return i
    known.append(frame.orientation)
    return len(known) - 1


_REPEATS: tuple[tuple[str, str], ...] = (
    ("acquisition", "AcquisitionNumber"),
    ("acquisition", "FrameAcquisitionNumber"),
    ("trigger time", "TriggerTime"),
    ("frame time", "FrameReferenceTime"),
    ("started", "AcquisitionTime"),
)


def _split_repeated(name: str, frames: list[Frame]) -> list[tuple[str, list[Frame]]]:
    """Where places come several times: by the first attribute that leaves every place once in each part."""
    if not _repeated(frames):
        return [(name, frames)]
    for label, keyword in _REPEATS:
        parts: dict[str, list[Frame]] = {}
        for frame in frames:
            parts.setdefault(str(of_frame(frame.header, frame.number, keyword)), []).append(frame)
        whole = min(len(part) for part in parts.values()) > 1  # a time for each slice tells no volumes apart
        if len(parts) > 1 and whole and not any(_repeated(part) for part in parts.values()):
            return [(", ".join(filter(None, (name, f"{label} {value}"))), part) for value, part in parts.items()]
    return [(name, frames)]


def _repeated(frames: list[Frame]) -> bool:
    placed = [frame for frame in frames if frame.position is not None and frame.orientation is not None]
    if len(placed) < 2:
        return False
    along = np.sort([float(frame.position @ placed[0].normal) for frame in placed])
    return bool((np.diff(along) < _SAME_PLACE_MM).any())
