"""The stack: which modalities the prior knows, in which order, units and ranges.

``configs/stack.json`` is the single source of modality names. Another stack is another file and a retrained prior.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import Any2allError

DEFAULT_STACK_FILE = Path(__file__).parents[1] / "configs" / "stack.json"
_WITHOUT_CONTRAST = re.compile(
    r"(?:^|[\s_.-])(?:without|w[/_]?o|non?|pre|before|ohne|sans|sin|senza)[\s_.-]+(?:iv[\s_.-]+)?"
    r"(?:[ck]ontrast[^\W_]*|gd|gad[^\W_]*|km|ce)(?=$|[\s_.-])",
    re.IGNORECASE,
)
_WITH_AND_WITHOUT = re.compile(
    r"(?:^|[\s_.-])w(?:ith)?[\s_.&+/-]*(?:and[\s_.-]+)?w(?:[/_]?o|ithout)(?=$|[\s_.-])", re.IGNORECASE
)
_BROUGHT_TO = re.compile(r"(?:^|[_\-. ])(?:to|onto|in|on)[_\-. ][^_\-. ]+", re.IGNORECASE)  # the grid of another image
_BIDS_SPACE = re.compile(r"_space-[A-Za-z0-9]+(?=_)")  # so does this entity


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PercentileNormalisation(_Frozen):
    """MR: the ``percentile`` of intensity inside one subject's head maps to ``u = target``."""

    kind: Literal["percentile"]
    percentile: float = Field(gt=50, le=100)
    target: float = Field(gt=0, le=1)
    scale_when_missing: float = Field(gt=0, description="units per u for an image that was never acquired")


class PiecewiseNormalisation(_Frozen):
    """CT: a piecewise linear, increasing map from ``values`` (units) to ``u``."""

    kind: Literal["piecewise"]
    values: tuple[float, ...]
    u: tuple[float, ...]

    @model_validator(mode="after")
    def _increasing(self) -> PiecewiseNormalisation:
        for knots in (self.values, self.u):
            if len(knots) < 2 or any(b <= a for a, b in zip(knots, knots[1:])):
                raise ValueError("piecewise knots must increase and number at least two")
        if len(self.values) != len(self.u):
            raise ValueError("piecewise values and u must have the same length")
        return self


class LinearNormalisation(_Frozen):
    """PET: ``u = value / maximum``."""

    kind: Literal["linear"]
    maximum: float = Field(gt=0)


Normalisation = Annotated[
    PercentileNormalisation | PiecewiseNormalisation | LinearNormalisation, Field(discriminator="kind")
]


class Display(_Frozen):
    """How a picture of the modality is shown: ``window`` in ``u`` or in the modality's units."""

    window: tuple[float, float]
    window_in: Literal["u", "units"]
    colormap: str


class Modality(_Frozen):
    """One channel of the stack. ``raw_data``: whether undersampled k-space of it can be given."""

    name: str
    kind: Literal["MR", "CT", "PET"]
    raw_data: bool
    units: str
    normalisation: Normalisation
    display: Display
    patterns: tuple[str, ...]
    not_patterns: tuple[str, ...] = ()
    caption: str = ""

    @field_validator("patterns", "not_patterns")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return patterns

    def matches(self, stem: str) -> int:
        """Length of the longest pattern that matches a whole token run of ``stem`` (0: none, or excluded)."""
        if any(_token_run(pattern, stem) for pattern in self.not_patterns):
            return 0
        return max((_token_run(pattern, stem) for pattern in self.patterns), default=0)


def without_denied_contrast(text: str) -> str:
    """A name or description without the words that deny a contrast agent: ``T1 pre gad``, ``Head W/O CONTRAST``.

    Where it says "with and without", they stay: the agent was given.
    """
    return text if _WITH_AND_WITHOUT.search(text) else _WITHOUT_CONTRAST.sub(" ", text)


def _own_names(stem: str) -> tuple[str, ...]:
    """What a file's name says of its image first, then all but the name of the image that it was brought to.

    ``T2_to_T1`` is a T2 that was brought to the grid of T1, as is ``sub-01_space-T1w_T2w`` in BIDS, and ``MR_to_CT`` is
    no CT; the second is for ``moved_to_mni_T2``.
    """
    stem = without_denied_contrast(stem)
    own = _BIDS_SPACE.sub("", stem) if stem.startswith("sub-") else stem
    return _BROUGHT_TO.split(own, maxsplit=1)[0], _BROUGHT_TO.sub("", own)


def _token_run(pattern: str, stem: str) -> int:
    """Length of the match of ``pattern`` between separators of ``stem``; 0 when there is none."""
    found = re.search(rf"(?:^|[_\-. ])({pattern})(?=$|[_\-. ])", stem, re.IGNORECASE)
    return len(found.group(1)) if found else 0


class Stack(_Frozen):
    """An ordered set of modalities; channel m of every array ``(B, M, H, W)`` is ``modalities[m]``."""

    modalities: tuple[Modality, ...]

    @model_validator(mode="after")
    def _unique(self) -> Stack:
        if len(set(self.names)) != len(self.names) or not self.names:
            raise ValueError("a stack needs modalities with distinct names")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.modalities)

    def __len__(self) -> int:
        return len(self.modalities)

    def __getitem__(self, name: str) -> Modality:
        return self.modalities[self.index(name)]

    def index(self, name: str) -> int:
        """Channel of a modality. Raises Any2allError for a name that the stack does not hold."""
        if name not in self.names:
            raise Any2allError("unknown modality", key="modalities", value=name, allowed=self.names)
        return self.names.index(name)

    def match(self, filename: str) -> str | None:
        """Modality that a file name stands for (longest anchored pattern wins), or None.

        A name with the word Any2all, as 3D Slicer saves our results under, stands for none.

        >>> load_stack().match("p01_T2_FLAIR.nii.gz")
        'T2FLAIR'
        >>> load_stack().match("p01_T1c.nii.gz") is None
        True
        >>> load_stack().match("T2_to_T1.nii.gz")
        'T2'
        """
        stem = re.sub(r"\.(nii|nrrd|mha|mhd|h5|npy|npz|cfl)(\.gz)?$", "", Path(filename).name, flags=re.IGNORECASE)
        if _token_run("any2all", stem):
            return None
        for name in _own_names(stem):
            scores = {m.name: m.matches(name) for m in self.modalities}
            best = max(scores, key=scores.__getitem__)
            if scores[best]:
                return best
        return None


def load_stack(file: str | Path = DEFAULT_STACK_FILE) -> Stack:
    """Read a stack file (JSON). Raises Any2allError where it is none."""
    try:
        return Stack.model_validate(json.loads(Path(str(file)).read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    raise Any2allError(
        f"the stack cannot be read: {reason}", key="stack_file", value=str(file), hint="see configs/stack.json"
    )
