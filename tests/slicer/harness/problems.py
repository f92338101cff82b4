"""What goes wrong where nobody can catch it: exceptions in slots, VTK errors, Qt warnings. Each fails a test."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import vtk
from PySide6 import QtCore

collected: list[str] = []

# The offscreen platform says these about itself; they are no fault of a module.
HARMLESS_QT = ("This plugin does not support", "propagateSizeHints", "QFontDatabase", "XDG_RUNTIME_DIR")


def report(kind: str, text: str) -> None:
    """Note one problem; the test's fixture raises them all at the end."""
    collected.append(f"{kind}: {text.strip()}")


def report_exception(kind: str) -> None:
    """Note the exception that is being handled, with its traceback."""
    report(kind, traceback.format_exc())


@contextmanager
def expected(text: str) -> Iterator[None]:
    """Problems inside the block must contain ``text``, at least one must come, and they are forgiven."""
    before = len(collected)
    yield
    found = collected[before:]
    del collected[before:]
    wrong = [problem for problem in found if text not in problem]
    if wrong or not found:
        raise AssertionError(f"expected a problem with {text!r}, got {found}")


def assert_none() -> None:
    """Raise what was collected, as one AssertionError, and start afresh."""
    found = list(collected)
    collected.clear()
    if found:
        raise AssertionError("problems behind the test's back:\n" + "\n".join(found))


def _on_qt_message(level: QtCore.QtMsgType, _context: QtCore.QMessageLogContext, text: str) -> None:
    if level != QtCore.QtMsgType.QtDebugMsg and not any(harmless in text for harmless in HARMLESS_QT):
        report("Qt", text)


def install() -> None:
    """Watch Qt, VTK and the exceptions that PySide6 can only print."""
    QtCore.qInstallMessageHandler(_on_qt_message)
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)  # the observer below hears the errors
    window = vtk.vtkStringOutputWindow()

    @vtk.calldata_type(vtk.VTK_STRING)
    def on_vtk_error(_caller: vtk.vtkObject, event: str, text: str) -> None:
        report(f"VTK {event}", text)

    window.AddObserver("ErrorEvent", on_vtk_error)
    vtk.vtkOutputWindow.SetInstance(window)
    sys.excepthook = lambda kind, error, trace: report(
        "exception", "".join(traceback.format_exception(kind, error, trace))
    )
