"""What the numbers look like: for each task the slice of middle and of worst error, truth beside estimate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..intensity import display_window_u
from ..output.report import BACKGROUND, MUTED, TEXT
from .cases import Cases
from .predictions import Prediction
from .results import BEST, Results

COLUMNS = ("truth", "one sample", "mean", "|error| of mean", "std")
CELL_IN, LEFT_IN, HEAD_IN, DPI = 1.15, 1.55, 0.3, 80
ERROR_U = 0.3  # where the scale of error and std ends


def draw_pictures(results: Results, folder: Path, method: str = BEST) -> list[Path]:
    """One picture for each set of cases that the method was tried on; two rows for each target."""
    files = []
    for cases in results.evaluation.sets:
        rows = [
            (prediction, target, z)
            for task in results.evaluation.tasks
            for prediction in [results.prediction(cases, task.name, method)]
            if prediction is not None
            for target in task.targets
            for z in _middle_and_worst(results, cases, prediction, target)
        ]
        if rows:
            file = folder / f"{cases.name.replace(' ', '_')}.png"
            _draw(results, cases, rows, f"{cases.name}: {method}").savefig(file, facecolor=BACKGROUND)
            files.append(file)
    return files


def _middle_and_worst(results: Results, cases: Cases, prediction: Prediction, target: str) -> list[int]:
    """Positions in the prediction of the slices with the median and the largest error of the mean."""
    truth = results.truth(cases, target, prediction)
    order = np.argsort(((prediction.images[target].mean(axis=0) - truth) ** 2).mean(axis=(1, 2)))
    return list(dict.fromkeys([int(order[len(order) // 2]), int(order[-1])]))


def _draw(results: Results, cases: Cases, rows: Sequence[tuple[Prediction, str, int]], title: str) -> Figure:
    height, width = cases.slices.shape[2:]
    cell_height = CELL_IN * height / width
    size = (LEFT_IN + len(COLUMNS) * CELL_IN, HEAD_IN + len(rows) * cell_height)
    figure = Figure(figsize=size, dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.16 / size[1], title, color=TEXT, size=8, weight="bold", va="center")
    for column, name in enumerate(COLUMNS):
        x = (LEFT_IN + (column + 0.5) * CELL_IN) / size[0]
        figure.text(x, 1 - 0.2 / size[1], name, color=MUTED, size=7, ha="center", va="center")
    for row, (prediction, target, z) in enumerate(rows):
        samples, truth = prediction.images[target][:, z], results.truth(cases, target, prediction)[z]
        mean, std = samples.mean(axis=0), samples.std(axis=0, ddof=1) if len(samples) > 1 else np.zeros_like(truth)
        images = (truth, samples[0], mean, np.abs(mean - truth), std)
        top = size[1] - HEAD_IN - row * cell_height
        psnr = -10 * np.log10(((mean - truth) ** 2).mean())
        words = f"{target} from\n{prediction.task}\n{cases.groups[prediction.slices[z]]}\n{psnr:.1f} dB"
        figure.text(0.02, (top - cell_height / 2) / size[1], words, color=TEXT, size=6, va="center")
        low, high = display_window_u(results.evaluation.prior.stack[target])
        for column, image in enumerate(images):
            box = ((LEFT_IN + column * CELL_IN) / size[0], (top - cell_height) / size[1],
                   0.98 * CELL_IN / size[0], 0.98 * cell_height / size[1])  # fmt: skip
            axes = figure.add_axes(box, xticks=[], yticks=[], label=f"{row}:{column}")
            spread = column >= 3
            axes.imshow(image, cmap="inferno" if spread else "gray", vmin=0 if spread else low,
                        vmax=ERROR_U if spread else high)  # fmt: skip
    return figure
