"""How a result looks: window, colour map, threshold and legend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import slicer

from .nodes import nodes_by_class
from .protocol import ModalityInfo

UNITS_PER_U = 1000.0  # of an MR image that was never measured: 1 u is 1000 a.u.
LEVELS = (0.5, 99.5)  # percentiles between which measured MR is shown
HIDDEN_PART = 0.2  # of the std's range: what is below it is transparent
ENOUGH = 2**20  # voxels tell the percentiles of all
COLOURS = {"gray": ("Grey",), "grey": ("Grey",), "inferno": ("Inferno", "Iron")}  # the second where the first is not
STD_COLOURS = ("Warm1",)


@dataclass(frozen=True)
class Look:
    """How one volume is shown: from ``low`` to ``high``, in the first of the colour maps that Slicer has.

    ``threshold``: what lies outside is transparent; None shows everything. ``legend``: title of the colour legend, or
    '' for none.
    """

    low: float
    high: float
    colours: tuple[str, ...]
    threshold: tuple[float, float] | None = None
    legend: str = ""


def look_of(modality: ModalityInfo, role: str, origin: str, array: np.ndarray) -> Look:
    """The look of a volume.

    Args:
        role: synthetic, reconstructed, std or sample.
        origin: synthetic, or reconstructed where data of the modality was measured.
        array: its voxels.
    """
    if role == "std":
        low, high = std_range(array)
        threshold = (low, max(high, float(array.max())))
        return Look(0.0, high, STD_COLOURS, threshold, f"{modality.name} std ({modality.units})")
    name = modality.display.colormap
    return Look(*window(modality, origin, array), COLOURS.get(name, (name.capitalize(),)))


def window(modality: ModalityInfo, origin: str, array: np.ndarray) -> tuple[float, float]:
    """Lowest and highest value that is shown of an image, in its units."""
    low, high = modality.display.window
    if modality.display.window_in == "units":
        return low, high
    if origin == "synthetic":
        return low * UNITS_PER_U, high * UNITS_PER_U
    inside = _positive(array)  # the units of a scanner mean nothing to us, and air is most of the image
    low, high = np.percentile(inside, LEVELS) if inside.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1.0


def std_range(array: np.ndarray) -> tuple[float, float]:
    """Of a std volume: the value below which nothing is shown, and the one with the strongest colour."""
    inside = _positive(array)
    high = _rounded_up(float(np.percentile(inside, LEVELS[1]))) if inside.size else 1.0
    return HIDDEN_PART * high, high


def _positive(array: np.ndarray) -> np.ndarray:
    """Values above 0: about a million of them, taken evenly, where there are more."""
    some = array.ravel()[:: (array.size // ENOUGH) | 1]  # an odd step, so that no row or column is left out
    return some[some > 0]


def _rounded_up(value: float) -> float:
    """To two digits, so that the legend reads well."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / digit - 1e-9) * digit


def show(node: slicer.vtkMRMLScalarVolumeNode, look: Look) -> None:
    """Give a volume of the scene its look; a legend is made, and not shown yet."""
    scene, display = node.GetScene(), slicer.vtkMRMLScalarVolumeDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(look.low, look.high)
    display.SetAutoThreshold(False)
    if look.threshold is not None:
        display.SetThreshold(*look.threshold)
        display.ApplyThresholdOn()
    display.SetAndObserveColorNodeID(_colour_node(scene, (*look.colours, "Grey")).GetID())
    scene.AddNode(display)
    node.SetAndObserveDisplayNodeID(display.GetID())
    if look.legend:
        legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
        legend.SetTitleText(look.legend)
        legend.SetLabelFormat("%.3g")
        legend.SetVisibility(False)


def set_legend(node: slicer.vtkMRMLScalarVolumeNode, shown: bool) -> None:
    """Show or hide a volume's colour legend, where it has one."""
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node)
    if legend is not None:
        legend.SetVisibility(bool(shown))


def _colour_node(scene: slicer.vtkMRMLScene, names: tuple[str, ...]) -> slicer.vtkMRMLColorNode:
    """The first of Slicer's colour maps that the application has."""
    known = {node.GetName(): node for node in reversed(nodes_by_class(scene, "vtkMRMLColorNode"))}
    return next(known[name] for name in names if name in known)
