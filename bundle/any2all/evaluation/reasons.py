"""Why a thing that was asked does not hold: what smaller measurements found, printed beside the verdict.

``configs/reasons.json`` is a list of

    section, asked   of the verdict, as patterns (``*`` stands for anything)
    weights          first letters of the checksum of the weights that it was found with, the prior's or CDM's
    why              the reason, in words
    measured         how and on what it was found

A reason stands only beside a verdict that came out as not reproduced, and only for the weights that it was found with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import Any2allError
from .results import Section, Verdict

REASONS = Path(__file__).parents[2] / "configs" / "reasons.json"


@dataclass(frozen=True)
class Reason:
    """One entry of the file."""

    section: str
    asked: str
    weights: str
    why: str
    measured: str

    @property
    def sentence(self) -> str:
        return f"{self.why} Found on: {self.measured}."

    def explains(self, section: Section, verdict: Verdict, checksums: Sequence[str]) -> bool:
        """Whether it belongs beside this verdict."""
        return (
            verdict.holds is False
            and any(sha256.startswith(self.weights) for sha256 in checksums)
            and fnmatchcase(section.title, self.section)
            and fnmatchcase(verdict.asked, self.asked)
        )


def load_reasons(file: Path = REASONS) -> list[Reason]:
    """Raises Any2allError for an entry with other keys than it needs."""
    keys = sorted(field.name for field in fields(Reason))
    entries = json.loads(file.read_text(encoding="utf-8"))
    for entry in entries:
        if sorted(entry) != keys or not entry["weights"]:
            raise Any2allError("an entry of the reasons is not whole", key="reasons", value=sorted(entry), allowed=keys)
    return [Reason(**entry) for entry in entries]


def explained(section: Section, reasons: Sequence[Reason], checksums: Sequence[str]) -> Section:
    """The section with the first reason that fits beside every verdict that does not hold.

    ``checksums``: of the weights that were evaluated. A reason that several verdicts share is printed once.
    """
    verdicts, printed = [], {}
    for verdict in section.verdicts:
        reason = next((r for r in reasons if r.explains(section, verdict, checksums)), None)
        if reason is None:
            verdicts.append(replace(verdict, reason=""))
            continue
        first = printed.setdefault(reason.sentence, verdict.asked)
        words = reason.sentence if first == verdict.asked else f"As for “{first}”."
        verdicts.append(replace(verdict, reason=words))
    return replace(section, verdicts=tuple(verdicts))
