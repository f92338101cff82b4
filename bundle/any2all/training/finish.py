"""The last step of training: what inference needs beside the weights (calibration, mean image, training inputs)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ..diffusion.calibration import measure_calibration
from ..diffusion.contrast import measure_contrast
from ..diffusion.prior import NetworkPrior, PriorCard, file_sha256, load_prior, save_card
from ..diffusion.selfcheck import SelfCheck, fit_self_check, slices_to_check
from .coherence import measure_slice_correlation
from .cohort import validation_slices as rendered_slices
from .datasets import load_fitted_stack
from .detail import measure_detail
from .dispersion import measure_std_scale

MEAN_IMAGE_SLICES = 512
COHERENCE_HEADS = 7
CONTRAST_SEEDS, CONTRAST_SLICES = tuple(range(4000, 4030)), 4
SELF_CHECK_SEEDS, SELF_CHECK_SLICES = tuple(range(3000, 3020)), 4


def mean_image(dataset: IterableDataset, slices: int = MEAN_IMAGE_SLICES) -> Tensor:
    """Mean of training slices that have the modality → (M, H, W) in u: the baseline that needs no patient."""
    total, count = None, None
    for _, item in zip(range(slices), dataset):
        present = item["present"].float()
        image = (item["image"] + 1) / 2 * present[:, None, None]
        total = image if total is None else total + image
        count = present if count is None else count + present
    if total is None:
        raise ValueError("the dataset gave no slice")
    return total / count.clamp(min=1)[:, None, None]


def mean_image_file(model_file: str | Path) -> Path:
    """Where the mean training image of a prior lies: beside its weights."""
    model_file = Path(model_file)
    return model_file.with_name(f"{model_file.stem}_mean.npy")


def finish_prior(
    model_file: str | Path,
    validation_slices: Tensor | None,
    training_set: IterableDataset | None = None,
    training_files: Sequence[str | Path] = (),
    device: torch.device | str = "cpu",
    validation_head: str | Path | None = None,
    validation_entries: Sequence[Mapping[str, str]] = (),
    training_heads: Sequence[str | Path] = (),
) -> PriorCard:
    """Calibrate a freshly trained prior and write its card anew.

    Args:
        model_file: weights written by `ReleasePrior`.
        validation_slices: complete slices (B, M, H, W) in the prior range, none of them trained on; None leaves the
            prior without a calibration, and `default_error_variance` stands in.
        training_set: for the mean training image; None keeps the one that is there.
        validation_head: label map on which errors of contrast (`measure_contrast`; without it the slices above serve),
            r_u² of the final solve is measured (`measure_detail`), how alike the noise
            of neighbouring slices must be (`measure_slice_correlation`), and the limits of the self-check
            (`measure_self_check`); None skips these, and the factors on the std (`measure_std_scale`).
        validation_entries: real stacks that are kept apart (modality → file), which the self-check must pass.
        training_heads: label maps of the training; some of them, rendered anew, help to say how alike noise must be.
        training_files: images trained on; their checksums let inference say when its input is one of them.
    """
    prior = load_prior(model_file, device)
    card = prior.card
    say = partial(print, "finishing:", flush=True)  # these take minutes on a CPU
    if card.noise_levels == "per_modality" and validation_slices is not None:
        say("errors of the network (calibration)")
        card.calibration = measure_calibration(prior, validation_slices.to(device))
        say("its errors of tissue contrast")
        card.contrast = measure_contrast(prior, _many(prior, validation_head, validation_slices).to(device))
        if validation_head is not None:
            say("detail beyond its grid, and factors on the std")
            card.detail_mse = measure_detail(prior, validation_head)
            card.std_scale = measure_std_scale(prior, validation_slices)
            say("how alike the noise of neighbouring slices must be")
            card.slice_correlation = measure_slice_correlation(prior, [validation_head, *_evenly(training_heads)])
            say("limits of the self-check")
            card.selfcheck = measure_self_check(prior, validation_head, validation_entries)
    if training_files:
        card.training["file_sha256"] = sorted(file_sha256(Path(file)) for file in training_files)
    if training_set is not None:
        say("the mean training image")
        np.save(mean_image_file(model_file), mean_image(training_set).numpy().astype(np.float16))
    save_card(card, model_file)
    return card


def _many(prior: NetworkPrior, validation_head: str | Path | None, validation_slices: Tensor) -> Tensor:
    """Slices of as many contrasts as there are: renderings of the validation head, else the slices given."""
    if validation_head is None:
        return validation_slices
    card, n, seeds = prior.card, CONTRAST_SLICES, CONTRAST_SEEDS
    return rendered_slices(validation_head, prior.stack, card.matrix, card.spacing_mm, n, seeds)


def _evenly(heads: Sequence[str | Path]) -> Sequence[str | Path]:
    step = max(1, len(heads) // (COHERENCE_HEADS - 1))
    return list(heads)[::step][: COHERENCE_HEADS - 1]


def measure_self_check(
    prior: NetworkPrior,
    validation_head: str | Path,
    validation_entries: Sequence[Mapping[str, str]] = (),
    seeds: Sequence[int] = SELF_CHECK_SEEDS,
    slices: int = SELF_CHECK_SLICES,
) -> SelfCheck:
    """Limits of the self-check, from one rendering of the validation head for each seed and from real stacks."""
    card, names = prior.card, prior.stack.names
    heads = [
        rendered_slices(validation_head, prior.stack, card.matrix, card.spacing_mm, slices, (seed,)) for seed in seeds
    ]
    real = []
    for entry in validation_entries:
        image = load_fitted_stack(entry, prior.stack, card.spacing_mm, card.matrix)["image"]
        given = [m for m, name in enumerate(names) if name in entry]
        chosen = slices_to_check((image[:, given] + 1) / 2, card.spacing_mm[2])
        real.append((image[chosen], given))
    return fit_self_check(prior, heads, real)
