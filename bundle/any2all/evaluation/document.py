"""``results.json``: everything that the report was made of, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .evaluate import Evaluation
from .figures import Drawing
from .perception import Perception
from .records import Record
from .results import Results, Section

FORMAT = 2
DIGITS = 5  # significant ones of a score


def document(
    results: Results, sections: Sequence[Section], drawings: Sequence[Drawing], perception: Perception
) -> dict[str, Any]:
    """Settings and seeds, verdicts, records slice by slice, and which figures there are; strict JSON."""
    evaluation = results.evaluation
    return _strict(
        {
            "format": FORMAT,
            "settings": _settings(evaluation),
            "cases": [
                {"kind": c.kind, "slices": len(c), "present": list(c.present), "facts": c.facts, **c.origin}
                for c in evaluation.sets
            ],
            "verdicts": [
                {"section": section.title, **asdict(verdict)} for section in sections for verdict in section.verdicts
            ],
            "perception": {"name": perception.name, "note": perception.note},
            "records": [_record(record, perception) for record in results.records],
            "unconditional": None
            if evaluation.unconditional is None
            else [distance.to_json() for distance in evaluation.unconditional.distances],
            "figures": [{"name": d.name, "title": d.title, "caption": d.caption} for d in drawings],
        }
    )


def _record(record: Record, perception: Perception) -> dict[str, Any]:
    """Scores slice by slice and in all, whose names end in ``_all`` where the slices' have the plain one.

    The group of a slice stands with the cases.
    """
    scores, whole = asdict(record), record.summary()
    del scores["groups"], whole["slices"]
    whole = {f"{name}_all" if isinstance(scores.get(name), list) else name: value for name, value in whole.items()}
    return {**scores, **whole, "perception": perception.of(record)}


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    card = evaluation.prior.card
    return {
        "prior": {
            "sha256": card.sha256,
            "version": card.version,
            "noise_levels": card.noise_levels,
            "matrix": list(card.matrix),
            "spacing_mm": list(card.spacing_mm),
            "calibrated": bool(card.calibration),
            "training": card.training,
        },
        "seed": evaluation.seed,
        "simulation": dict(evaluation.simulation),
        "tasks": [asdict(task) for task in evaluation.tasks],
        "left_out": evaluation.left_out,
        "methods": [{key: v for key, v in asdict(m).items() if v not in (None, {})} for m in evaluation.methods],
    }


def write_json(content: Mapping[str, Any], file: Path) -> None:
    """Compact; a number that JSON does not have is refused."""
    file.write_text(json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """Numbers that JSON does not know as null or text, scores to 5 digits."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else "inf"
    return value
