"""Where a real uvicorn binds and how it ends, decided while it starts up."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import uvicorn
from any2all.errors import Any2allError
from lib.binding import on_shutdown, running_server, secure_binding
from lib.logs import recent
from lib.settings import Limits, ServerSettings
from server_builders import free_port

TOKEN = "0123456789abcdef-token"
LIBRARY = Path(__file__).parents[2] / "monai_app"

PROGRAM = """
import contextlib, os, pathlib, sys, time, uvicorn
from fastapi import FastAPI
from lib.binding import on_shutdown, running_server, secure_binding
from lib.settings import ServerSettings

port, notes = int(sys.argv[1]), pathlib.Path(sys.argv[2])

def stop():
    time.sleep(0.5)
    with notes.open("a") as file:
        file.write("stopped ")

@contextlib.asynccontextmanager
async def lifespan(app):
    server = running_server()
    settings = ServerSettings.read({"work_dir": str(notes.parent)}, os.environ, port)
    secure_binding(server, sys.argv[3:], settings)
    on_shutdown(server, stop)
    app.state.server = server
    yield
    with notes.open("a") as file:
        file.write("lifespan ended ")

app = FastAPI(lifespan=lifespan)

@app.get("/where")
def where():
    return [list(s.getsockname()) for server in app.state.server.servers for s in server.sockets]

if __name__ == "__main__":
    host = sys.argv[4] if "--host" in sys.argv else "0.0.0.0"
    uvicorn.run("program:app", host=host, port=port)
"""


class Started:
    """A server process of `PROGRAM` with MONAI Label's defaults."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        (folder / "program.py").write_text(PROGRAM)
        self.port, self.notes = port, folder / "notes"
        paths = os.pathsep.join(map(str, [folder, LIBRARY]))
        self.process = subprocess.Popen(
            [sys.executable, folder / "program.py", str(self.port), self.notes, *arguments],
            env={**os.environ, "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            text=True,
        )

    def get(self, path: str) -> httpx.Response:
        for _ in range(200):
            try:
                return httpx.get(f"http://127.0.0.1:{self.port}{path}")
            except httpx.ConnectError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise AssertionError(self.process.communicate()[1])

    def end(self, sign: signal.Signals | None = None) -> str:
        if sign is not None:
            self.process.send_signal(sign)
        return self.process.communicate(timeout=20)[1]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Started]:
    begun: list[Started] = []

    def begin(*arguments: str, port: int | None = None) -> Started:
        begun.append(Started(tmp_path, port or free_port(), *arguments))
        return begun[-1]

    yield begin
    for started in begun:
        started.process.kill()
        started.process.communicate()


def server(**config) -> uvicorn.Server:
    made = uvicorn.Server(uvicorn.Config("nowhere:app", log_config=None, **{"host": "0.0.0.0", **config}))
    made.config.encoded_headers = [(b"server", b"uvicorn"), (b"x-own", b"1")]  # as Config.load() leaves them
    return made


def settings(token: str | None = None) -> ServerSettings:
    return ServerSettings(work_dir=Path("unused"), token=token, limits=Limits(shutdown_seconds=7))


def test_the_default_host_becomes_loopback_and_sigterm_stops_first(start: Callable[..., Started]) -> None:
    started = start()
    reply = started.get("/where")
    assert reply.json() == [["127.0.0.1", started.port]]
    assert "server" not in reply.headers
    started.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert started.get("/where").status_code == 200  # polls are answered while the job is being stopped
    started.end()
    assert started.notes.read_text() == "stopped lifespan ended "
    assert started.process.returncode == -signal.SIGTERM


def test_a_named_host_stays_with_a_token_and_sigint_stops_first(
    start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANY2ALL_TOKEN", TOKEN)
    started = start("--host", "0.0.0.0")
    assert started.get("/where").json() == [["0.0.0.0", started.port]]
    started.end(signal.SIGINT)
    assert started.notes.read_text() == "stopped lifespan ended "


def test_a_server_that_cannot_bind_stops_as_well(start: Callable[..., Started]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        started = start(port=taken.getsockname()[1])
        started.end()
    assert started.notes.read_text() == "lifespan ended stopped "


@pytest.mark.parametrize("arguments", [[], ["-p", "80"], ["--app", "monai_app", "--studies", "x"]])
def test_a_host_that_nobody_named_is_loopback(arguments: list[str]) -> None:
    made = server()
    assert secure_binding(made, arguments, settings(TOKEN)) == made.config.host == "127.0.0.1"


@pytest.mark.parametrize("arguments", [["-i", "0.0.0.0"], ["-i0.0.0.0"], ["--host", "0"], ["--host=0"], ["--ho", "0"]])
def test_a_host_that_was_named_stays(arguments: list[str]) -> None:
    assert secure_binding(server(), arguments, settings(TOKEN)) == "0.0.0.0"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "myhost"])
def test_a_host_that_others_reach_wants_a_token(host: str) -> None:
    with pytest.raises(Any2allError) as caught:
        secure_binding(server(host=host), ["--host", host], settings())
    assert caught.value.code == "invalid_setting"
    assert "ANY2ALL_TOKEN" in caught.value.hint and "127.0.0.1" in caught.value.hint
    assert secure_binding(server(host=host), ["--host", host], settings(TOKEN)) == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_wants_no_token(host: str) -> None:
    assert secure_binding(server(host=host), ["-i", host], settings()) == host


@pytest.mark.parametrize("config", [{"workers": 2}, {"reload": True}])
def test_one_process_owns_the_device(config: dict) -> None:
    with pytest.raises(Any2allError, match="one process owns the device"):
        secure_binding(server(**config), [], settings(TOKEN))


def test_several_workers_by_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    with pytest.raises(Any2allError, match="one process owns the device"):
        secure_binding(server(), [], settings(TOKEN))


def test_the_server_does_not_say_its_name_and_waits_for_nobody_for_ever() -> None:
    made, patient = server(), server(timeout_graceful_shutdown=99)
    for one in (made, patient):
        secure_binding(one, [], settings())
    assert made.config.encoded_headers == [(b"x-own", b"1")] and made.config.server_header is False
    assert (made.config.timeout_graceful_shutdown, patient.config.timeout_graceful_shutdown) == (7, 99)


def test_the_running_server_is_found_among_others() -> None:
    gc.collect()
    idle, ended, serving = server(), server(), server()
    assert running_server() is None
    ended.lifespan = serving.lifespan = object()
    ended.should_exit = ended.started = True
    serving.should_exit = True  # a signal came while it starts up: it will bind all the same
    assert running_server() is serving
    idle.lifespan = object()
    with pytest.raises(Any2allError, match="several servers"):
        running_server()


def test_stopping_happens_once_and_never_hinders(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, at_exit = [], []
    monkeypatch.setattr("lib.binding.atexit.register", at_exit.append)

    def stop() -> None:
        calls.append("stop")
        raise OSError("Anna")

    on_shutdown(None, stop)
    for _ in range(2):
        at_exit[0]()
    assert calls == ["stop"]
    assert json.loads(recent(1)[0])["error"] == "OSError" and "Anna" not in recent(1)[0]
