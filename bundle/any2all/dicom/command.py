"""What ``configs/dicom.json`` is made of: DICOM to study folders, and results to DICOM."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import Any2allError
from ..stack import Stack
from ..workflow import announce, as_flag, as_folder, front_door, shortest
from .source import check_holds
from .studies import SERIES, SOURCE, STUDY, Converted, studies_from
from .write import INDEX, checked_sources, write_dicom

SERIES_FOLDER = "dicom"


class Conversion:
    """``conversion`` of ``dicom.json``: `run` makes a study folder of every patient in a folder of DICOM files.

    Args:
        source: the folder.
        output_dir: where the study folders go; finished ones are kept.
        stack: the modalities that are looked for.
        overrides: a mapping, or a JSON file with one, see `recognition.parse_overrides`.
        subject: name of the only patient; None: ``subject01``, ….
    """

    def __init__(
        self,
        source: str | Path | None,
        output_dir: str | Path | None,
        stack: Stack,
        overrides: str | Path | Mapping[str, Any] | None = None,
        subject: str | None = None,
    ) -> None:
        self.source, self.output_dir, self.stack = source, output_dir, stack
        self.overrides, self.subject = overrides, subject

    def run(self) -> list[Converted]:
        """Convert. Leaves the process with status 2 on a user's error and where no patient has an image."""
        with front_door():
            if self.source is None:
                raise Any2allError("no DICOM folder was given", key="source", hint="--source FOLDER")
            folder = as_folder(self.output_dir, "output_dir")
            _check_apart(Path(str(self.source)), folder)
            subject = None if self.subject is None else str(self.subject)
            made = studies_from(str(self.source), self.stack, folder, read_overrides(self.overrides), subject)
            for one in made:
                _tell(one)
            if not any(one.files for one in made):
                raise Any2allError(
                    "no series of this folder can be used",
                    key="source",
                    value=str(self.source),
                    hint="the reasons are above; overrides say what a series is",
                )
            return made


class SeriesWriter:
    """``writer`` of ``dicom.json``: `run` writes a results folder as derived DICOM series, see `write_dicom`."""

    def __init__(
        self,
        results: str | Path | None,
        output_dir: str | Path | None,
        stack: Stack,
        study: str | Path | None = None,
        dicom_dir: str | Path | None = None,
        overwrite: bool | str = False,
    ) -> None:
        self.results, self.output_dir, self.stack = results, output_dir, stack
        self.study, self.dicom_dir, self.overwrite = study, dicom_dir, overwrite

    def run(self) -> dict[str, Path]:
        """Write the series. Leaves the process with status 2 on a user's error; nothing is written then."""
        with front_door():
            if self.results is None:
                raise Any2allError("no results were given", key="results", hint="--results FOLDER")
            folder, overwrite = as_folder(self.output_dir, "output_dir"), as_flag(self.overwrite, "overwrite")
            made = write_dicom(self.results, folder, _source_of(self.study), self.dicom_dir, self.stack, overwrite)
            print(f"{len(made)} derived series ({', '.join(made)}) are in {shortest(folder)}.", flush=True)
            return made


def check_series(
    output_dir: str | Path | None,
    study: str | Path | None,
    wanted: bool | str = False,
    dicom_dir: str | Path | None = None,
    overwrite: bool | str = False,
) -> None:
    """The first step of ``inference.json``: what `results_as_dicom` would refuse is refused before anything is sampled.

    Leaves the process with status 2 on a user's error. What is missing altogether, a study or a folder for the
    results, is left to the step that needs it.
    """
    with front_door():
        wanted, overwrite = as_flag(wanted, "dicom"), as_flag(overwrite, "overwrite")
        if dicom_dir is not None and not wanted:
            message = "DICOM files are only used where series are asked for"
            raise Any2allError(message, key="dicom_dir", value=str(dicom_dir), hint="--dicom True")
        if output_dir is None or study is None or not Path(str(study)).exists():
            return
        folder = Path(str(output_dir)) / SERIES_FOLDER
        if not wanted and overwrite and (folder / INDEX).is_file():
            message = "series of the results that are being replaced would stay"
            raise Any2allError(message, key="dicom", value=str(folder), hint="--dicom True, or remove that folder")
        if not wanted:
            return
        sources = checked_sources(folder, _source_file(study), dicom_dir, overwrite)
        if dicom_dir is not None:
            check_holds(Path(str(dicom_dir)), sources.values())


def results_as_dicom(
    output_dir: str | Path,
    study: str | Path,
    stack: Stack,
    wanted: bool | str = False,
    dicom_dir: str | Path | None = None,
    overwrite: bool | str = False,
) -> None:
    """The last step of ``inference.json``: where that is asked, the results as series in ``<output_dir>/dicom``."""
    with front_door():
        if not as_flag(wanted, "dicom"):
            return
    SeriesWriter(output_dir, Path(output_dir) / SERIES_FOLDER, stack, study, dicom_dir, overwrite).run()


def read_overrides(given: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A mapping as it is, or from a JSON file. Raises Any2allError for a file that holds none."""
    if given is None or isinstance(given, Mapping):
        return given
    try:
        found = json.loads(Path(str(given)).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError
    except (OSError, ValueError):
        allowed = 'a JSON file such as {"4": "T1", "7": null}'
        raise Any2allError("the overrides cannot be read", key="overrides", value=str(given), allowed=allowed) from None
    return found


def _source_of(study: str | Path | None) -> Path | None:
    """The ``dicom_source.json`` beside a study; None where the study did not come from DICOM."""
    if study is None:
        return None
    file = _source_file(study)
    if file is None:
        announce(f"warning: there is no {SOURCE} beside the study: the series get a study and a patient of their own")
    return file


def _source_file(study: str | Path) -> Path | None:
    path = Path(str(study))
    file = (path if path.is_dir() else path.parent) / SOURCE
    return file if file.is_file() else None


def _check_apart(source: Path, folder: Path) -> None:
    """What is written must not be found by the next run."""
    if folder.resolve() == source.resolve() or source.resolve() in folder.resolve().parents:
        message = "the studies must not lie in the DICOM folder itself"
        raise Any2allError(message, key="output_dir", value=str(folder), hint="choose another folder")


def _tell(one: Converted) -> None:
    """The lines of a subject: what it has, why not more, and where it lies."""
    has = ", ".join(one.files) or "nothing"
    kept = " (kept from an earlier run)" if one.resumed else ""
    where = f"; {STUDY} and {SERIES} are in {shortest(one.folder)}" if one.files else ""
    print(f"{one.subject}: {has}{kept}{where}", flush=True)
    for modality, why in one.refused.items():
        print(f"refused: {one.subject}: {modality}: {why}", file=sys.stderr, flush=True)
    reasons: Sequence[str] = [] if one.files else one.ignored
    for line in reasons:
        print(f"not used: {one.subject}: {line}", file=sys.stderr, flush=True)
    for warning in one.warnings:
        print(f"warning: {one.subject}: {warning}", file=sys.stderr, flush=True)
