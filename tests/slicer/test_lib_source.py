"""The library stays what Slicer needs: Python 3.9, standard library, no threads, no Qt."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path

# whoever imports one of these is tested in the harness, by test_panel_module
OF_SLICER = {"numpy", "vtk", "qt", "ctk", "slicer"}
WAITING = {"threading", "multiprocessing", "concurrent", "asyncio", "queue"}


def imported(tree: ast.AST) -> set[str]:
    """Top names of everything that is imported from elsewhere."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def is_qt_free(file: Path) -> bool:
    return not imported(ast.parse(file.read_text(encoding="utf-8"))) & OF_SLICER


def calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


FILES = sorted(file for file in lib_path.LIBRARY.glob("**/*.py") if is_qt_free(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_python_39_and_standard_library_only(file):
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 9))
    names = imported(tree)
    assert names <= set(sys.stdlib_module_names), names - set(sys.stdlib_module_names)
    assert not names & WAITING
    assert not calls(tree) & {"time.sleep", "socket.create_connection", "subprocess.run", "os.system"}
    assert len(text.splitlines()) <= 400
    if file.name != "__init__.py":
        assert "from __future__ import annotations" in text


def test_nothing_of_python_310_at_run_time():
    """``X | Y`` of types, ``slots=True`` and ``match`` parse or look fine, and fail in Slicer 5.6."""
    for file in (*lib_path.LIBRARY.glob("**/*.py"), *lib_path.MODULE.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Match), file.name
            if isinstance(node, ast.keyword):
                assert node.arg not in ("slots", "kw_only", "strict"), f"{file.name}: {node.arg}"
        for node in tree.body:  # aliases such as ``Section = bytes | Path`` are evaluated
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
                assert not isinstance(node.value.op, ast.BitOr), f"{file.name}:{node.lineno}"


def test_the_test_sees_what_it_looks_for():
    tree = ast.parse("import numpy.linalg\nfrom qt import QTimer\nfrom . import x\ntime.sleep(1)")
    assert imported(tree) == {"numpy", "qt"} and calls(tree) == {"time.sleep"}
    assert {"assign.py", "client.py", "exchange.py", "form.py", "job.py", "launch.py"} <= {file.name for file in FILES}
    assert not {"panel.py", "upload.py", "run.py"} & {file.name for file in FILES}
