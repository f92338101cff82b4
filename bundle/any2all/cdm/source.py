"""Where CDM comes from when a study asks for it: a file that is loaded then, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..diffusion.prior import PriorCard
from ..errors import Any2allError
from ..study.presets import SAMPLERS
from .card import CDMCard, load_card
from .predictor import CDM, load_cdm


class OtherGridError(Any2allError):
    """A CDM that was trained on another grid or stack than the prior."""


@dataclass
class CDMSource:
    """CDM of a file.

    Args:
        file: ``cdm.pt``, its card beside it; None or a file that is not there: there is no CDM.
        device: where it runs.
        autocast: see `CDM`.
    """

    file: Path | None = None
    device: torch.device | str = "cpu"
    autocast: bool | None = None
    _loaded: CDM | None = field(default=None, repr=False)

    @property
    def present(self) -> bool:
        return self._loaded is not None or (self.file is not None and self.file.is_file())

    @classmethod
    def of(cls, cdm: CDM) -> CDMSource:
        """Of networks that are in memory already."""
        return cls(device=cdm.device, _loaded=cdm)

    def card(self, prior: PriorCard) -> CDMCard:
        """What the file says of itself, without loading its networks. Raises Any2allError as `load`."""
        if not self.present:
            raise no_cdm()
        card = self._loaded.card if self._loaded is not None else load_card(self.file)
        refuse_other_grid(card, prior)
        return card

    def load(self, prior: PriorCard) -> CDM:
        """The networks, for studies that are laid on this prior's grid.

        Raises:
            Any2allError: there is no CDM, its files cannot be used, or it was trained on another grid or stack.
        """
        if not self.present:
            raise no_cdm()
        if self._loaded is None:
            self._loaded = load_cdm(self.file, self.device, self.autocast)
        refuse_other_grid(self._loaded.card, prior)
        return self._loaded


def no_cdm() -> Any2allError:
    """What a study that asks for CDM is told where there is none."""
    return Any2allError(
        "there is no trained CDM here",
        key="sampler.name",
        value="cdm",
        allowed=SAMPLERS,
        hint="put cdm.pt and cdm.json beside the prior, or name the file with cdm_file",
        code="cdm_unavailable",
    )


def refuse_other_grid(card: CDMCard, prior: PriorCard) -> None:
    """CDM sees the slices that are laid for the prior, so the two have to know the same ones, else OtherGridError."""
    for name in ("matrix", "spacing_mm", "stack"):
        if getattr(card, name) != getattr(prior, name):
            raise OtherGridError(
                f"this CDM and this prior were trained with another {name} each",
                key="cdm_file",
                value=None if name == "stack" else getattr(card, name),
                allowed=None if name == "stack" else str(getattr(prior, name)),
                hint="train CDM with the stack, matrix and spacing_mm of the prior's card",
                code="cdm_unavailable",
            )
