"""What is said and decided of a cohort as a whole: who trains, who validates, and its own CT and PET constants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..stack import LinearNormalisation, Stack
from .sources import SECTIONS
from .subject import Record


def split(records: Sequence[Record], fraction: float, seed: int) -> tuple[dict[str, str], list[str]]:
    """Section of every usable subject: what its source said, else drawn by its name alone, and notes.

    A subject keeps its section when others join the cohort, and nobody whom the source keeps for validation is trained
    on.
    """
    usable = [record for record in records if record["modalities"]]
    sections = {r["subject"]: r["section"] or _drawn(r["subject"], fraction, seed) for r in usable}
    notes = []
    drawn = [record["subject"] for record in usable if not record["section"]]
    if drawn and "training" not in sections.values():
        sections |= dict.fromkeys(drawn, "training")
        notes.append("no subject was drawn for training: all of them are trained on")
    if sections and "training" not in sections.values():
        notes.append("no subject is left to train on: the source keeps all of them for validation")
    if sections and "validation" not in sections.values():
        notes.append("no subject is kept for validation: training shows no scores (validation_fraction, seed)")
    return sections, notes


def _drawn(name: str, fraction: float, seed: int) -> str:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") / 2**64 < fraction else "training"


def datalist(records: Sequence[Record], sections: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """A MONAI datalist of the prepared stacks, paths relative to their folder."""
    lists: dict[str, list[dict[str, str]]] = {name: [] for name in SECTIONS}
    for record in records:
        name = record["subject"]
        if name in sections:
            entry = {modality: f"{name}/{modality}.nii.gz" for modality in record["modalities"]}
            lists[sections[name]].append(entry)
    return lists


def cohort_constants(training: Sequence[Record], stack: Stack) -> dict[str, dict[str, Any]]:
    """Of CT and PET in the training subjects' heads: the range, and the median of their 99.9th percentiles."""
    constants = {}
    for modality in stack.modalities:
        heads = [r["modalities"][modality.name]["head"] for r in training if modality.name in r["modalities"]]
        if modality.kind == "MR" or not heads:
            continue
        constants[modality.name] = {
            "units": modality.units,
            "subjects": len(heads),
            "lowest": min(head["lowest"] for head in heads),
            "highest": max(head["highest"] for head in heads),
            "percentile_99_9": float(np.median([head["percentile_99_9"] for head in heads])),
        }
    return constants


def fitted_stack(stack: Stack, constants: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The stack's document with the cohort's constants: the value that becomes u = 1, and its display with it."""
    document = stack.model_dump(mode="json")
    for entry, modality in zip(document["modalities"], stack.modalities):
        scale = modality.normalisation
        if isinstance(scale, LinearNormalisation) and modality.name in constants:
            entry["normalisation"]["maximum"] = constants[modality.name]["percentile_99_9"]
            if modality.display.window_in == "units":
                ratio = entry["normalisation"]["maximum"] / scale.maximum
                entry["display"]["window"] = [value * ratio for value in modality.display.window]
    return document


def listed(records: Sequence[Record], sections: Mapping[str, str]) -> dict[str, Any]:
    """Counts, and every record with its section, for the report."""
    counts = {name: list(sections.values()).count(name) for name in SECTIONS}
    return {
        "counts": {**counts, "refused": len(records) - len(sections)},
        "subjects": [{**record, "section": sections.get(record["subject"])} for record in records],
    }
