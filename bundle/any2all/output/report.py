"""``report.png``: what was given, then one row per output: data | result | truth | error | uncertainty.

Radiological display: anterior up, patient's right on the left. Drawn with matplotlib's object interface, so a server
thread may draw it.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ..geometry import Volume, canonical
from ..intensity import from_u, head_mask, scale_of
from ..stack import Modality, Stack
from .results import ModalityResult, Result
from .summary import DISCLAIMER, plain

BACKGROUND, PANEL, TEXT, MUTED = "#0b0e13", "#000000", "#e8ecf2", "#8a94a6"
COLOURS = {"given": "#7fb2ff", "reconstructed": "#5fd3a8", "synthetic": "#ffb454"}
ERROR_MAP, ERROR_SHARE = "magma", 0.25  # the error and std windows are this share of the display window
CELL_IN, TEXT_IN, GAP_IN, BAR_IN, HEAD_IN, LINE_IN = 2.1, 2.3, 0.12, 0.62, 0.85, 0.2
MARGIN_MM = 8.0
NOTHING = {"data": "not measured", "truth": "no truth known", "error": "", "std": "one sample:\nno spread known"}
DPI = 110


@dataclass(frozen=True)
class _View:
    """One axial slice of the canonical reference grid, cropped to the head."""

    index: int
    rows: slice
    columns: slice
    height_mm: float
    width_mm: float

    @property
    def aspect(self) -> float:
        return self.height_mm / self.width_mm

    def of(self, volume: Volume) -> np.ndarray:
        """(h, w) of the slice: row 0 anterior, column 0 the patient's right."""
        return canonical(volume).data[self.index, self.rows, self.columns]


def draw_report(result: Result, stack: Stack, slice_index: int | None = None) -> Figure:
    """The report as a figure.

    Args:
        result: a filled study.
        stack: windows, colour maps and captions.
        slice_index: along the canonical (superior) axis of the reference grid; default: a little above the middle of
            the head.

    Returns:
        A figure; every image's axes are labelled ``<modality>:<column>``.
    """
    view = _view(result, slice_index)
    columns = _columns(result.outputs)
    cell_height = CELL_IN * view.aspect
    rows = len(result.outputs) + bool(result.given)
    across = max(len(columns), len(result.given))
    width = TEXT_IN + across * (CELL_IN + GAP_IN) + BAR_IN * any(c in columns for c in ("error", "std")) + 2 * GAP_IN
    footer = _footer(result, width)
    row_height = cell_height + 0.34
    height = HEAD_IN + rows * row_height + LINE_IN * (len(footer) + 1.8)
    page = _Page(width, height)
    _draw_head(page, result, view)
    top = height - HEAD_IN
    if result.given:
        _draw_given(page, result, stack, view, top)
        top -= row_height
    for output in result.outputs:
        _draw_row(page, output, stack[output.name], view, columns, top)
        top -= row_height
    for i, (line, colour) in enumerate(footer):
        page.text(GAP_IN * 2, LINE_IN * (len(footer) - i + 0.5), line, 8, colour)
    return page.figure


class _Page:
    """A dark figure whose places are inches from its lower left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, bottom: float, width: float, height: float, label: str) -> Axes:
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box, label=label, facecolor=PANEL)

    def text(
        self, left: float, bottom: float, words: str, size: float, colour: str = TEXT, weight: str = "normal"
    ) -> None:
        self.figure.text(
            left / self.width,
            bottom / self.height,
            words,
            size=size,
            color=colour,
            weight=weight,
            va="top",
            ha="left",
            linespacing=1.35,
        )


def _view(result: Result, slice_index: int | None) -> _View:
    reference = canonical(result.reference)
    mask = head_mask(reference.data)
    if not mask.any():
        mask = np.ones_like(mask)
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    index = round(slices[0] + 0.58 * (slices[-1] - slices[0])) if slice_index is None else slice_index
    if not 0 <= index < mask.shape[0]:
        raise ValueError(f"slice {index} is not one of {mask.shape[0]}")
    spans, sizes = [], []
    for axis, step in ((1, reference.grid.spacing_mm[1]), (2, reference.grid.spacing_mm[2])):
        inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(MARGIN_MM / step)
        span = slice(max(0, inside[0] - margin), min(mask.shape[axis], inside[-1] + 1 + margin))
        spans.append(span)
        sizes.append((span.stop - span.start) * step)
    return _View(index, spans[0], spans[1], sizes[0], sizes[1])


def _columns(outputs: list[ModalityResult]) -> list[str]:
    """The columns that at least one row fills."""
    present = {
        "data": any(o.shown_input is not None for o in outputs),
        "mean": True,
        "truth": any(o.truth is not None for o in outputs),
        "error": any(o.truth is not None for o in outputs),
        "std": any(o.std is not None for o in outputs),
    }
    return [name for name, there in present.items() if there]


def _window(modality: Modality, shown: Volume, own_scale: bool) -> tuple[float, float]:
    """The stack's display window in units; an MR image that was measured has its own scale."""
    low, high = modality.display.window
    if modality.display.window_in == "units":
        return low, high
    normalisation, scale = modality.normalisation, None
    if own_scale:
        data = canonical(shown).data
        mask = head_mask(data)
        scale = scale_of(data, mask, normalisation) if mask.any() else None
    return tuple(float(v) for v in from_u(np.array([low, high]), normalisation, scale))  # type: ignore[return-value]


def _draw_head(page: _Page, result: Result, view: _View) -> None:
    left = 2 * GAP_IN
    page.text(left, page.height - 0.16, "Any2all", 17, TEXT, "bold")
    about = [result.subject, result.headline, f"axial slice {view.index}"]
    page.text(left, page.height - 0.52, "   ·   ".join(a for a in about if a), 9, MUTED)


def _footer(result: Result, width: float) -> list[tuple[str, str]]:
    """Lines at the bottom that fit the page: warnings, then what this is not."""
    letters = int(13.5 * width)
    texts = [(f"! {warning}", COLOURS["synthetic"]) for warning in result.warnings] + [(DISCLAIMER, MUTED)]
    return [(line, colour) for text, colour in texts for line in textwrap.wrap(text, letters)]


def _draw_given(page: _Page, result: Result, stack: Stack, view: _View, top: float) -> None:
    _describe(page, top, "given", "Given", [], "")
    for i, (name, volume) in enumerate(result.given.items()):
        cell = _cell(page, view, i, top, f"{name}:given", f"{name} · given", COLOURS["given"])
        _show(cell, view.of(volume), _window(stack[name], volume, True), stack[name].display.colormap, view)
        _mark(cell)


def _draw_row(
    page: _Page, output: ModalityResult, modality: Modality, view: _View, columns: list[str], top: float
) -> None:
    colour = COLOURS[output.role]
    _describe(page, top, output.role, output.name, _facts(output), modality.caption)
    window = _window(modality, output.mean, output.role == "reconstructed")
    spread = (0.0, ERROR_SHARE * (window[1] - window[0]))
    error = None if output.truth is None else Volume(np.abs(output.mean.data - output.truth.data), output.mean.grid)
    cells = {
        "data": (output.shown_input, "from the data alone", MUTED),
        "mean": (output.mean, output.role.upper() + (" (mean)" if output.std is not None else ""), colour),
        "truth": (output.truth, "truth", MUTED),
        "error": (error, "|error|", MUTED),
        "std": (output.std, "std", MUTED),
    }
    last = None
    for i, column in enumerate(columns):
        volume, title, tint = cells[column]
        cell = _cell(page, view, i, top, f"{output.name}:{column}", title if volume is not None else "", tint)
        if volume is None:
            _empty(cell, NOTHING[column])
        elif column in ("error", "std"):
            last = _show(cell, view.of(volume), spread, ERROR_MAP, view)
        else:
            _show(cell, view.of(volume), window, modality.display.colormap, view)
            _mark(cell)
    if last is not None:
        _colour_bar(page, last, view, len(columns), top, output)


def _facts(output: ModalityResult) -> list[str]:
    """Short lines about one output: units, resolution, PSNR (head: inside it) and SSIM, then ``psnr_<baseline>``."""
    facts = [f"in {output.units}"]
    resolution = output.effective_resolution_mm
    if resolution is not None:
        sizes = resolution if isinstance(resolution, (tuple, list)) else (resolution,)
        facts.append("resolves " + " × ".join(f"{v:.3g}" for v in sizes) + " mm")
    metrics = plain(output.metrics or {})
    numbers = {k: v for k, v in metrics.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    named = {"psnr": "PSNR {:.1f} dB", "psnr_head": "in the head {:.1f} dB", "ssim": "SSIM {:.3f}"}
    facts += [words.format(numbers[k]) for k, words in named.items() if k in numbers]
    rivals = [k for k in numbers if k.startswith("psnr_") and k not in named]
    return facts + [f"{k.removeprefix('psnr_').replace('_', ' ')} {numbers[k]:.1f} dB" for k in rivals]


def _describe(page: _Page, top: float, role: str, name: str, facts: list[str], caption: str) -> None:
    left = 2 * GAP_IN
    page.text(left, top - 0.3, name, 14, COLOURS[role], "bold")
    page.text(left, top - 0.6, "\n".join(facts), 8.5, TEXT)
    if caption:
        page.text(left, top - 0.7 - 0.17 * len(facts), textwrap.fill(caption, 34), 7, MUTED)


def _cell(page: _Page, view: _View, column: int, top: float, label: str, title: str, colour: str) -> Axes:
    height = CELL_IN * view.aspect
    left = TEXT_IN + column * (CELL_IN + GAP_IN)
    axes = page.axes(left, top - 0.28 - height, CELL_IN, height, label)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#222a36")
    axes.set_title(title, fontsize=8, color=colour, pad=4, loc="left")
    return axes


def _show(axes: Axes, image: np.ndarray, window: tuple[float, float], colormap: str, view: _View) -> AxesImage:
    return axes.imshow(
        image,
        cmap=colormap,
        vmin=window[0],
        vmax=window[1],
        interpolation="bilinear",
        aspect="auto",
        extent=(0.0, view.width_mm, view.height_mm, 0.0),
    )


def _mark(axes: Axes) -> None:
    """The patient's right, which is on the left."""
    axes.text(0.03, 0.975, "R", transform=axes.transAxes, color="#c9d2df", fontsize=8, va="top", ha="left")


def _empty(axes: Axes, words: str) -> None:
    axes.set_facecolor(BACKGROUND)
    for side in axes.spines.values():
        side.set_color("#151b25")
    axes.text(0.5, 0.5, words, transform=axes.transAxes, color="#3d4757", fontsize=8, va="center", ha="center")


def _colour_bar(page: _Page, image: AxesImage, view: _View, columns: int, top: float, output: ModalityResult) -> None:
    """One bar for error and std: they share their scale, so that they can be compared."""
    height = CELL_IN * view.aspect
    left = TEXT_IN + columns * (CELL_IN + GAP_IN)
    axes = page.axes(left, top - 0.28 - height, 0.09, height, f"{output.name}:bar")
    bar = page.figure.colorbar(image, cax=axes)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=MUTED, labelsize=7, length=2)
    bar.ax.set_title(output.units, fontsize=7, color=MUTED, pad=4, loc="left")
