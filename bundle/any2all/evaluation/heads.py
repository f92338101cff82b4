"""Rendered heads to score on: complete stacks of truth on the prior's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..intensity import scale_of, to_u
from ..phantom.labels import load_head_labels
from ..phantom.parameters import draw_parameters
from ..phantom.render import RenderGrid, Rendering, render
from ..stack import Stack

FROM_MM, TO_MM = -36.0, 54.0


def rendered_truth(
    head_file: str | Path,
    stack: Stack,
    matrix: Sequence[int],
    spacing_mm: Sequence[float],
    slices: int = 6,
    seeds: Sequence[int] = (0,),
) -> Tensor:
    """Slices (slices, M, H, W) in u, NOT clipped, evenly through the brain of one head.

    Every seed is another rendering of the head (contrast, lesions, pose, amyloid status); slice i comes from rendering
    i modulo their number. The scale of an MR image is that of its whole rendering.

    Args:
        head_file: label map.
        stack: modalities.
        matrix, spacing_mm: the prior's (H, W) and (h, w, slice).
        slices: how many in all.
        seeds: of the renderings; other ones than training validated and calibrated with.
    """
    head = load_head_labels(head_file)
    positions = tuple(torch.linspace(FROM_MM, TO_MM, slices, dtype=torch.float64).tolist())
    grid = RenderGrid(tuple(matrix), tuple(spacing_mm[:2]), positions, spacing_mm[2])
    stacks = [_in_u(render(head, draw_parameters(seed), grid, stack), stack) for seed in seeds[:slices]]
    return torch.stack([stacks[i % len(stacks)][i] for i in range(slices)])


def _in_u(rendering: Rendering, stack: Stack) -> Tensor:
    head = (rendering.labels > 0).cpu().numpy()
    channels = []
    for m, modality in enumerate(stack.modalities):
        image = rendering.images[:, m].cpu()
        scale = scale_of(image.numpy(), head, modality.normalisation)
        channels.append(to_u(image, modality.normalisation, scale))
    return torch.stack(channels, dim=1)
