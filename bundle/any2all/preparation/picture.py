"""The picture of one prepared subject: each modality, and the reference's edges on it in two planes.

Radiological display: anterior up, patient's right on the left; the sagittal plane looks to the left.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from skimage.feature import canny

from ..geometry import Volume
from ..intensity import head_mask, scale_of, to_u
from ..output.report import BACKGROUND, MUTED, PANEL, TEXT
from ..stack import Modality, Stack

CELL_IN, TITLE_IN, DPI = 1.5, 0.25, 80
EDGES_U = (0.04, 0.10)  # canny's thresholds, of the reference in u
EDGES_MM = 2.0  # width of its Gaussian
MARGIN_MM = 8.0
EDGE_COLOUR = (1.0, 0.7, 0.33, 0.9)
ROWS = ("axial", "axial and edges", "sagittal and edges")


def draw_subject(volumes: Mapping[str, Volume], modalities: Mapping[str, Modality], stack: Stack) -> Figure:
    """One column per modality of the stack, filled where ``volumes`` has it; three rows (see `ROWS`).

    Args:
        volumes: all on one canonical grid; the first one is the reference.
        modalities: of each volume.
        stack: the columns.

    Returns:
        A figure whose axes are labelled ``<modality>:<row>``.
    """
    reference_name, reference = next(iter(volumes.items()))
    step, mask = reference.grid.spacing_mm, head_mask(reference.data)
    box = _around(mask, step)
    shown = {name: _in_window(modalities[name], volume.data)[box] for name, volume in volumes.items()}
    u = _in_u(modalities[reference_name], reference.data)[box]
    z, x = _middle(mask[box], 0), _middle(mask[box], 2)
    sigma = max(1.0, EDGES_MM / min(step))
    planes = {
        "axial": (lambda data: data[z], step[1] / step[2]),
        "sagittal": (lambda data: data[::-1, :, x], step[0] / step[1]),
    }
    heights = [CELL_IN * _tall(planes[row.split()[0]], u) for row in ROWS]
    width, height = CELL_IN * len(stack), sum(heights) + TITLE_IN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    for column, name in enumerate(stack.names):
        colour = TEXT if name in volumes else MUTED
        words = f"{name}, reference" if name == reference_name else name if name in volumes else f"no {name}"
        left = column / len(stack)
        figure.text(left + 0.01, 1 - 0.7 * TITLE_IN / height, words, size=8, color=colour)
        if name not in volumes:
            continue
        top = height - TITLE_IN
        for row, tall in zip(ROWS, heights):
            top -= tall
            cut, aspect = planes[row.split()[0]]
            box = (left, top / height, 1 / len(stack), tall / height)
            axes = figure.add_axes(box, label=f"{name}:{row}", facecolor=PANEL)
            axes.set_axis_off()
            axes.imshow(cut(shown[name]), cmap=modalities[name].display.colormap, vmin=0, vmax=1, aspect=aspect)
            if row.endswith("edges"):
                axes.imshow(_edges(cut(u), sigma), aspect=aspect, interpolation="nearest")
    return figure


def _around(mask: np.ndarray, step_mm: tuple[float, float, float]) -> tuple[slice, ...]:
    """The head and a margin; everything where there is no head."""
    spans = []
    for axis, step in enumerate(step_mm):
        inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(MARGIN_MM / step)
        spans.append(slice(max(0, inside[0] - margin), inside[-1] + 1 + margin) if inside.size else slice(None))
    return tuple(spans)


def _middle(mask: np.ndarray, axis: int) -> int:
    inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
    if inside.size == 0:
        return mask.shape[axis] // 2
    # a little above the middle axially, and beside the falx sagittally, more anatomy is seen
    return round(float(inside[0] + 0.57 * (inside[-1] - inside[0])))


def _tall(plane: tuple, data: np.ndarray) -> float:
    cut, aspect = plane
    rows, columns = cut(data).shape
    return aspect * rows / columns


def _in_u(modality: Modality, data: np.ndarray) -> np.ndarray:
    return to_u(data, modality.normalisation, scale_of(data, head_mask(data), modality.normalisation))


def _in_window(modality: Modality, data: np.ndarray) -> np.ndarray:
    low, high = modality.display.window
    values = data if modality.display.window_in == "units" else _in_u(modality, data)
    return ((values - low) / (high - low)).clip(0, 1)


def _edges(u: np.ndarray, sigma: float) -> np.ndarray:
    """RGBA (H, W, 4) of the edges of one slice, clear elsewhere."""
    found = canny(u.clip(0, 1).astype(np.float32), sigma, *EDGES_U)
    return found[..., None] * np.array(EDGE_COLOUR)
