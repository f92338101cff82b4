"""Start and stop a server on this computer: its command in full view, its environment free of Slicer's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"
STOP_S = 30.0  # that the server has to finish before it is killed
_DROPPED = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "SSL_CERT_FILE")
_SEARCH_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "PATH", "QT_PLUGIN_PATH", "LD_PRELOAD")


@dataclass(frozen=True)
class LocalServer:
    """What to start. ``app``: the folder ``monai_app`` of a clone; ``studies``: its study store."""

    python: Path
    app: Path
    studies: Path
    port: int = 8000

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """The command line, one list item an argument; no shell sees it."""
        start = [str(self.python), "-m", "monailabel.main", "start_server"]
        where = ["--app", str(self.app), "--studies", str(self.studies)]
        return [*start, *where, "--host", HOST, "--port", str(self.port)]

    def problem(self) -> str:
        """Why it cannot be started, in words; '' when it can."""
        if not self.python.is_file() or not os.access(self.python, os.X_OK):
            return f"There is no Python program at {self.python}."
        if not (self.app / "main.py").is_file():
            return f"The folder {self.app} holds no MONAI Label app (main.py)."
        if not self.studies.is_dir():
            return f"The study folder {self.studies} does not exist."
        if not 1 <= self.port <= 65535:
            return f"The port is {self.port}; it is from 1 to 65535."
        if not _port_is_free(self.port):
            return f"Port {self.port} is in use: a server may be running already. Press Test, or choose another port."
        return ""


def in_clone(clone: Path, studies: Path, port: int = 8000) -> LocalServer:
    """The server of a clone of this project, run by the Python of its ``.venv`` (which ``make serve`` sets up)."""
    places = [clone / env / part for env in (".venv", "venv") for part in ("bin/python", "Scripts/python.exe")]
    python = next((place for place in places if place.is_file()), places[0])
    return LocalServer(python, clone / "monai_app", studies, port)


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def clean_environment(environment: Mapping[str, str], slicer_home: Path | None) -> dict[str, str]:
    """An environment for a program outside Slicer: no Python settings, no search path inside ``slicer_home``."""
    kept = {key: value for key, value in environment.items() if key not in _DROPPED}
    if slicer_home is None:
        return kept
    for key in _SEARCH_PATHS:
        parts = [part for part in kept.pop(key, "").split(os.pathsep) if part and not _inside(part, slicer_home)]
        if parts:
            kept[key] = os.pathsep.join(parts)
    return kept


def _inside(path: str, folder: Path) -> bool:
    root = os.path.normcase(os.path.realpath(folder))
    real = os.path.normcase(os.path.realpath(path))
    return real == root or real.startswith(root + os.sep)


class ServerProcess:
    """A server that was started here. Nothing here waits: `poll` once in a while while it is being stopped."""

    def __init__(self, server: LocalServer, log_file: Path, environment: Mapping[str, str]) -> None:
        """Start it. Raises OSError where the system refuses."""
        self.server, self.log_file = server, log_file
        self._stopping_since: float | None = None
        self._killed = False
        with open(log_file, "wb") as log:
            self._process = _start(server.command(), log, dict(environment))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to finish; `poll` kills it when it takes too long."""
        if self.alive and self._stopping_since is None:
            self._stopping_since = time.monotonic()
            self._signal(getattr(signal, "SIGTERM", None))

    def poll(self) -> bool:
        """Whether it is still there."""
        late = self._stopping_since is not None and time.monotonic() - self._stopping_since > STOP_S
        if late and self.alive and not self._killed:
            self._killed = True
            self._signal(getattr(signal, "SIGKILL", None))
        return self.alive

    def last_lines(self, count: int = 10) -> str:
        """The end of its log, to show why it did not start."""
        with open(self.log_file, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log_file) - 8192))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-count:])

    def _signal(self, number: int | None) -> None:
        """To the server and what it started; Windows knows only one way."""
        try:
            if os.name == "posix" and number is not None:
                os.killpg(self._process.pid, number)
            else:
                self._process.terminate()
        except OSError:
            pass


def _start(command: list[str], log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen:
    group = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x00000200 | 0x08000000}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, **group
    )
