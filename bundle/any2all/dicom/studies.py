"""A folder of DICOM files becomes one study folder for each patient."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..errors import Any2allError
from ..geometry import Volume
from ..output.summary import plain
from ..output.write import SUMMARY, refuse_foreign, whole_folder
from ..stack import Stack
from ..study.document import validated
from .header import text
from .privacy import naming_words, without_names
from .reading import SeriesImage, read_image
from .recognition import Choice, Override, Recognised, check_overrides, choose, parse_overrides, recognise
from .series import Scan, Series, scan
from .source import read_source

STUDY, SERIES, SOURCE = "study.json", "series.json", "dicom_source.json"
_NOBODY = re.compile(r"|anon\w*|unknown|none|n/?a|removed|deleted|de-?identified|no\W?name|x+|0+", re.IGNORECASE)
VERSION = 3  # of how a subject is converted: another one does everything again


@dataclass(frozen=True)
class Converted:
    """One subject's folder. ``refused``: modality → why none of its series is used; ``resumed``: it was there."""

    subject: str
    folder: Path
    files: Mapping[str, Path]
    refused: Mapping[str, str]
    warnings: tuple[str, ...]
    ignored: tuple[str, ...]
    resumed: bool


@dataclass(frozen=True, eq=False)
class _Taken:
    """A series that became a modality's image."""

    series: Series
    found: Recognised
    image: SeriesImage
    volume: Volume
    warnings: tuple[str, ...]


def studies_from(
    folder: str | Path,
    stack: Stack,
    out_dir: str | Path,
    overrides: Mapping[str, Any] | None = None,
    subject: str | None = None,
) -> list[Converted]:
    """Convert every patient of a folder: ``<out_dir>/<subject>/`` with images, study and the reasons.

    Args:
        folder: DICOM files at any depth, of any number of patients.
        stack: what is looked for.
        out_dir: subjects that are finished there, from the same files and overrides, are kept.
        overrides: see `parse_overrides`.
        subject: name of the only patient; None: numbers, see `subjects_of`.

    Raises:
        Any2allError: no DICOM image in the folder, several patients where one was named, patients who cannot be told
            apart, a name that no study can have, an override that is none or of no series here.
    """
    found = scan(folder)
    if not found.series:
        raise Any2allError("there is no DICOM image in this folder", key="source", value=str(folder), hint=_seen(found))
    check_overrides(overrides, found.series)
    if subject is not None:
        validated({"subject": subject})
        return [convert_subject(found, subject, stack, Path(out_dir), overrides)]
    parts = subjects_of(found, Path(out_dir))
    return [convert_subject(part, name, stack, Path(out_dir), overrides) for name, part in parts.items()]


def subjects_of(found: Scan, out_dir: Path | None) -> dict[str, Scan]:
    """Patients who lie together as ``subject01``, ``subject02``, … in the order of their files.

    A patient who has a folder in ``out_dir`` from an earlier run keeps its name, whoever has come since, and nobody
    takes the folder of another.

    Raises:
        Any2allError: files of several examinations name no patient, so that nobody can tell whose they are.
    """
    parts = [found.of(patient) for patient in found.patients]
    for part in parts:
        _check_named(part)
    known = _known(out_dir) if out_dir else {}
    names: list[str | None] = []
    for part in parts:
        name = next((known[one.uid] for one in part.series if one.uid in known), None)
        names.append(None if name in names else name)
    taken = {*names, *(path.name for path in (out_dir.glob("subject*") if out_dir else ()))}
    free = (name for number in itertools.count(1) if (name := f"subject{number:02d}") not in taken)
    return {name or next(free): part for name, part in zip(names, parts)}


def _known(out_dir: Path) -> dict[str, str]:
    """Series Instance UID → the numbered subject that was made of it."""
    found = {}
    for file in sorted(out_dir.glob(f"subject*/{SOURCE}")):
        with suppress(Any2allError):
            found |= {one.series_uid: file.parent.name for one in read_source(file).values()}
    return found


def _check_named(part: Scan) -> None:
    number, _, name = part.series[0].patient
    examinations = {one.study_uid for one in part.series}
    if len(examinations) > 1 and _NOBODY.fullmatch(number) and _NOBODY.fullmatch(name):
        raise Any2allError(
            "files of several examinations name no patient, so nobody can tell whose they are",
            key="source",
            value=f"{len(examinations)} Study Instance UIDs",
            allowed="patients with a Patient ID or name of their own",
            hint="give each patient a folder: dicom.json takes one by --subject NAME, prepare.json a folder of them",
        )


def convert_subject(
    found: Scan, name: str, stack: Stack, out_dir: Path, overrides: Mapping[str, Any] | None = None
) -> Converted:
    """Convert one patient. Nothing is written where no series can be used: ``files`` is empty then.

    A study.json of an earlier conversion that somebody has edited since is kept beside the new one.

    Raises:
        Any2allError: several patients, an override that is none.
    """
    if len(found.patients) > 1:
        raise Any2allError(
            "the files are of several patients",
            key=name,
            value=f"{len(found.patients)} different Patient IDs or names",
            allowed="one patient for each folder",
            code="invalid_image",
        )
    checked = parse_overrides(overrides, stack)
    fingerprint = _fingerprint(found, name, stack, checked)
    there = _earlier(out_dir / name, name, fingerprint)
    if there is not None:
        return there
    _check_ours(out_dir / name)
    recognised = [(one, recognise(one, stack, checked)) for one in found.series]
    taken, problems = _read(choose(recognised, stack), stack)
    naming = naming_words(found.series)
    document = _told(recognised, taken, problems, found, naming)
    warnings = _warnings(taken, found, naming)
    refused = {k: without_names(v, naming) for k, v in _refused(recognised, taken, problems, stack).items()}
    ignored = tuple(_ignored(recognised, taken, naming))
    if not taken:
        return Converted(name, out_dir / name, {}, refused, warnings, ignored, False)
    summary = {
        "any2all_summary": VERSION,
        "kind": "dicom",
        "subject": name,
        "fingerprint": fingerprint,
        "refused": refused,
        "warnings": warnings,
        "ignored": ignored,
        "modalities": list(taken),
    }
    edited = _edited_study(out_dir / name, name)
    if edited is not None:
        kept = next(n for n in _names_beside() if not (out_dir / name / n).exists())
        warnings = summary["warnings"] = (*warnings, f"{STUDY} had been edited; it is kept as {kept}")
    with whole_folder(out_dir / name, list(taken), overwrite=True) as partial:
        for modality, image in taken.items():
            _save(partial / f"{modality}.nii.gz", image.volume, modality)
        _write(partial / STUDY, _study(name, taken))
        _write(partial / SERIES, {"any2all_series": VERSION, "subject": name, "warnings": warnings, **document})
        _write(partial / SOURCE, _source(name, taken))
        files = sorted([*(path.name for path in partial.iterdir()), SUMMARY])
        if edited is not None:  # and not among the files, which the next conversion replaces
            (partial / kept).write_bytes(edited)
        _write(partial / SUMMARY, {**summary, "files": files})
    return _of_summary(out_dir / name, name, {**summary, "files": files}, False)


def _seen(found: Scan) -> str | None:
    return f"{len(found.skipped)} files were looked at; the first: {found.skipped[0][1]}" if found.skipped else None


def _fingerprint(found: Scan, name: str, stack: Stack, overrides: Mapping[str, Override]) -> str:
    """Of all that the result depends on: files by object and size, never by their place."""
    objects = sorted(
        (text(frame.header, "SOPInstanceUID"), frame.file.stat().st_size)
        for one in found.series
        for frame in {frame.file: frame for frame in one.frames}.values()
    )
    said = {key: [value.modality, value.reference_suv] for key, value in overrides.items()}
    parts = [VERSION, name, objects, said, stack.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _earlier(folder: Path, name: str, fingerprint: str) -> Converted | None:
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        same = summary["fingerprint"] == fingerprint and all((folder / file).is_file() for file in summary["files"])
        return _of_summary(folder, name, summary, True) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _edited_study(folder: Path, name: str) -> bytes | None:
    """What study.json holds, where it is no longer what the earlier conversion wrote."""
    try:
        written = _study(name, json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["modalities"])
        content = (folder / STUDY).read_bytes()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        return None if json.loads(content) == written else content
    except ValueError:
        return content


def _names_beside() -> Iterator[str]:
    yield "study_edited.json"
    yield from (f"study_edited_{number}.json" for number in itertools.count(2))


def _check_ours(folder: Path) -> None:
    """Refuse a folder that holds a study, or results, that no conversion made."""
    try:
        ours = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["kind"] == "dicom"
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        refuse_foreign([name for name in (STUDY, SERIES, SOURCE, SUMMARY) if (folder / name).exists()])


def _of_summary(folder: Path, name: str, summary: Mapping[str, Any], resumed: bool) -> Converted:
    files = {modality: folder / f"{modality}.nii.gz" for modality in summary["modalities"]}
    told = tuple(summary["warnings"]), tuple(summary["ignored"])
    return Converted(name, folder, files, dict(summary["refused"]), *told, resumed)


def _read(choices: Sequence[Choice], stack: Stack) -> tuple[dict[str, _Taken], dict[Series, str]]:
    """The best readable series of each modality, and why others could not be read."""
    taken: dict[str, _Taken] = {}
    problems: dict[Series, str] = {}
    for choice in choices:
        for series, found in choice.candidates:
            try:
                image = read_image(series)
            except Any2allError as error:
                problems[series] = error.sentence()
                continue
            volume, notes = _in_units(image, found, stack[choice.modality].units)
            taken[choice.modality] = _Taken(series, found, image, volume, (*image.warnings, *notes))
            break
    return taken, problems


def _in_units(image: SeriesImage, found: Recognised, units: str) -> tuple[Volume, list[str]]:
    """SUV over the reference region's mean is the SUVr of the stack; without that number the file stays in SUV."""
    if image.units != "SUV" or units.upper() == "SUV":
        return image.volume, []
    if found.reference_suv is None:
        return image.volume, [
            f"the image is in SUV (body weight), but the stack's PET is in {units}: give the mean SUV of the "
            "reference region (override reference_suv), or fit the stack's constant to the cohort (fit_stack)"
        ]
    return Volume(image.volume.data / found.reference_suv, image.volume.grid), []


def _study(name: str, taken: Iterable[str]) -> dict[str, Any]:
    modalities = {modality: {"status": "available", "file": f"{modality}.nii.gz"} for modality in taken}
    return {"version": 1, "subject": name, "modalities": modalities}


def _source(name: str, taken: Mapping[str, _Taken]) -> dict[str, Any]:
    """The identifiers that derived series refer to: of studies, series and objects, of no person."""
    return {
        "any2all_dicom_source": VERSION,
        "subject": name,
        "modalities": {
            modality: {
                "study_uid": one.series.study_uid,
                "series_uid": one.series.uid,
                "frame_of_reference_uid": text(one.series.header, "FrameOfReferenceUID"),
                "sop_class_uid": text(one.series.header, "SOPClassUID"),
                "units": one.image.units,
                "slices": [
                    {
                        "uid": text(frame.header, "SOPInstanceUID"),
                        "frame": frame.number + 1,
                        "position": frame.position.tolist(),
                        "orientation": frame.orientation.tolist(),
                    }
                    for frame in one.image.planes
                ],
            }
            for modality, one in taken.items()
        },
    }


def _told(
    recognised: Sequence[tuple[Series, Recognised]],
    taken: Mapping[str, _Taken],
    problems: Mapping[Series, str],
    found: Scan,
    naming: frozenset[str],
) -> dict[str, Any]:
    """Why each series was taken or not; files that are no DICOM are counted by their reason."""
    mine = {one.series: modality for modality, one in taken.items()}
    rows = []
    for series, what in recognised:
        if series in mine:
            verdict, reason = "taken", what.reason
        elif series in problems:
            verdict, reason = "refused", problems[series]
        elif what.modality in taken:
            better = taken[what.modality].series
            verdict, reason = "not taken", f"{what.reason}; series {better.number} is the better {what.modality}"
        else:
            verdict, reason = "not taken", what.reason
        row = {
            "number": series.number,
            "description": without_names(series.description, naming),
            "part": without_names(series.part, naming),
            "slices": len(series.frames),
            "modality": what.modality,
            "confidence": round(what.confidence, 2),
            "verdict": verdict,
            "reason": without_names(reason, naming),
            "units": taken[mine[series]].image.units if series in mine else None,
            "warnings": list(taken[mine[series]].warnings) if series in mine else [],
        }
        rows.append(row)
    reasons = [reason for _, reason in found.skipped]
    return {"series": rows, "skipped_files": {reason: reasons.count(reason) for reason in sorted(set(reasons))}}


def _warnings(taken: Mapping[str, _Taken], found: Scan, naming: frozenset[str]) -> tuple[str, ...]:
    notes = [f"{modality}: {note}" for modality, one in taken.items() for note in one.warnings]
    if len({one.series.study_uid for one in taken.values()}) > 1:
        notes.append("the images come from different examinations (Study Instance UIDs) of this patient")
    if found.skipped:
        reasons = sorted({reason for _, reason in found.skipped})
        notes.append(f"{len(found.skipped)} files were skipped: {'; '.join(reasons)}")
    return tuple(without_names(note, naming) for note in notes)


def _refused(
    recognised: Sequence[tuple[Series, Recognised]],
    taken: Mapping[str, _Taken],
    problems: Mapping[Series, str],
    stack: Stack,
) -> dict[str, str]:
    """For each modality that has series but no image: why."""
    refused: dict[str, list[str]] = {}
    for series, what in recognised:
        if series in problems and what.modality in stack.names and what.modality not in taken:
            refused.setdefault(what.modality, []).append(f"series {series.number}: {problems[series]}")
    return {modality: "; ".join(reasons) for modality, reasons in refused.items()}


def _ignored(
    recognised: Sequence[tuple[Series, Recognised]], taken: Mapping[str, _Taken], naming: frozenset[str]
) -> list[str]:
    used = {one.series for one in taken.values()}
    return [
        without_names(f"series {series.number} {series.description} ({what.reason})", naming)
        for series, what in recognised
        if series not in used
    ]


def _save(path: Path, volume: Volume, modality: str) -> None:
    """float32 NIfTI with the series' own axes (column, row, slice)."""
    image = nib.Nifti1Image(np.ascontiguousarray(volume.data), volume.grid.affine)
    image.set_sform(volume.grid.affine, code=1)
    image.set_qform(volume.grid.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"from DICOM by Any2all, {modality}".encode("ascii", "replace")
    nib.save(image, path)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(plain(dict(document)), indent=1, allow_nan=False) + "\n", encoding="utf-8")
