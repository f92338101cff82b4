"""What is compared: tasks (which modalities are given, undersampled, wanted) and methods (a sampler's settings)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import Any2allError
from ..kspace.acquisition import Acquisition
from ..kspace.simulate import simulate_kspace
from ..samplers import MCS, MDS, MPS, Ancestral, Sampler
from ..stack import Stack
from ..workflow import as_count
from .cases import KINDS, Cases, Kind

Applies = Literal["all", "raw", "images"]
CDM_ORACLE = "cdm-oracle"  # looks at the truth: an upper bound, never a result
CDM_PEERS = ("cdm", "cdm-unconditional", "cdm-null", CDM_ORACLE)
SAMPLING_PEERS = ("deepinv_DPS", "deepinv_DiffPIR", "cdm", "cdm-unconditional")
PEERS = (
    *("zero_filled", "SENSE", "L1_wavelet", "L1_wavelet_real", "TV", "mean_image", "matched_copy"),
    *("deepinv_DPS", "deepinv_DiffPIR"),
    *CDM_PEERS,
)


@dataclass(frozen=True)
class Task:
    """Fill ``targets`` from the images ``given`` and the undersampled k-space of ``raw``; all else is missing.

    ``on``: the kinds of cases it is tried on; ``acceleration``: of its k-space, in place of the simulation's.
    """

    name: str
    targets: tuple[str, ...]
    given: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()
    on: tuple[Kind, ...] = ("rendered",)
    acceleration: int | None = None

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any], stack: Stack) -> Task:
        """From a config entry. Raises Any2allError for what cannot be used, such as names that the stack lacks."""
        _known_keys(cls, entry, "task_list")
        place = f"task_list.{entry['name']}"
        parts = {key: _names(entry, place, key, "modality", stack.names) for key in ("targets", "given", "raw")}
        if not parts["targets"]:
            raise Any2allError("a task without a target", key=f"{place}.targets", allowed=stack.names)
        for name in parts["given"]:
            if name in (*parts["targets"], *parts["raw"]):
                message = "a given image cannot be a target, or raw, as well"
                raise Any2allError(message, key=f"{place}.given", value=name)
        on, acceleration = _names(entry, place, "on", "kind of cases", KINDS, ("rendered",)), entry.get("acceleration")
        if acceleration is not None:
            as_count(acceleration, f"{place}.acceleration")
        return cls(entry["name"], **parts, on=on, acceleration=acceleration)

    def suits(self, cases: Cases) -> bool:
        """Whether it is meant for these cases, and they have what it gives and asks."""
        return cases.kind in self.on and set(self.targets + self.given + self.raw) <= set(cases.present)

    def simulation_of(self, simulation: Mapping[str, Any]) -> dict[str, Any]:
        """The simulation with this task's own acceleration, where it has one."""
        own = {} if self.acceleration is None else {"acceleration": self.acceleration}
        return {**simulation, **own}

    def acquire(self, cases: Cases, stack: Stack, simulation: Mapping[str, Any]) -> dict[str, Acquisition]:
        """k-space of the raw modalities, simulated on the grid of the truth from unclipped u."""
        simulation = self.simulation_of(simulation)
        seed = simulation.get("seed", 0)
        return {
            name: simulate_kspace(
                cases.slices[:, stack.index(name)].numpy(),
                simulation.get("coils", 8),
                simulation.get("acceleration", 4),
                simulation.get("acs_lines", 0),
                simulation.get("noise_std", 0.01),
                seed + stack.index(name),
            )
            for name in self.raw
        }

    def images(self, cases: Cases, stack: Stack) -> dict[str, Tensor]:
        """The given images (Z, H, W) in u, clipped to [0, 1] as the pipeline clips them."""
        return {name: cases.slices[:, stack.index(name)].clamp(0, 1) for name in self.given}


@dataclass(frozen=True)
class Method:
    """A peer with its settings, and where it is tried.

    Attributes:
        name: of the row.
        peer: one of `PEERS`, or None for a sampler.
        sampler: mps, mds or mcs; ancestral draws from nothing and suits no task.
        model: weights of another prior than the evaluated one, beside it (``shared.pt``); tried where the file exists.
        steps, samples, eta, eta_convention, gamma, zeta, weights, faithful, consistency, solver, antithetic, centre:
            see `samplers`; None is the sampler's own default.
        steps, zeta, weight, lamda: of deepinv's samplers, see `deepinv_peers`; None is deepinv's own default.
        rho: correlation of the noise of neighbouring slices, see `samplers.noise`; ``prior``: as the prior's card says.
        slices: try on so many of the slices only, from the middle of the set; None: on all.
        tasks: try on the tasks of these names only; None: on all that apply.
        applies: to all tasks, to those with raw data, or to those with images only.
        on: the kinds of cases it is tried on.
    """

    name: str
    peer: str | None = None
    sampler: Literal["ancestral", "mps", "mds", "mcs"] | None = None
    model: str | None = None
    steps: int | None = None
    samples: int = 1
    eta: float | None = None
    eta_convention: Literal["dds", "ddim"] | None = None
    gamma: float | None = None
    zeta: float | None = None
    weight: float | None = None
    lamda: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    faithful: bool | None = None
    consistency: Literal["calibrated", "moment"] | None = None
    solver: Literal["ddim", "dpm"] | None = None
    antithetic: bool | None = None
    centre: float | None = None
    rho: float | Literal["prior"] = 0.0
    slices: int | None = None
    tasks: tuple[str, ...] | None = None
    applies: Applies = "all"
    on: tuple[Kind, ...] = ("rendered",)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Method:
        """From a config entry. Raises Any2allError for a key that does not exist, an unknown sampler or peer, and for
        a choice or a count that cannot be used."""
        _known_keys(cls, entry, "method_list")
        place = f"method_list.{entry['name']}"
        kind, allowed = ("peer", PEERS) if "peer" in entry else ("sampler", tuple(_SETTINGS))
        if entry.get(kind) not in allowed:
            raise Any2allError("no such method", key=f"method_list.{kind}", value=entry.get(kind), allowed=allowed)
        if entry.get("peer") and entry.get("sampler"):
            raise Any2allError("a method is a peer or a sampler", key=place, value=[entry["peer"], entry["sampler"]])
        if entry.get("applies", "all") not in get_args(Applies):
            value = entry["applies"]
            raise Any2allError("no such choice", key=f"{place}.applies", value=value, allowed=get_args(Applies))
        for key, default in (("steps", None), ("slices", None), ("samples", 1)):
            if (value := entry.get(key, default)) is not None or key == "samples":
                as_count(value, f"{place}.{key}")
        tasks = None if entry.get("tasks") is None else _names(entry, place, "tasks", "task")
        on = _names(entry, place, "on", "kind of cases", KINDS, ("rendered",))
        return cls(**{**entry, "tasks": tasks, "on": on})

    def meant_for(self, task: Task, cases: Cases) -> bool:
        """Whether the configuration wants this method on the task; whether it can do it, its peer says."""
        if cases.kind not in self.on or (self.tasks is not None and task.name not in self.tasks):
            return False
        return self.applies == "all" or (self.applies == "raw") == bool(task.raw)

    @property
    def draws_samples(self) -> bool:
        """Whether its images are draws from a posterior, and not one answer."""
        if self.sampler is None:
            return self.peer in SAMPLING_PEERS
        return self.sampler != "mcs" or self.steps != 1

    @property
    def sees_truth(self) -> bool:
        """Whether it looks at what it should predict: an upper bound to read others against, no rival to beat."""
        return self.peer == CDM_ORACLE

    def build_sampler(self, stack: Stack) -> Sampler:
        """The sampler; what is None stays at its default."""
        kind, keys = _SETTINGS[self.sampler]
        settings = {key: getattr(self, key) for key in keys if getattr(self, key) is not None}
        if self.sampler == "mps":
            settings["weights"] = {stack.index(name): weight for name, weight in self.weights.items()}
        return kind(**settings)

    def settings(self) -> dict[str, Any]:
        """What its results depend on."""
        left_out = ("tasks", "applies", "on")
        found = {k: v for k, v in asdict(self).items() if k not in left_out and v not in (None, {})}
        return {"antithetic": MCS.antithetic, **found} if self.sampler == "mcs" else found

    def chosen_slices(self, count: int) -> list[int]:
        """Which of ``count`` slices the method is tried on."""
        if self.slices is None or self.slices >= count:
            return list(range(count))
        return torch.linspace(0, count - 1, self.slices + 2)[1:-1].round().int().tolist()


_SETTINGS: dict[str, tuple[type[Sampler], tuple[str, ...]]] = {
    "ancestral": (Ancestral, ("steps",)),
    "mps": (MPS, ("steps", "zeta")),
    "mds": (MDS, ("steps", "eta", "eta_convention", "gamma", "faithful")),
    "mcs": (MCS, ("steps", "eta", "consistency", "solver", "antithetic", "centre")),
}


def _known_keys(kind: type, entry: Mapping[str, Any], key: str) -> None:
    allowed = [f.name for f in fields(kind)]
    for name in entry:
        if name not in allowed:
            raise Any2allError("unknown key", key=f"{key}.{entry.get('name', '?')}", value=name, allowed=allowed)
    if "name" not in entry:
        raise Any2allError("an entry without a name", key=key, value=dict(entry))


def _names(
    entry: Mapping[str, Any],
    place: str,
    key: str,
    what: str,
    allowed: Sequence[str] | None = None,
    default: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """A list of names in an entry; ``allowed``: None takes any. Raises Any2allError for what is none."""
    names = entry.get(key, default)
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise Any2allError(f"a list is needed, of each {what}", key=f"{place}.{key}", value=names, allowed=allowed)
    for name in names:
        if allowed is not None and name not in allowed:
            raise Any2allError(f"unknown {what}", key=f"{place}.{key}", value=name, allowed=allowed)
    return tuple(names)


def changed(entries: Sequence[Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Entries with other settings laid over those of some names.

    Raises Any2allError for a name that no entry has, and for settings that are none.
    """
    known = [entry.get("name") for entry in entries]
    for name, settings in changes.items():
        if name not in known:
            raise Any2allError("no such entry", key="method_changes", value=name, allowed=known)
        if not isinstance(settings, Mapping):
            allowed = "settings such as {'slices': 2}"
            raise Any2allError("these are no settings", key=f"method_changes.{name}", value=settings, allowed=allowed)
    return [{**entry, **changes.get(entry.get("name"), {})} for entry in entries]


def chosen(entries: Sequence[Any], names: str | Sequence[str] | None, key: str) -> list[Any]:
    """The entries (with a ``name``) that a command line asks for: None is all; "a,b" or a list of names.

    Raises Any2allError for a name that no entry has, and for one that two have.
    """
    known = [entry.get("name") if isinstance(entry, Mapping) else entry.name for entry in entries]
    for name in known:
        if name is not None and known.count(name) > 1:
            raise Any2allError("two entries have this name", key=key, value=name, hint="results are kept by name")
    if names is None:
        return list(entries)
    wanted = [n.strip() for n in names.split(",")] if isinstance(names, str) else [str(n) for n in names]
    for name in wanted:
        if name not in known:
            raise Any2allError("no such entry", key=key, value=name, allowed=known)
    return [entry for entry, name in zip(entries, known) if name in wanted]
