"""The extension configures, and every file of the module is listed: checked by CMake with a stand-in for Slicer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
STUB = Path(__file__).parent / "harness" / "cmake"
MODULE = "Any2allSlicer"
INDEX_KEYS = {
    "$schema",
    "build_dependencies",
    "build_subdirectory",
    "category",
    "enabled",
    "scm_revision",
    "scm_type",
    "scm_url",
    "tier",
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what the extension is built from, without caches."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed: the extension's file lists are not checked")
    shutil.copy(REPOSITORY / "CMakeLists.txt", tmp_path)
    shutil.copytree(REPOSITORY / MODULE, tmp_path / MODULE, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def configure(sources: Path) -> subprocess.CompletedProcess:
    build = sources / "build"
    command = ["cmake", "-S", str(sources), "-B", str(build), f"-DSlicer_DIR={STUB}", "-DBUILD_TESTING=ON"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_file_is_listed(sources):
    done = configure(sources)
    assert done.returncode == 0, done.stderr
    recorded = (sources / "build" / "slicer_modules.txt").read_text().splitlines()
    assert {f"{MODULE} {MODULE}.py", f"{MODULE} Resources/UI/{MODULE}.ui", f"test {MODULE}.py"} <= set(recorded)


def test_an_unlisted_file_stops_the_configuration(sources):
    (sources / MODULE / "Any2allLib" / "forgotten.py").write_text("")
    done = configure(sources)
    assert done.returncode != 0 and "present but not listed: Any2allLib/forgotten.py" in done.stderr


def test_a_missing_file_stops_the_configuration(sources):
    (sources / MODULE / "Resources" / "Icons" / f"{MODULE}.png").unlink()
    done = configure(sources)
    assert done.returncode != 0 and f"listed but missing: Resources/Icons/{MODULE}.png" in done.stderr


def test_catalogue_entry_follows_the_index():
    """Rules of the Extensions Index: schema 1.0.1, one name everywhere, quoted addresses, a licence in the root."""
    entry = json.loads((REPOSITORY / "Any2all.json").read_text())
    cmake = (REPOSITORY / "CMakeLists.txt").read_text()
    settings = dict(re.findall(r'^set\((EXTENSION_\w+) "(.*)"\)$', cmake, re.MULTILINE))
    assert set(entry) <= INDEX_KEYS and entry["tier"] in (1, 3, 5)
    assert entry["category"] == settings["EXTENSION_CATEGORY"] == "Image Synthesis"
    assert re.search(r"^project\((\w+)\)$", cmake, re.MULTILINE)[1] == "Any2all"
    assert settings["EXTENSION_ICONURL"].endswith(f"{MODULE}/Resources/Icons/{MODULE}.png")
    assert settings["EXTENSION_SCREENSHOTURLS"].startswith("https://")
    assert entry["scm_url"] == settings["EXTENSION_HOMEPAGE"]
    assert (REPOSITORY / "LICENSE").is_file() and (REPOSITORY / MODULE / "Resources/Icons" / f"{MODULE}.png").is_file()
