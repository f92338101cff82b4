"""From a study document to a `StudySpec`: checked against the stack and the folder, with every default filled in."""

from __future__ import annotations

import copy
import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from ..errors import Any2allError
from ..stack import Stack
from .document import IMAGE_STATUSES, ModalityDocument, SamplerDocument, Simulation, Status, validated

KSPACE_SUFFIXES = (".h5", ".npy", ".npz", ".mrd", ".cfl")
FILE_KEYS = ("file", "kspace", "coil_maps", "trajectory")
BART_HEADER = ".hdr"  # lies beside its .cfl; a study names either
COUPLES_SLICES = ("blurred", "lowres")  # what one voxel of these says concerns several slices of the prior
DEGRADED = ("noisy", *COUPLES_SLICES)
KEYS_OF_DEGRADED = {  # status: keys it needs, keys it takes beside them
    "noisy": ({"file"}, {"noise_std"}),
    "blurred": ({"file", "psf_fwhm_mm"}, {"noise_std"}),
    "lowres": ({"file"}, {"noise_std", "slice_profile"}),
}
Purpose = Literal["inference", "generate"]


@dataclass(frozen=True)
class ModalitySpec:
    """One modality with its paths resolved; a modality that the document does not name is missing."""

    name: str
    status: Status
    file: Path | None = None
    kspace: Path | None = None
    coil_maps: Path | None = None
    trajectory: Path | None = None
    noise_std: float | None = None
    voxel_size_mm: tuple[float, float, float] | None = None
    simulate: Simulation | None = None
    geometry: Literal["header", "reference"] = "header"
    orientation: str | None = None
    psf_fwhm_mm: tuple[float, float, float] | None = None
    slice_profile: Literal["box", "gaussian"] = "box"

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that this modality reads; of BART's pairs both."""
        named = [p for p in (self.file, self.kspace, self.coil_maps, self.trajectory) if p is not None]
        return (*named, *(p.with_suffix(BART_HEADER) for p in named if p.suffix.lower() == ".cfl"))


@dataclass(frozen=True)
class StudySpec:
    """A checked study. ``modalities`` holds the whole stack, in stack order; so do ``outputs``."""

    folder: Path
    subject: str
    modalities: dict[str, ModalitySpec]
    reference: str | None
    registration: Literal["rigid", "none"]
    outputs: tuple[str, ...]
    preset: Literal["fast", "balanced", "best"]
    sampler: SamplerDocument
    save_samples: bool
    purpose: Purpose
    document: dict[str, Any]

    def named(self, status: Status) -> tuple[str, ...]:
        """Modalities of one status, in stack order."""
        return tuple(name for name, spec in self.modalities.items() if spec.status == status)

    @property
    def available(self) -> tuple[str, ...]:
        return self.named("available")

    @property
    def undersampled(self) -> tuple[str, ...]:
        return self.named("undersampled")

    @property
    def degraded(self) -> tuple[str, ...]:
        """Noisy, blurred and lowres images, in stack order."""
        return tuple(name for name, spec in self.modalities.items() if spec.status in DEGRADED)

    @property
    def measured(self) -> tuple[str, ...]:
        """What was measured but is no clean image: raw data and degraded images, in stack order."""
        return tuple(name for name in self.modalities if name in (*self.undersampled, *self.degraded))

    @property
    def coupled(self) -> tuple[str, ...]:
        """Of these the images whose data couples the prior's slices, in stack order; of raw data only its grid says."""
        return tuple(name for name in self.degraded if self.modalities[name].status in COUPLES_SLICES)

    @property
    def missing(self) -> tuple[str, ...]:
        return self.named("missing")


def load_study(path: str | Path, stack: Stack, purpose: Purpose = "inference") -> StudySpec:
    """Read and check a study file. Raises Any2allError for anything that cannot be used."""
    path = Path(path)
    return parse_study(read_document(path), stack, path.parent, purpose)


def read_document(path: Path, shown: str | None = None) -> Any:
    """The JSON of a study file, in which no key is named twice; nothing else is checked yet.

    Args:
        path: the file.
        shown: what an error calls it; default: its path.

    Raises:
        Any2allError: no such file, or no JSON.
    """
    shown = shown or str(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
    except FileNotFoundError:
        raise Any2allError("the study file does not exist", key="study", value=shown) from None
    except Any2allError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error  # an OSError's own words name the path
        raise Any2allError(f"the study file is not readable as JSON: {reason}", key="study", value=shown) from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Any2allError("the study names this key twice", key=key)
        found[key] = value
    return found


def parse_study(document: Any, stack: Stack, folder: str | Path, purpose: Purpose = "inference") -> StudySpec:
    """Check a study document (contract 1).

    Args:
        document: the JSON document as Python objects.
        stack: names, order and abilities of the modalities.
        folder: where its relative paths start, and which they may not leave (symbolic links included).
        purpose: ``generate`` takes no data, ``inference`` needs some.

    Raises:
        Any2allError: names the key path, the value and what is allowed.
    """
    parsed = validated(document)
    for name in parsed.modalities:
        _known(name, stack, f"modalities.{name}")
    for name in parsed.sampler.weights or {}:
        _known(name, stack, f"sampler.weights.{name}")
    root = Path(folder)
    modalities = {
        name: _modality(name, parsed.modalities.get(name), stack[name].raw_data, root) for name in stack.names
    }
    _check_purpose(modalities, purpose, parsed.sampler)
    return StudySpec(
        folder=root,
        subject=parsed.subject,
        modalities=modalities,
        reference=_reference(parsed.reference, modalities, stack),
        registration=parsed.registration,
        outputs=_outputs(parsed.outputs, modalities, stack),
        preset=parsed.preset,
        sampler=parsed.sampler,
        save_samples=parsed.save_samples,
        purpose=purpose,
        document=copy.deepcopy(document),
    )


def _known(name: str, stack: Stack, key: str) -> str:
    if name in stack.names:
        return name
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in stack.names], n=1)
    hint = next((f"did you mean {n}?" for n in stack.names if close and n.lower() == close[0]), None)
    raise Any2allError("unknown modality", key=key, value=name, allowed=stack.names, hint=hint)


def _modality(name: str, document: ModalityDocument | None, raw_data: bool, folder: Path) -> ModalitySpec:
    if document is None:
        return ModalitySpec(name, "missing")
    key = f"modalities.{name}"
    _check_keys(document, key, raw_data)
    path = {k: _path(folder, getattr(document, k), f"{key}.{k}") for k in FILE_KEYS}
    taken = (*KSPACE_SUFFIXES, BART_HEADER)
    for which in ("kspace", "trajectory"):
        if path[which] and path[which].suffix.lower() not in taken:
            value = getattr(document, which)
            raise Any2allError("unknown raw data format", key=f"{key}.{which}", value=value, allowed=taken)
    for which in ("kspace", "coil_maps", "trajectory"):
        path[which] = _of_pair(path[which], f"{key}.{which}")
    voxels, psf = document.voxel_size_mm, document.psf_fwhm_mm
    widths = [psf] * 3 if isinstance(psf, int | float) else psf
    return ModalitySpec(
        name,
        document.status,
        noise_std=document.noise_std,
        voxel_size_mm=(voxels[0], voxels[1], voxels[2]) if voxels else None,
        simulate=document.simulate,
        geometry=document.geometry or "header",
        orientation=_checked_orientation(document.orientation, f"{key}.orientation"),
        psf_fwhm_mm=(widths[0], widths[1], widths[2]) if widths else None,
        slice_profile=document.slice_profile or "box",
        **path,
    )


def _check_keys(document: ModalityDocument, key: str, raw_data: bool) -> None:
    """Which of the optional keys a status needs, and which it does not take."""
    given = {k for k in ModalityDocument.model_fields if k != "status" and getattr(document, k) is not None}
    if document.status == "undersampled" and not raw_data:
        raise Any2allError(
            "this modality is never measured as raw data",
            key=f"{key}.status",
            value="undersampled",
            allowed=IMAGE_STATUSES,
        )
    if document.status == "undersampled":
        if given & {"kspace"} and given & {"file", "simulate"} or not given & {"kspace", "file"}:
            raise Any2allError(
                "an undersampled modality needs either raw data or an image to undersample",
                key=key,
                value=sorted(given) or None,
                allowed="kspace, or file with simulate",
            )
        needed = {"kspace"} if "kspace" in given else {"file", "simulate"}
        beside = {"coil_maps", "trajectory", "noise_std", "voxel_size_mm", "geometry", "orientation"}
        taken = needed | beside if "kspace" in given else needed
    elif document.status in DEGRADED:
        needed, beside = KEYS_OF_DEGRADED[document.status]
        taken = needed | beside
    else:
        needed = taken = {"file"} if document.status == "available" else set()
    for lacking in sorted(needed - given):
        raise Any2allError(f"status '{document.status}' needs this key", key=f"{key}.{lacking}")
    for extra in sorted(given - taken):
        value = getattr(document, extra)
        raise Any2allError(
            f"status '{document.status}' does not take this key" + (" beside file" if "file" in needed else ""),
            key=f"{key}.{extra}",
            value=value.model_dump() if isinstance(value, BaseModel) else value,
            allowed=("status", *sorted(taken)),
        )


def _path(folder: Path, name: str | None, key: str) -> Path | None:
    """A file inside the study's folder; symbolic links are followed before the check."""
    if name is None:
        return None
    inside = "a path relative to the study's folder, inside it"
    if not name or "\0" in name or os.path.isabs(name) or Path(name).drive or name.startswith(("~", "\\")):
        raise Any2allError("this is not a relative path", key=key, value=name, allowed=inside)
    root = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(root / name))
    if not path.is_relative_to(root):
        raise Any2allError("the path leaves the study's folder", key=key, value=name, allowed=inside)
    try:
        found = path.is_file()
    except OSError:  # a name longer than the file system takes
        found = False
    if not found:
        raise Any2allError("the file does not exist", key=key, value=name, allowed="a file in the study's folder")
    return path


def _of_pair(path: Path | None, key: str) -> Path | None:
    """The ``.cfl`` of a BART pair, whichever of the two was named; both lie together, inside the study's folder."""
    if path is None or path.suffix.lower() not in (".cfl", BART_HEADER):
        return path
    for suffix in (".cfl", BART_HEADER):
        other = path.with_suffix(suffix)
        if not other.is_file() or Path(os.path.realpath(other)) != other:
            raise Any2allError(
                f"the {suffix} file of this BART pair is missing", key=key, value=other.name, allowed="both, together"
            )
    return path.with_suffix(".cfl")


def _checked_orientation(codes: str | None, key: str) -> str | None:
    """Three letters, one of each pair of opposites."""
    if codes is not None and len({next(p for p in ("RL", "AP", "SI") if c in p) for c in codes}) < 3:
        raise Any2allError(
            "this is no orientation",
            key=key,
            value=codes,
            allowed="one each of R or L, A or P, S or I: where slice, H and W grow to",
        )
    return codes


def _check_purpose(modalities: dict[str, ModalitySpec], purpose: Purpose, sampler: SamplerDocument) -> None:
    given = [m.name for m in modalities.values() if m.status != "missing"]
    if purpose == "inference" and not given:
        raise Any2allError(
            "every modality is missing",
            key="modalities",
            allowed="at least one",
            hint="whole stacks without any data come from generate",
        )
    if purpose == "generate" and given:
        raise Any2allError(
            "generate takes no data",
            key=f"modalities.{given[0]}.status",
            value=modalities[given[0]].status,
            allowed=("missing",),
            hint="a study with data is filled by inference",
        )
    if purpose == "generate" and sampler.name == "cdm":
        raise Any2allError(
            "cdm translates given images and cannot draw whole stacks",
            key="sampler.name",
            value="cdm",
            hint="generate draws from the prior; leave the sampler out",
        )


def _reference(name: str | None, modalities: dict[str, ModalitySpec], stack: Stack) -> str | None:
    """The modality whose grid the results lie on: the first available one, else the first measured one.

    A lowres image comes last: the others show the slices that its own grid lacks.
    """
    order = ("available", "undersampled", *DEGRADED)
    candidates = [n for s in order for n, m in modalities.items() if m.status == s]
    if name is None:
        return candidates[0] if candidates else None
    _known(name, stack, "reference")
    if name not in candidates:
        raise Any2allError(
            "a missing modality has no grid to refer to",
            key="reference",
            value=name,
            allowed=candidates or "none here: leave it out",
        )
    return name


def _outputs(names: list[str] | None, modalities: dict[str, ModalitySpec], stack: Stack) -> tuple[str, ...]:
    wanted = [n for n, m in modalities.items() if m.status != "available"]
    if not wanted:
        raise Any2allError("every modality is available: nothing is left to fill", key="modalities")
    if names is None:
        return tuple(wanted)
    for i, name in enumerate(names):
        _known(name, stack, f"outputs.{i}")
        if name not in wanted:
            raise Any2allError(
                "this modality is given and is no output", key=f"outputs.{i}", value=name, allowed=wanted
            )
        if name in names[:i]:
            raise Any2allError("this output is named twice", key=f"outputs.{i}", value=name)
    if not names:
        raise Any2allError("no output is asked for", key="outputs", value="[]", allowed=wanted)
    return tuple(n for n in wanted if n in names)
