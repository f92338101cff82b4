"""A real server process: it lives in another environment than these tests, and is started by that environment's Python.

``ANY2ALL_SERVER_PYTHON`` names it; without it, the repository's own ``.venv`` is used where there is one.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lib_path

TINY_PRIOR = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("fixtures", sys.argv[1])
fixtures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fixtures)
fixtures.write_tiny_model(pathlib.Path(sys.argv[2]))
"""


def server_python() -> Path | None:
    """The Python that has the server's packages, or None."""
    named = os.environ.get("ANY2ALL_SERVER_PYTHON")
    python = Path(named) if named else lib_path.REPOSITORY / ".venv" / "bin" / "python"
    return python if python.is_file() else None


def write_tiny_prior(python: Path, folder: Path) -> Path:
    """An untrained prior of the shipped stack, with which a run takes seconds → its weights file."""
    folder.mkdir()
    fixtures = lib_path.REPOSITORY / "tests" / "conftest.py"
    subprocess.run([str(python), "-c", TINY_PRIOR, str(fixtures), str(folder)], check=True, timeout=120)
    return folder / "model.pt"


@contextmanager
def real_server(
    python: Path, folder: Path, model: Path | None = None, threads: int = 1, port: int = 0
) -> Iterator[str]:
    """Starts the server on this computer → its address; it may need half a minute until it answers.

    Its study store has the demonstration subject, as with ``make serve``.

    Args:
        python: of the server's environment.
        folder: for its studies, its work and its log.
        model: another prior than the released one.
        threads: that its computing may use.
        port: a wish; another one is taken when it is in use.
    """
    from Any2allLib.launch import LocalServer, ServerProcess, clean_environment

    (folder / "work").mkdir(parents=True)
    demonstration = lib_path.REPOSITORY / "bundle" / "demo"
    shutil.copytree(demonstration, folder / "studies" / "demonstration", ignore=shutil.ignore_patterns("truth"))
    settings = {"ANY2ALL_WORK_DIR": str(folder / "work"), "OMP_NUM_THREADS": str(threads)}
    if model is not None:
        settings["ANY2ALL_MODEL_FILE"] = str(model)
    server = LocalServer(python, lib_path.REPOSITORY / "monai_app", folder / "studies", _free_port(port))
    log = folder / "server.log"
    process = ServerProcess(server, log, {**clean_environment(os.environ, None), **settings})
    try:
        yield server.url
    except BaseException:
        print(process.last_lines(30))
        raise
    finally:
        process.stop()
        while process.poll():
            time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port(wish: int) -> int:
    """A port of those that nobody is given who asks for any: the server needs time until it listens there."""
    for port in (wish, *random.SystemRandom().sample(range(20_000, 32_000), 50)):
        with socket.socket() as probe, suppress(OSError):
            if port:
                probe.bind(("127.0.0.1", port))
                return port
    raise OSError("no port is free")
