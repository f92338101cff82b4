"""Servers for the client's tests: raw sockets that follow a script, and a small server of contract 3."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import lib_path

STACK = json.loads((lib_path.REPOSITORY / "bundle/configs/stack.json").read_text())["modalities"]
TAKEN = ["available", "undersampled", "noisy", "blurred", "lowres"]


def info_document() -> dict:
    """The reply to ``GET info`` of a server with the shipped stack."""
    keys = ("name", "kind", "raw_data", "units", "patterns", "display")
    stack = [
        {**{k: m[k] for k in keys}, "not_patterns": m.get("not_patterns", []), "caption": m.get("caption", "")}
        for m in STACK
    ]
    return {
        "protocol": 1,
        "version": "0.2.0",
        "stack": stack,
        "presets": {
            "fast": {"steps": 5, "samples": 1, "seconds_per_slice": {"images": 0.1, "raw": 1.0}},
            "balanced": {"steps": 10, "samples": 4, "seconds_per_slice": {"images": 2.0, "raw": 6.0}},
            "best": {"steps": 20, "samples": 8, "seconds_per_slice": {"images": 8.0, "raw": None}},
        },
        "samplers": {
            "mcs": {"steps": 10, "samples": 4, "eta": 0.85, "takes": TAKEN},
            "mds": {"steps": 150, "samples": 4, "takes": TAKEN},
            "mps": {"steps": 1000, "samples": 4, "takes": TAKEN[:3]},
            "cdm": {
                "steps": 20,
                "samples": 4,
                "takes": ["available"],
                "seconds_per_slice": 0.05,
                "weights": {"sha256": "cd" * 32, "version": "0.1.0"},
            },
        },
        "slice_mm": 5.0,
        "limits": {"upload_bytes": 2**20, "voxels": 2**27, "steps": 1000, "samples": 32, "queue": 2},
        "prior": {"sha256": "ab" * 32, "version": "0.2.0"},
        "device": "cpu",
        "accepts": {"images": [".nii", ".nii.gz"], "raw": [".h5", ".npy", ".npz"]},
        "demo_subject": None,
    }


class ScriptedServer:
    """Follows one script for each connection, in turn; a script gets the accepted socket."""

    def __init__(self, *scripts: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._scripts, self._tls = scripts, tls
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.released = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for script in self._scripts:
            with suppress(OSError):
                connection, _ = self._listener.accept()
                with connection:
                    if self._tls is not None:
                        connection = self._tls.wrap_socket(connection, server_side=True)
                    script(connection)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in accept
        self._listener.close()
        self._thread.join(5)

    def silent(self, connection: socket.socket) -> None:
        """Take everything and say nothing until the test is over."""
        self.released.wait(20)


def read_head(connection: socket.socket) -> bytes:
    """Everything up to the blank line after a request's headers, read byte by byte."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    return head


def answers(*pieces: bytes, pause_s: float = 0.0) -> Callable[[socket.socket], None]:
    """A script: read the request's head, send these pieces, hang up."""

    def script(connection: socket.socket) -> None:
        read_head(connection)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)

    return script


class Took(NamedTuple):
    """What a call took, in s: of a clock, and of the processor by this thread alone, whatever else runs there."""

    clock: float
    processor: float

    @classmethod
    def by(cls, call: Callable[[], object]) -> Took:
        began, worked = time.perf_counter(), time.thread_time()
        call()
        return cls(time.perf_counter() - began, time.thread_time() - worked)


def drive(thing: object, seconds: float = 10.0, pause_s: float = 0.002) -> list[Took]:
    """Tick an exchange or call until it is over → what each tick took."""
    took, deadline = [], time.monotonic() + seconds
    while not thing.is_over:
        assert time.monotonic() < deadline, f"not over after {seconds} s"
        took.append(Took.by(lambda: thing.tick(0.02)))
        time.sleep(pause_s)
    return took


def assert_never_waited(took: list[Took], least: int = 1) -> None:
    """No tick worked or waited long. ``least``: so many there were, where one that waits would have been most of it."""
    assert len(took) >= least, f"{len(took)} ticks, one of them of {max(took).clock:.2f} s"
    assert_brief("a tick", max(t.processor for t in took), max(t.clock for t in took))


def assert_brief(what: str, processor: float, clock: float) -> None:
    """That something in the panel's thread kept nobody from using the panel.

    Its own time on a processor counts: 0.1 s is the rule, and processors differ. By the clock other processes count as
    well, so that there only what waits for a server's usual patience is told apart.
    """
    assert processor < 0.4, f"{what} worked for {processor:.2f} s"
    assert clock < 3.0, f"{what} took {clock:.2f} s"


class FakeServer:
    """Contract 3 with one job at a time; the test says how it goes.

    Attributes:
        plan: statuses that successive polls get; the last one stays.
        volumes: results by name.
        received: the parts of each upload, by field or file name.
        refusals: (method, path's beginning) → (status, document), instead of an answer.
        log: method and path of every request.
    """

    def __init__(self, port: int = 0) -> None:
        self.plan: list[dict] = []
        self.volumes: dict[str, bytes] = {}
        self.received: list[dict[str, bytes]] = []
        self.refusals: dict[tuple[str, str], tuple[int, object]] = {}
        self.log: list[str] = []
        self.tokens: list[str | None] = []
        self.cancelled = False
        self.damage = 0  # downloads that are sent with a wrong byte
        self.hold_upload = threading.Event()  # an upload is answered once this is set
        self.hold_upload.set()
        self.slow_download = threading.Event()  # set: volumes come in small pieces
        self.info = info_document()
        self.connections: list[socket.socket] = []
        self.port = port
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        fake = self

        class Handler(_Handler):
            server_state = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=lambda: self._server.serve_forever(0.01), daemon=True).start()

    def stop(self) -> None:
        """As when the process is killed: open connections break off."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def results(self) -> list[dict]:
        return [
            {
                "name": name,
                "modality": name.split("/")[-1].split(".")[0].split("_")[0],
                "role": "sample" if "/" in name else "std" if "_std" in name else "mean",
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            for name, data in self.volumes.items()
        ]

    def status(self) -> dict:
        """What the next poll gets."""
        if self.cancelled:
            return job_status("cancelled")
        status = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        return {**status, "results": self.results()} if status["state"] == "done" else status


def job_status(state: str, **said: object) -> dict:
    """A reply to ``GET jobs/{id}``."""
    empty = {"stage": None, "step": 0, "total": None, "eta_s": None, "position": None, "error": None}
    return {"job_id": "j1", "state": state, "warnings": [], "results": [], **empty, **said}


@contextmanager
def fake_server():
    server = FakeServer()
    try:
        yield server
    finally:
        server.hold_upload.set()
        server.slow_download.clear()
        server.stop()


class _Handler(BaseHTTPRequestHandler):
    server_state: FakeServer

    def setup(self) -> None:
        super().setup()
        self.server_state.connections.append(self.connection)

    def log_message(self, *_: object) -> None:
        pass

    def _reply(self, status: int, document: object) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _handle(self, method: str) -> None:
        fake, path = self.server_state, self.path
        fake.log.append(f"{method} {path}")
        fake.tokens.append(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for (wanted, start), (status, document) in fake.refusals.items():
            if method == wanted and path.startswith(start):
                return self._reply(status, document)
        if path == "/any2all/v1/info":
            return self._reply(200, fake.info)
        if method == "POST":
            fake.received.append(_parts(self.headers["Content-Type"], body))
            fake.hold_upload.wait(10)
            return self._reply(202, {"job_id": "j1", "position": 1})
        if method == "DELETE":
            fake.cancelled = True
            return self._reply(200, job_status("running"))
        if "/results/" in path:
            return self._volume(path.split("/results/", 1)[1])
        if path == "/any2all/v1/jobs/j1":
            return self._reply(200, fake.status())
        return self._reply(404, {"detail": "Not Found"})

    def _volume(self, name: str) -> None:
        fake = self.server_state
        data = fake.volumes[name]
        if fake.damage:
            fake.damage -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for start in range(0, len(data), 1000):
            self.wfile.write(data[start : start + 1000])
            if fake.slow_download.is_set():
                time.sleep(0.05)

    def do_GET(self) -> None:
        with suppress(OSError):
            self._handle("GET")

    def do_POST(self) -> None:
        with suppress(OSError):
            self._handle("POST")

    def do_DELETE(self) -> None:
        with suppress(OSError):
            self._handle("DELETE")


def _parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """Parts of a form by file name or field name, as Python's own mail parser reads them."""
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts = {}
    for part in message.get_payload():
        name = part.get_filename() or part.get_param("name", header="content-disposition")
        parts[name] = part.get_payload(decode=True)
    return parts
