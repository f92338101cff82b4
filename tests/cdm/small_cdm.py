"""CDM in small: untrained networks of the shipped stack, and the settings of runs on the small cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from any2all.cdm.card import STAGES, CDMCard, save_networks
from any2all.cdm.predictor import CDM
from any2all.cdm.standardise import Standardisation
from any2all.stack import load_stack
from torch import nn

STACK = load_stack()
MATRIX, SPACING_MM = (32, 24), (8.0, 8.0, 6.0)
NETWORKS: dict[str, dict[str, Any]] = {
    "mrm": {
        "patch": 8,
        "width": 24,
        "depth": 2,
        "heads": 3,
        "decoder_width": 12,
        "decoder_depth": 1,
        "decoder_heads": 3,
        "features": 16,
    },
    "mdn": {"width": 32, "blocks": 2, "embedding": 16},
    "cunet": {"widths": [8, 16, 16], "blocks": [1, 1, 2], "embedding": 16},
}
RUN: dict[str, Any] = {
    "dataset_dir": None,
    "networks": NETWORKS,
    "matrix": list(MATRIX),
    "spacing_mm": list(SPACING_MM),
    "batch_size": 2,
    "workers": 0,
    "minutes": None,
    "device": "$torch.device('cpu')",
    "standardisation_slices": 64,
    "checkpoint_every": 100,
}


def card_of(
    seed: int = 0,
    matrix: tuple[int, int] = MATRIX,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    version: str = "0.0.0-small",
) -> CDMCard:
    draw = torch.Generator().manual_seed(seed)
    shape = (len(STACK), NETWORKS["mrm"]["features"])
    standardisation = Standardisation(torch.randn(shape, generator=draw), 0.5 + torch.rand(shape, generator=draw))
    return CDMCard(version, matrix, spacing_mm, STACK, NETWORKS, standardisation)


def networks_of(card: CDMCard, seed: int = 0) -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {stage: card.build(stage) for stage in STAGES}


def small_cdm() -> CDM:
    """Untrained, float32 throughout, so that processors agree."""
    card = card_of()
    return CDM(networks_of(card), card, autocast=False)


def saved_cdm(folder: Path, card: CDMCard | None = None) -> Path:
    card = card or card_of()
    save_networks(networks_of(card), card, folder / "cdm.pt")
    return folder / "cdm.pt"


def volume(slices: int = 3, matrix: tuple[int, int] = MATRIX, seed: int = 1) -> torch.Tensor:
    """Random images (Z, M, H, W) in the prior range."""
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(slices, len(STACK), *matrix, generator=draw) - 1
