"""Rendered multi-modality heads: label maps in, stacks of images as scanners would have made them out."""

from .dataset import RenderedHeads
from .labels import HeadLabels, load_head_labels
from .render import HeadParameters, RenderGrid, Rendering, draw_parameters, render

__all__ = [
    "HeadLabels",
    "HeadParameters",
    "RenderGrid",
    "RenderedHeads",
    "Rendering",
    "draw_parameters",
    "load_head_labels",
    "render",
]
