"""The figures of the evaluation, in the layout of the paper's Figs. 2 to 6."""

from __future__ import annotations

from ..perception import Perception
from ..results import Results
from .bars import draw_bars
from .calibration import draw_calibration
from .gains import draw_gains
from .grid import draw_grids
from .plane import draw_planes
from .style import Drawing, to_svg, write_pdf

__all__ = ["Drawing", "draw_figures", "to_svg", "write_pdf"]


def draw_figures(results: Results, perception: Perception) -> list[Drawing]:
    """Every figure that the records allow, in the order of the report."""
    return [
        *draw_bars(results),
        *draw_grids(results),
        *draw_gains(results),
        *draw_planes(results, perception),
        *draw_calibration(results),
    ]
