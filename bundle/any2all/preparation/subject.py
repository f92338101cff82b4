"""One subject: its files become one co-registered stack, complete or not, in the files' own units.

    read → check → the first modality in stack order is the reference → rigid registration → resampled once → written

Images are made of DICOM files first where the subject has those. A modality that cannot be used is left out with
the reason; the others go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..diffusion.prior import file_sha256
from ..errors import Any2allError
from ..geometry import Grid, Volume, canonical, check_overlap, overlap, read_volume, to_grid
from ..geometry.reading import SPACING_RANGE_MM
from ..given import check_acquired
from ..intensity import from_u, scale_of
from ..output.summary import plain
from ..output.write import SUMMARY, whole_folder
from ..registration import LEAST_OVERLAP, register_rigid
from ..stack import Modality, PiecewiseNormalisation, Stack
from .checks import PEAK, check_head, check_units, check_values, peak_warnings
from .conversion import from_dicom
from .picture import draw_subject
from .sources import Subject

PICTURE = "qc.png"
VERSION = 3  # of how a subject is prepared: another one does everything again
FEW_SLICES = 4  # that a rigid transform or a cubic spline cannot be found from

Record = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How subjects are prepared.

    Attributes:
        registration: ``rigid``, or ``none`` to trust the scanner's coordinates.
        spacing_mm: (H, W, slice) of the written stacks; None: the reference's own grid.
        least_overlap: Dice coefficient of the heads below which a registered image is left out.
        seed: of the registration.
    """

    registration: str = "rigid"
    spacing_mm: tuple[float, float, float] | None = None
    least_overlap: float = LEAST_OVERLAP
    seed: int = 0

    def __post_init__(self) -> None:
        if self.registration not in ("rigid", "none"):
            raise Any2allError("unknown", key="registration", value=self.registration, allowed=("rigid", "none"))
        lowest, highest = SPACING_RANGE_MM
        spacing = self.spacing_mm
        if spacing is not None and (len(spacing) != 3 or not all(lowest <= s <= highest for s in spacing)):
            allowed = f"[H, W, slice], each {lowest} to {highest} mm"
            raise Any2allError("no usable spacing", key="spacing_mm", value=spacing, allowed=allowed)
        if not 0 <= self.least_overlap <= 1:
            raise Any2allError("no Dice coefficient", key="least_overlap", value=self.least_overlap, allowed="0 to 1")


@dataclass(frozen=True, eq=False)
class _Image:
    """A readable image of one modality, canonical, with its head mask."""

    modality: Modality
    volume: Volume
    mask: np.ndarray


def prepare_subject(subject: Subject, folder: Path, stack: Stack, settings: Settings) -> Record:
    """Write ``<folder>/<subject>/<modality>.nii.gz``, a picture and a summary, together or not at all.

    What is there already from the same files, stack and settings is kept.

    Returns:
        What was done, in JSON's own types: ``modalities`` (what is written, with its registration and values),
        ``refused`` (modality, or the subject itself, → reason), ``warnings``, ``ignored``, ``reference``, and
        ``resumed``, whether it had been done before.

    Raises:
        Any2allError: the results cannot be written.
    """
    if subject.dicom:
        subject = from_dicom(subject, folder, stack)
    fingerprint = _fingerprint(subject, stack, settings)
    there = _earlier(folder / subject.name, fingerprint)
    if there is not None:
        return {**there, "resumed": True}
    _check_ours(folder / subject.name)
    record: Record = {
        "subject": subject.name,
        "section": subject.section,
        "fingerprint": fingerprint,
        "reference": None,
        "modalities": {},
        "refused": dict(subject.refused),
        "warnings": list(subject.warnings),
        "ignored": list(subject.ignored),
    }
    images = _readable(subject, stack, record)
    if not images:
        why = "no modality of it can be used" if record["refused"] else _nothing(subject)
        record["refused"].setdefault(subject.name, why)
        return plain({**record, "resumed": False})
    volumes = _on_one_grid(images, settings, record)
    with whole_folder(folder / subject.name, list(volumes), overwrite=True) as partial:
        for name, volume in volumes.items():
            _save(partial / f"{name}.nii.gz", volume, name)
        figure = draw_subject(volumes, {name: images[name].modality for name in volumes}, stack)
        figure.savefig(partial / PICTURE, facecolor=figure.get_facecolor())
        names = sorted(path.name for path in partial.iterdir())
        summary = plain({"any2all_summary": VERSION, **record, "files": [*names, SUMMARY]})
        (partial / SUMMARY).write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return {**summary, "resumed": False}


def _fingerprint(subject: Subject, stack: Stack, settings: Settings) -> str:
    """Of all that the result depends on."""
    files = {name: _checksum(file) for name, file in subject.files.items()}
    parts = [VERSION, files, dict(subject.refused), subject.section, asdict(settings), stack.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _checksum(file: Path) -> str | None:
    try:
        return file_sha256(file)
    except OSError:
        return None  # reading it will say why


def _earlier(folder: Path, fingerprint: str) -> Record | None:
    """The summary of an earlier run on the same, all of whose files are still there."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        same = summary["fingerprint"] == fingerprint and all((folder / name).is_file() for name in summary["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return summary if same else None


def _check_ours(folder: Path) -> None:
    """Refuse a folder with the results of a study, which the stack would take the place of."""
    try:
        foreign = "provenance" in json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        foreign = False
    if foreign:
        message, hint = "the folder holds results of a study", "choose another folder"
        raise Any2allError(message, key="output_dir", value=str(folder), hint=hint, code="exists")


def _nothing(subject: Subject) -> str:
    ignored = f" (there are {', '.join(subject.ignored[:6])})" if subject.ignored else ""
    return f"no NIfTI, NRRD or MHA image of a modality of the stack was found{ignored}"


def _readable(subject: Subject, stack: Stack, record: Record) -> dict[str, _Image]:
    images = {}
    for name, file in subject.files.items():
        modality = stack[name]
        try:
            check_acquired(file, name)
            volume = canonical(read_volume(file, name))
            check_values(modality, volume)
            check_units(modality, volume)
            images[name] = _Image(modality, volume, check_head(modality, volume))
            scale_of(volume.data, images[name].mask, modality.normalisation)
        except Any2allError as error:
            images.pop(name, None)
            record["refused"][name] = error.sentence()
    return images


def _on_one_grid(images: Mapping[str, _Image], settings: Settings, record: Record) -> dict[str, Volume]:
    """Every image that fits, on the reference's grid or on the working one; ``record`` is told the rest."""
    record["reference"], fixed = next(iter(images.items()))
    grid = fixed.volume.grid if settings.spacing_mm is None else working_grid(fixed.volume.grid, settings.spacing_mm)
    volumes = {}
    for name, image in images.items():
        try:
            placed, facts = _placed(name, image, record["reference"], fixed, settings)
        except Any2allError as error:
            record["refused"][name] = error.sentence()
            continue
        volumes[name] = resampled(image.modality, placed, grid)
        inside = image.volume.data[image.mask]
        peak = float(np.percentile(inside, PEAK))
        values = {"lowest": float(inside.min()), "highest": float(inside.max()), "percentile_99_9": peak}
        record["warnings"] += [facts.pop("warning")] if "warning" in facts else []
        record["warnings"] += peak_warnings(image.modality, peak)
        record["modalities"][name] = {**facts, "units": image.modality.units, "head": values}
    return volumes


def _placed(
    name: str, image: _Image, reference: str, fixed: _Image, settings: Settings
) -> tuple[Volume, dict[str, Any]]:
    """The image with its grid in the reference's world, and how it came there.

    Raises:
        Any2allError: it shows another place than the reference, or the heads do not come to lie on each other.
    """
    volume, target = image.volume, fixed.volume
    if image is fixed:
        return volume, {"registered": False, "overlap": 1.0}
    check_overlap({name: volume.grid, reference: target.grid}, reference)
    if volume.grid.same_as(target.grid, 1e-3) or settings.registration == "none":
        return volume, _unmoved(name, image, reference, fixed, settings)
    if min(*volume.grid.shape, *target.grid.shape) < FEW_SLICES:
        facts = _unmoved(name, image, reference, fixed, settings)
        return volume, {**facts, "warning": f"{name} was not registered: fewer than {FEW_SLICES} slices"}
    result = register_rigid(volume, target, settings.seed)
    if result.overlap_after < settings.least_overlap:
        raise _does_not_fit(name, reference, result.overlap_after, settings)
    facts = {
        "registered": True,
        "overlap": result.overlap_after,
        "overlap_before": result.overlap_before,
        "angle_deg": result.angle_deg,
        "shift_mm": result.shift_mm(volume.grid.centre_mm),
    }
    if result.warning:
        facts["warning"] = f"{name}: {result.warning}"
    return Volume(volume.data, volume.grid.moved(result.transform)), facts


def _unmoved(name: str, image: _Image, reference: str, fixed: _Image, settings: Settings) -> dict[str, Any]:
    """An image whose coordinates are trusted: it is never refused for its overlap, but warned about."""
    shared = overlap(image.mask, image.volume.grid, fixed.mask, fixed.volume.grid)
    facts: dict[str, Any] = {"registered": False, "overlap": shared}
    if shared < settings.least_overlap:
        facts["warning"] = (
            f"{name} and {reference} share a place by their headers, but their heads overlap by {shared:.2f} (Dice)"
        )
    return facts


def _does_not_fit(name: str, reference: str, shared: float, settings: Settings) -> Any2allError:
    return Any2allError(
        f"the head does not come to lie on that of {reference}",
        key=name,
        value=f"overlap {shared:.2f} (Dice) after registration",
        allowed=f"at least {settings.least_overlap:g}",
        hint="look at both images; least_overlap sets the limit, registration none trusts the scanner",
        code="registration",
    )


def working_grid(grid: Grid, spacing_mm: tuple[float, float, float]) -> Grid:
    """A canonical grid's field of view at another (H, W, slice) spacing, about the same centre."""
    step = np.array([spacing_mm[2], spacing_mm[0], spacing_mm[1]]) / np.array(grid.spacing_mm)
    size = np.array(grid.shape)
    shape = np.maximum(np.ceil(size / step - 1e-6), 2).astype(int)
    first = 0.5 * (size - 1) - 0.5 * (shape - 1) * step
    return grid.scaled((int(shape[0]), int(shape[1]), int(shape[2])), first, step)


def resampled(modality: Modality, volume: Volume, grid: Grid) -> Volume:
    """One interpolation to ``grid``: cubic, within the source's own range, air outside of its field of view.

    A scanner's padding below air (CT) becomes air first, or it would ring into the head.
    """
    air = float(from_u(np.zeros(1), modality.normalisation, 1.0)[0])
    data = volume.data
    if isinstance(modality.normalisation, PiecewiseNormalisation):
        data = np.maximum(data, air)
    order = 3 if min(volume.grid.shape) >= FEW_SLICES else 1
    there = to_grid(Volume(data, volume.grid), grid, order=order, fill=air)
    return Volume(np.clip(there.data, min(air, float(data.min())), float(data.max())), grid)


def _save(path: Path, volume: Volume, name: str) -> None:
    """float32 NIfTI with axes closest to RAS."""
    image = nib.as_closest_canonical(nib.Nifti1Image(volume.data, volume.grid.affine))
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"prepared by Any2all, {name}".encode("ascii", "replace")
    nib.save(image, path)
