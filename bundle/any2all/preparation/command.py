"""What ``configs/prepare.json`` is made of: a cohort in, a datalist for ``train.json`` and a page to look at out."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import Any2allError
from ..folders import made_folder
from ..output.write import refuse_foreign, sweep
from ..stack import LinearNormalisation, Stack
from ..workflow import INTERRUPTED, announce, as_count, as_flag, as_folder, front_door, shortest
from .cohort import cohort_constants, datalist, fitted_stack, listed, split
from .conversion import CONVERTED
from .page import qc_page, refusals
from .parallel import in_processes
from .sources import Subject, find_subjects
from .subject import Record, Settings, prepare_subject

DATALIST, REPORT, PAGE, STACK = "datalist.json", "report.json", "qc.html", "stack.json"
REPORT_VERSION = 1


class Preparation:
    """``preparation`` of ``prepare.json``: `run` makes every subject of a cohort a stack that can be trained on.

    Args:
        source: the cohort, see `find_subjects`.
        output_dir: where the stacks go.
        stack: the modalities.
        workers: subjects that are prepared at once, a process each.
        spacing_mm, registration, least_overlap, seed: see `Settings`; the seed also draws the validation subjects.
        validation_fraction: share of subjects that is kept for validation where the source does not say which.
        fit_stack: write ``stack.json`` with the cohort's own constants.
    """

    def __init__(
        self,
        source: str | Path | None,
        output_dir: str | Path | None,
        stack: Stack,
        workers: int = 2,
        spacing_mm: Sequence[float] | None = None,
        registration: str = "rigid",
        least_overlap: float = 0.8,
        validation_fraction: float = 0.1,
        fit_stack: bool | str = False,
        seed: int = 0,
    ) -> None:
        self.source, self.output_dir, self.stack, self.workers = source, output_dir, stack, workers
        self.spacing_mm, self.registration, self.least_overlap = spacing_mm, registration, least_overlap
        self.validation_fraction, self.fit_stack, self.seed = validation_fraction, fit_stack, seed

    def run(self) -> Path:
        """Prepare the cohort. Leaves the process with status 2 where no subject can be used, 130 on Ctrl-C."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        with front_door():
            try:
                return self._run()
            except KeyboardInterrupt:
                announce("stopped: the subjects that are done are kept, and the same command goes on")
                raise SystemExit(INTERRUPTED) from None
            finally:
                signal.signal(signal.SIGTERM, before)

    def _run(self) -> Path:
        folder, settings, fit = self._checked()
        subjects = find_subjects(self.source, self.stack, folder / CONVERTED)
        _check_output(Path(str(self.source)), folder)
        made_folder(folder, "output_dir")
        for subject in subjects:
            sweep(folder / subject.name)
            sweep(folder / CONVERTED / subject.name)
        records = self._prepared(subjects, folder, settings)
        sections, notes = split(records, self.validation_fraction, settings.seed)
        training = [record for record in records if sections.get(record["subject"]) == "training"]
        constants = cohort_constants(training, self.stack)
        if fit and not any(isinstance(self.stack[name].normalisation, LinearNormalisation) for name in constants):
            notes.append("fit_stack: no training subject has an image to fit a constant to")
        told = {
            "any2all_preparation": REPORT_VERSION,
            **asdict(settings),
            "validation_fraction": self.validation_fraction,
        }
        report = {**told, "notes": notes, "constants": constants, **listed(records, sections)}
        _write(folder / REPORT, _json(report))
        _write(folder / PAGE, qc_page(records, folder, sections, notes))
        if not sections:
            raise _nothing_usable(records, folder)
        _write(folder / DATALIST, _json(datalist(records, sections)))
        if fit:
            _write(folder / STACK, _json(fitted_stack(self.stack, constants)))
        print("\n".join(_told(report, folder, fit)), flush=True)
        return folder / DATALIST

    def _checked(self) -> tuple[Path, Settings, bool]:
        if self.source is None:
            raise Any2allError("no cohort was given", key="source", hint="--source FOLDER or --source DATALIST.json")
        fraction = self.validation_fraction
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:
            raise Any2allError("no share", key="validation_fraction", value=fraction, allowed="0 to below 1")
        as_count(self.workers, "workers")
        try:
            spacing = None if self.spacing_mm is None else tuple(float(value) for value in self.spacing_mm)
            limit = float(self.least_overlap)
        except (TypeError, ValueError):
            value = {"spacing_mm": self.spacing_mm, "least_overlap": self.least_overlap}
            raise Any2allError("numbers are needed", key="spacing_mm, least_overlap", value=value) from None
        settings = Settings(self.registration, spacing, limit, as_count(self.seed, "seed", 0))
        return as_folder(self.output_dir, "output_dir"), settings, as_flag(self.fit_stack, "fit_stack")

    def _prepared(self, subjects: Sequence[Subject], folder: Path, settings: Settings) -> list[Record]:
        """The records of all subjects, in their order; a bar on stderr while they come."""
        work = partial(prepare_subject, folder=folder, stack=self.stack, settings=settings)
        records: dict[str, Record] = {}
        wait = 0.2 if sys.stderr.isatty() else 10.0
        with tqdm(total=len(subjects), desc="preparing", unit="subject", file=sys.stderr, mininterval=wait) as bar:
            for subject, answer in in_processes(work, subjects, self.workers):
                records[subject.name] = _failed(subject, answer) if isinstance(answer, Any2allError) else answer
                bar.update()
        return [records[subject.name] for subject in subjects]


def _check_output(source: Path, folder: Path) -> None:
    """Refuse a folder in which the cohort lies, or that holds files of somebody else by our names."""
    cohort = (source if source.is_dir() else source.parent).resolve()
    here = folder.resolve()
    if here == cohort or (source.is_dir() and cohort in here.parents):
        message = "the results must not lie in the cohort itself"
        raise Any2allError(message, key="output_dir", value=str(folder), hint="choose another folder")
    if folder.exists() and not folder.is_dir():
        raise Any2allError("this is not a folder", key="output_dir", value=str(folder), code="exists")
    try:
        ours = "any2all_preparation" in json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        ours = False
    foreign = [name for name in (DATALIST, REPORT, PAGE, STACK) if (folder / name).exists()]
    if not ours:
        refuse_foreign(foreign)


def _failed(subject: Subject, error: Any2allError) -> Record:
    """The record of a subject that was not even written."""
    return {
        "subject": subject.name,
        "section": subject.section,
        "fingerprint": None,
        "reference": None,
        "modalities": {},
        "refused": {**subject.refused, subject.name: error.sentence()},
        "warnings": [],
        "ignored": list(subject.ignored),
        "resumed": False,
    }


def _nothing_usable(records: Sequence[Record], folder: Path) -> Any2allError:
    first = next(line for record in records for line in refusals(record))
    return Any2allError(
        "no subject can be used",
        key="source",
        value=f"{len(records)} refused",
        hint=f"the first reason: {first}; all of them are in {shortest(folder / PAGE)}",
    )


def _told(report: dict[str, Any], folder: Path, fit: bool) -> list[str]:
    """The lines that end a run."""
    shown = shortest(folder)
    stack = f" --stack_file {shown / STACK}" if fit else ""
    return [
        "Subjects: " + ", ".join(f"{number} {name}" for name, number in report["counts"].items()) + ".",
        *(f"refused: {line}" for record in report["subjects"] for line in refusals(record)),
        *(f"note: {note}" for note in report["notes"]),
        f"Look at {shown / PAGE}; the numbers are in {shown / REPORT}.",
        f"Train with --datalist_file {shown / DATALIST}{stack}",
    ]


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    """The whole file or none."""
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
