"""How a result looks: window, colour map, threshold and legend."""

from __future__ import annotations

import math

import numpy as np
import slicer

from .nodes import nodes_by_class
from .protocol import ModalityInfo

UNITS_PER_U = 1000.0  # of an MR image that was never measured: 1 u is 1000 a.u.
LEVELS = (0.5, 99.5)  # percentiles between which measured MR is shown
HIDDEN_PART = 0.2  # of the std's range: what is below it is transparent
STD_COLOURS = ("Warm1",)
COLOURS = {"gray": ("Grey",), "grey": ("Grey",), "inferno": ("Inferno", "Iron")}  # the second where the first is not


def window(modality: ModalityInfo, role: str, array: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value that is shown of a mean or sample, in the volume's units."""
    low, high = modality.display.window
    if modality.display.window_in == "units":
        return low, high
    if role == "synthetic":
        return low * UNITS_PER_U, high * UNITS_PER_U
    inside = array[array > 0]  # the units of a scanner mean nothing to us, and its background is the most of the image
    low, high = np.percentile(inside, LEVELS) if inside.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6))


def std_range(array: np.ndarray) -> tuple[float, float]:
    """Of a std volume: the value below which nothing is shown, and the one with the strongest colour."""
    inside = array[array > 0]
    high = _rounded_up(float(np.percentile(inside, LEVELS[1]))) if inside.size else 1.0
    return HIDDEN_PART * high, high


def _rounded_up(value: float) -> float:
    """To two digits, so that the legend reads well."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / digit - 1e-9) * digit


def show_image(node: slicer.vtkMRMLScalarVolumeNode, low: float, high: float, colours: str) -> None:
    """Window and colour map of a mean or sample."""
    _display(node, (0.0, 1.0) if not high > low else (low, high), COLOURS.get(colours, (colours.capitalize(),)))


def show_std(node: slicer.vtkMRMLScalarVolumeNode, title: str, low: float, high: float, most: float) -> None:
    """A warm overlay, transparent below ``low``, with a legend that is not shown yet. ``most``: the largest value."""
    display = _display(node, (0.0, high), STD_COLOURS)
    display.SetAutoThreshold(False)
    display.SetThreshold(low, max(high, most))
    display.ApplyThresholdOn()
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(title)
    legend.SetLabelFormat("%.3g")
    legend.SetVisibility(False)


def set_legend(node: slicer.vtkMRMLScalarVolumeNode, shown: bool) -> None:
    """Show or hide a volume's colour legend, where it has one."""
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node)
    if legend is not None:
        legend.SetVisibility(bool(shown))


def _display(
    node: slicer.vtkMRMLScalarVolumeNode, levels: tuple[float, float], colours: tuple[str, ...]
) -> slicer.vtkMRMLScalarVolumeDisplayNode:
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(*levels)
    display.SetAndObserveColorNodeID(_colour_node(node.GetScene(), (*colours, "Grey")).GetID())
    return display


def _colour_node(scene: slicer.vtkMRMLScene, names: tuple[str, ...]) -> slicer.vtkMRMLColorNode:
    """The first of Slicer's colour maps that the application has."""
    known = {node.GetName(): node for node in reversed(nodes_by_class(scene, "vtkMRMLColorNode"))}
    return next(known[name] for name in names if name in known)
