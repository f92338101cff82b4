"""A folder of results becomes derived DICOM series, one for each volume, together or not at all."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from .. import __version__
from ..errors import Any2allError
from ..geometry import Grid, Volume
from ..output.volumes import read_provenance
from ..output.write import SUMMARY
from ..stack import Stack, load_stack
from .attributes import Derived, modality_of, series_attributes, series_number, slice_attributes
from .source import SourceSeries, SourceSlice, patient_of, pseudonymous, read_source
from .values import Slices, as_slices, own_slices, to_stored

INDEX = "any2all_series.json"
_IMPLEMENTATION = "2.25.206532017830145712964312764025531086529"


def write_dicom(
    results: str | Path,
    out_dir: str | Path,
    source: str | Path | None = None,
    dicom_dir: str | Path | None = None,
    stack: Stack | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """Write every mean and std of a results folder (contract 2) as a derived series ``<out_dir>/<volume>/*.dcm``.

    Args:
        results: the folder of a run.
        out_dir: made; refused where it holds anything, or replaced with ``overwrite`` where it holds our series.
        source: the study's ``dicom_source.json``. The series then belong to its study and frame of reference, lie
            on its very slices where the reference is one of them, and refer to them.
        dicom_dir: the source's own files. The patient's and the study's attributes are taken from them; without
            them the patient is known by the subject's name only.
        stack: tells the kind of each output; default: the shipped one.

    Returns:
        Volume, such as ``CT`` or ``CT_std`` → its folder.

    Raises:
        Any2allError: no results, a source that does not fit, a folder that is in use, or a full disk.
    """
    results, out_dir, stack = Path(results), Path(out_dir), stack or load_stack()
    summary = _summary(results)
    sources = checked_sources(out_dir, source, dicom_dir, overwrite)
    volumes = _volumes(summary)
    given = {name: one for name, one in sources.items() if name in {*summary.get("given", ()), *summary["outputs"]}}
    grid = _load(results / volumes[0][1]).grid
    ranked = sorted((given or sources).values(), key=lambda one: not one.lies_on(grid))  # the reference first
    world = sources.get(_reference_of(summary) or "")
    context = _Context(summary["subject"], ranked, None if dicom_dir is None else Path(dicom_dir), world)
    partial = out_dir.parent / f".{out_dir.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir(parents=True)
        for number, (name, file, output) in enumerate(volumes):
            derived = _derived(results / file, name, output, stack, number)
            (partial / name).mkdir()
            _write_series(_load(results / file), derived, context, partial / name)
        told = {"any2all_series": 1, "series": [name for name, _, _ in volumes]}
        (partial / INDEX).write_text(json.dumps(told) + "\n", encoding="utf-8")
        _publish(partial, out_dir)
    except OSError as error:
        raise Any2allError(
            f"the series could not be written: {error.strerror or error}",
            key="output_dir",
            value=str(out_dir),
            code="storage",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {name: out_dir / name for name, _, _ in volumes}


def checked_sources(
    out_dir: Path, source: str | Path | None, dicom_dir: str | Path | None, overwrite: bool
) -> dict[str, SourceSeries]:
    """The source series of each modality, after all that `write_dicom` can refuse before there are results.

    Raises:
        Any2allError: a source that cannot be read, DICOM files without one, or a folder that is in use.
    """
    sources = read_source(Path(source)) if source is not None else {}
    if dicom_dir is not None and not sources:
        message = "the patient can be taken from DICOM files only where dicom_source.json lies beside the study"
        raise Any2allError(message, key="dicom_dir", value=str(dicom_dir), hint="dicom.json makes both from DICOM")
    _check_out(out_dir, overwrite)
    return sources


class _Context:
    """Patient, study, frame of reference and source series of all series that are written together.

    ``world`` is the series that the reference image came from, None where that was no DICOM: other images were moved
    onto it, so theirs is not the frame of reference of the results.
    """

    def __init__(
        self, subject: str, sources: list[SourceSeries], dicom_dir: Path | None, world: SourceSeries | None
    ) -> None:
        self.sources, self.world = sources, world
        first = self.sources[0] if self.sources else None
        self.study_uid = first.study_uid if first else generate_uid(prefix=None)
        self.fallback_frame_uid = generate_uid(prefix=None)
        self.patient = patient_of(dicom_dir, self.sources) if first and dicom_dir else pseudonymous(subject)

    def lay(self, volume: Volume) -> tuple[Slices, SourceSeries | None]:
        """The volume's slices, on those of a source series where they are the same."""
        for series in self.sources:
            if series.lies_on(volume.grid):
                slices = own_slices(volume)
                positions = np.array([one.position for one in series.slices])
                exact = np.array(series.slices[0].orientation)
                return Slices(slices.data, positions, exact, slices.spacing, slices.between_mm), series
        return as_slices(volume), None

    def frame_uid(self, reference: SourceSeries | None) -> str:
        """Frame of Reference: that of the series whose slices these are, else of the reference; else a new one."""
        series = reference or self.world
        return (series.frame_of_reference_uid if series else "") or self.fallback_frame_uid

    def references(
        self, slices: Slices, k: int, reference: SourceSeries | None
    ) -> list[tuple[SourceSeries, SourceSlice, bool]]:
        """For each source series the slice that passes nearest to the middle of slice k; those of this study first."""
        found = []
        for series in sorted(self.sources, key=lambda one: one.study_uid != self.study_uid):
            same = series is reference
            found.append((series, series.slices[k] if same else series.nearest(slices.centre(k)), same))
        return found


def _reference_of(summary: dict[str, Any]) -> str | None:
    """The modality on whose grid the results lie: as the study says, else the first image that was given."""
    study = (summary.get("provenance") or {}).get("study") or {}
    return study.get("reference") or next(iter(summary.get("given") or ()), None)


def _summary(results: Path) -> dict[str, Any]:
    try:
        summary = json.loads((results / SUMMARY).read_text(encoding="utf-8"))
        if "any2all_summary" not in summary or not summary["outputs"]:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise Any2allError("this folder holds no results of Any2all", key="results", value=str(results)) from None
    return summary


def _volumes(summary: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Name of the series, file, and what the summary says of its output."""
    found = []
    for name, output in summary["outputs"].items():
        found.append((name, output["mean"], output))
        if output.get("std"):
            found.append((f"{name}_std", output["std"], output))
    return found


def _load(file: Path) -> Volume:
    image = nib.load(file)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), Grid(image.shape, image.affine))


def _derived(file: Path, name: str, output: dict[str, Any], stack: Stack, index: int) -> Derived:
    origin = read_provenance(file)
    if origin is None:
        raise Any2allError("this file does not carry its origin, so it is no result", key="results", value=file.name)
    prior, sampler = origin.get("prior") or {}, origin.get("sampler") or {}
    modality = name.removesuffix("_std")
    return Derived(
        modality=modality_of(stack[modality].kind),
        name=modality,
        statistic="std" if name.endswith("_std") else "mean",
        role=output["role"],
        units=output["units"],
        software=str(origin.get("software") or f"any2all {__version__}"),
        network=str(prior.get("name", "prior")),
        prior_version=str(prior.get("version", "unknown")),
        prior_sha256=str(prior.get("sha256", "unknown")),
        sampler=", ".join(f"{key} {sampler[key]}" for key in ("name", "steps", "samples", "seed") if key in sampler),
        number=series_number(index),
    )


def _write_series(volume: Volume, derived: Derived, context: _Context, folder: Path) -> None:
    slices, reference = context.lay(volume)
    values = to_stored(slices.data, derived.units, keep_zero=derived.modality == "PT")
    frame_uid = context.frame_uid(reference)
    shared = series_attributes(derived, context.patient, context.study_uid, frame_uid, slices.data)
    for k in range(slices.data.shape[2]):
        own = slice_attributes(slices, values, k, derived, context.references(slices, k, reference))
        _save(folder / f"{k + 1:05d}.dcm", shared, own)


def _save(path: Path, shared: Dataset, own: Dataset) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = shared.SOPClassUID
    meta.MediaStorageSOPInstanceUID = own.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.update(shared)
    image.update(own)
    image.is_little_endian, image.is_implicit_VR = True, False
    image.save_as(path, write_like_original=False)


def _check_out(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise Any2allError("this is not a folder", key="output_dir", value=str(folder), code="exists")
    ours = (folder / INDEX).is_file()
    if any(folder.iterdir()) and not (ours and overwrite):
        hint = "choose another one or allow overwrite" if ours else "choose another one"
        raise Any2allError("the folder is in use", key="output_dir", value=str(folder), hint=hint, code="exists")


def _publish(partial: Path, folder: Path) -> None:
    """Into place by renames; what was there is gone only when the new series are there."""
    if not folder.exists():
        partial.rename(folder)
        return
    old = partial.with_name(partial.name.replace(".partial", ".old"))
    folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    with suppress(OSError):
        shutil.rmtree(old)
