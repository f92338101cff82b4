"""A server of one's own: its command, what speaks against it, its environment, its start and end."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path  # noqa: F401
from Any2allLib import launch
from Any2allLib.launch import LocalServer, ServerProcess, clean_environment, in_clone

FAKE = """
import signal, sys, time
print("arguments", *sys.argv[1:], flush=True)
if "{mode}" == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "{mode}" == "failing":
    sys.exit("cannot start: no model")
print("ready", flush=True)
time.sleep(30)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def clone(tmp_path):
    """A folder that looks like a clone; its Python is the one of this test."""
    (tmp_path / "monai_app").mkdir()
    (tmp_path / "monai_app" / "main.py").write_text("")
    (tmp_path / "studies").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path


def started(clone: Path, mode: str) -> ServerProcess:
    """A process whose ``monailabel.main`` is a stand-in."""
    package = clone / "packages" / "monailabel"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(FAKE.format(mode=mode))
    environment = {**clean_environment(os.environ, None), "PYTHONPATH": str(package.parent)}
    server = LocalServer(Path(sys.executable), clone / "monai_app", clone / "studies", free_port())
    return ServerProcess(server, clone / "server.log", environment)


def until(met, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_command_in_full(clone):
    server = in_clone(clone, clone / "studies", 8123)
    python, app, studies = clone / ".venv/bin/python", clone / "monai_app", clone / "studies"
    assert server.command() == [
        *(str(python), "-m", "monailabel.main", "start_server"),
        *("--app", str(app), "--studies", str(studies), "--host", "127.0.0.1", "--port", "8123"),
    ]
    assert server.url == "http://127.0.0.1:8123"


def test_what_speaks_against_it(clone):
    port = free_port()
    assert in_clone(clone, clone / "studies", port).problem() == ""
    assert "no Python program" in in_clone(clone / "studies", clone / "studies", port).problem()
    assert "does not exist" in in_clone(clone, clone / "nowhere", port).problem()
    assert "from 1 to 65535" in in_clone(clone, clone / "studies", 70000).problem()
    with socket.create_server(("127.0.0.1", port)):
        assert f"Port {port} is in use" in in_clone(clone, clone / "studies", port).problem()
    (clone / "monai_app" / "main.py").unlink()
    assert "holds no MONAI Label app" in in_clone(clone, clone / "studies", port).problem()


def test_slicers_settings_do_not_reach_it(tmp_path):
    slicer, other = str(tmp_path / "Slicer"), str(tmp_path / "Slicer-other")
    inside = os.path.join(slicer, "lib")
    cleaned = clean_environment(
        {
            "PYTHONHOME": slicer,
            "PYTHONPATH": inside,
            "LD_LIBRARY_PATH": os.pathsep.join([inside, other]),
            "QT_PLUGIN_PATH": inside,
            "PATH": os.pathsep.join([slicer, "/usr/bin", ""]),
            "HOME": "/home/me",
        },
        Path(slicer),
    )
    assert cleaned == {"LD_LIBRARY_PATH": other, "PATH": "/usr/bin", "HOME": "/home/me"}


def test_started_and_stopped(clone):
    process = started(clone, "well-behaved")
    until(lambda: "ready" in process.last_lines())
    assert process.alive and process.exit_code is None
    assert f"--port {process.server.port}" in process.last_lines()
    process.stop()
    until(lambda: not process.poll())
    assert not process.alive and process.exit_code is not None
    process.stop()


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_server_that_does_not_listen_is_killed(clone, monkeypatch):
    monkeypatch.setattr(launch, "STOP_S", 0.3)
    process = started(clone, "stubborn")
    until(lambda: "ready" in process.last_lines())
    process.stop()
    assert process.alive  # nobody waited for it
    assert process.poll()
    until(lambda: not process.poll())
    assert process.exit_code == -9


def test_a_server_that_cannot_start_says_why(clone):
    process = started(clone, "failing")
    until(lambda: not process.alive)
    assert process.exit_code == 1 and "cannot start: no model" in process.last_lines()
