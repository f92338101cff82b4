"""Bars of PSNR and SSIM for every input set and method (layout of the paper's Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..results import Results
from .parts import Part, parts
from .scores import METRICS, UNITS, Metric, Score, score, span
from .style import (
    FAMILIES,
    INK,
    MUTED,
    RULE,
    SMALL,
    TINY,
    WIDTH_IN,
    Drawing,
    Family,
    family_key,
    file_name,
    new_figure,
    plain_axes,
)

ACROSS = 3  # input sets in a row
BAR_IN, HEAD_IN, FOOT_IN, NAME_IN, KEY_IN = 0.135, 0.34, 0.42, 1.15, 0.3
METRIC_GAP, PANEL_GAP = 0.08, 0.24  # inches between PSNR and SSIM, and between input sets
HOW = (
    "Bars: mean over renderings of the mean of all samples (of the one image, for methods without samples); whiskers: "
    "95 % bootstrap interval over renderings, not over people; ticks: each rendering; open diamond: one sample. "
    "In u clipped to [0, 1], data range 1, all pixels of the prior's grid. The axes do not start at zero."
)


@dataclass(frozen=True, eq=False)
class _Panel:
    """What one pair of axes shows."""

    title: str
    part: Part
    task: str
    target: str

    def score(self, method: str, metric: Metric, one_sample: bool = False) -> Score | None:
        record = self.part.find(self.task, self.target, method)
        if record is None or (one_sample and record.samples == 1):
            return None
        return score(record, metric, one_sample)


def draw_bars(results: Results) -> list[Drawing]:
    """Reconstruction and synthesis apart, for the renderings, for the slices that slow methods had, for real scans."""
    found = list(parts(results))
    groups = [(part.name, part.words, [part]) for part in found if part.cases.kind == "rendered"]
    real = [part for part in found if part.cases.kind == "real" and not part.slices]
    if real:
        groups.append(("real", "; ".join(part.words for part in real), real))
    drawings = []
    for name, words, some in groups:
        for measured, kind in ((True, "reconstruction"), (False, "synthesis")):
            panels = [_panel(part, *cell) for part in some for cell in _cells(part, measured)]
            if panels:
                drawings.append(_drawing(results, name, words, kind, panels))
    return drawings


def _cells(part: Part, measured: bool) -> list[tuple[str, str]]:
    return list(dict.fromkeys((r.task, r.target) for r in part.records if r.measured == measured))


def _panel(part: Part, task: str, target: str) -> _Panel:
    title = f"{target} from {task}"
    return _Panel(f"{part.cases.name}\n{title}" if part.cases.kind == "real" else title, part, task, target)


def _drawing(results: Results, name: str, words: str, kind: str, panels: Sequence[_Panel]) -> Drawing:
    tried = {m for p in panels for m in p.part.methods if p.part.find(p.task, p.target, m) is not None}
    families = {m.name: family_key(m) for m in results.evaluation.methods if m.name in tried}
    single = all(len(set(p.part.cases.groups)) == 1 for p in panels)
    made = "Images of a modality of which nothing was measured are synthetic. " if kind == "synthesis" else ""
    alone = "One subject each: no interval. " if single else ""
    return Drawing(
        file_name("bars", name, kind),
        f"PSNR and SSIM per input set: {kind}, {name}",
        f"{words}. {made}{HOW} {alone}n/a: the method cannot do this task, or was not tried on it.",
        f"Bars of PSNR and SSIM of {len(families)} methods on {len(panels)} input sets; the same numbers stand in the "
        "tables of all numbers.",
        _draw(panels, families),
    )


def _draw(panels: Sequence[_Panel], families: dict[str, str]) -> Figure:
    rows = math.ceil(len(panels) / ACROSS)
    body = BAR_IN * (len(families) + 0.6)
    height = rows * (HEAD_IN + body + FOOT_IN) + KEY_IN
    figure = new_figure(height)
    limits = {m: span([p.score(name, m) for p in panels for name in families], m) for m in METRICS}
    panel_width = (WIDTH_IN - NAME_IN - ACROSS * PANEL_GAP) / ACROSS
    for number, panel in enumerate(panels):
        row, column = divmod(number, ACROSS)
        left = NAME_IN + column * (panel_width + PANEL_GAP)
        bottom = height - (row + 1) * (HEAD_IN + body + FOOT_IN) + FOOT_IN
        figure.text(left / WIDTH_IN, (bottom + body + 0.05) / height, panel.title, size=SMALL - 0.8, weight="bold",
                    color=INK, va="bottom")  # fmt: skip
        for i, metric in enumerate(METRICS):
            width = (panel_width - METRIC_GAP) / 2
            x = left + i * (width + METRIC_GAP)
            box = (x / WIDTH_IN, bottom / height, width / WIDTH_IN, body / height)
            axes = figure.add_axes(box, label=f"{number} {metric}")
            _fill(axes, panel, metric, families, limits[metric], named=column == 0 and i == 0)
    keys = [FAMILIES[key] for key in FAMILIES if key in families.values()]
    handles = [Patch(facecolor=k.colour, hatch=k.hatch, edgecolor="white", linewidth=0, label=k.name) for k in keys]
    figure.legend(handles=handles, loc="lower center", ncols=len(keys), fontsize=TINY, frameon=False, labelcolor=INK,
                  handlelength=1.6, columnspacing=1.2)  # fmt: skip
    return figure


def _fill(
    axes: Axes, panel: _Panel, metric: Metric, families: dict[str, str], limits: tuple[float, float], named: bool
) -> None:
    plain_axes(axes)
    axes.set_xlim(limits)
    axes.set_ylim(len(families) - 0.3, -0.7)
    axes.grid(axis="x", color=RULE, linewidth=0.4)
    axes.set_axisbelow(True)
    shown: dict[int, Score] = {}
    samples: dict[int, Score] = {}
    for y, (method, family) in enumerate(families.items()):
        found, one = panel.score(method, metric), panel.score(method, metric, one_sample=True)
        if found is None:
            axes.text(limits[0], y, " n/a", size=TINY - 0.5, color=MUTED, va="center")
            continue
        _bar(axes, y, found.mean, FAMILIES[family], limits)
        shown[y] = found
        if one is not None and math.isfinite(one.mean):
            samples[y] = one
    _marks(axes, shown)
    axes.plot([s.mean for s in samples.values()], list(samples), "D", color="white", mec=INK, ms=2.4, mew=0.6, zorder=5)
    axes.set_yticks(range(len(families)), list(families) if named else [""] * len(families))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(UNITS[metric], size=TINY, labelpad=1)


def _bar(axes: Axes, y: int, mean: float, look: Family, limits: tuple[float, float]) -> None:
    end = mean if math.isfinite(mean) else limits[1]
    axes.barh(y, end - limits[0], left=limits[0], height=0.74, color=look.colour, hatch=look.hatch, edgecolor="white",
              linewidth=0)  # fmt: skip
    if not math.isfinite(mean):
        axes.text(limits[1], y, "∞ ", size=TINY, color=INK, va="center", ha="right")


def _marks(axes: Axes, shown: Mapping[int, Score]) -> None:
    """Whiskers, and a tick for each rendering: all in two lines with gaps, for the page's size."""
    gap = (math.nan, math.nan)
    whiskers = [p for y, s in shown.items() if s.low is not None for p in ((s.low, y), (s.high, y), gap)]
    ticks = [
        point
        for y, s in shown.items()
        for value in (s.groups.values() if len(s.groups) > 1 else ())
        if math.isfinite(value)
        for point in ((value, y + 0.12), (value, y + 0.36), gap)
    ]
    for points, width in ((whiskers, 1.0), (ticks, 0.5)):
        if points:
            axes.plot(*zip(*points), color=INK, linewidth=width, solid_capstyle="butt", zorder=4)
