"""A picture of the panel beside its slice views in Slicer's dark colours, for documentation and for looking."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from . import pixels

Rect, Color, Align = QtCore.QRect, QtGui.QColor, QtCore.Qt.AlignmentFlag
BAR = 22
GAP = 2
WINDOW, VIEW, TEXT = Color("#2d2f31"), Color("#000000"), Color("#e8e8e8")

# positions of vtkCornerAnnotation: lower left, lower right, upper left, upper right, and the middles of the edges
CORNERS = (
    Align.AlignBottom | Align.AlignLeft,
    Align.AlignBottom | Align.AlignRight,
    Align.AlignTop | Align.AlignLeft,
    Align.AlignTop | Align.AlignRight,
    Align.AlignBottom | Align.AlignHCenter,
    Align.AlignVCenter | Align.AlignRight,
    Align.AlignVCenter | Align.AlignLeft,
    Align.AlignTop | Align.AlignHCenter,
)


def dark_palette() -> QtGui.QPalette:
    """The colours of Slicer's dark style, near enough."""
    palette = QtGui.QPalette()
    roles = {
        "Window": "#2d2f31",
        "WindowText": "#e8e8e8",
        "Base": "#1e1f21",
        "AlternateBase": "#27292b",
        "Text": "#e8e8e8",
        "Button": "#3a3d40",
        "ButtonText": "#e8e8e8",
        "ToolTipBase": "#3a3d40",
        "ToolTipText": "#e8e8e8",
        "PlaceholderText": "#8a8d90",
        "Highlight": "#3d7ab8",
        "HighlightedText": "#ffffff",
        "Link": "#6cb2eb",
    }
    for role, colour in roles.items():
        palette.setColor(getattr(QtGui.QPalette.ColorRole, role), Color(colour))
    for role in ("WindowText", "Text", "ButtonText"):
        disabled = QtGui.QPalette.ColorGroup.Disabled
        palette.setColor(disabled, getattr(QtGui.QPalette.ColorRole, role), Color("#7c7f82"))
    return palette


def grab_panel(panel: QtWidgets.QWidget, width: int, height: int) -> QtGui.QPixmap:
    """The panel in the dark colours, at that width; it is laid out as if it were shown."""
    QtWidgets.QApplication.setPalette(dark_palette())
    panel.setPalette(dark_palette())
    panel.setAttribute(QtCore.Qt.WidgetAttribute.WA_DontShowOnScreen)
    panel.setFixedWidth(width)
    panel.resize(width, height)
    panel.show()
    for _ in range(3):  # word-wrapped labels settle their height in the second round
        QtWidgets.QApplication.processEvents()
    return panel.grab(Rect(0, 0, width, min(height, panel.height())))


def is_row(description: str) -> bool:
    """Whether a layout puts its views side by side, all in one row."""
    root = ET.fromstring(description)
    return root.get("type", "horizontal") == "horizontal" and root.find("item/layout") is None


def draw_layout(painter: QtGui.QPainter, area: QtCore.QRect) -> None:
    """The visible slice views: in a row where the layout is one, else the first large and the others beside it."""
    names = slicer.app.layoutManager()._visible_names()
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    row = len(names) < 3 or is_row(node.GetLayoutDescription(node.GetViewArrangement()))
    first = area.width() // len(names) if row else area.width() * 6 // 10
    count = len(names) - 1
    for index, name in enumerate(names):
        if row:
            place = Rect(area.left() + index * first, area.top(), first, area.height())
        elif index == 0:
            place = Rect(area.left(), area.top(), first, area.height())
        else:
            height = area.height() // count
            place = Rect(area.left() + first, area.top() + (index - 1) * height, area.width() - first, height)
        draw_view(painter, place.adjusted(0, 0, -GAP, -GAP), name)


def draw_view(painter: QtGui.QPainter, area: QtCore.QRect, name: str) -> None:
    """One view: its coloured bar with label and position, the blended picture, texts, cross hair, colour legend."""
    widget = slicer.app.layoutManager().sliceWidget(name)
    node = widget.mrmlSliceNode()
    red, green, blue = (round(255 * part) for part in node.GetLayoutColor())
    painter.fillRect(Rect(area.left(), area.top(), area.width(), BAR), Color(red, green, blue))
    painter.setPen(Color("#101010"))
    bar = Rect(area.left() + 6, area.top(), area.width() - 12, BAR)
    painter.drawText(bar, Align.AlignLeft | Align.AlignVCenter, node.GetLayoutLabel() or name)
    offset = f"{node.GetOrientation()}  {widget.sliceLogic().GetSliceOffset():.1f} mm"
    painter.drawText(bar, Align.AlignRight | Align.AlignVCenter, offset)
    inner = area.adjusted(0, BAR, 0, 0)
    painter.fillRect(inner, VIEW)
    kept = widget.sliceLogic().GetSliceOffset()
    picture = pixels.render(name, (inner.width(), inner.height()), offset=kept)
    painter.drawImage(inner.topLeft(), pixels.to_image(picture))
    draw_cross_hair(painter, inner, name)
    draw_legend(painter, inner, widget.sliceLogic())
    painter.setPen(TEXT)
    for position, align in enumerate(CORNERS):
        text = widget.sliceView().cornerAnnotation().GetText(position)
        if text:
            painter.drawText(inner.adjusted(6, 5, -6, -5), align | QtCore.Qt.TextFlag.TextWordWrap, text)


def draw_cross_hair(painter: QtGui.QPainter, area: QtCore.QRect, name: str) -> None:
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is None or crosshair.GetCrosshairMode() == slicer.vtkMRMLCrosshairNode.NoCrosshair:
        return
    row, column = pixels.pixel_of(name, tuple(crosshair.GetCrosshairRAS()))
    painter.setPen(Color("#ffd34d"))
    if 0 <= row < area.height() and 0 <= column < area.width():
        painter.drawLine(area.left(), area.top() + row, area.right(), area.top() + row)
        painter.drawLine(area.left() + column, area.top(), area.left() + column, area.bottom())


def legend_of(logic: slicer.vtkMRMLSliceLogic) -> tuple[slicer.vtkMRMLDisplayNode, str] | None:
    """Display node and title of the first shown volume whose colour legend is visible."""
    composite = logic.GetSliceCompositeNode()
    for node_id in (composite.GetForegroundVolumeID(), composite.GetBackgroundVolumeID()):
        volume = slicer.mrmlScene.GetNodeByID(node_id) if node_id else None
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(volume) if volume else None
        if legend is not None and legend.GetVisibility():
            return volume.GetDisplayNode(), legend.GetTitleText() or volume.GetName()
    return None


def draw_legend(painter: QtGui.QPainter, area: QtCore.QRect, logic: slicer.vtkMRMLSliceLogic) -> None:
    """A vertical colour bar with the ends of the display range, where Slicer's colour legend stands."""
    found = legend_of(logic)
    if found is None:
        return
    display, title = found
    bar = Rect(area.right() - 22, area.top() + area.height() // 4, 12, area.height() // 2)
    table, colour = display.GetColorNode(), [0.0] * 4
    for row in range(bar.height()):
        table.GetColor(round((1 - row / bar.height()) * (table.GetNumberOfColors() - 1)), colour)
        painter.setPen(Color.fromRgbF(*colour[:3]))
        painter.drawLine(bar.left(), bar.top() + row, bar.right(), bar.top() + row)
    painter.setPen(TEXT)
    low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    right = Align.AlignRight | Align.AlignVCenter
    text = Rect(area.left(), bar.top() - 10, bar.left() - 4 - area.left(), 20)
    painter.drawText(text, right, f"{high:.4g}")
    painter.drawText(text.translated(0, bar.height()), right, f"{low:.4g}")
    painter.drawText(Rect(area.left(), bar.top() - 34, area.width() - 8, 20), right, title)


def save_screen(
    panel: QtWidgets.QWidget, path: Path, size: tuple[int, int] = (1600, 900), panel_width: int = 520
) -> None:
    """Write the PNG: the panel on the left, the slice views of the current layout on the right."""
    image = QtGui.QImage(*size, QtGui.QImage.Format.Format_RGB32)
    image.fill(WINDOW)
    painter = QtGui.QPainter(image)
    painter.drawPixmap(0, 0, grab_panel(panel, panel_width, size[1]))
    draw_layout(painter, Rect(panel_width + GAP, 0, size[0] - panel_width - GAP, size[1]))
    painter.end()
    if not image.save(str(path)):
        raise OSError(f"cannot write {path}")
