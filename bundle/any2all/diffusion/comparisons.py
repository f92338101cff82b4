r"""Does a given image look like what the prior knows? Hide it, predict it, compare (no labels of what is wrong needed).

Notation
    ========  =============================================================================================
    x_m       given image m in the prior's range; C the other given images, or none of them
    x̂_m(C)    E[x_m | C]: one pass with C clean and m hidden (level 1000, where the input fades out)
    x̂_m(∅)    there and back: the whole stack E[x | x_m], and m predicted again from all others of that stack
    d_j       mean (E[x_j | x_j at level k] - x_m)², k = 250: x_m noised and denoised as if it were modality j, alone
    r, r̄      what a comparison of x̂_m and x_m gives, and the median of it over proper validation heads
    ========  =============================================================================================

Five comparisons complete each other, pooled over the pixels of the head in all slices that are looked at:

    structure   r = corr(h * x̂_m, h * x_m),   score 1 - r / r̄;   h: high-pass, identity minus a Gaussian   (1)
    contrast    r = corr(x̂_m, x_m),           score 1 - r / r̄                                            (2)
    error       r = mean (x̂_m - x_m)²,        score log(r / r̄)                                           (3)
    identity    r = corr(h * x̂_m, h * x_m) - max_j corr(h * x̂_j, h * x_m),   score -r;   j hidden, too      (4)
    denoising   r = log (min_j d_j / d_m),     score -r;   j ≠ m, for an image alone                       (5)

Scores 1 to 3 are 0 when all is as expected; the first two are 1 for images that have nothing to do with each other,
and more when bright and dark are exchanged. Eq. 1 knows no gain, offset or slow shading, in which scanners differ, but
where edges lie: another patient, order of slices or orientation loses them. Eqs. 2 and 3 see grey values that do not
belong to the modality, eq. 4 (with companions only) an image that looks more like what is predicted of another one.
Eq. 5 asks the prior as a classifier (Li et al., ICCV 2023: the class whose denoiser errs least); without companions it
tells modalities apart best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..errors import Cancelled

if TYPE_CHECKING:
    from .prior import NetworkPrior

KINDS = ("structure", "contrast", "error", "identity", "denoising")
HEAD_U = 0.05  # a pixel brighter than this in one of the images belongs to the head
HIGH_PASS_PX = 2.0
LEAST_CORRELATION, LEAST_ERROR = 0.1, 1e-6
DENOISING_LEVEL = 250
NO_RIVAL = 1.0  # r of eqs. 4 and 5 where there is nothing to compare with
Companions = tuple[int, ...]
Key = tuple[str, int, Companions]
Values = dict[Key, float]


def score(kind: str, value: float, expected: float) -> float:
    """Eqs. 1 to 5."""
    if kind in ("identity", "denoising"):
        return -value
    if kind == "error":
        return math.log(value / expected)
    return 1 - value / max(expected, LEAST_CORRELATION)


@torch.inference_mode()
def comparisons(
    prior: NetworkPrior,
    images: Tensor,
    sets: dict[int, set[Companions]],
    batch_size: int = 16,
    cancelled: Callable[[], bool] | None = None,
) -> Values:
    """All comparisons of images (Z, M, H, W) in the prior's range, for every image m and its sets of companions."""

    def estimated(x: Tensor, levels: Tensor) -> Tensor:
        parts = []
        for batch, its_levels in zip(x.split(batch_size), levels.split(batch_size)):
            if cancelled is not None and cancelled():
                raise Cancelled
            parts.append(prior.x0_hat(batch.to(prior.device), its_levels.to(prior.device)).clamp(-1, 1).cpu())
        return torch.cat(parts)

    def predicted(stack: Tensor, clean: Sequence[int]) -> Tensor:
        return estimated(*_hidden_but(stack, clean))

    def denoised(image: Tensor) -> Tensor:
        slots = range(prior.channels)
        return torch.stack([estimated(*_noised_as(image, slot, prior))[:, slot] for slot in slots], dim=1)

    needed = {c for wanted in sets.values() for c in wanted if c} | {(m,) for m, wanted in sets.items() if () in wanted}
    stacks = {companions: predicted(images, companions) for companions in sorted(needed)}
    found: Values = {}
    for m, wanted in sets.items():
        for companions in sorted(wanted):
            hidden = [c for c in range(prior.channels) if c != m and c not in companions]
            if companions:
                x0_hat, rivals = stacks[companions][:, m], stacks[companions][:, hidden]
            else:
                x0_hat, rivals = predicted(stacks[(m,)], hidden)[:, m], images[:, :0]
            for kind, value in compare(x0_hat, images[:, m], images[:, list(companions)], rivals).items():
                found[kind, m, companions] = value
            alone = NO_RIVAL if companions else denoising_margin(denoised(images[:, m]), images[:, m], m)
            found["denoising", m, companions] = alone
    return found


def compare(x0_hat: Tensor, image: Tensor, companions: Tensor, rivals: Tensor) -> dict[str, float]:
    """r of eqs. 1 to 4 for a prediction and an image.

    Args:
        x0_hat, image: (Z, H, W).
        companions: (Z, n, H, W), which also show where head is.
        rivals: (Z, j, H, W), predictions of other modalities.
    """
    head = torch.cat([torch.stack([x0_hat, image], dim=1), companions], dim=1).amax(dim=1) > 2 * HEAD_U - 1
    if not head.any():
        return {"structure": 0.0, "contrast": 0.0, "error": LEAST_ERROR, "identity": 1.0}
    edges = _high_pass(image)[head]
    structure = _correlation(_high_pass(x0_hat)[head], edges)
    likest = max(
        (_correlation(_high_pass(rival)[head], edges) for rival in rivals.unbind(1)), default=structure - NO_RIVAL
    )
    return {
        "structure": structure,
        "contrast": _correlation(x0_hat[head], image[head]),
        "error": max(float((x0_hat - image)[head].square().mean()), LEAST_ERROR),
        "identity": structure - likest,
    }


def denoising_margin(denoised: Tensor, image: Tensor, m: int) -> float:
    """r of eq. 5: an image (Z, H, W) given as modality m, and what it is denoised to as each modality (Z, M, H, W)."""
    head = image > 2 * HEAD_U - 1
    if not head.any():
        return NO_RIVAL
    errors = [max(float((one - image)[head].square().mean()), LEAST_ERROR) for one in denoised.unbind(1)]
    return math.log(min(errors[:m] + errors[m + 1 :]) / errors[m])


def _noised_as(image: Tensor, slot: int, prior: NetworkPrior) -> tuple[Tensor, Tensor]:
    """Network input and levels with an image (Z, H, W) at level 250 in one channel; its noise is always the same."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    abar = prior.schedule.at(DENOISING_LEVEL)
    x, levels = _hidden_but(image[:, None].expand(-1, prior.channels, -1, -1), ())
    x[:, slot] = math.sqrt(abar) * image + math.sqrt(1 - abar) * noise
    levels[:, slot] = DENOISING_LEVEL
    return x, levels


def _hidden_but(images: Tensor, clean: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Network input and levels with these channels clean; a hidden one fades out, so zero stands for its noise."""
    x, levels = torch.zeros_like(images), torch.full(images.shape[:2], 1000, dtype=torch.long)
    x[:, list(clean)], levels[:, list(clean)] = images[:, list(clean)], 0
    return x, levels


def _high_pass(image: Tensor) -> Tensor:
    """An image (Z, H, W) minus its Gaussian average."""
    reach = math.ceil(3 * HIGH_PASS_PX)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / HIGH_PASS_PX) ** 2)
    weights = (weights / weights.sum()).to(image)
    low = pad(image[:, None], (reach, reach, reach, reach), mode="replicate")
    low = conv2d(conv2d(low, weights[None, None, None, :]), weights[None, None, :, None])
    return image - low[:, 0]


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two vectors; 0 where one is constant."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0 else 0.0
