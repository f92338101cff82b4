"""Which subjects a cohort holds, and which file of each is which modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..dicom import first_dicom, scan, subjects_of
from ..errors import Any2allError
from ..stack import Stack
from ..study.files import files_by_modality, several_files
from ..training.datasets import read_datalist

SECTIONS = ("training", "validation")
NAME_KEY = "subject"


@dataclass(frozen=True)
class Subject:
    """One subject's files.

    Attributes:
        name: of its folder, in the source and in the output.
        files: modality → file, in stack order.
        refused: modality → why none of its files is used.
        ignored: names of image files that are no modality of the stack.
        section: ``training`` or ``validation`` where the source says so, else None.
        dicom: files and folders of DICOM that the images are still to be made of, see `conversion.from_dicom`.
        warnings: about how the images were made.
    """

    name: str
    files: Mapping[str, Path]
    refused: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    section: str | None = None
    dicom: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()


def find_subjects(source: str | Path, stack: Stack, converted: Path | None = None) -> list[Subject]:
    """The subjects of a cohort, sorted by name.

    Args:
        source: a folder with one folder per subject, whose image files (at any depth) are told apart by the stack's
            name patterns; or a MONAI datalist (see `read_datalist`), whose entries may name their ``subject``.
        stack: the stack.
        converted: where DICOM of earlier runs lies as images; numbered patients keep their numbers.

    Raises:
        Any2allError: no such folder or file, nothing in it, or patients who cannot be told apart.
    """
    source = Path(str(source))
    if source.is_dir() and first_dicom(source, deep=False) is not None:
        subjects = _of_patients(source, converted)
        wanted = "DICOM images"
    elif source.is_dir():
        folders = [p for p in sorted(source.iterdir()) if p.is_dir() and not p.name.startswith(".")]
        subjects = [_of_folder(folder, stack) for folder in folders]
        wanted = "one folder per subject"
    elif source.is_file():
        subjects = sorted(_of_datalist(source, stack), key=lambda subject: subject.name)
        wanted = "entries such as {'T1': 'p01/t1.nii.gz'}"
    else:
        raise Any2allError("there is no such folder or datalist", key="source", value=str(source))
    if not subjects:
        raise Any2allError("no subject was found", key="source", value=str(source), allowed=wanted)
    return subjects


def _of_folder(folder: Path, stack: Stack) -> Subject:
    found, others = files_by_modality(folder, stack)
    ignored = tuple(file.relative_to(folder).as_posix() for file in others)
    has_dicom = first_dicom(folder) is not None
    if not any(found.values()) and has_dicom:
        return Subject(folder.name, {}, ignored=ignored, dicom=(folder,))
    refused = {name: several_files(folder, files) for name, files in found.items() if len(files) > 1}
    files = {name: files[0] for name, files in found.items() if len(files) == 1}
    unread = ("its DICOM files are not read, since there are images beside them",) if has_dicom else ()
    return Subject(folder.name, files, refused, ignored, warnings=unread)


def _of_patients(folder: Path, converted: Path | None) -> list[Subject]:
    """A folder in which DICOM files of several patients lie together: a subject for each, named by a number."""
    parts = subjects_of(scan(folder), converted)
    files = {name: tuple(file for series in part.series for file in series.files) for name, part in parts.items()}
    return [Subject(name, {}, dicom=files[name]) for name in sorted(files)]


def _of_datalist(file: Path, stack: Stack) -> list[Subject]:
    sections = {section: read_datalist(file, section) for section in SECTIONS}
    given = bool(sections["validation"])
    entries = [(section, entry) for section in SECTIONS for entry in sections[section]]
    subjects = []
    for (section, entry), name in zip(entries, _names([entry for _, entry in entries])):
        files = {modality: Path(entry[modality]) for modality in stack.names if modality in entry}
        ignored = tuple(sorted(set(entry) - set(stack.names) - {NAME_KEY}))
        subjects.append(Subject(name, files, {}, ignored, section if given else None))
    return subjects


def _names(entries: list[dict[str, str]]) -> list[str]:
    """What the entries say; else the folders of their files where these tell them apart; else numbers."""
    if all(NAME_KEY in entry for entry in entries):
        names = [Path(entry[NAME_KEY]).name for entry in entries]
        for name in names:
            if names.count(name) > 1 or not name or name.startswith("."):
                message = "every entry needs a name of its own that a folder can have"
                raise Any2allError(message, key=NAME_KEY, value=name)
        return names
    folders = [Path(next(iter(entry.values()), "")).parent.name for entry in entries]
    if len(set(folders)) == len(folders) and all(name and not name.startswith(".") for name in folders):
        return folders
    return [f"subject_{number:04d}" for number in range(1, len(entries) + 1)]
