"""Errors in words: the six fields, the status, nothing of the server's inside."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from any2all.errors import Any2allError
from fastapi import FastAPI, HTTPException, UploadFile
from fastapi.testclient import TestClient
from lib.logs import recent
from lib.replies import OTHER_STATUS, STATUS, Json, error_reply, install, without_paths
from pydantic import BaseModel, ConfigDict, Field

FIELDS = {"code", "message", "key", "value", "allowed", "hint"}


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = Field(ge=1, le=1000)
    name: str = ""


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    app = FastAPI()
    install(app, tmp_path)

    @app.post("/order")
    def order(order: Order) -> dict:
        return {}

    @app.post("/upload")
    def upload(file: UploadFile) -> dict:
        return {}

    @app.get("/raise/{kind}")
    def fail(kind: str) -> dict:
        raise {
            "ours": Any2allError("no such job", key="id", value="x" * 500, code="unknown_job"),
            "path": Any2allError(f"cannot read {tmp_path}/p01/T1.nii", value=str(tmp_path), allowed=[f"{tmp_path}/a"]),
            "busy": HTTPException(429, "secret detail"),
            "foreign": ZeroDivisionError(f"Anna in {tmp_path}"),
            "memory": MemoryError(),
            "full": OSError(errno.ENOSPC, "No space left", str(tmp_path)),
            "teapot": HTTPException(418, "secret detail"),
            "five": HTTPException(500, "secret detail"),
            "gateway": HTTPException(502, "secret detail"),
        }[kind]

    return TestClient(app, raise_server_exceptions=False)


def complaint(reply) -> dict:
    body = reply.json()
    assert body.keys() == FIELDS
    assert body["code"] in STATUS and STATUS[body["code"]] == reply.status_code
    return body


def test_json_takes_what_json_cannot() -> None:
    content = {"a": float("nan"), "b": np.float32("inf"), "c": "\ud800", "d": np.arange(2), "e": Path("/srv/x/T1.nii")}
    body = Json(content).body
    assert json.loads(body) == {"a": None, "b": None, "c": "\ud800", "d": [0, 1], "e": "T1.nii"}
    assert body.isascii()


@pytest.mark.parametrize(
    ("code", "status"),
    [("too_large", 413), ("queue_full", 429), ("storage", 507), ("failed", 503), ("unauthorized", 401), ("new", 422)],
)
def test_codes_have_their_status(code: str, status: int) -> None:
    reply = error_reply(Any2allError("no", code=code))
    assert reply.status_code == status
    assert ("retry-after" in reply.headers) == (status == 429)
    assert reply.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert OTHER_STATUS == 422


def test_our_error_reaches_the_client_in_short(client: TestClient) -> None:
    body = complaint(client.get("/raise/ours"))
    assert (body["code"], body["key"], len(body["value"])) == ("unknown_job", "id", 80)


def test_server_paths_stay_here(client: TestClient, tmp_path: Path) -> None:
    reply = client.get("/raise/path")
    body = complaint(reply)
    assert body["message"] == "cannot read p01/T1.nii"
    assert (body["value"], body["allowed"]) == ("<server>", ["a"])
    assert str(tmp_path) not in reply.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/studies/p01/t1.nii", "p01/t1.nii"),
        ("in '/srv/studies'", "in '<server>'"),
        ("in /srv/studies.", "in <server>."),
        ("in /srv/studies/", "in <server>"),
        ("/srv/studies_old/a", "/srv/studies_old/a"),
        ("/mnt/srv/studies/a", "/mnt/srv/studies/a"),
        ("/srv/studies/inner/a and /srv/studies/b", "a and b"),
    ],
)
def test_without_paths(text: str, expected: str) -> None:
    assert without_paths(text, "/srv/studies", "/srv/studies/inner") == expected


def test_without_paths_leaves_the_root_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert without_paths("/a / b/c", "/", "b") == "/a / b/c"
    assert without_paths(f"{tmp_path}/real/x", tmp_path / "link") == "x"


@pytest.mark.parametrize(
    ("sent", "key", "value", "allowed"),
    [
        ({"steps": "many" * 100}, "steps", "many" * 19 + "man…", None),
        ({"steps": 0}, "steps", 0, "at least 1"),
        ({"steps": 1001}, "steps", 1001, "at most 1000"),
        ({"steps": 10**200}, "steps", "a number of more than 70 digits", "at most 1000"),
        ({"name": "a"}, "steps", None, None),
        ({"steps": 1, "x" * 300: 1}, "x" * 199 + "…", 1, None),
    ],
)
def test_a_wrong_request_is_told_its_key(client: TestClient, sent: dict, key: str, value, allowed) -> None:
    body = complaint(client.post("/order", json=sent))
    assert body["code"] == "invalid_request"
    assert (body["key"], body["value"], body["allowed"]) == (key, value, allowed)


def test_a_body_that_is_no_json_or_no_form(client: TestClient) -> None:
    body = complaint(client.post("/order", content=b"{nonsense", headers={"content-type": "application/json"}))
    assert (body["code"], body["key"], body["message"]) == ("invalid_request", "body", "this is not JSON")
    body = complaint(client.post("/upload", content=b"abc", headers={"content-type": "multipart/form-data"}))
    assert (body["code"], body["hint"]) == ("invalid_request", "Missing boundary in multipart.")


def test_http_errors_in_our_words(client: TestClient) -> None:
    assert complaint(client.get("/nowhere"))["code"] == "not_found"
    reply = client.put("/order")
    assert (complaint(reply)["allowed"], reply.headers["allow"]) == ("POST", "POST")
    for kind, code in [("busy", "queue_full"), ("teapot", "invalid_request"), ("gateway", "unavailable")]:
        reply = client.get(f"/raise/{kind}")
        assert complaint(reply)["code"] == code
        assert "secret" not in reply.text


@pytest.mark.parametrize("kind", ["foreign", "five"])
def test_the_unforeseen_has_an_id_and_no_details(client: TestClient, tmp_path: Path, kind: str) -> None:
    reply = client.get(f"/raise/{kind}")
    body = complaint(reply)
    assert (reply.status_code, body["code"], body["key"]) == (500, "internal", "error_id")
    line = json.loads(recent(1)[0])
    assert line["error_id"] == body["value"] and line["path_template"] == "/raise/{kind}"
    assert line["error"] in ("ZeroDivisionError", "HTTPException") and "test_replies.py" in line["where"]
    for text in (reply.text, recent(1)[0]):
        assert "Anna" not in text and str(tmp_path) not in text and "secret" not in text
    assert client.get(f"/raise/{kind}").json()["value"] != body["value"]


def test_the_machines_limits_are_no_500(client: TestClient) -> None:
    assert complaint(client.get("/raise/memory"))["code"] == "out_of_memory"
    assert complaint(client.get("/raise/full"))["code"] == "storage"


def test_a_full_disk_during_an_upload(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(self: UploadFile, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("starlette.datastructures.UploadFile.write", full)
    assert complaint(client.post("/upload", files={"file": b"abc"}))["code"] == "storage"
