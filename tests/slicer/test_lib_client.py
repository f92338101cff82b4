"""Calls of contract 3: addresses, tokens, what the server says, and every failure as a sentence."""

from __future__ import annotations

import copy
import json
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path  # noqa: F401
from Any2allLib.client import Client
from Any2allLib.failures import ProtocolError, ServerError, TransportError
from Any2allLib.protocol import JobStatus, ServerInfo, SubjectInfo, Submitted, compatibility, parse_subjects
from lib_servers import ScriptedServer, answers, drive, fake_server, info_document, job_status


def finished(call):
    drive(call)
    return call


def reply(status: int, document: object, headers: str = "") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n%s" % (status, headers.encode(), len(body), body)


def failure(status: int, document: object, call: str = "info", token: str = "", headers: str = "", **arguments):
    """What a client says of one reply."""
    with ScriptedServer(answers(reply(status, document, headers))) as server:
        return finished(getattr(Client(server.url, token), call)(**arguments)).failure


# -- addresses and tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, url, loopback",
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", True),
        (" localhost:8000/ ", "http://localhost:8000", True),
        ("https://Server.Example:443/any/prefix/", "https://server.example/any/prefix", False),
        ("http://[::1]:9", "http://[::1]:9", True),
        ("http://127.8.9.1", "http://127.8.9.1", True),
        ("http://10.0.0.1", "http://10.0.0.1", False),
        ("http://127.0.0.1.example", "http://127.0.0.1.example", False),
        ("http://localhost.example", "http://localhost.example", False),
        ("http://münchen.example", "http://xn--mnchen-3ya.example", False),
    ],
)
def test_addresses(text, url, loopback):
    client = Client(text)
    assert (str(client.url), client.is_loopback) == (url, loopback)
    assert client.is_private == (loopback or url.startswith("https"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "Enter the server's address"),
        ("ftp://server", "only http:// and https://"),
        ("file:///etc/passwd", "only http:// and https://"),
        ("http://me:secret@server", "user or password"),
        ("http://me@server", "user or password"),
        ("http://server:port", "port"),
        ("http://server:99999", "port"),
        ("http://server:0", "port"),
        ("http://", "host name"),
        ("http://server/a?b=c", "'?'"),
        ("http://ser ver", "blanks"),
        ("http://server\r\nX: y", "blanks"),
        ("http://[::1", "cannot be read"),
    ],
)
def test_addresses_that_cannot_be_used(text, words):
    with pytest.raises(ValueError) as caught:
        Client(text)
    assert words in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("token", ["two words", "line\nfeed", "schlüssel"])
def test_tokens_that_cannot_be_used(token):
    with pytest.raises(ValueError, match="token"):
        Client("http://127.0.0.1", token)


def test_token_is_sent_only_when_there_is_one():
    with fake_server() as server:
        finished(Client(server.url).info())
        finished(Client(server.url, "a-token").info())
    assert server.tokens == [None, "Bearer a-token"]


def test_prefix_and_names_are_part_of_the_path():
    heads = []
    for call in ("status", "cancel"):
        with ScriptedServer(lambda connection: heads.append(connection.recv(10_000))) as server:
            finished(getattr(Client(f"{server.url}/pre/fix"), call)("x/../y"))
    assert heads[0].startswith(b"GET /pre/fix/any2all/v1/jobs/x%2F..%2Fy HTTP/1.1")
    assert heads[1].startswith(b"DELETE /pre/fix/any2all/v1/jobs/x%2F..%2Fy HTTP/1.1")


# -- what the server says ----------------------------------------------------------------------------------------------


def test_info_is_read():
    with fake_server() as server:
        info = finished(Client(server.url).info()).value
    assert info.names == ("T1", "T2", "T2FLAIR", "T2star", "CT", "PET")
    assert info.modality("CT").display.window == (-40.0, 120.0) and not info.modality("CT").raw_data
    assert "haemorrhage" in info.modality("CT").caption
    assert info.presets["best"].seconds_per_slice == {"images": 8.0, "raw": None}
    assert (info.samplers["mps"].steps, info.limits["steps"], info.slice_mm) == (1000, 1000, 5.0)
    assert info.accepts["raw"] == (".h5", ".npy", ".npz") and info.demo_subject is None
    assert compatibility(info) is None
    with pytest.raises(KeyError):
        info.modality("ASL")


def test_unknown_keys_are_ignored_and_optional_ones_may_be_absent():
    document = info_document()
    document["new"] = document["stack"][0]["new"] = document["presets"]["fast"]["new"] = {"a": 1}
    document["presets"]["fast"]["seconds_per_slice"] = None
    del document["demo_subject"], document["accepts"], document["stack"][0]["caption"]
    info = ServerInfo.parse(document)
    assert info.presets["fast"].seconds_per_slice == {"images": None, "raw": None}
    assert info.stack[0].caption == "" and info.accepts == {}


RESULT = {"name": "CT.nii.gz", "modality": "CT", "role": "mean", "sha256": "0" * 64}
NEEDED = [
    ("protocol",), ("version",), ("stack",), ("presets",), ("samplers",), ("slice_mm",), ("limits",), ("prior",),
    ("prior", "sha256"), ("stack", 0, "name"), ("stack", 0, "kind"), ("stack", 0, "raw_data"),
    ("stack", 0, "patterns"), ("stack", 0, "display"), ("stack", 0, "display", "window"), ("presets", "fast", "steps"),
    ("samplers", "mcs", "samples"),
]  # fmt: skip


WRONG = [(path, wrong) for path in NEEDED for wrong in ("missing", True, [1])]
WRONG.remove((("stack", 0, "raw_data"), True))  # which is right


@pytest.mark.parametrize("path, wrong", WRONG, ids=str)
def test_what_info_needs_is_named_when_it_is_wrong(path, wrong):
    document = copy.deepcopy(info_document())
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if wrong == "missing":
        del parent[path[-1]]
    else:
        parent[path[-1]] = wrong
    with pytest.raises(ProtocolError) as caught:
        ServerInfo.parse(document)
    assert str(path[-1]) in caught.value.sentence()
    assert caught.value.sentence().startswith("The server's answer is not understood.")


@pytest.mark.parametrize("document", [None, [], "text", 1, {"protocol": 1.5, "version": "x"}])
def test_no_info_at_all(document):
    with pytest.raises(ProtocolError):
        ServerInfo.parse(document)


def test_patterns_that_are_none_are_refused():
    document = info_document()
    document["stack"][0]["patterns"] = ["t1", "(t1"]
    with pytest.raises(ProtocolError, match=r"\(t1"):
        ServerInfo.parse(document)


ODD = [None, True, -1, 10**400, 1e308, "", "x" * 1000, "../..", [], [[]], {}, {"a": {}}, [None], ["("]]


def places(document: object, path: tuple = ()) -> list[tuple]:
    """Paths of everything inside a JSON document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))][0 if path else 1 :]


@pytest.mark.parametrize(
    "read, document",
    [
        (ServerInfo.parse, info_document()),
        (JobStatus.parse, job_status("done", results=[RESULT], error={"code": "x", "message": "y", "hint": "z"})),
        (Submitted.parse, {"job_id": "a", "position": 1}),
    ],
)
def test_odd_values_anywhere_are_read_or_refused_in_words(read, document):
    for path in places(document):
        for odd in ODD:
            changed = parent = copy.deepcopy(document)
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = odd
            try:
                read(changed)
            except ProtocolError as refusal:
                assert refusal.sentence()


@pytest.mark.parametrize("protocol, words", [(0, "too old"), (2, "Update the Any2all extension")])
def test_other_protocols_are_told_apart_without_reading_on(protocol, words):
    info = ServerInfo.parse({"protocol": protocol, "version": "9.9", "stack": "quite different"})
    assert words in compatibility(info) and "9.9" in compatibility(info)


def test_job_status_is_read():
    error = {"code": "out_of_memory", "message": "the device has too little memory", "hint": "use fast", "key": None}
    status = JobStatus.parse(job_status("failed", step=3, total=40, eta_s=1.5, error=error, warnings=["w"]))
    assert (status.state, status.step, status.total, status.eta_s, status.warnings) == ("failed", 3, 40, 1.5, ("w",))
    assert status.error.sentence() == "The device has too little memory. Use fast."
    assert status.is_over and not JobStatus.parse(job_status("running")).is_over


@pytest.mark.parametrize(
    "change, words",
    [
        ({"state": "thinking"}, "thinking"),
        ({"state": None}, "lacks 'state'"),
        ({"step": "3"}, "job.step"),
        ({"eta_s": float("nan")}, "job.eta_s"),
        ({"results": [{**RESULT, "name": "../../x"}]}, "file name"),
        ({"results": [{**RESULT, "name": "a/b/c.nii.gz"}]}, "file name"),
        ({"results": [{**RESULT, "name": "../c.nii.gz"}]}, "file name"),
        ({"results": [{**RESULT, "name": "/c.nii.gz"}]}, "file name"),
        ({"results": [{**RESULT, "role": "label"}]}, "label"),
        ({"results": [{**RESULT, "sha256": "0"}]}, "checksum"),
    ],
)
def test_job_status_that_is_not_understood(change, words):
    with pytest.raises(ProtocolError) as caught:
        JobStatus.parse({**job_status("running"), **change})
    assert words in caught.value.sentence()


def test_job_ids_and_subjects_are_plain():
    with pytest.raises(ProtocolError, match="job_id"):
        Submitted.parse({"job_id": "../x"})
    listed = [{"subject": "p01"}, {"subject": "p02", "modalities": ["T1", "CT"], "problem": "no T1", "results": []}]
    assert parse_subjects({"subjects": listed}) == (
        SubjectInfo("p01"),
        SubjectInfo("p02", ("T1", "CT"), "no T1"),
    )
    with pytest.raises(ProtocolError):
        parse_subjects({"subjects": [1]})


def test_a_server_that_is_starting_knows_no_device_and_no_seconds():
    document = {**info_document(), "device": None, "state": "starting"}
    document["presets"]["fast"]["seconds_per_slice"] = {"images": None, "raw": None}
    info = ServerInfo.parse(document)
    assert (info.device, info.state) == ("", "starting")
    assert info.presets["fast"].seconds_per_slice["images"] is None


def test_submit_sends_the_study_and_its_files(tmp_path):
    (tmp_path / "x").write_bytes(b"voxels")
    with fake_server() as server:
        call = finished(Client(server.url).submit({"version": 1}, {"T1.nii.gz": tmp_path / "x"}))
        by_subject = finished(Client(server.url).submit_subject("p01"))
        finished(Client(server.url).submit_subject("p01", {"preset": "fast"}))
    assert call.value == Submitted("j1", 1) and call.bytes_sent == call.bytes_total > 6
    assert server.received[0] == {"study": b'{"version": 1}', "T1.nii.gz": b"voxels"}
    assert by_subject.value.job_id == "j1" and server.received[1] == {"subject": b"p01"}
    assert server.received[2] == {"subject": b"p01", "study": b'{"preset": "fast"}'}


def test_subjects_of_a_server_that_lists_none():
    with fake_server() as server:
        assert finished(Client(server.url).subjects()).value == ()


# -- failures in words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, document, token, words",
    [
        (401, {"code": "unauthorized", "message": "no"}, "", "wants a token"),
        (401, {"code": "unauthorized", "message": "no"}, "some-token", "does not accept this token"),
        (
            403,
            {"code": "forbidden", "message": "not under this name", "hint": "set it"},
            "",
            "Not under this name. Set it",
        ),
        (403, {"code": "forbidden", "message": "not this page"}, "some-token", "Not this page."),
        (403, b"<html>Forbidden</html>", "some-token", "The server does not allow this (HTTP 403)."),
        (404, {"detail": "Not Found"}, "", "No Any2all server answers at http://127.0.0.1"),
        (500, b"<html>Internal Server Error</html>", "", "HTTP 500"),
        (503, {"code": "stopping", "message": "the server is being stopped", "hint": "try again"}, "", "Try again."),
        (200, b"<html>Welcome</html>", "", "not understood. It is no JSON."),
        (200, b"\xff\xfe", "", "no JSON"),
        (200, b"[" * 100_000, "", "no JSON"),
    ],
)
def test_replies_become_sentences(status, document, token, words):
    found = failure(status, document, token=token)
    assert words in found.sentence() and found.sentence().endswith(".")


def test_a_redirect_is_not_followed():
    found = failure(307, {}, headers="Location: https://elsewhere.example/x\r\n")
    assert isinstance(found, TransportError) and "https://elsewhere.example/x" in found.sentence()


def test_a_full_queue_says_what_to_do():
    document = {"code": "queue_full", "message": "the queue is full", "key": "jobs", "allowed": "16 waiting jobs"}
    found = failure(429, document, "submit", study={}, files={})
    assert "queue is full (16 waiting jobs)" in found.sentence() and "few minutes" in found.sentence()
    document = {"code": "queue_full", "message": "too much is being uploaded at once", "key": "upload_bytes"}
    found = failure(429, {**document, "hint": "try again later"}, "submit", study={}, files={})
    assert found.sentence() == "Too much is being uploaded at once (upload_bytes). Try again later."


def test_the_server_names_key_value_and_what_is_allowed():
    document = {
        "code": "invalid",
        "message": "this value cannot be used",
        "key": "sampler.steps",
        "value": 0,
        "allowed": ["1", "2"],
        "hint": "choose fewer",
    }
    found = failure(422, document, "submit", study={}, files={})
    assert isinstance(found, ServerError) and found.http_status == 422 and not found.again
    assert found.sentence() == "This value cannot be used (sampler.steps: 0). Allowed: 1, 2. Choose fewer."


def test_a_server_that_is_away():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    found = finished(Client(f"http://127.0.0.1:{port}").info()).failure
    assert found.sentence().startswith(f"The server at http://127.0.0.1:{port} cannot be reached:") and found.again


def test_a_file_that_cannot_be_read_fails_before_anything_is_sent(tmp_path):
    call = Client("http://127.0.0.1:1").submit({}, {"T1.nii.gz": tmp_path / "gone"})
    assert call.is_over and "The file 'gone' cannot be read" in call.failure.sentence()
    assert call.tick() and call.bytes_total == 0


def test_a_study_with_nan_is_no_json():
    with pytest.raises(ValueError):
        Client("http://127.0.0.1:1").submit({"noise_std": float("nan")}, {})
