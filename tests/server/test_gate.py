"""The door: machine, web page, token, body; each rule alone."""

from __future__ import annotations

import asyncio
import json
import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from any2all.errors import Any2allError
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from lib import gate
from lib.gate import FRAMING_BYTES, Gate, is_loopback
from lib.logs import recent
from lib.replies import install
from lib.settings import Limits, ServerSettings
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket, WebSocketDisconnect

TOKEN = "0123456789abcdef-token"
HEALTH = "/any2all/v1/health"
BARE = {"type": "http", "method": "GET", "query_string": b"", "headers": [(b"host", b"localhost")]}
HERE = {"base_url": "http://127.0.0.1:8000", "client": ("127.0.0.1", 5000)}


def behind_the_gate(**settings) -> FastAPI:
    app = FastAPI()
    install(app)
    app.add_middleware(Gate, settings=ServerSettings(work_dir=Path("unused"), **settings))

    @app.api_route("/thing", methods=["GET", "PUT"])
    def thing() -> dict:
        return {"ok": True}

    @app.get(HEALTH)
    def health() -> dict:
        return {"ok": True}

    @app.post("/size")
    async def size(request: Request) -> dict:
        return {"bytes": len(await request.body())}

    @app.post("/document")
    def document(document: dict) -> dict:
        return {}

    @app.get("/broken")
    def broken() -> dict:
        raise ZeroDivisionError("Anna")

    @app.get("/late")
    def late() -> StreamingResponse:
        def parts() -> Iterator[bytes]:
            yield b"first"
            raise Any2allError("too late for words")

        return StreamingResponse(parts())

    @app.get("/gone")
    def gone() -> dict:
        raise ClientDisconnect

    @app.websocket("/socket")
    async def speak(websocket: WebSocket) -> None:
        await websocket.accept()

    return app


def caller(http: dict | None = None, **settings) -> TestClient:
    return TestClient(behind_the_gate(**settings), **{**HERE, **(http or {})})


def refused(reply, status: int, code: str) -> dict:
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.json().keys() == {"code", "message", "key", "value", "allowed", "hint"}
    return reply.json()


# --- the machine


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.8.9.1"])
def test_without_a_token_this_machine_gets_in(host: str) -> None:
    assert caller().get("/thing", headers={"host": host}).json() == {"ok": True}


@pytest.mark.parametrize(
    "host", ["testserver", "evil.example", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1", "", "127.0.0.1:x"]
)
def test_a_page_that_points_its_name_here_is_refused(host: str) -> None:
    assert refused(caller().get("/thing", headers={"host": host}), 403, "forbidden")["key"] == "Host"


@pytest.mark.parametrize("path", ["/thing", HEALTH, "/nowhere"])
@pytest.mark.parametrize(
    "http", [{"client": ("10.0.0.7", 5000)}, {"base_url": "http://10.0.0.1:8000"}, {"client": ("somebody", 1)}]
)
def test_without_a_token_other_machines_are_refused(path: str, http: dict) -> None:
    reply = caller(http).get(path, headers={"host": "localhost"})
    assert "ANY2ALL_TOKEN" in refused(reply, 403, "forbidden")["hint"]


@pytest.mark.parametrize(
    ("server", "client", "status"),
    [
        (("/run/any2all.sock", None), None, 200),
        (None, None, 200),
        (None, ("10.0.0.7", 5000), 403),
        (("10.0.0.1", 8000), None, 403),
        (("::1", 8000), ("::1", 5000), 200),
    ],
)
def test_a_unix_socket_is_this_machine_and_the_unknown_is_not(server, client, status: int) -> None:
    assert asyncio.run(asked({**BARE, "path": "/thing", "server": server, "client": client}))[0]["status"] == status


async def asked(scope: dict) -> list[dict]:
    """What the application sends to a request without a body, over no connection at all."""
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    await behind_the_gate()(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("::ffff:10.0.0.1", False),
        ("192.168.0.1", False),
        ("myhost", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


# --- the token


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_lets_other_machines_in(scheme: str) -> None:
    client = caller({"client": ("10.0.0.7", 5000), "base_url": "http://server.example"}, token=TOKEN)
    assert client.get("/thing", headers={"authorization": f"{scheme} {TOKEN}"}).json() == {"ok": True}


@pytest.mark.parametrize(
    "given", [None, "", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", f"Bearer {TOKEN[:-1]}"]
)
@pytest.mark.parametrize("path", ["/thing", "/nowhere", HEALTH + "/", "/any2all/v1/../v1/health/x"])
def test_without_the_token_nobody_gets_in(given: str | None, path: str) -> None:
    reply = caller(token=TOKEN).get(path, headers={} if given is None else {"authorization": given})
    assert TOKEN not in json.dumps(refused(reply, 401, "unauthorized"))
    assert reply.headers["www-authenticate"] == "Bearer"


def test_a_token_of_other_letters_is_wrong_and_not_an_error() -> None:
    refused(caller(token=TOKEN).get("/thing", headers={"authorization": b"Bearer \xe9\xff"}), 401, "unauthorized")


def test_two_tokens_are_none() -> None:
    headers = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer other")]
    refused(caller(token=TOKEN).get("/thing", headers=headers), 401, "unauthorized")


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compare(a: bytes, b: bytes) -> bool:
        asked.append((a, b))
        return True

    monkeypatch.setattr(gate.hmac, "compare_digest", compare)
    assert caller(token=TOKEN).get("/thing", headers={"authorization": "Bearer guess"}).status_code == 200
    assert asked == [(b"guess", TOKEN.encode())]


def test_health_needs_no_token() -> None:
    assert caller(token=TOKEN).get(HEALTH).status_code == 200
    behind_proxy = TestClient(behind_the_gate(token=TOKEN), root_path="/mri", **HERE)
    assert behind_proxy.get("/mri" + HEALTH).status_code == 200


def test_a_failed_attempt_is_logged_without_the_token() -> None:
    caller({"client": ("10.0.0.7", 5000)}, token=TOKEN).get("/thing", headers={"authorization": "Bearer my-guess"})
    line = json.loads(recent(1)[0])
    assert (line["event"], line["code"], line["peer"], line["status"]) == ("refused", "unauthorized", "10.0.0.7", 401)
    assert "my-guess" not in recent(1)[0] and TOKEN not in recent(1)[0]


# --- web pages


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9999"])
def test_other_pages_may_not_ask(method: str, origin: str) -> None:
    headers = {"origin": origin, "access-control-request-method": "PUT"}
    for client in (caller(), caller(cors_origins=("https://viewer.example",))):
        reply = client.request(method, "/thing", headers=headers)
        assert refused(reply, 403, "forbidden")["key"] == "Origin"
        assert "access-control-allow-origin" not in reply.headers


def test_the_servers_own_pages_may_ask() -> None:
    reply = caller().put("/thing", headers={"origin": "http://127.0.0.1:8000"})
    assert reply.status_code == 200 and "access-control-allow-origin" not in reply.headers


def test_an_allowed_page_gets_in_with_the_token_and_hears_its_refusals() -> None:
    client, origin = caller(token=TOKEN, cors_origins=("https://viewer.example",)), "https://viewer.example"
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = client.options("/thing", headers={"origin": origin, **asked})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, origin)
    for headers, status in [({"authorization": f"Bearer {TOKEN}"}, 200), ({}, 401)]:
        reply = client.get("/thing", headers={"origin": origin, **headers})
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, origin)
        assert "access-control-allow-credentials" not in reply.headers


def test_web_sockets_are_refused() -> None:
    with pytest.raises(WebSocketDisconnect) as caught, caller(token=TOKEN).websocket_connect("/socket"):
        pass
    assert caught.value.code == 1008


@pytest.mark.parametrize("path", ["/thing", "/nowhere", "/broken"])
def test_every_answer_carries_the_headers(path: str) -> None:
    reply = caller().get(path)
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-security-policy"] == "default-src 'none'"
    assert reply.headers["referrer-policy"] == "no-referrer"


# --- the body


def test_a_body_within_the_limits_arrives_whole() -> None:
    client = caller(limits=Limits(upload_bytes=100))
    assert client.post("/size", content=b"x" * (FRAMING_BYTES + 100)).json() == {"bytes": FRAMING_BYTES + 100}


@pytest.mark.parametrize("path", ["/size", "/document"])  # one reads the body itself, for one the framework does
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(chunked: bool, path: str) -> None:
    body = b"x" * (FRAMING_BYTES + 101)
    content = iter([body[:1000], body[1000:]]) if chunked else body
    reply = caller(limits=Limits(upload_bytes=100)).post(path, content=content)
    assert refused(reply, 413, "too_large")["allowed"] == "100 bytes"


def test_a_declared_length_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate._Body, "_next_piece", lambda self: pytest.fail("was read"))
    refused(caller().post("/size", content=b"x", headers={"content-length": str(2**40)}), 413, "too_large")


@pytest.mark.parametrize("length", ["-1", "1e3", "²", "1" * 30])
def test_a_length_has_to_be_a_number(length: str) -> None:
    headers = {"content-length": length.encode("latin-1")}
    refused(caller().post("/size", content=b"x", headers=headers), 422, "invalid_request")


def test_compressed_requests_are_refused() -> None:
    headers = {"content-encoding": "gzip"}
    refused(caller().post("/size", content=b"x", headers=headers), 415, "unsupported")


def test_the_unforeseen_and_the_disconnect_end_at_the_gate() -> None:
    reply = caller().get("/broken")  # the client raises what passes the middleware
    assert reply.status_code == 500 and "Anna" not in reply.text
    assert asyncio.run(asked({**BARE, "path": "/gone"})) == []


# --- on a real connection


@pytest.fixture
def port(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A uvicorn server of the test application on loopback, with limits of seconds and 1000 bytes."""
    monkeypatch.setattr(gate, "LINGER_SECONDS", 0.5)
    limits = Limits(upload_bytes=1000, idle_seconds=1, upload_seconds=2)
    config = uvicorn.Config(behind_the_gate(limits=limits), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    with caplog.at_level(logging.INFO):
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def talk(port: int, head: str, pieces: list[tuple[float, bytes]]) -> tuple[bytes, float]:
    """Send a request piece by piece, with pauses (in s), until the server answers → all that it says, seconds.

    Raises TimeoutError where it says nothing for 8 s.
    """
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=8) as connection:
        connection.sendall(f"{head} HTTP/1.1\r\nHost: localhost\r\n".encode())
        try:
            for pause, piece in pieces:
                if select.select([connection], [], [], pause)[0]:
                    break
                connection.sendall(piece)
        except OSError:
            pass
        heard = b""
        while part := connection.recv(65536):
            heard += part
    return heard, time.monotonic() - start


def test_a_client_that_stops_sending_is_cut_off(port: int) -> None:
    heard, _ = talk(port, "POST /size", [(0, b"Content-Length: 900\r\n\r\nabc")])
    assert heard.startswith(b"HTTP/1.1 408") and b'"key":"idle_seconds"' in heard
    assert b"connection: close" in heard.lower()


def test_a_client_that_drips_is_cut_off(port: int, caplog: pytest.LogCaptureFixture) -> None:
    drops = [(0.4, b"x")] * 40
    heard, seconds = talk(port, "POST /size", [(0, b"Content-Length: 900\r\n\r\n"), *drops])
    assert heard.startswith(b"HTTP/1.1 408") and b'"key":"upload_seconds"' in heard
    assert 1.9 < seconds < 8  # of the 16 that all drops take
    assert "Traceback" not in caplog.text and "ASGI" not in caplog.text


def test_a_client_hears_413_while_it_still_sends(port: int) -> None:
    much = b"x" * (2 * FRAMING_BYTES)
    heard, _ = talk(port, "POST /size", [(0, b"Content-Length: %d\r\n\r\n%s" % (len(much), much))])
    assert heard.startswith(b"HTTP/1.1 413") and b'"code":"too_large"' in heard


def test_dripping_at_a_route_that_reads_no_body_ends_too(port: int) -> None:
    heard, seconds = talk(port, "PUT /thing", [(0, b"Content-Length: 900\r\n\r\n"), *[(0.5, b"x")] * 20])
    assert seconds < 5  # of 10
    assert heard.startswith(b"HTTP/1.1 200") and heard.endswith(b'{"ok":true}')


def test_a_client_that_hangs_up_leaves_no_traceback(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc")
        time.sleep(0.2)
    time.sleep(0.3)
    assert "Traceback" not in caplog.text and "Exception" not in caplog.text


def test_an_error_after_the_first_bytes_closes_the_connection(port: int, caplog: pytest.LogCaptureFixture) -> None:
    heard, _ = talk(port, "GET /late", [(0, b"\r\n")])
    assert b"first" in heard and not heard.endswith(b"0\r\n\r\n")
    assert "Traceback" not in caplog.text
