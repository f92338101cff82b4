"""Fixtures of the Slicer tests. Without slicer-core and PySide6 only the pure tests run, and one test says so aloud."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MISSING = [name for name in ("slicer_core", "PySide6") if importlib.util.find_spec(name) is None]
PURE = ("test_lib_*.py", "test_harness_available.py", "test_cmake.py", "test_allowed_ui.py")

if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))  # `import harness` and `import allowed_ui`, from whichever root pytest was started

from small_form import Form, small_form  # noqa: E402

if MISSING:
    collect_ignore_glob = [
        path.name for path in HERE.glob("test_*.py") if not any(path.match(pattern) for pattern in PURE)
    ]
else:
    from harness import problems, scripted, slicer_module

    slicer_module.install()


@pytest.fixture
def form() -> Form:
    return small_form()


@pytest.fixture
def raw(tmp_path: Path) -> str:
    """A raw data file that says nothing of its voxel size."""
    (tmp_path / "SMITH.npy").write_bytes(b"k-space")
    return str(tmp_path / "SMITH.npy")


@pytest.fixture
def slicer_scene(tmp_path: Path) -> Iterator[slicer_module.World]:
    """A fresh scene in a fresh application. What went wrong behind the test's back fails it at the end."""
    problems.collected.clear()
    world = slicer_module.begin(tmp_path / "slicer")
    yield world
    slicer_module.end(world)
    problems.assert_none()


@pytest.fixture
def load_module(slicer_scene: slicer_module.World) -> Callable[[Path], scripted.Loaded]:
    """Loads a scripted module's file: its widget is made, set up and entered, as when a person opens it."""
    return lambda path: scripted.load(Path(path))


@pytest.fixture
def run_events() -> Callable:
    """Lets Qt's events run: ``run_events(0.1)`` or ``run_events(until=lambda: button.enabled, timeout=5)``."""
    return slicer_module.run_events
