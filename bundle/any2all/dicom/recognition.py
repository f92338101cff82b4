"""Which modality of the stack a series is: sequence parameters first, descriptions second, always with a reason.

The limits are those of common clinical protocols at 1.5 T and 3 T. Where the parameters allow two readings, the
description decides; where nothing decides, the series is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import Any2allError
from ..stack import Modality, Stack, without_denied_contrast
from .protocol import Protocol, protocol_of
from .series import MANUFACTURER, Series

LEAST_CONFIDENCE = 0.5
_SAID, _AGREE, _ALONE, _DISAGREE, _NAMED = 1.0, 0.95, 0.8, 0.6, 0.5
_ENHANCED = {"T1": "T1", "T2": "T2", "FLUID_ATTENUATED": "T2FLAIR", "T2_STAR": "T2star"}
_NO_WEIGHTING = {
    "DIFFUSION": "diffusion",
    "TOF": "angiography (TOF)",
    "PROTON_DENSITY": "proton density",
    "STIR": "STIR",
    "PERFUSION": "perfusion",
    "FLOW_ENCODED": "flow",
    "SPECTROSCOPY": "spectroscopy",
}
_NEVER = {  # words of a description that no modality of the stack is called by
    r"dwi|dti|diff\w*|adc|trace\w*|b1000|hardi|ivim": "diffusion",
    r"tof|mra|angio\w*|venogra\w*|mrv|cta|ctv": "angiography",
    r"bold|f?mri[_ -]?rest\w*|rest\w*|perf\w*|dsc|dce|asl|pcasl|pasl|ctp|cbf|cbv|mtt|tmax": "perfusion or functional",
    r"field[_ -]?map\w*|b0[_ -]?map|b1[_ -]?map|calib\w*|asset|sense[_ -]?ref\w*|ref[_ -]?scan|shim\w*": "calibration",
    r"stir|dir|pd|pdw|proton[_ -]?density|spectro\w*|mrs|press|svs|csi": "another contrast",
    r"pha|phase\w*|mip|minip|mpr|reformat\w*|subtraction": "a derived image",
    r"inv[_ -]?[12]|mp2rage[\w -]*[_ -]t1[_ -]images|[tr][12](?:\*|star)?[_ -]?map\w*": "an inversion image or a map",
    r"[ctl]?[_ -]?spine|cervical|lumbar|thoracic|hws|bws|lws": "the spine",
    r"nac|no[_ -]?ac|uncorrected": "PET without attenuation correction",
}
_CONTRAST = re.compile(
    r"(?:^|[\s_.-])(?:\+ ?c|\+gd|post|ce|gd|gad\w*|km|contrast|enhanced)(?=$|[\s_.-])", re.IGNORECASE
)
_MPRAGE = re.compile(r"(?<![^\s_.\-/])t1w?[\s_.-]mpr(?=$|[\s_.\-/])", re.IGNORECASE)  # the name that Siemens gives it
_HEAD = re.compile(r"HEAD|BRAIN|SKULL|NEURO|CRANI|CEREB|PITUIT|^$", re.IGNORECASE)
_ELSEWHERE = re.compile(
    r"SPINE|CHEST|THORA|BREAST|HEART|ABDOM|PELVI|LIVER|KIDNEY|PROSTATE|HIP|KNEE|ANKLE|FOOT|SHOULDER|ELBOW|WRIST|HAND"
)
_BONE_KERNEL = re.compile(r"BONE|EDGE|LUNG|SHARP|^(H|HR|BR|FC)?[67]\d|^YC|^FC[38]\d", re.IGNORECASE)


@dataclass(frozen=True)
class Recognised:
    """``confidence`` in [0, 1] of ``modality``; None: it is no modality of the stack, and ``reason`` says why."""

    modality: str | None
    reason: str
    confidence: float
    reference_suv: float | None = None


@dataclass(frozen=True)
class Override:
    """What the user says of a series; ``reference_suv``: mean SUV of the PET's reference region."""

    modality: str | None
    reference_suv: float | None = None


@dataclass(frozen=True)
class Choice:
    """Series of one modality, best first; the first that can be read is taken."""

    modality: str
    candidates: tuple[tuple[Series, Recognised], ...] = field(default_factory=tuple)


def recognise(series: Series, stack: Stack, overrides: Mapping[str, Override] | None = None) -> Recognised:
    """The modality of a series. An override wins over everything, except that no result of ours becomes an input."""
    said = _override(series, overrides or {})
    ours = series.skip is not None and series.skip.startswith(MANUFACTURER)
    if said is not None and not ours:
        return Recognised(said.modality, "the user said so", _SAID, said.reference_suv)
    if series.skip is not None:
        return Recognised(None, series.skip, 1.0)
    protocol = protocol_of(series)
    if protocol.modality == "CT":
        return _ct(protocol, stack)
    if protocol.modality == "PT":
        return _pet(protocol, stack)
    return _mr(protocol, stack)


def parse_overrides(given: Mapping[str, Any] | None, stack: Stack) -> dict[str, Override]:
    """``{series UID or number: modality, null, or {"modality": …, "reference_suv": …}}`` checked.

    Raises:
        Any2allError: another key or value.
    """
    found = {}
    for key, value in (given or {}).items():
        entry = value if isinstance(value, Mapping) else {"modality": value}
        name, suv = entry.get("modality"), entry.get("reference_suv")
        name = None if name in ("null", "None") else name  # as the command line hands it over
        allowed = [*stack.names, "null", '{"modality": "PET", "reference_suv": 1.2}']
        unknown = set(entry) - {"modality", "reference_suv"} or (name is not None and name not in stack.names)
        number = suv is None or (isinstance(suv, (int, float)) and not isinstance(suv, bool) and suv > 0)
        if unknown or not number or (suv is not None and (name is None or stack[name].kind != "PET")):
            raise Any2allError("no such override", key=f"overrides.{key}", value=str(value), allowed=allowed)
        found[str(key)] = Override(name, suv)
    return found


def check_overrides(overrides: Mapping[str, Any] | None, series: Sequence[Series]) -> None:
    """Raise Any2allError where an override is of none of these series."""
    known = {key for one in series for key in _keys(one)}
    for key in overrides or {}:
        if str(key) not in known:
            numbers = sorted({one.number for one in series if one.number is not None})
            raise Any2allError(
                "no series here has this Series Number or Series Instance UID",
                key=f"overrides.{key}",
                allowed=f"the numbers {', '.join(map(str, numbers)) or '(none is given)'} and the UIDs of these series",
            )


def choose(series: list[tuple[Series, Recognised]], stack: Stack) -> list[Choice]:
    """For each modality that was recognised: its series, the best one first.

    What the user said counts first, then what is sure, then the examination that has the most modalities, since images
    of one day belong together; then confidence (in steps of 0.1), an original over a derived image, a soft over a bone
    kernel, 3-D over 2-D, more slices over fewer, the first over the later ones.
    """
    usable = [pair for pair in series if pair[1].modality in stack.names and pair[1].confidence >= LEAST_CONFIDENCE]
    has: dict[str, set[str | None]] = {}
    for one, found in usable:
        has.setdefault(one.study_uid, set()).add(found.modality)
    main = max(has, key=lambda uid: len(has[uid]), default="")
    choices = []
    for name in stack.names:
        mine = [pair for pair in usable if pair[1].modality == name]
        if mine:
            choices.append(Choice(name, tuple(sorted(mine, key=lambda pair: _rank(pair, main)))))
    return choices


def _rank(pair: tuple[Series, Recognised], main: str) -> tuple:
    series, found = pair
    protocol = protocol_of(series)
    return (
        found.confidence < _SAID,
        found.confidence < _ALONE,
        series.study_uid != main,
        -round(found.confidence, 1),
        "DERIVED" in protocol.image_type,
        bool(_BONE_KERNEL.search(protocol.kernel)),
        not protocol.volumetric,
        -len(series.frames),
        series.number or 0,
    )


def _override(series: Series, overrides: Mapping[str, Override]) -> Override | None:
    return next((overrides[key] for key in _keys(series) if key in overrides), None)


def _keys(series: Series) -> tuple[str, ...]:
    """What an override may call a series by; the UID comes first."""
    return (series.uid,) if series.number is None else (series.uid, str(series.number))


def _named(stack: Stack, kind: str) -> str | None:
    return next((modality.name for modality in stack.modalities if modality.kind == kind), None)


def _ct(protocol: Protocol, stack: Stack) -> Recognised:
    name, why_not = _named(stack, "CT"), _never(protocol)
    if protocol.contrast or _says_contrast(protocol.description):
        why_not = why_not or f"CT after contrast agent ({protocol.contrast or 'by its description'})"
    if not _HEAD.search(protocol.body_part):
        why_not = why_not or f"CT of another body part ({protocol.body_part})"
    if name is None or why_not:
        return Recognised(None, why_not or "the stack has no CT", 0.9)
    matched = stack.match(_as_name(protocol.description)) == name
    head = (
        bool(protocol.body_part) or matched or re.search(r"head|brain|kopf|schaedel|crane", protocol.description, re.I)
    )
    reason = f"Modality CT, no contrast agent{', of the head' if head else ''}"
    return Recognised(name, reason, _AGREE if head else _DISAGREE)


def _pet(protocol: Protocol, stack: Stack) -> Recognised:
    name, why_not = _named(stack, "PET"), _never(protocol)
    if protocol.corrected and "ATTN" not in protocol.corrected:
        why_not = why_not or "PET without attenuation correction"
    if name is None or why_not:
        return Recognised(None, why_not or "the stack has no PET", 0.9)
    return Recognised(name, "Modality PT", 0.9)


def _mr(protocol: Protocol, stack: Stack) -> Recognised:
    measured, reason, sure = weighting_of(protocol)
    if measured is None and sure:
        return Recognised(None, reason, 0.9)
    never = _never(protocol)
    if _ELSEWHERE.search(protocol.body_part):
        never = never or f"MR of another body part ({protocol.body_part})"
    if never:
        return Recognised(None, never, 0.8)
    if protocol.image_type & {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}:
        return Recognised(None, "a phase, real or imaginary image, not a magnitude", 0.9)
    named = stack.match(_as_name(protocol.description))
    found = _weighed(measured, named, reason, sure)
    if found.modality is None or found.modality not in stack.names:
        why = found.reason if found.modality is None else f"{found.modality} is not in the stack"
        return Recognised(None, why, found.confidence)
    return _without_contrast(found, protocol, stack[found.modality])


def _weighed(measured: str | None, named: str | None, reason: str, sure: bool) -> Recognised:
    """Parameters and description put together."""
    called = f"described as {named}" if named else "the description names no modality"
    if measured is None:
        if named is None:
            return Recognised(None, f"{reason}; {called}", 0.5)
        return Recognised(named, f"{called}; {reason}", _NAMED)
    if named == measured:
        return Recognised(measured, f"{reason}; {called}", _AGREE if sure else _ALONE)
    if named is None:
        return Recognised(measured, reason, _ALONE if sure else _DISAGREE)
    if sure:
        return Recognised(measured, f"{reason}, although {called}", _DISAGREE)
    return Recognised(named, f"{called}; {reason}", _NAMED)


def _without_contrast(found: Recognised, protocol: Protocol, modality: Modality) -> Recognised:
    """A modality whose patterns exclude contrast agent is not taken after it; another one with less confidence."""
    said = protocol.contrast or (_says_contrast(protocol.description) and "by its description")
    if not said:
        return found
    if "contrast" in modality.not_patterns:
        return Recognised(None, f"{found.modality} after contrast agent ({said}), which is another modality", 0.9)
    return Recognised(
        found.modality, f"{found.reason}; after contrast agent ({said})", min(found.confidence, _DISAGREE)
    )


def weighting_of(protocol: Protocol) -> tuple[str | None, str, bool]:
    """The contrast that the sequence parameters make: modality or None, why, and whether that is sure."""
    p = protocol
    special = _special(p)
    if special:
        return None, special, True
    if p.repetition_time is None or p.echo_time is None:
        return None, "TR or TE is missing", False
    if p.inversion_time and p.inversion_time > 50:
        return _inversion_recovery(p)
    if "GR" in p.sequence and "SE" not in p.sequence:
        return _gradient_echo(p)
    if "IR" in p.sequence and p.repetition_time >= 4000 and p.echo_time >= 60:
        return "T2FLAIR", f"inversion recovery without a stated TI, {p.times}", False
    if "SE" in p.sequence or (p.echo_train or 1) > 1:
        return _spin_echo(p)
    return _by_contrast_tag(p, f"the sequence type is not given ({p.times})")


def _special(p: Protocol) -> str | None:
    """What the tags say that is no modality of a structural stack."""
    if p.weighting in _NO_WEIGHTING:
        return f"Acquisition Contrast says {_NO_WEIGHTING[p.weighting]}"
    if (
        p.b_value
        or p.image_type & {"DIFFUSION", "ADC", "TRACEW", "FA"}
        or re.search(r"ep_b\d|\bdwi|diff", p.sequence_name)
    ):
        return "diffusion weighted"
    if (
        p.angiography
        or "tof" in p.sequence_name
        or re.match(r"\*?fl[23]d\dr", p.sequence_name)
        and p.echo_time
        and p.echo_time < 10
    ):
        return "angiography (time of flight)"
    if "EP" in p.sequence and not p.inversion_time:
        return "echo-planar (functional, perfusion or diffusion)"
    return None


def _inversion_recovery(p: Protocol) -> tuple[str | None, str, bool]:
    said = f"inversion recovery, {p.times}"
    if p.inversion_time < 300 and p.echo_time >= 10:
        return None, f"short inversion time nulls fat (STIR), {p.times}", True
    if p.inversion_time >= 1500 and p.echo_time >= 60 and p.repetition_time >= 4000:
        return "T2FLAIR", f"{said}: CSF is nulled, T2-weighted", True
    if p.inversion_time <= 1500 and p.echo_time <= 40 and (p.repetition_time <= 4000 or "GR" in p.sequence):
        fast = "GR" in p.sequence
        kind = "magnetisation-prepared gradient echo" if fast else "inversion recovery spin echo"
        return "T1", f"{kind}, {p.times}: T1-weighted", True
    return _by_contrast_tag(p, f"{said} fits no modality")


def _gradient_echo(p: Protocol) -> tuple[str | None, str, bool]:
    if p.repetition_time <= 20 and (p.flip_angle or 0) >= 40:
        return None, f"balanced steady-state gradient echo (CISS, FIESTA, bFFE), {p.times}", True
    if p.echo_time >= 12:
        return "T2star", f"gradient echo with a long echo time, {p.times}", True
    if p.prepared or (p.volumetric and p.repetition_time <= 15 and p.echo_time < 8):
        return "T1", f"fast 3-D gradient echo, {p.times}: T1-weighted", True
    if (p.flip_angle or 0) >= 15 and p.repetition_time <= 400 and p.echo_time < 12:
        return "T1", f"spoiled gradient echo, {p.times}: probably T1-weighted", False
    return _by_contrast_tag(p, f"gradient echo, {p.times} fits no modality")


def _spin_echo(p: Protocol) -> tuple[str | None, str, bool]:
    if p.repetition_time <= 1200 and p.echo_time <= 35:
        return "T1", f"spin echo, {p.times}: T1-weighted", True
    if p.repetition_time >= 1500 and p.echo_time >= 70:
        return "T2", f"spin echo, {p.times}: T2-weighted", True
    if p.repetition_time >= 1500 and p.echo_time <= 45:
        return None, f"spin echo, {p.times}: proton density", True
    return _by_contrast_tag(p, f"spin echo, {p.times} lies between the usual contrasts")


def _by_contrast_tag(p: Protocol, otherwise: str) -> tuple[str | None, str, bool]:
    if p.weighting in _ENHANCED:
        return _ENHANCED[p.weighting], f"Acquisition Contrast says {p.weighting}; {otherwise}", False
    return None, otherwise, False


def _says_contrast(description: str) -> bool:
    """Whether a description says that contrast agent was given: ``Head W/O CONTRAST`` and ``T1 pre gad`` do not."""
    return bool(_CONTRAST.search(without_denied_contrast(description)))


def _never(protocol: Protocol) -> str | None:
    description = protocol.description
    if "DERIVED" not in protocol.image_type:
        description = _MPRAGE.sub(" ", description)  # an MPRAGE, whose short name is that of a reformat
    for pattern, what in _NEVER.items():
        found = re.search(rf"(?:^|[\s_.\-/])({pattern})(?=$|[\s_.\-/])", description, re.IGNORECASE)
        if found:
            return f"its description says {what} ({found.group(1)})"
    return None


def _as_name(description: str) -> str:
    """A description with the separators of file names."""
    return re.sub(r"[^\w*.\-]+", "_", description).strip("_")
