"""``cdm.pt`` and ``cdm.json``: the networks of CDM, as far as they are trained, and how they must be used."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..diffusion.prior import file_sha256
from ..diffusion.weights import packed
from ..errors import Any2allError
from ..stack import Stack
from .cunet import CUNet
from .mdn import MDN
from .mrm import FEATURES, MRM
from .standardise import Standardisation

Stage = Literal["mrm", "mdn", "cunet"]
STAGES: tuple[Stage, ...] = ("mrm", "mdn", "cunet")


@dataclass
class CDMCard:
    """What ``cdm.json`` says.

    Attributes:
        version: of the release.
        matrix, spacing_mm: the grid of training, (H, W) and (H, W, slice); MRM works on this matrix only.
        stack: modalities and normalisation, those of the prior that it is compared with.
        networks: constructor settings of ``mrm``, ``mdn`` and ``cunet``.
        standardisation: of y_0; None until MRM is finished.
        training: a summary of each stage that has run.
        sha256: of the weights.
    """

    version: str
    matrix: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    stack: Stack
    networks: dict[str, dict[str, Any]]
    standardisation: Standardisation | None = None
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "matrix": list(self.matrix),
            "spacing_mm": list(self.spacing_mm),
            "sha256": self.sha256,
            "networks": self.networks,
            "stack": self.stack.model_dump(mode="json"),
            "training": self.training,
            "standardisation": self.standardisation.to_json() if self.standardisation else None,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CDMCard:
        standardisation = document["standardisation"]
        return cls(
            version=document["version"],
            matrix=tuple(document["matrix"]),
            spacing_mm=tuple(document["spacing_mm"]),
            stack=Stack.model_validate(document["stack"]),
            networks=document["networks"],
            standardisation=Standardisation.from_json(standardisation) if standardisation else None,
            training=document["training"],
            sha256=document["sha256"],
        )

    def build(self, stage: Stage) -> nn.Module:
        """An untrained network of these settings."""
        modalities, settings = len(self.stack), self.networks.get(stage, {})
        if stage == "mrm":
            return MRM(modalities, self.matrix, **settings)
        features = self.networks.get("mrm", {}).get("features", FEATURES)
        return (MDN if stage == "mdn" else CUNet)(modalities, features, **settings)


def save_networks(networks: Mapping[str, nn.Module], card: CDMCard, model_file: str | Path) -> None:
    """Write one plain half-precision state dict with the prefixes ``mrm.``, ``mdn.``, ``cunet.``, and the card.

    Each appears whole: a run that is broken off meanwhile leaves the earlier file.
    """
    model_file = Path(model_file)
    model_file.parent.mkdir(parents=True, exist_ok=True)
    draft = model_file.with_name(f".{model_file.name}.partial")
    torch.save(packed(nn.ModuleDict(networks).state_dict()), draft)
    card.sha256 = file_sha256(draft)
    draft.replace(model_file)
    write_card(card, model_file)


def write_card(card: CDMCard, model_file: str | Path) -> None:
    """Write the card beside the weights that it describes."""
    file = Path(model_file).with_suffix(".json")
    draft = file.with_name(f".{file.name}.partial")
    draft.write_text(json.dumps(card.to_json(), indent=1) + "\n")
    draft.replace(file)


def load_networks(
    model_file: str | Path, stages: tuple[Stage, ...] = STAGES, finished: bool = True
) -> tuple[CDMCard, dict[str, nn.Module]]:
    """The card and the networks of these stages, float32, frozen.

    ``finished``: False also takes an MRM whose y_0 is not yet standardised.
    Raises Any2allError when a file is missing, does not fit its card, its checksum differs, or a stage is not in it.
    """
    model_file = Path(model_file)
    card = load_card(model_file)
    try:
        state = torch.load(model_file, map_location="cpu", weights_only=True)
        networks = {stage: _network(card, stage, state) for stage in stages if _holds(state, stage)}
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise _unusable("the weights do not fit the networks that their card describes", model_file) from error
    missing = [stage for stage in stages if stage not in networks]
    if missing or (finished and card.standardisation is None):
        stage = missing[0] if missing else "mrm"
        raise _unusable("not all networks are trained", model_file, f"train the stage {stage} to its end")
    return card, networks


def load_card(model_file: str | Path) -> CDMCard:
    """The card beside the weights, which are held against its checksum but not loaded. Errors as `load_networks`."""
    model_file = Path(model_file)
    card_file = model_file.with_suffix(".json")
    for file in (model_file, card_file):
        if not file.is_file():
            raise _unusable("file of CDM not found", file)
    try:
        card = CDMCard.from_json(json.loads(card_file.read_text()))
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable("the card of CDM cannot be read", card_file) from error
    if file_sha256(model_file) != card.sha256:
        raise _unusable("weights do not match their card (sha256)", model_file)
    return card


def _holds(state: Mapping[str, Any], stage: Stage) -> bool:
    return any(name.startswith(f"{stage}.") for name in state)


def _network(card: CDMCard, stage: Stage, state: Mapping[str, torch.Tensor]) -> nn.Module:
    network, prefix = card.build(stage), f"{stage}."
    network.load_state_dict({k[len(prefix) :]: v.float() for k, v in state.items() if k.startswith(prefix)})
    return network.eval().requires_grad_(False)


def _unusable(message: str, file: Path, hint: str | None = None) -> Any2allError:
    return Any2allError(message, key="cdm", value=file.name, hint=hint, code="cdm_unavailable")
