"""Says aloud when the Slicer tests cannot run in this environment."""

from __future__ import annotations

import importlib.util

import pytest


def test_slicer_core_and_pyside6_can_be_imported():
    missing = [name for name in ("slicer_core", "PySide6") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: the panel's tests run in .venv-slicer only")
    import slicer
    from PySide6 import QtWidgets

    assert hasattr(slicer, "vtkMRMLScene") and hasattr(QtWidgets, "QWidget")
