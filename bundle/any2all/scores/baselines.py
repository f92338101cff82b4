"""What a result has to beat: zero-filled and SENSE where raw data was measured, a degraded image as it was given, and
the mean training image where nothing was."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..diffusion.prior import PriorCard
from ..errors import Any2allError
from ..frame import head_extent
from ..geometry import Grid, Volume, prior_grid, to_grid
from ..inputs import Inputs, RawData
from ..intensity import from_u
from ..kspace.reconstruct import sense, zero_filled
from ..stack import Stack

HEAD_U = 0.1  # of the mean over modalities; where the mean head ends
ZERO_FILLED, SENSE, AS_GIVEN, MEAN_IMAGE = "zero_filled", "SENSE", "as_given", "mean_image"


def baselines_of(
    name: str, inputs: Inputs, card: PriorCard, stack: Stack, mean_image: np.ndarray | None
) -> dict[str, Volume]:
    """The rivals of one output, on the reference grid and in its units.

    Args:
        name: the output.
        inputs: what was given; a reconstruction's rivals get the same data, maps, phase and mask.
        card, stack: of the prior.
        mean_image: (M, H, W) in u from `load_mean_image`; without it a synthetic image has no rival.
    """
    reference = inputs.reference.grid
    raw = next((item for item in inputs.raw if item.name == name), None)
    if raw is not None:
        return {rival: to_grid(volume, reference, order=1) for rival, volume in _reconstructions(raw).items()}
    degraded = next((image for image in inputs.degraded if image.name == name), None)
    if degraded is not None:
        air = float(from_u(np.zeros(1, np.float32), stack[name].normalisation)[0])
        return {AS_GIVEN: to_grid(degraded.volume, reference, order=1, fill=air)}
    if mean_image is None:
        return {}
    grid, u = _on_the_head(mean_image, stack.index(name), inputs, card)
    placed = to_grid(Volume(u, grid), reference, order=1)
    return {MEAN_IMAGE: Volume(from_u(placed.data, stack[name].normalisation), reference)}


def load_mean_image(file: str | Path, card: PriorCard) -> np.ndarray | None:
    """The mean training image (M, H, W) in u that lies beside a prior's weights; None when there is none.

    Raises Any2allError for a file that does not belong to this prior.
    """
    file = Path(file)
    if not file.is_file():
        return None
    try:
        image = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Any2allError(
            "the mean image cannot be read", key="prior", value=file.name, code="prior_unavailable"
        ) from error
    expected = (len(card.stack), *card.matrix)
    if image.shape != expected:
        raise Any2allError(
            "the mean image does not belong to this prior",
            key="prior",
            value=f"{file.name} of shape {image.shape}",
            allowed=str(expected),
            code="prior_unavailable",
        )
    return image.astype(np.float32)


def _reconstructions(raw: RawData) -> dict[str, Volume]:
    images = {ZERO_FILLED: zero_filled(raw.acquisition), SENSE: sense(raw.acquisition)}
    return {rival: Volume(np.maximum(image, 0), raw.grid) for rival, image in images.items()}


def _on_the_head(mean_image: np.ndarray, m: int, inputs: Inputs, card: PriorCard) -> tuple[Grid, np.ndarray]:
    """Channel m of the mean image in every slice of the prior's grid, its head about the middle of the given head."""
    anchor, bounds = head_extent(inputs)
    grid = prior_grid(anchor, card.spacing_mm, card.matrix, bounds)
    placed = np.zeros(grid.shape[1:], np.float32)
    starts, parts = [], []
    for axis in (0, 1):
        seen = np.flatnonzero((mean_image.mean(axis=0) > HEAD_U).any(axis=1 - axis))
        middle = (seen[0] + seen[-1]) / 2 if seen.size else (mean_image.shape[axis + 1] - 1) / 2
        start = round((placed.shape[axis] - 1) / 2 - middle)
        starts.append(slice(max(start, 0), min(start + mean_image.shape[axis + 1], placed.shape[axis])))
        parts.append(slice(starts[axis].start - start, starts[axis].stop - start))
    placed[tuple(starts)] = mean_image[m][tuple(parts)]
    return grid, np.repeat(placed[None], grid.shape[0], axis=0)
