"""Words in the slice views that show one of our outputs: that it was not acquired, and what it cannot show."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import slicer

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
        volumes = [volume for volume in output.ids if volume in shown]
        what = f"{output.modality}: uncertainty (std)" if volumes == [output.std_id] else output.modality
        lines += textwrap.wrap(f"{what} {output.caption}" if output.caption else what, WIDTH)
    return "\n".join(lines)


class Annotations:
    """Keeps the words of all slice views right while volumes come and go in them."""

    def __init__(self, layout_manager: Any, outputs: Sequence[Output]) -> None:
        self._manager, self._outputs = layout_manager, tuple(outputs)
        self._observers: list[tuple[Any, int]] = []
        self._watched: set[str] = set()
        self._observe(layout_manager.layoutLogic().GetLayoutNode(), self._watch)
        self._watch()

    def stop(self) -> None:
        """Take the words off, and watch no longer."""
        for subject, tag in self._observers:
            subject.RemoveObserver(tag)
        self._observers, self._outputs = [], ()
        for name in self._watched:
            self._write(name)

    def _observe(self, subject: Any, function: Any) -> None:
        # Slicer 5.6 keeps no bound method alive by itself
        self._observers.append((subject, subject.AddObserver("ModifiedEvent", lambda *_: function())))

    def _watch(self) -> None:
        """Take on the views that a new layout has brought."""
        for name in self._manager.sliceViewNames():
            if name not in self._watched:
                self._watched.add(name)
                composite = self._manager.sliceWidget(name).mrmlSliceCompositeNode()
                self._observe(composite, lambda name=name: self._write(name))
            self._write(name)

    def _write(self, name: str) -> None:
        widget = self._manager.sliceWidget(name)
        if widget is None:
            return
        view, text = widget.sliceView(), words(seen(widget.mrmlSliceCompositeNode()), self._outputs)
        annotation = view.cornerAnnotation()
        if (annotation.GetText(EDGE) or "") != text:
            annotation.SetText(EDGE, text)
            view.scheduleRender()


def seen(composite: slicer.vtkMRMLSliceCompositeNode | None) -> list[str]:
    """Ids of the volumes that a view shows: its background, and a foreground that is not transparent."""
    if composite is None:
        return []
    foreground = composite.GetForegroundVolumeID() if composite.GetForegroundOpacity() > 0 else None
    return [volume for volume in (composite.GetBackgroundVolumeID(), foreground) if volume]
