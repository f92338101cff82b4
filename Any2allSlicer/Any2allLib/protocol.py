"""What the server says (contract 3), read tolerantly: unknown keys are ignored, what is needed must be there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .failures import ProtocolError, ServerError

__all__ = [
    "PROTOCOL_VERSION",
    "DisplayInfo",
    "JobStatus",
    "ModalityInfo",
    "PresetInfo",
    "PriorInfo",
    "ProtocolError",
    "ResultInfo",
    "SamplerInfo",
    "ServerError",
    "ServerInfo",
    "SubjectInfo",
    "Submitted",
    "compatibility",
    "parse_subjects",
]

PROTOCOL_VERSION = 1
ENDED = ("done", "failed", "cancelled", "lost")
STATES = ("queued", "running", *ENDED)
ROLES = ("mean", "std", "sample")
_NO_JOBS = {
    "failing": "The server cannot compute at the moment: ask its administrator.",
    "stopping": "The server is being stopped.",
}
_FILE_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_+-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


_NEEDED = object()


class _Object:
    """A JSON object at ``path`` of a reply; every reading names the path when it complains."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise ProtocolError(f"'{path}' should be an object")
        self.value, self.path = value, path

    def _get(self, key: str, kinds: tuple[type, ...], words: str, default: Any) -> Any:
        found = self.value.get(key)
        if found is None and default is not _NEEDED:
            return default
        if found is None:
            raise ProtocolError(f"'{self.path}' lacks '{key}'")
        if not isinstance(found, kinds) or isinstance(found, bool) != (kinds == (bool,)):
            raise ProtocolError(f"'{self.path}.{key}' should be {words}")
        return found

    def text(self, key: str, default: Any = _NEEDED) -> Any:
        return self._get(key, (str,), "a text", default)

    def flag(self, key: str, default: Any = _NEEDED) -> Any:
        return self._get(key, (bool,), "true or false", default)

    def whole(self, key: str, default: Any = _NEEDED) -> Any:
        return self._get(key, (int,), "a whole number", default)

    def number(self, key: str, default: Any = _NEEDED) -> Any:
        found = self._get(key, (int, float), "a number", default)
        if found is not None and not _is_number(found):
            raise ProtocolError(f"'{self.path}.{key}' should be a finite number")
        return found if found is None else float(found)

    def items(self, key: str, default: Any = _NEEDED) -> Any:
        return self._get(key, (list,), "a list", default)

    def texts(self, key: str, default: Any = _NEEDED) -> tuple[str, ...]:
        found = self.items(key, default)
        if not all(isinstance(item, str) for item in found):
            raise ProtocolError(f"'{self.path}.{key}' should be a list of texts")
        return tuple(found)

    def child(self, key: str, default: Any = _NEEDED) -> _Object:
        return _Object(self._get(key, (Mapping,), "an object", default), f"{self.path}.{key}")

    def children(self, key: str, default: Any = _NEEDED) -> list[_Object]:
        return [_Object(item, f"{self.path}.{key}[{i}]") for i, item in enumerate(self.items(key, default))]


@dataclass(frozen=True)
class DisplayInfo:
    """How a modality is shown; ``window`` (low, high) is in u (0 to 1) or in the modality's units."""

    window: tuple[float, float]
    window_in: str
    colormap: str


@dataclass(frozen=True)
class ModalityInfo:
    """One modality of the server's stack. ``raw_data``: undersampled k-space of it can be given."""

    name: str
    kind: str
    raw_data: bool
    units: str
    patterns: tuple[str, ...]
    not_patterns: tuple[str, ...]
    caption: str
    display: DisplayInfo


@dataclass(frozen=True)
class PresetInfo:
    """``seconds_per_slice`` of this server, where ``images`` are all that is given, and where ``raw`` data is."""

    steps: int
    samples: int
    seconds_per_slice: Mapping[str, float | None]


@dataclass(frozen=True)
class PriorInfo:
    """The prior that the server uses."""

    sha256: str
    version: str


@dataclass(frozen=True)
class SamplerInfo:
    """Defaults of a sampler, and what it can be given.

    Attributes:
        takes: statuses of data; what a server does not say is what its samplers have always taken.
        seconds_per_slice: of one sample on this server, where it runs other networks than the presets do.
        weights: of these networks.
    """

    steps: int
    samples: int
    takes: tuple[str, ...] = ("available", "undersampled")
    seconds_per_slice: float | None = None
    weights: PriorInfo | None = None


@dataclass(frozen=True)
class ServerInfo:
    """The reply to ``GET info``. Of a server with another protocol only the two versions are read.

    ``state`` is starting, ok, failing or stopping; while a server starts, it knows neither device nor seconds.
    ``reason`` is why it is failing, where it knows.
    """

    protocol: int
    version: str
    stack: tuple[ModalityInfo, ...] = ()
    presets: Mapping[str, PresetInfo] = field(default_factory=dict)
    samplers: Mapping[str, SamplerInfo] = field(default_factory=dict)
    slice_mm: float = 0.0
    limits: Mapping[str, float] = field(default_factory=dict)
    prior: PriorInfo = PriorInfo("", "")
    device: str = ""
    state: str = "ok"
    reason: str = ""
    accepts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    demo_subject: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities in stack order."""
        return tuple(modality.name for modality in self.stack)

    @property
    def takes(self) -> frozenset[str]:
        """Statuses of data that one of the samplers takes at least."""
        return frozenset(status for sampler in self.samplers.values() for status in sampler.takes)

    @property
    def problem(self) -> str:
        """Why the server takes no jobs now, in words; '' where it does."""
        words = _NO_JOBS.get(self.state, "")
        return f"{words} It says: {self.reason}." if words and self.reason else words

    def modality(self, name: str) -> ModalityInfo:
        """Raises KeyError for a name that the stack does not hold."""
        return next((m for m in self.stack if m.name == name), None) or _no_modality(name)

    @classmethod
    def parse(cls, document: Any) -> ServerInfo:
        """Raises ProtocolError, in words, for anything that is missing or of another type."""
        info = _Object(document, "info")
        protocol, version = info.whole("protocol"), info.text("version")
        if protocol != PROTOCOL_VERSION:
            return cls(protocol, version)
        stack = tuple(_modality(item) for item in info.children("stack"))
        names = [modality.name for modality in stack]
        if not stack or len(set(names)) != len(names):
            raise ProtocolError("'info.stack' should hold modalities with distinct names")
        prior, accepts = info.child("prior"), info.child("accepts", {})
        limits = info.child("limits")
        return cls(
            protocol,
            version,
            stack,
            presets=_each(info.child("presets"), _preset),
            samplers=_each(info.child("samplers"), _sampler),
            slice_mm=info.number("slice_mm"),
            limits={str(k): float(v) for k, v in limits.value.items() if _is_number(v)},
            prior=PriorInfo(prior.text("sha256"), prior.text("version")),
            device=info.text("device", ""),
            state=info.text("state", "ok"),
            reason=info.text("reason", ""),
            accepts={str(key): accepts.texts(key, ()) for key in accepts.value},
            demo_subject=info.text("demo_subject", None),
        )


def _no_modality(name: str) -> ModalityInfo:
    raise KeyError(name)


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float holds."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**1023
    return isinstance(value, float) and math.isfinite(value)


def _each(group: _Object, read: Any) -> dict[str, Any]:
    return {str(name): read(group.child(name)) for name in group.value}


def _preset(preset: _Object) -> PresetInfo:
    seconds = preset.child("seconds_per_slice", {})
    return PresetInfo(
        preset.whole("steps"),
        preset.whole("samples"),
        {kind: seconds.number(kind, None) for kind in ("images", "raw")},
    )


def _sampler(sampler: _Object) -> SamplerInfo:
    weights = sampler.child("weights", {})
    return SamplerInfo(
        sampler.whole("steps"),
        sampler.whole("samples"),
        sampler.texts("takes", list(SamplerInfo.takes)),
        sampler.number("seconds_per_slice", None),
        PriorInfo(weights.text("sha256"), weights.text("version")) if weights.value else None,
    )


def _modality(item: _Object) -> ModalityInfo:
    display = item.child("display")
    window = display.items("window")
    if len(window) != 2 or not all(_is_number(edge) for edge in window):
        raise ProtocolError(f"'{display.path}.window' should be two numbers")
    patterns, not_patterns = item.texts("patterns"), item.texts("not_patterns", ())
    for pattern in (*patterns, *not_patterns):
        try:
            re.compile(pattern)
        except re.error:
            raise ProtocolError(f"'{item.path}.patterns' holds '{pattern}', which is no pattern") from None
    return ModalityInfo(
        name=item.text("name"),
        kind=item.text("kind"),
        raw_data=item.flag("raw_data"),
        units=item.text("units"),
        patterns=patterns,
        not_patterns=not_patterns,
        caption=item.text("caption", ""),
        display=DisplayInfo(
            (float(window[0]), float(window[1])), display.text("window_in"), display.text("colormap", "gray")
        ),
    )


def compatibility(info: ServerInfo) -> str | None:
    """Why this module cannot talk to that server, in words; None where it can."""
    if info.protocol == PROTOCOL_VERSION:
        return None
    spoken = f"version {info.version}, protocol {info.protocol}; this module speaks protocol {PROTOCOL_VERSION}"
    if info.protocol < PROTOCOL_VERSION:
        return f"The server is too old for this module ({spoken}). Ask its administrator to update it."
    return f"The server is newer than this module ({spoken}). Update the Any2all extension."


@dataclass(frozen=True)
class ResultInfo:
    """One volume of a job that is done. ``name`` is a plain file name, at most one plain folder before it."""

    name: str
    modality: str
    role: str
    sha256: str


@dataclass(frozen=True)
class JobStatus:
    """The reply to ``GET jobs/{id}``. ``step`` and ``total`` count network passes over the whole job."""

    state: str
    stage: str | None
    step: int
    total: int | None
    eta_s: float | None
    position: int | None
    warnings: tuple[str, ...]
    error: ServerError | None
    results: tuple[ResultInfo, ...]

    @property
    def is_over(self) -> bool:
        return self.state in ENDED

    @classmethod
    def parse(cls, document: Any) -> JobStatus:
        """Raises ProtocolError, in words."""
        job = _Object(document, "job")
        state = job.text("state")
        if state not in STATES:
            raise ProtocolError(f"'job.state' is '{state}', which this module does not know")
        error = job.child("error", {}).value
        return cls(
            state=state,
            stage=job.text("stage", None),
            step=max(0, job.whole("step", 0)),
            total=job.whole("total", None),
            eta_s=job.number("eta_s", None),
            position=job.whole("position", None),
            warnings=job.texts("warnings", []),
            error=ServerError.parse(error) if error else None,
            results=tuple(_result(item) for item in job.children("results", [])),
        )


def _result(item: _Object) -> ResultInfo:
    name, role, checksum = item.text("name"), item.text("role"), item.text("sha256").lower()
    if not _FILE_NAME.fullmatch(name) or ".." in name:
        raise ProtocolError(f"'{item.path}.name' is no plain file name")
    if role not in ROLES:
        raise ProtocolError(f"'{item.path}.role' is '{role}', which this module does not know")
    if not re.fullmatch(r"[0-9a-f]{64}", checksum):
        raise ProtocolError(f"'{item.path}.sha256' is no checksum")
    return ResultInfo(name, item.text("modality"), role, checksum)


@dataclass(frozen=True)
class Submitted:
    """The reply to ``POST jobs``."""

    job_id: str
    position: int | None

    @classmethod
    def parse(cls, document: Any) -> Submitted:
        """Raises ProtocolError, in words."""
        reply = _Object(document, "job")
        job_id = reply.text("job_id")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", job_id):
            raise ProtocolError("'job.job_id' is no plain name")
        return cls(job_id, reply.whole("position", None))


@dataclass(frozen=True)
class SubjectInfo:
    """One subject of the server's study store; ``problem`` says why it cannot be used, or is ''."""

    name: str
    modalities: tuple[str, ...] = ()
    problem: str = ""


def parse_subjects(document: Any) -> tuple[SubjectInfo, ...]:
    """The reply to ``GET subjects``. Raises ProtocolError, in words."""
    return tuple(_subject(item) for item in _Object(document, "reply").children("subjects"))


def _subject(item: _Object) -> SubjectInfo:
    modalities = item.value.get("modalities") or ()
    named = tuple(str(name) for name in modalities) if isinstance(modalities, (list, tuple, Mapping)) else ()
    return SubjectInfo(item.text("subject"), named, item.text("problem", ""))
