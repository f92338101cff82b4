"""Words in the slice views that show one of our outputs: that it was not acquired, and what it cannot show."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import slicer
import vtk

from .nodes import nodes_by_class
from .outputs import CREATED, Output

EDGE = 7  # vtkCornerAnnotation's upper edge: Slicer's DataProbe writes into the corners 0 to 3
WIDTH = 48  # characters, so that a narrow view does not shrink the text
NOT_ACQUIRED = {"SYNTHETIC": "not acquired", "RECONSTRUCTED": "partly acquired"}


def words(shown: Sequence[str], outputs: Sequence[Output]) -> str:
    """The text of a view.

    Args:
        shown: ids of the volumes that are seen in it.
        outputs: of the scene.

    Returns:
        '' where none of them is ours.
    """
    ours = [output for output in outputs if set(shown) & set(output.ids)]
    created = sorted({CREATED[output.role] for output in ours}, reverse=True)
    lines = [f"{word} – Any2all – {NOT_ACQUIRED[word]}" for word in created]
    for output in ours:
        image = set(shown) & {output.mean_id, *output.sample_ids}
        uncertainty = f"{output.modality}: uncertainty (std) in {output.units}"
        lines += textwrap.wrap(f"{output.modality} {output.caption}".strip() if image else uncertainty, WIDTH)
    return "\n".join(lines)


class Annotations:
    """Keeps the words of all slice views right while volumes come and go in them, and views come."""

    def __init__(self, layout_manager: Any, outputs: Sequence[Output]) -> None:
        self._manager, self._outputs = layout_manager, tuple(outputs)
        self._observers: list[tuple[Any, int]] = []
        self._composites: list[slicer.vtkMRMLSliceCompositeNode] = []
        scene = layout_manager.layoutLogic().GetMRMLScene()
        self._observe(scene, slicer.vtkMRMLScene.NodeAddedEvent, self._added)
        for composite in nodes_by_class(scene, "vtkMRMLSliceCompositeNode"):
            self._follow(composite)

    def stop(self) -> None:
        """Take the words off, and follow no longer."""
        for subject, tag in self._observers:
            subject.RemoveObserver(tag)
        self._observers, self._outputs = [], ()
        for composite in self._composites:
            self._write(composite)

    def _observe(self, subject: vtk.vtkObject, event: Any, function: Callable) -> None:
        self._observers.append((subject, subject.AddObserver(event, function)))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _added(self, _scene: slicer.vtkMRMLScene, _event: str, node: slicer.vtkMRMLNode) -> None:
        """A new layout has brought a view."""
        if node.IsA("vtkMRMLSliceCompositeNode"):
            self._follow(node)

    def _follow(self, composite: slicer.vtkMRMLSliceCompositeNode) -> None:
        self._composites.append(composite)
        self._observe(composite, "ModifiedEvent", lambda *_: self._write(composite))
        self._write(composite)

    def _write(self, composite: slicer.vtkMRMLSliceCompositeNode) -> None:
        name = composite.GetLayoutName()
        widget = self._manager.sliceWidget(name) if name else None
        if widget is None:  # its view is still to be made, or gone
            return
        view, text = widget.sliceView(), words(seen(composite), self._outputs)
        annotation = view.cornerAnnotation()
        if (annotation.GetText(EDGE) or "") != text:
            annotation.SetText(EDGE, text)
            view.scheduleRender()


def seen(composite: slicer.vtkMRMLSliceCompositeNode) -> list[str]:
    """Ids of the volumes that a view shows: its background, and a foreground that is not transparent."""
    foreground = composite.GetForegroundVolumeID() if composite.GetForegroundOpacity() > 0 else None
    return [volume for volume in (composite.GetBackgroundVolumeID(), foreground) if volume]
