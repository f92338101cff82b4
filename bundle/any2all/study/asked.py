"""What a command says in place of a study's own keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import Any2allError
from ..stack import Stack
from .document import validated


def asked_of(
    stack: Stack, preset: str | None = None, sampler: dict[str, Any] | None = None, outputs: Sequence[str] | None = None
) -> dict[str, Any]:
    """The keys of a study that are replaced; a preset takes the place of the study's sampler, too.

    Raises:
        Any2allError: a value that no study could have.
    """
    asked: dict[str, Any] = {}
    if preset is not None:
        asked |= {"preset": preset, "sampler": {}}
    if sampler is not None:
        asked["sampler"] = sampler
    if outputs is not None:
        asked["outputs"] = list(outputs) if isinstance(outputs, tuple) else outputs
    validated(asked)
    for name in asked.get("outputs", ()):
        if name not in stack.names:
            raise Any2allError("unknown modality", key="outputs", value=name, allowed=stack.names)
    return asked
