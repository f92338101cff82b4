"""Rendered heads as training data: an endless series of heads, each a stack of normalised slices."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ..intensity import scale_of, to_u
from ..stack import Stack
from .anatomy import anatomy_of, brain_extent_mm
from .labels import HeadLabels, load_head_labels
from .parameters import HeadParameters, draw_parameters
from .render import RenderGrid, Rendering, render

BELOW_BRAIN_MM = 15.0
EMPTY_HEAD_FRACTION = 0.02
THICKNESS_MM = (1.0, 5.0)


def to_prior_range(rendering: Rendering, stack: Stack) -> Tensor:
    """Images (Z, M, H, W) of one head in the prior's range [-1, 1]: u clipped to [0, 1], x = 2u - 1.

    MR: one scale per head, its percentile inside the labels over all rendered slices.
    """
    head = (rendering.labels > 0).cpu().numpy()
    channels = []
    for m, modality in enumerate(stack.modalities):
        image = rendering.images[:, m]
        channels.append(
            to_u(image, modality.normalisation, scale_of(image.cpu().numpy(), head, modality.normalisation))
        )
    return torch.stack(channels, dim=1).clamp_(0, 1) * 2 - 1


def draw_grid(
    rng: np.random.Generator, extent_mm: tuple[float, float], matrix: tuple[int, int], spacing_mm: tuple[float, float],
    shift_px: float = 5.0,
) -> RenderGrid:  # fmt: skip
    """Slices 3-5 mm apart with a random phase over the brain and 15 mm below it; pixel size and position vary.

    Slices are 1-5 mm thick, whatever their distance: clinical ones are 3-5 mm, those of 3-D scans about 1 mm.
    """
    step = float(rng.uniform(3.0, 5.0))
    low, high = extent_mm[0] - BELOW_BRAIN_MM, extent_mm[1] + 2.0
    positions = np.arange(low + rng.uniform(0, step), high, step)
    jitter = float(rng.uniform(0.88, 1.12))
    spacing = (spacing_mm[0] * jitter, spacing_mm[1] * jitter)
    shift = tuple(float(rng.uniform(-shift_px, shift_px)) * s for s in spacing)
    return RenderGrid(matrix, spacing, tuple(positions.tolist()), float(rng.uniform(*THICKNESS_MM)), shift)


@dataclass(frozen=True)
class RenderedSubject:
    """One rendered head for training: ``images`` (Z, M, H, W) in [-1, 1], their ``labels`` int16 (Z, H, W) and
    ``positions_mm`` upward from the head's centre, and how it was made.

    ``twin`` are the images of the same head with the other amyloid status, which differ in PET alone.
    """

    images: Tensor
    twin: Tensor
    labels: Tensor
    positions_mm: tuple[float, ...]
    parameters: HeadParameters
    grid: RenderGrid


class RenderedHeads(IterableDataset):
    """Endless series of rendered heads; head ``number`` of series ``lane`` is drawn from (seed, lane, number) alone.

    Iterated, it gives the slices ``{"image": (M, H, W) float32 in [-1, 1], "present": (M,) bool}`` of lane 0, head by
    head.

    Args:
        label_paths: label maps to render.
        stack: modalities and their order.
        matrix: (H, W) of the prior's grid.
        spacing_mm: nominal in-plane spacing (h, w); each head varies it by 0.88-1.12.
        seed: of the whole series.
        lesion_masks: folder with real lesion masks, or None for random lesions.
        device: where heads are rendered; slices are always handed out on the CPU.
    """

    def __init__(
        self, label_paths: Sequence[str | Path], stack: Stack, matrix: tuple[int, int] = (80, 64),
        spacing_mm: tuple[float, float] = (2.8, 2.8), seed: int = 0, lesion_masks: str | Path | None = None,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self.label_paths = [str(p) for p in label_paths]
        self.stack, self.matrix, self.spacing_mm, self.seed = stack, tuple(matrix), tuple(spacing_mm), seed
        self.lesion_masks, self.device = lesion_masks, device
        self._heads: dict[str, HeadLabels] = {}

    def prepared(self, workers: int) -> RenderedHeads:
        """Itself, with every head's anatomy derived (1-2 s and 100 MB each) if several forked workers will share it."""
        if workers > 1:
            for path in self.label_paths:
                anatomy_of(self._head(path))
        return self

    def subject(self, number: int, lane: int = 0) -> RenderedSubject:
        """Render head ``number`` of a lane: all of its slices, in order from below."""
        rng = np.random.default_rng([self.seed, lane, number])
        head = self._head(self.label_paths[int(rng.integers(len(self.label_paths)))])
        parameters = draw_parameters(int(rng.integers(2**31)), self.lesion_masks)
        grid = draw_grid(rng, brain_extent_mm(head), self.matrix, self.spacing_mm)
        rendering = render(head, parameters, grid, self.stack, self.device)
        images = to_prior_range(rendering, self.stack).cpu()
        twin = self._twin(head, parameters, grid, images)
        # A stripped head has empty slices below the brain: they teach nothing.
        filled = (rendering.labels > 0).float().mean(dim=(1, 2)).cpu() > EMPTY_HEAD_FRACTION
        positions = tuple(z for z, keep in zip(grid.slice_positions_mm, filled.tolist()) if keep)
        return RenderedSubject(
            images[filled], twin[filled], rendering.labels.cpu()[filled], positions, parameters, grid
        )

    def _twin(self, head: HeadLabels, parameters: HeadParameters, grid: RenderGrid, images: Tensor) -> Tensor:
        """``images`` with the PET image of the other amyloid status."""
        if "PET" not in self.stack.names:
            return images
        # Some MR image has to be rendered beside it: it says where a stripped head ends.
        beside = next(modality for modality in self.stack.modalities if modality.name != "PET")
        other = replace(parameters, amyloid_positive=not parameters.amyloid_positive)
        pair = Stack(modalities=(beside, self.stack["PET"]))
        twin = images.clone()
        rendering = render(head, other, grid, pair, self.device)
        twin[:, self.stack.index("PET")] = to_prior_range(rendering, pair)[:, 1].cpu()
        return twin

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        present = torch.ones(len(self.stack), dtype=torch.bool)
        for number in itertools.count():
            for image in self.subject(number).images:
                yield {"image": image, "present": present}

    def _head(self, path: str) -> HeadLabels:
        if path not in self._heads:
            self._heads[path] = load_head_labels(path)
        return self._heads[path]
