"""Presets: what ``fast``, ``balanced`` and ``best`` mean, and what a sampler takes where the study says nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ..errors import Any2allError
from .document import SamplerDocument, Status
from .spec import COUPLES_SLICES, StudySpec


@dataclass(frozen=True)
class SamplerSettings:
    """A sampler with nothing left open. ``weights`` are per modality (mps); ``gamma`` is the one of mds.

    ``centre`` of mcs moves the mean of several samples, or the estimate of one step, so far, 0 to 1, to the mean that
    is stated in one pass. ``cdm`` is no sampler of the prior but the second system; of the others it takes its place in
    a study.
    """

    name: Literal["mps", "mds", "mcs", "cdm"]
    steps: int
    samples: int
    seed: int
    eta: float
    eta_convention: Literal["dds", "ddim"]
    zeta: float
    gamma: float
    weights: dict[str, float]
    faithful: bool
    consistency: Literal["calibrated", "moment"]
    centre: float


PRESETS: dict[str, tuple[int, int, Literal["calibrated", "moment"]]] = {  # mcs steps, samples, consistency
    "fast": (5, 1, "calibrated"),
    "balanced": (10, 4, "moment"),
    "best": (20, 8, "moment"),
}
CENTRE = 0.5  # on real scans both means are needed: see `samplers.mcs` and the model card
PAPER_STEPS = {"mps": 1000, "mds": 150}
CDM_STEPS = 20  # of its small network of representations, as it was built; a study cannot choose them
MCS_LEAST_STEPS_WITH_RAW_DATA = 5
SAMPLERS = ("mcs", "mds", "mps")  # of the prior
USED_BY = {  # keys that not every sampler listens to
    "mps": {"steps", "zeta", "weights"},
    "mds": {"steps", "eta", "eta_convention", "gamma", "faithful"},
    "mcs": {"steps", "eta", "consistency", "centre"},
    "cdm": set(),
}


def resolve_sampler(spec: StudySpec, noise_levels: Literal["shared", "per_modality"]) -> SamplerSettings:
    """The preset's settings, overruled by what the study's ``sampler`` says.

    ``fast`` is one pass and one sample where a given image says it all: the posterior mean (METHOD section 3), halfway
    between what the prior and its mean network state.

    Raises:
        Any2allError: mcs on a ``shared`` prior, mcs with too few steps for measured data, mps where slices are coupled,
            several samples of one pass, cdm where anything but clean images is given.
    """
    settings = preset_settings(spec.preset, bool(spec.available) and not spec.measured, spec.sampler)
    _check_sampler(settings, spec, noise_levels)
    return for_coupled_slices(settings, spec, spec.coupled)


def for_coupled_slices(settings: SamplerSettings, spec: StudySpec, coupled: tuple[str, ...]) -> SamplerSettings:
    """The settings where the data of ``coupled`` modalities couples slices; of raw data that shows once it is read.

    Moment matching is slice by slice, so where nothing else was measured data consistency is ``calibrated``.

    Raises:
        Any2allError: mps.
    """
    if settings.name == "mps" and coupled:
        raise Any2allError(
            f"mps works slice by slice, and {coupled[0]} is {spec.modalities[coupled[0]].status}: its data couples "
            "slices",
            key="sampler.name",
            value="mps",
            allowed=("mcs", "mds"),
        )
    if coupled and set(coupled) == set(spec.measured):
        return replace(settings, consistency="calibrated")
    return settings


def preset_settings(preset: str, one_pass: bool, said: SamplerDocument | None = None) -> SamplerSettings:
    """A preset overruled by ``said``, unchecked. ``one_pass``: nothing but images is given, so `fast` needs no more."""
    said = said or SamplerDocument()
    if said.name == "cdm":
        said = said.model_copy(update={"steps": CDM_STEPS})
    steps, samples, consistency = PRESETS[preset]
    if preset == "fast" and one_pass:
        steps = 1
    if said.steps == 1:
        samples = 1
    name, samples = said.name or "mcs", _or(said.samples, samples)
    wanted_steps = _or(said.steps, PAPER_STEPS.get(name, steps))
    return SamplerSettings(
        name=name,
        steps=wanted_steps,
        samples=samples,
        seed=_or(said.seed, 0),
        eta=_or(said.eta, 0.85),
        eta_convention=said.eta_convention or ("ddim" if name == "mcs" else "dds"),
        zeta=_or(said.zeta, 1.0),
        gamma=_or(said.gamma, 20.0),
        weights=dict(said.weights or {}),
        faithful=_or(said.faithful, False),
        consistency=said.consistency or consistency,
        centre=_or(said.centre, CENTRE) if name == "mcs" and (samples > 1 or wanted_steps == 1) else 0.0,
    )


def ignored_keys(spec: StudySpec, settings: SamplerSettings) -> tuple[str, ...]:
    """Keys of the study's ``sampler`` that the chosen sampler does not listen to, in the document's order."""
    special = set().union(*USED_BY.values())
    return tuple(k for k in spec.document.get("sampler", {}) if k in special - USED_BY[settings.name])


def taken_by(sampler: str) -> tuple[Status, ...]:
    """The statuses of data that a sampler can be given."""
    if sampler == "cdm":
        return ("available",)
    left_out = ("missing", *(COUPLES_SLICES if sampler == "mps" else ()))
    return tuple(status for status in get_args(Status) if status not in left_out)


def _measured(spec: StudySpec) -> str:
    """Such as "T2FLAIR is undersampled and PET is noisy"."""
    return " and ".join(f"{name} is {spec.modalities[name].status}" for name in spec.measured)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _check_sampler(settings: SamplerSettings, spec: StudySpec, noise_levels: str) -> None:
    if settings.name == "mcs" and noise_levels == "shared":
        raise Any2allError(
            "this prior knows one noise level for all channels, which mcs cannot use",
            key="sampler.name",
            value="mcs",
            allowed=("mds", "mps"),
        )
    if settings.name == "cdm":
        _check_cdm(spec)
    least = MCS_LEAST_STEPS_WITH_RAW_DATA
    if settings.name == "mcs" and spec.measured and settings.steps < least:
        raise Any2allError(
            f"mcs needs at least {least} steps where {_measured(spec)}",
            key="sampler.steps",
            value=settings.steps,
            allowed=f"{least} to 1000",
        )
    if settings.steps == 1 and settings.samples > 1:
        raise Any2allError(
            "one pass gives the same image every time, so there is one sample",
            key="sampler.samples",
            value=settings.samples,
            allowed="1",
            hint="more samples need more steps",
        )


def _check_cdm(spec: StudySpec) -> None:
    """CDM translates clean images: what was measured otherwise it cannot use, and from nothing it makes nothing."""
    if spec.measured:
        name = spec.measured[0]
        raise Any2allError(
            f"cdm translates clean images, and {_measured(spec)}",
            key=f"modalities.{name}.status",
            value=spec.modalities[name].status,
            allowed=("available", "missing"),
            hint="mcs and mds take what was measured",
        )
    if not spec.available:
        raise Any2allError(
            "cdm translates images, and none is given",
            key="sampler.name",
            value="cdm",
            allowed=SAMPLERS,
            hint="whole stacks without any data are drawn from the prior",
        )
