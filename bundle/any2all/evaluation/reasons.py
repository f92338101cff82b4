"""Why a thing that was asked does not hold: what smaller measurements found, printed beside the verdict.

``configs/reasons.json`` is a list of

    section, asked   of the verdict, as patterns (``*`` stands for anything)
    prior            first letters of the checksum of the prior that it was found with
    why              the reason, in words
    measured         how and on what it was found

A reason stands only beside a verdict that came out as not reproduced, and only for the prior that it was found with.
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
    prior: str
    why: str
    measured: str

    @property
    def sentence(self) -> str:
        return f"{self.why} Found on: {self.measured}."

    def explains(self, section: Section, verdict: Verdict, sha256: str | None) -> bool:
        """Whether it belongs beside this verdict."""
        return (
            verdict.holds is False
            and bool(sha256)
            and sha256.startswith(self.prior)
            and fnmatchcase(section.title, self.section)
            and fnmatchcase(verdict.asked, self.asked)
        )


def load_reasons(file: Path = REASONS) -> list[Reason]:
    """Raises Any2allError for an entry with other keys than it needs."""
    keys = sorted(field.name for field in fields(Reason))
    entries = json.loads(file.read_text(encoding="utf-8"))
    for entry in entries:
        if sorted(entry) != keys or not entry["prior"]:
            raise Any2allError("an entry of the reasons is not whole", key="reasons", value=sorted(entry), allowed=keys)
    return [Reason(**entry) for entry in entries]


def explained(section: Section, reasons: Sequence[Reason], sha256: str | None) -> Section:
    """The section with the first reason that fits beside every verdict that does not hold."""
    verdicts = [
        replace(v, reason=next((r.sentence for r in reasons if r.explains(section, v, sha256)), ""))
        for v in section.verdicts
    ]
    return replace(section, verdicts=tuple(verdicts))
