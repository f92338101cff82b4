"""Pictures with error maps, and arrows to the same place in every one (layout of the paper's Figs. 3 and 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy import ndimage

from ...intensity import display_window_u
from ...kspace.reconstruct import zero_filled
from ..cases import Cases
from ..predictions import Prediction
from ..results import Results
from ..tasks import Task
from .style import INK, MUTED, SMALL, TINY, WIDTH_IN, Drawing, family_key, file_name, new_figure

ROWS, INPUTS, RIVALS = 4, 3, 5  # at most: tasks in a figure, given images and methods in a row
NAME_IN, BAR_IN, GAP_IN, HEAD_IN, FOOT_IN = 0.62, 0.0, 0.03, 0.2, 0.5
MOST_PX = 80  # of a picture's longer side; larger ones are thinned, for the page's size
MARGIN_PX, BLUR_PX = 3, 1.5
ERROR_MAP, ARROW = "inferno", "#F0E442"
RULE_OF_LESION = "the centre of the largest lesion of the subject's mask in this slice"
RULE_OF_DISAGREEMENT = (
    f"where the methods differ most (standard deviation between them, smoothed by {BLUR_PX} pixels, in the head)"
)


@dataclass(frozen=True, eq=False)
class _Row:
    """One slice of one target of a task.

    Attributes:
        predictions: the methods that are shown, by name.
        best: the one with samples whose single sample and std are shown.
        z: slice of the cases.
        place: (row, column) of the arrow.
        rule: why there.
    """

    cases: Cases
    task: Task
    target: str
    predictions: dict[str, Prediction]
    best: str | None
    z: int
    place: tuple[int, int]
    rule: str

    def mean(self, method: str) -> np.ndarray:
        return self.samples(method).mean(axis=0)

    def samples(self, method: str) -> np.ndarray:
        """(K, H, W) in u."""
        found = self.predictions[method]
        return found.images[self.target][:, found.slices.index(self.z)]


def draw_grids(results: Results) -> list[Drawing]:
    """Reconstruction and synthesis apart, for every set of cases but blocks of neighbouring slices."""
    drawings = []
    for cases in results.evaluation.sets:
        if cases.kind == "block":
            continue
        for measured, kind in ((True, "reconstruction"), (False, "synthesis")):
            tried = [
                (task, target)
                for task in results.evaluation.tasks
                for target in task.targets
                if (target in task.raw) == measured
            ]
            rows = [row for row in (_row(results, cases, *cell) for cell in _spread(tried, results, cases)) if row]
            if rows:
                drawings.append(_drawing(results, cases, kind, rows))
    return drawings


def _spread(tried: Sequence[tuple[Task, str]], results: Results, cases: Cases) -> list[tuple[Task, str]]:
    """At most `ROWS` of the cells that have a record: the last (richest) of every target first, then the others."""
    known = {(r.task, r.target) for r in results.records if r.cases == cases.name}
    cells = [(task, target) for task, target in tried if (task.name, target) in known]
    last = {target: i for i, (_, target) in enumerate(cells)}
    order = [*last.values(), *(i for i in range(len(cells)) if i not in last.values())]
    return [cells[i] for i in sorted(order[:ROWS])]


def _row(results: Results, cases: Cases, task: Task, target: str) -> _Row | None:
    shown = _champions(results, cases, task, target)
    predictions = {name: results.prediction(cases, task.name, name) for name in shown}
    if not predictions:
        return None
    shared = sorted(set.intersection(*(set(p.slices) for p in predictions.values())))
    if not shared:
        return None
    sampled = [name for name, p in predictions.items() if p.samples > 1]
    best = sampled[-1] if sampled else None
    z, place, rule = _slice_and_place(results, cases, target, predictions, shared)
    return _Row(cases, task, target, predictions, best, z, place, rule)


def _champions(results: Results, cases: Cases, task: Task, target: str) -> list[str]:
    """Of every family of methods the one with the best PSNR (mean of the samples), the best of all last."""
    families = {m.name: family_key(m) for m in results.evaluation.methods if not m.sees_truth}
    best: dict[str, tuple[float, str]] = {}
    for record in results.records:
        if (record.cases, record.task, record.target) == (cases.name, task.name, target) and record.method in families:
            key, found = families[record.method], (record.psnr_mean, record.method)
            best[key] = max(best.get(key, found), found)
    return [name for _, name in sorted(best.values())][-RIVALS:]


def _slice_and_place(
    results: Results, cases: Cases, target: str, predictions: dict[str, Prediction], shared: Sequence[int]
) -> tuple[int, tuple[int, int], str]:
    """With a mask of lesions the slice with most of them; else the one of median error of the last method."""
    if cases.lesions is not None and cases.lesions[list(shared)].any():
        z = max(shared, key=lambda i: int(cases.lesions[i].sum()))
        labels, count = ndimage.label(cases.lesions[z])
        sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
        centre = ndimage.center_of_mass(labels == 1 + int(np.argmax(sizes)))
        return z, (round(centre[0]), round(centre[1])), RULE_OF_LESION
    last = list(predictions.values())[-1]
    truth = results.truth(cases, target, last)
    errors = ((last.images[target].mean(axis=0) - truth) ** 2).mean(axis=(1, 2))
    order = sorted(shared, key=lambda z: errors[last.slices.index(z)])
    z = order[len(order) // 2]
    means = [p.images[target][:, p.slices.index(z)].mean(axis=0) for p in predictions.values()]
    if len(means) == 1:
        means.append(truth[last.slices.index(z)])
    apart = np.std([ndimage.gaussian_filter(mean, BLUR_PX) for mean in means], axis=0)
    place = np.unravel_index(int(np.argmax(np.where(cases.inside[z], apart, -1))), apart.shape)
    return z, (int(place[0]), int(place[1])), RULE_OF_DISAGREEMENT


def _drawing(results: Results, cases: Cases, kind: str, rows: Sequence[_Row]) -> Drawing:
    made = (
        "a real subject" if cases.kind == "real" else "rendered heads, not real people; CT and PET exist only rendered"
    )
    where = "; ".join(f"{row.target} from {row.task.name}: slice {row.z} of {cases.groups[row.z]}" for row in rows)
    top = _error_top(results, rows)
    label = (
        "SYNTHETIC, nothing of it was measured" if kind == "synthesis" else f"reconstructed from {_raw(results, rows)}"
    )
    return Drawing(
        file_name("pictures", cases.name, kind),
        f"Pictures: {kind}, {cases.name}",
        f"One slice for each row ({where}); {made}. Every image under a method's name is {label}: the mean of its "
        "samples, where it has several. Below each its absolute error, on one scale of u for the whole figure (0 to "
        f"{top:g}), and below the given images one sample and the standard deviation of the last method that has "
        "samples, on the same scale. Given raw data is shown zero-filled. Arrows point to the same place in every "
        f"image of a row: {'; or '.join(dict.fromkeys(row.rule for row in rows))}. The slice is "
        + ("the one with most lesion" if rows[0].rule == RULE_OF_LESION else "that of median error of the last method")
        + ", among those that all shown methods were tried on; of each kind of method the one with the best PSNR is "
        "shown, the best of all on the right. Anterior is up, the patient's right is on the left.",
        f"Pictures of {len(rows)} tasks: truth, given images, methods, and their error maps.",
        _draw(results, rows, top),
    )


def _raw(results: Results, rows: Sequence[_Row]) -> str:
    """Such as "R = 4 raw data"; where tasks differ, each with its own."""
    rates = [row.task.simulation_of(results.evaluation.simulation).get("acceleration", 4) for row in rows]
    if len(set(rates)) == 1:
        return f"R = {rates[0]} raw data"
    each = ", ".join(f"{row.task.name} R = {rate}" for row, rate in zip(rows, rates))
    return f"raw data ({each})"


def _error_top(results: Results, rows: Sequence[_Row]) -> float:
    """Where the scale of errors ends: the 99th percentile in the head of all shown, rounded up to a twentieth."""
    errors = [
        np.abs(row.mean(method) - _truth(results, row))[row.cases.inside[row.z]]
        for row in rows
        for method in row.predictions
    ]
    return max(0.05, math.ceil(20 * float(np.quantile(np.concatenate(errors), 0.99)) - 1e-9) / 20)


def _truth(results: Results, row: _Row) -> np.ndarray:
    m = results.evaluation.prior.stack.index(row.target)
    return row.cases.slices[row.z, m].clamp(0, 1).numpy()


def _given(results: Results, row: _Row) -> list[tuple[str, str, np.ndarray]]:
    """(modality, words, image in u) of what the task is given; raw data zero-filled, the target's own first."""
    stack = results.evaluation.prior.stack
    raw = sorted(row.task.raw, key=lambda name: name != row.target)
    acquired = row.task.acquire(row.cases, stack, results.evaluation.simulation)
    found = [(n, f"{n}, raw", np.clip(zero_filled(acquired[n].select([row.z]))[0], 0, 1)) for n in raw]
    images = row.task.images(row.cases, stack)
    return found + [(n, f"{n}, given", images[n][row.z].numpy()) for n in row.task.given]


@dataclass(frozen=True)
class _Layout:
    """Inches of the cells; (row, column) counts from the top left."""

    columns: int
    inputs: int
    rows: int
    cell: float
    tall: float

    @property
    def height(self) -> float:
        return self.rows * (HEAD_IN + 2 * self.tall + 2 * GAP_IN) + FOOT_IN

    def box(self, row: int, column: int, lower: bool) -> tuple[float, float, float, float]:
        top = self.height - row * (HEAD_IN + 2 * self.tall + 2 * GAP_IN) - HEAD_IN
        bottom = top - (2 if lower else 1) * self.tall - (GAP_IN if lower else 0)
        left = NAME_IN + column * (self.cell + GAP_IN)
        return left / WIDTH_IN, bottom / self.height, self.cell / WIDTH_IN, self.tall / self.height


def _draw(results: Results, rows: Sequence[_Row], top: float) -> Figure:
    spacing = results.evaluation.prior.card.spacing_mm
    parts = [_extent(row) for row in rows]
    aspect = max((h.stop - h.start) * spacing[0] / ((w.stop - w.start) * spacing[1]) for h, w in parts)
    given = [_given(results, row)[:INPUTS] for row in rows]
    inputs = max(2, max(map(len, given)))
    columns = 1 + inputs + max(len(row.predictions) for row in rows)
    cell = min((WIDTH_IN - NAME_IN) / columns - GAP_IN, 1.2)
    layout = _Layout(columns, inputs, len(rows), cell, cell * aspect)
    figure = new_figure(layout.height)
    for number, (row, part, images) in enumerate(zip(rows, parts, given)):
        _draw_row(figure, results, layout, number, row, part, images, top)
    _scale(figure, layout, top)
    return figure


def _draw_row(
    figure: Figure,
    results: Results,
    layout: _Layout,
    number: int,
    row: _Row,
    part: tuple[slice, slice],
    given: Sequence[tuple[str, str, np.ndarray]],
    top: float,
) -> None:
    stack, truth = results.evaluation.prior.stack, _truth(results, row)
    painter = _Painter(figure, layout, number, part, row.place, results.evaluation.prior.card.spacing_mm, top)
    window = display_window_u(stack[row.target])
    painter.image(0, truth, window, "truth", side="R")
    for column, (name, words, image) in enumerate(given, start=1):
        painter.image(column, image, display_window_u(stack[name]), words)
    if row.best is not None:
        samples = row.samples(row.best)
        painter.image(1, samples[0], window, "one sample", lower=True)
        painter.map(2, samples.std(axis=0, ddof=1), "std")
    for column, method in enumerate(row.predictions, start=1 + layout.inputs):
        painter.image(column, row.mean(method), window, method)
        error = np.abs(row.mean(method) - truth)
        painter.map(column, error, _decibel(error))
    box = layout.box(number, 0, lower=False)
    made = "reconstructed" if row.target in row.task.raw else "SYNTHETIC"
    words = f"{row.target}\nfrom\n{row.task.name}".replace("+", "\n+").replace("-", "-\n")
    figure.text(0.002, box[1] + box[3], words, size=TINY, weight="bold", color=INK, va="top")
    figure.text(0.002, box[1] - 0.02 / layout.height, f"{made}\n{row.cases.groups[row.z]}\nslice {row.z}",
                size=TINY - 1.2, color=MUTED, va="top")  # fmt: skip


def _decibel(error: np.ndarray) -> str:
    mse = float((error.astype(np.float64) ** 2).mean())
    return "∞ dB" if mse == 0 else f"{-10 * math.log10(mse):.1f} dB"


@dataclass(frozen=True)
class _Painter:
    """Fills cells of one row."""

    figure: Figure
    layout: _Layout
    number: int
    part: tuple[slice, slice]
    place: tuple[int, int]
    spacing_mm: Sequence[float]
    top: float

    def image(
        self, column: int, image: np.ndarray, window: tuple[float, float], words: str, lower: bool = False,
        side: str = "",
    ) -> None:  # fmt: skip
        axes = self._cell(column, image, "gray", window, lower)
        self._arrow(axes)
        if lower:
            axes.text(0.03, 0.97, words, transform=axes.transAxes, size=TINY - 1.5, color="white", va="top")
        else:
            axes.set_title(words, size=TINY - 0.7, color=INK, pad=2)
        if side:
            axes.text(0.03, 0.5, side, transform=axes.transAxes, size=TINY, color="white", va="center")

    def map(self, column: int, values: np.ndarray, words: str) -> None:
        axes = self._cell(column, values, ERROR_MAP, (0, self.top), lower=True)
        self._arrow(axes)
        axes.text(0.03, 0.97, words, transform=axes.transAxes, size=TINY - 1.5, color="white", va="top")

    def _cell(self, column: int, image: np.ndarray, colours: str, window: tuple[float, float], lower: bool) -> Axes:
        box = self.layout.box(self.number, column, lower)
        axes = self.figure.add_axes(box, xticks=[], yticks=[], facecolor="black",
                                    label=f"{self.number} {column} {lower}")  # fmt: skip
        axes.set_anchor("N" if lower else "S")
        for spine in axes.spines.values():
            spine.set_visible(False)
        shown = image[self.part]
        thin = math.ceil(max(shown.shape) / MOST_PX)
        height, width = shown.shape[0] * self.spacing_mm[0], shown.shape[1] * self.spacing_mm[1]
        axes.imshow(shown[::thin, ::thin], cmap=colours, vmin=window[0], vmax=window[1], interpolation="none",
                    extent=(0, width, height, 0))  # fmt: skip
        return axes

    def _arrow(self, axes: Axes) -> None:
        """Its tip lies a little beside the place, so that the place itself stays visible."""
        y, x = ((p - part.start + 0.5) * mm for p, part, mm in zip(self.place, self.part, self.spacing_mm))
        sign = 1 if x < (self.part[1].stop - self.part[1].start) * self.spacing_mm[1] / 2 else -1
        axes.annotate("", (x, y), (sign * 11, 9), textcoords="offset points",
                      arrowprops={"arrowstyle": "-|>,head_length=0.28,head_width=0.14", "color": ARROW,
                                  "linewidth": 0.9, "shrinkB": 3})  # fmt: skip


def _extent(row: _Row) -> tuple[slice, slice]:
    """Rows and columns of the head with a margin."""
    inside = row.cases.inside[row.z]
    found = []
    for axis in (0, 1):
        filled = np.flatnonzero(inside.any(axis=1 - axis))
        first, last = (filled[0], filled[-1]) if filled.size else (0, inside.shape[axis] - 1)
        found.append(slice(max(first - MARGIN_PX, 0), min(last + MARGIN_PX + 1, inside.shape[axis])))
    return found[0], found[1]


def _scale(figure: Figure, layout: _Layout, top: float) -> None:
    box = (0.36, 0.28 / layout.height, 0.28, 0.07 / layout.height)
    bar = figure.colorbar(ScalarMappable(Normalize(0, top), ERROR_MAP), cax=figure.add_axes(box),
                          orientation="horizontal")  # fmt: skip
    bar.ax.tick_params(labelsize=TINY - 0.5, colors=MUTED, length=2)
    bar.outline.set_visible(False)
    bar.set_label("absolute error and standard deviation, u", size=SMALL - 1, color=INK, labelpad=1)
