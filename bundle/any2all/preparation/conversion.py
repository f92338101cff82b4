"""A subject that lies in DICOM files gets images before it is prepared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..dicom import convert_subject, scan
from ..errors import Any2allError
from ..stack import Stack
from .sources import Subject

CONVERTED = ".dicom"  # in the cohort's output; no subject can have this name
_SHOWN = 4


def from_dicom(subject: Subject, folder: Path, stack: Stack) -> Subject:
    """The subject with images in ``<folder>/.dicom/<subject>/``, made of its DICOM files or there from an earlier run.

    What cannot be converted is in ``refused``, under the modality's name or the subject's own.

    Raises:
        Any2allError: the images cannot be written.
    """
    try:
        made = convert_subject(scan(subject.dicom), subject.name, stack, folder / CONVERTED)
    except Any2allError as error:
        if error.code == "storage":
            raise
        return replace(subject, refused={subject.name: error.sentence()})
    refused = dict(made.refused)
    if not made.files and not refused:
        seen = f": {'; '.join(made.ignored[:_SHOWN])}" if made.ignored else ""
        refused[subject.name] = f"no DICOM series of it is a modality of the stack{seen}"
    ignored = (*subject.ignored, *made.ignored)
    return replace(subject, files=made.files, refused=refused, ignored=ignored, warnings=made.warnings)
