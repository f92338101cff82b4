"""What the networks of CDM have learned, on complete slices that none of them was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from ..diffusion.prior import has_fast_bf16
from ..training.validation import psnr
from .batches import FrozenEncoder
from .card import CDMCard
from .mdn import MDN
from .mrm import MRM, MaskedPatchLoss, random_mask
from .predictor import CDM, Guidance

MASK_RATIO = 0.75


@torch.no_grad()
def masked_loss(mrm: MRM, slices: Tensor) -> dict[str, float]:
    """L_MRM over all images of slices (B, M, H, W), the same masks at every call."""
    batch, modalities = slices.shape[:2]
    modality = torch.arange(modalities, device=slices.device).repeat(batch)
    images = slices.flatten(0, 1)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        masked = random_mask(len(images), mrm.count, MASK_RATIO).to(slices.device)
    with torch.autocast(slices.device.type, torch.bfloat16, enabled=has_fast_bf16(slices.device)):
        prediction = mrm(images, modality, masked)
    return {"L_MRM": float(MaskedPatchLoss()(prediction, (mrm.patches(images), masked)))}


@torch.no_grad()
def variance_explained(encoder: FrozenEncoder, mdn: MDN, slices: Tensor) -> dict[str, float]:
    """R² of the predicted y_0 at the highest level, given all other modalities (``source``) and nothing (``none``).

    There y_t is pure noise and the prediction is the conditional mean. 0: no better than the training mean.
    """
    batch, modalities = slices.shape[:2]
    everything = torch.ones(batch, modalities, dtype=torch.bool, device=slices.device)
    y0 = encoder(slices, everything)
    errors: dict[str, list[Tensor]] = {"source": [], "none": []}
    for m in range(modalities):
        modality = torch.full((batch,), m, device=slices.device)
        others = everything.clone()
        others[:, m] = False
        for name, given in (("source", others), ("none", torch.zeros_like(others))):
            top = torch.full_like(modality, 1000)
            predicted = mdn(torch.zeros_like(y0[:, m]), top, modality, y0, given)
            errors[name].append((predicted - y0[:, m]).square().mean())
    power = y0.square().mean()
    return {f"R2_{name}": float(1 - torch.stack(parts).mean() / power) for name, parts in errors.items()}


def psnr_by_guidance(
    networks: Mapping[str, nn.Module],
    card: CDMCard,
    slices: Tensor,
    tasks: Sequence[Sequence[str]],
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """PSNR in dB of one sample of every missing modality of each task, from all others, for every guidance."""
    cdm, slices, scores = CDM(networks, card, device), slices.cpu(), {}
    for missing in tasks:
        hidden = {card.stack.index(name) for name in missing}
        available = [m for m in range(len(card.stack)) if m not in hidden]
        for guidance in get_args(Guidance):
            truth = slices if guidance == "oracle" else None
            filled = cdm.predict(slices, available, guidance=guidance, truth=truth)[0]
            for m in sorted(hidden):
                scores[f"PSNR_{card.stack.names[m]}_{guidance}"] = psnr(filled[:, m], slices[:, m])
    return scores
