"""The panel's model without Qt: what the user has ticked, why it cannot be sent, and the study that it makes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .given import DEGRADED, GIVEN, PROFILES, STATUSES, Row, VolumeFacts, modality_document, row_problem
from .protocol import ServerInfo
from .raw_file import files_of, size_of

PRESETS = ("fast", "balanced", "best")
SUBJECT = "study"  # neutral: whose images these are stays in Slicer
LEAST_STEPS_WITH_RAW = {"mcs": 5}
OWN_STEPS = ("cdm",)  # samplers whose number of steps nobody chooses
SEED_END = 2**32


@dataclass
class Form:
    """Everything that is chosen in the panel; ``rows`` by modality. None in the last four: as the preset says."""

    rows: dict[str, Row] = field(default_factory=dict)
    preset: str = "balanced"
    registration: str = "rigid"
    reference: str = ""
    sampler: str | None = None
    steps: int | None = None
    samples: int | None = None
    seed: int | None = None

    def fit(self, info: ServerInfo) -> None:
        """Take on a server's stack: rows in its order; what it does not know goes, what it adds is missing."""
        self.rows = {name: self.rows.get(name, Row()) for name in info.names}
        if self.reference not in self.rows:
            self.reference = ""
        if self.sampler not in info.samplers:
            self.sampler = None

    def named(self, *statuses: str) -> list[str]:
        """Modalities of these statuses, in stack order."""
        return [name for name, row in self.rows.items() if row.status in statuses]

    @property
    def given(self) -> list[str]:
        """Modalities that something is sent of, in stack order."""
        return self.named(*GIVEN)

    @property
    def measured(self) -> list[str]:
        """Those of them that are no clean images: they are reconstructed."""
        return self.named("undersampled", *DEGRADED)

    @property
    def outputs(self) -> list[str]:
        """Modalities that are asked for: ticked, and not given as they are."""
        return [name for name in self.named("undersampled", *DEGRADED, "missing") if self.rows[name].wanted]

    @property
    def reference_modality(self) -> str | None:
        """The modality on whose grid results lie: the chosen one, else the first of those in the order of `GIVEN`."""
        given = [name for status in GIVEN for name in self.named(status)]
        return self.reference if self.reference in given else next(iter(given), None)

    @property
    def reference_volume(self) -> str:
        """Its node id; '' where the grid is that of a raw file."""
        row = self.rows.get(self.reference_modality or "")
        return row.volume if row is not None and row.uses_volume else ""

    @property
    def result_volume(self) -> str:
        """The node id of the volume on whose very grid results lie; '' for a raw file or thick slices, which the server
        makes thinner."""
        lowres = self.rows[self.reference_modality].status == "lowres" if self.reference_modality else False
        return "" if lowres else self.reference_volume

    def upload_names(self) -> dict[str, str]:
        """Node id or raw file → name that the server sees: the modality's, never the one that it has here."""
        names: dict[str, str] = {}
        for name in self.given:
            row, plain = self.rows[name], re.sub(r"[^A-Za-z0-9-]", "_", name)
            if row.uses_volume:
                names[row.volume] = f"{plain}.nii.gz"
            else:
                names.update({str(f): f"{plain}_raw{f.suffix.lower()}" for f in files_of(row.raw_file)})
                also = files_of(row.trajectory_file) if row.trajectory_file else ()
                names.update({str(f): f"{plain}_trajectory{f.suffix.lower()}" for f in also})
        return names

    def what_is_sent(self, volumes: Mapping[str, VolumeFacts]) -> list[str]:
        """One line for each modality that leaves this computer, to be agreed to before the first upload."""
        lines = []
        for name in self.given:
            row = self.rows[name]
            if row.uses_volume:
                what = f"voxels and geometry of the volume '{volumes[row.volume].name}', without its name"
            else:
                also = f" and its trajectory '{Path(row.trajectory_file).name}'" if row.trajectory_file else ""
                file = f"the raw data file '{Path(row.raw_file).name}'{also} as it is, under another name"
                what = f"{file}; whatever is written in it goes with it"
            lines.append(f"{name}: {what}")
        return lines

    # -- may it be sent? -----------------------------------------------------------------------------------------------

    def problem(self, info: ServerInfo | None, volumes: Mapping[str, VolumeFacts] | None = None) -> str:
        """The first reason why Apply is disabled, in words; '' when the study is ready.

        Args:
            info: the connected server, or None.
            volumes: the scene's volumes by node id; None: their presence and size are not checked.
        """
        if info is None:
            return "Connect to a server first."
        if info.problem:
            return info.problem
        if not self.given:
            return "Tick at least one modality as available or undersampled."
        unknown = [name for name in self.given if name not in info.names]
        if unknown:
            return f"This server does not know {unknown[0]}: it knows {', '.join(info.names)}."
        checks = [*self.row_problems(info, volumes).values()]
        checks += [self._used_twice(volumes), self._nothing_to_do(), self._settings_problem(info)]
        return next((words for words in (*checks, self._size_problem(info)) if words), "")

    def row_problems(self, info: ServerInfo, volumes: Mapping[str, VolumeFacts] | None = None) -> dict[str, str]:
        """Why given modalities cannot be sent as they are, by name; those that can be are not named."""
        known = [info.modality(name) for name in self.given if name in info.names]
        found = {m.name: row_problem(m, self.rows[m.name], info, volumes) for m in known}
        return {name: words for name, words in found.items() if words}

    def _used_twice(self, volumes: Mapping[str, VolumeFacts] | None) -> str:
        seen: dict[str, str] = {}
        for name in self.given:
            row = self.rows[name]
            source = row.volume if row.uses_volume else row.raw_file
            if source in seen:
                facts = (volumes or {}).get(source)
                what = (
                    f"The volume '{facts.name}'" if facts else "The same volume" if row.uses_volume else "The same file"
                )
                return f"{what} is used for both {seen[source]} and {name}."
            seen[source] = name
        return ""

    def _nothing_to_do(self) -> str:
        if not self.measured and not self.named("missing"):
            return "Every modality is available: nothing is left to fill in."
        return "" if self.outputs else "Tick at least one output."

    def _settings_problem(self, info: ServerInfo) -> str:
        chosen_steps = self.steps or self.sampler in OWN_STEPS
        if self.preset not in info.presets and not (self.sampler and chosen_steps and self.samples):
            known = ", ".join(info.presets) or "none"
            return f"This server has no preset '{self.preset}' (it has: {known}). Choose sampler, steps and samples."
        for key, value in (("steps", self.steps), ("samples", self.samples)):
            most = info.limits.get(key)
            if value is not None and (value < 1 or (most is not None and value > most)):
                return (
                    f"The number of {key} is {value}; this server takes 1 to {most:.0f}."
                    if most
                    else (f"The number of {key} is {value}; it is at least 1.")
                )
        if self.seed is not None and not 0 <= self.seed < SEED_END:
            return f"The seed is {self.seed}; it is a whole number from 0 to {SEED_END - 1}."
        return (self.sampler and self.misfit(self.sampler, info)) or self._steps_problem(info)

    def misfit(self, sampler: str, info: ServerInfo) -> str:
        """Why a sampler cannot be used for what is given, in words; '' where it can."""
        known = info.samplers.get(sampler)
        if known is None:
            return f"This server has no {sampler}."
        for name in self.given:
            status = self.rows[name].status
            if status not in known.takes:
                takes = " or ".join(known.takes)
                return f"{sampler} takes only what is {takes}, and {name} is {status}: choose another sampler."
        return ""

    def _steps_problem(self, info: ServerInfo) -> str:
        sampler, steps, samples = self.effective_sampler(info)
        least = LEAST_STEPS_WITH_RAW.get(sampler, 1) if self.measured else 1
        if steps < least:
            what = ", ".join(f"{name} is {self.rows[name].status}" for name in self.measured)
            return f"{sampler} needs at least {least} steps where {what}."
        if steps == 1 and samples > 1:
            return "One step gives the same image every time: choose one sample, or more steps."
        return ""

    def _size_problem(self, info: ServerInfo) -> str:
        most = info.limits.get("upload_bytes")
        size = sum(size_of(str(file)) for row in self.rows.values() for file in row.raw_files)
        if most is not None and size > most:
            return f"The raw data has {size / 1e6:.0f} MB; this server takes {most / 1e6:.0f} MB at once."
        return ""

    # -- what it means -------------------------------------------------------------------------------------------------

    def effective_sampler(self, info: ServerInfo) -> tuple[str, int, int]:
        """(sampler, steps, samples) as the server will understand them: the preset, overruled by what is chosen."""
        preset, sampler = info.presets.get(self.preset), self.sampler or "mcs"
        defaults = info.samplers.get(sampler)
        steps = preset.steps if preset and sampler == "mcs" else defaults.steps if defaults else 1
        if self.preset == "fast" and sampler == "mcs" and not self.measured:
            steps = 1
        steps = steps if sampler in OWN_STEPS else self.steps or steps
        samples = self.samples or (
            1 if steps == 1 else preset.samples if preset else defaults.samples if defaults else 1
        )
        return sampler, steps, samples

    def expected_seconds(self, info: ServerInfo, slices: int) -> float | None:
        """Seconds of computing for ``slices`` slices of the prior's thickness (``info.slice_mm``); None: not known.

        Other steps and samples than the preset's cost in proportion.
        """
        sampler, steps, samples = self.effective_sampler(info)
        if sampler in OWN_STEPS:
            each = info.samplers[sampler].seconds_per_slice if sampler in info.samplers else None
            return None if each is None else each * slices * samples
        preset = info.presets.get(self.preset)
        raw = bool(self.measured)
        per_slice = preset.seconds_per_slice.get("raw" if raw else "images") if preset else None
        if per_slice is None:
            return None
        one_pass = self.preset == "fast" and not raw
        of_preset = 1 if one_pass else preset.steps * preset.samples
        return per_slice * slices * steps * samples / of_preset

    def study_document(self, files: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The study (contract 1) of a form without `problem`; it names no patient.

        Args:
            files: node id or raw file → name of the upload; default: `upload_names`.
        """
        names = self.upload_names() if files is None else files
        document: dict[str, Any] = {
            "version": 1,
            "subject": SUBJECT,
            "modalities": {name: modality_document(row, names) for name, row in self.rows.items()},
            "reference": self.reference_modality,
            "registration": self.registration,
            "outputs": self.outputs,
        }
        return {**document, **self.settings_document()}

    def settings_document(self) -> dict[str, Any]:
        """The keys ``preset`` and ``sampler`` of a study: what a subject of the server's own store is run with."""
        document: dict[str, Any] = {"preset": self.preset if self.preset in PRESETS else "balanced"}
        steps = None if self.sampler in OWN_STEPS else self.steps
        chosen = {"name": self.sampler, "steps": steps, "samples": self.samples, "seed": self.seed}
        sampler = {key: value for key, value in chosen.items() if value is not None}
        return {**document, "sampler": sampler} if sampler else document

    # -- saved with the scene ------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON objects."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> Form:
        """What `to_json` wrote, or an older or newer module: unknown keys and unusable values are left out."""
        if not isinstance(document, Mapping):
            return cls()
        rows = document.get("rows")
        rows = rows if isinstance(rows, Mapping) else {}
        kept = {str(n): Row(**_kept(Row, r)) for n, r in rows.items() if isinstance(r, Mapping)}
        return cls(rows=kept, **_kept(cls, document))


_CHOICES = {"status": STATUSES, "preset": PRESETS, "registration": ("rigid", "none"), "slice_profile": PROFILES}


def _kept(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a saved document that fit the fields of ``kind``."""
    found = {f.name: document[f.name] for f in fields(kind) if f.name in document and f.name != "rows"}
    return {key: _usable(value) for key, value in found.items() if _fits(key, value)}


def _usable(value: Any) -> Any:
    return tuple(float(v) for v in value) if isinstance(value, (list, tuple)) else value


def _fits(key: str, value: Any) -> bool:
    if key in ("voxel_size_mm", "psf_fwhm_mm"):
        edges = value if isinstance(value, (list, tuple)) else ()
        counts = (3,) if key == "voxel_size_mm" else (1, 3)
        return value is None or (len(edges) in counts and all(_is_number(edge) for edge in edges))
    if key == "image_noise_std":
        return value is None or _is_number(value)
    if key in ("wanted", "from_file"):
        return isinstance(value, bool)
    if key == "noise_std":
        return _is_number(value)
    if key in ("acceleration", "acs_lines", "coils", "simulation_seed"):
        return _is_whole(value)
    if key in ("steps", "samples", "seed"):
        return value is None or _is_whole(value)
    if key == "sampler":
        return value is None or isinstance(value, str)
    return isinstance(value, str) and value in _CHOICES.get(key, (value,))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))
