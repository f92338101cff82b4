"""``summary.json``: what was made, from what, with which settings, and what to keep in mind."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..stack import Stack
from .results import ModalityResult, Result

SUMMARY_VERSION = 1
DISCLAIMER = "Not a medical device. Synthetic images are estimates and not for diagnosis."


def summarise(result: Result, stack: Stack, files: list[str]) -> dict[str, Any]:
    """The summary as plain JSON values. ``files`` are the names written, relative to the folder."""
    return plain(
        {
            "any2all_summary": SUMMARY_VERSION,
            "subject": result.subject,
            "disclaimer": DISCLAIMER,
            "reference": {"shape": result.reference.grid.shape, "affine": result.reference.grid.affine},
            "given": list(result.given),
            "outputs": {output.name: _output(output, stack) for output in result.outputs},
            "warnings": result.warnings,
            "self_check": result.self_check,
            "provenance": result.provenance,
            "seconds": result.seconds,
            "files": files,
        }
    )


def _output(output: ModalityResult, stack: Stack) -> dict[str, Any]:
    spread = f"{output.name}_std.nii.gz" if output.std is not None else None
    return {
        "role": output.role,
        "units": output.units,
        "mean": f"{output.name}.nii.gz",
        "std": spread,
        "std_note": None if spread else "one sample was drawn: its uncertainty is not known",
        "std_scale": output.std_scale if spread else None,
        "effective_resolution_mm": output.effective_resolution_mm,
        "metrics": output.metrics,
        "caption": stack[output.name].caption or None,
    }


def plain(value: Any) -> Any:
    """Values that every JSON reader takes: NaN and infinity become null, arrays lists, paths their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)
