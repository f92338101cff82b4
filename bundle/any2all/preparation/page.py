"""``qc.html``: a row per subject with its picture, overlaps, warnings and refusals; one file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .subject import PICTURE, Record

_STYLE = """
body { background: #0b0e13; color: #e8ecf2; font: 14px/1.45 system-ui, sans-serif; margin: 24px; }
h1 { font-size: 20px; } table { border-collapse: collapse; }
td { border-top: 1px solid #2a3140; padding: 12px 16px 12px 0; vertical-align: top; }
img { display: block; max-width: 100%; } .muted { color: #8a94a6; }
.warning { color: #ffb454; } .refused { color: #ff8080; } ul { margin: 4px 0; padding-left: 18px; }
"""


def qc_page(records: Sequence[Record], folder: Path, sections: Mapping[str, str], notes: Sequence[str]) -> str:
    """The page as HTML.

    Args:
        records: of all subjects, see `prepare_subject`.
        folder: where their pictures lie.
        sections: of each usable subject: training or validation.
        notes: about the whole cohort.
    """
    refused = len(records) - len(sections)
    counts = [f"{list(sections.values()).count(name)} {name}" for name in ("training", "validation")]
    body = "".join(_row(record, folder, sections) for record in records)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Prepared cohort</title>'
        f"<style>{_STYLE}</style></head><body><h1>Prepared cohort: {len(records)} subjects</h1>"
        f"<p>{', '.join(counts)}, {refused} refused. Edges are those of the reference.</p>"
        f"{_list('warning', notes)}<table>{body}</table></body></html>\n"
    )


def _row(record: Record, folder: Path, sections: Mapping[str, str]) -> str:
    name = record["subject"]
    section = sections.get(name)
    picture = '<span class="muted">nothing to show</span>'
    if section is not None:
        data = base64.b64encode((folder / name / PICTURE).read_bytes()).decode()
        picture = f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'
    status = f'<span class="muted">{section}</span>' if section else '<span class="refused">refused</span>'
    facts = [_facts(modality, entry) for modality, entry in record["modalities"].items()]
    ignored = [f"not used: {', '.join(record['ignored'])}"] if record["ignored"] else []
    return (
        f"<tr><td><b>{escape(name)}</b><br>{status}</td><td>{picture}</td><td>{_list('', facts)}"
        f"{_list('warning', record['warnings'])}{_list('refused', refusals(record))}{_list('muted', ignored)}</td></tr>"
    )


def refusals(record: Record) -> list[str]:
    """A line for each modality that was refused, and for the subject itself; each begins with the subject's name."""
    name = record["subject"]
    return [
        f"{name}: {why}" if what == name else f"{name}: {what}: {why.removeprefix(f'{what}: ')}"
        for what, why in record["refused"].items()
    ]


def _facts(modality: str, entry: Mapping[str, Any]) -> str:
    if entry["registered"]:
        moved = f"turned {entry['angle_deg']:.1f}°, shifted {entry['shift_mm']:.1f} mm, "
        return f"{modality}: {moved}overlap {entry['overlap_before']:.2f} → {entry['overlap']:.2f}"
    return f"{modality}: not moved, overlap {entry['overlap']:.2f}"


def _list(kind: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if items else ""
