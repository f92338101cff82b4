"""What the slice views show: the comparison, the overlay of the uncertainty, blinking between two outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer

from . import outputs as made
from .annotations import Annotations
from .display import set_legend
from .nodes import nodes_by_class
from .outputs import Output

LAYOUTS = {2: 73012, 3: 73013}  # number of views → number of the layout, far from Slicer's own
VIEWS = (("Reference", "#6fa8dc"), ("Output", "#f6b26b"), ("Uncertainty", "#e06666"))  # label, colour
GROUP = 73  # view group: moving in one of our views moves the others, and no other view

_annotations: list[Annotations] = []


def layout_description(count: int) -> str:
    """The layout "Any2all comparison": the first two or all three views, side by side."""
    views = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{view_name(label)}">'
        '<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{colour}</property>'
        f'<property name="viewgroup" action="default">{GROUP}</property></view></item>'
        for label, colour in VIEWS[:count]
    )
    return f'<layout type="horizontal" split="true" label="Any2all comparison">{views}</layout>'


def view_name(label: str) -> str:
    """Name of the view with that label."""
    return f"Any2all{label}"


def register(layout_manager: Any) -> None:
    """Make the comparison's layouts known, before a scene comes that was saved in one of them. Once is enough."""
    if layout_manager is None:
        return
    node = layout_manager.layoutLogic().GetLayoutNode()
    for count, layout in LAYOUTS.items():
        if not node.IsLayoutDescription(layout):
            node.AddLayoutDescription(layout, layout_description(count))


def compare(layout_manager: Any, reference_id: str, output_id: str, std_id: str) -> str:
    """Show reference, output and uncertainty side by side, moving together, with the crosshair.

    Args:
        layout_manager: Slicer's; None where there is no window.
        std_id: '' for two views.

    Returns:
        '' or, in words, why they cannot be shown.
    """
    if layout_manager is None:
        return "There are no slice views to compare in: Slicer runs without its window."
    volumes = [reference_id, output_id] + [std_id] * bool(std_id)
    register(layout_manager)
    layout_manager.setLayout(LAYOUTS[len(volumes)])
    widgets = [layout_manager.sliceWidget(view_name(label)) for label, _ in VIEWS[: len(volumes)]]
    if None in widgets:
        return "Slicer did not make the views of the comparison."
    for widget, volume in zip(widgets, volumes):
        _fill(widget, volume)
    _show_crosshair(layout_manager.layoutLogic().GetMRMLScene())
    legend(True)
    return ""


def _fill(widget: Any, volume_id: str) -> None:
    """One volume alone in a view of the comparison, linked with the others, and fitted."""
    composite = widget.mrmlSliceCompositeNode()
    composite.SetLinkedControl(False)  # or filling one view fills the others
    composite.SetBackgroundVolumeID(volume_id or None)
    composite.SetForegroundVolumeID(None)
    composite.SetLabelVolumeID(None)
    composite.SetHotLinkedControl(True)
    composite.SetLinkedControl(True)
    widget.sliceLogic().FitSliceToBackground()


def _show_crosshair(scene: slicer.vtkMRMLScene) -> None:
    crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.ShowBasic)
        crosshair.SetCrosshairToFine()


def annotate(layout_manager: Any, outputs: Sequence[Output]) -> None:
    """Say in every slice view that shows one of the outputs what it is; in no other, and as long as it is shown.

    The outputs replace those of the call before; none take the words off everywhere.
    """
    while _annotations:
        _annotations.pop().stop()
    if layout_manager is not None and outputs:
        _annotations.append(Annotations(layout_manager, outputs))


def overlay(std_id: str | None, opacity: float = 0.5) -> None:
    """Lay an uncertainty over the output that it belongs to, with its legend; None takes it off.

    Views that show the output get it; where none does, all views are brought to show both.
    """
    mean = [output.mean_id for output in made.find_outputs(slicer.mrmlScene) if std_id and output.std_id == std_id]
    composites = _composites() if mean else []
    targets = [composite for composite in composites if composite.GetBackgroundVolumeID() in mean] or composites
    for composite in _composites(hidden=True):
        if composite not in targets and _is_std(composite.GetForegroundVolumeID()):
            composite.SetForegroundVolumeID(None)
            composite.SetForegroundOpacity(0.0)
    for composite in targets:
        composite.SetBackgroundVolumeID(mean[0])
        composite.SetForegroundVolumeID(std_id)
        composite.SetForegroundOpacity(float(opacity))
    legend(True)


def blink(first_id: str, second_id: str) -> None:
    """Every view that shows one of two volumes shows the other; where none does, all show the first.

    In the comparison only the output's view blinks, beside a reference that stands still.
    """
    other = {first_id: second_id, second_id: first_id}
    composites = _composites()
    composites = [c for c in composites if c.GetLayoutName() == view_name("Output")] or composites
    shown = [composite for composite in composites if composite.GetBackgroundVolumeID() in other]
    for composite in shown or composites:
        composite.SetBackgroundVolumeID(other.get(composite.GetBackgroundVolumeID(), first_id))


def legend(on: bool) -> None:
    """Colour legends of the uncertainties: of those that a view shows, or of none."""
    shown = set()
    for composite in _composites():
        shown |= {composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()}
    for volume in nodes_by_class(slicer.mrmlScene, "vtkMRMLScalarVolumeNode"):
        if _is_std(volume.GetID()):
            set_legend(volume, on and volume.GetID() in shown)


def _is_std(volume_id: str | None) -> bool:
    volume = slicer.mrmlScene.GetNodeByID(volume_id) if volume_id else None
    return volume is not None and volume.GetAttribute(made.ROLE) == "std"


def _composites(hidden: bool = False) -> list[slicer.vtkMRMLSliceCompositeNode]:
    """Of the slice views of the current layout, and with ``hidden`` of all others; none without a window."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return []
    nodes = manager.layoutLogic().GetViewNodes()
    visible = [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]
    widgets = [manager.sliceWidget(name) for name in manager.sliceViewNames()]
    return [widget.mrmlSliceCompositeNode() for widget in widgets if hidden or widget.mrmlSliceNode() in visible]
