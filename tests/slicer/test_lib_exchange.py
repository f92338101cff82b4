"""One exchange against servers that are slow, silent, dribbling, dying, full or refusing early."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from email import message_from_bytes
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path  # noqa: F401
from Any2allLib.exchange import Exchange, Timeouts
from Any2allLib.failures import TransportError
from Any2allLib.request import FilePart, Request, multipart
from Any2allLib.response import Target
from Any2allLib.route import ServerUrl
from lib_servers import ScriptedServer, answers, assert_never_waited, drive, read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n1;name=value\r\no\r\n0\r\nTrailer: yes\r\n\r\n"
)
PATIENT = Timeouts()
QUICK = Timeouts(connect_s=0.3, idle_s=0.3)


def get(url: str, target: Target | None = None, timeouts: Timeouts = PATIENT, **options) -> Exchange:
    return Exchange(ServerUrl.parse(url), Request("GET", "/x"), target, timeouts, **options)


def test_request_and_reply():
    heads = []

    def script(connection):
        heads.append(read_head(connection))
        connection.sendall(OK)

    with ScriptedServer(script) as server:
        exchange = Exchange(ServerUrl.parse(server.url), Request("DELETE", "/a/b?c", {"X-One": "1"}))
        drive(exchange)
    lines = heads[0].decode().split("\r\n")
    assert lines[0] == "DELETE /a/b?c HTTP/1.1"
    assert {f"Host: 127.0.0.1:{server.port}", "Connection: close", "X-One: 1"} <= set(lines)
    assert not any(line.startswith("Content-Length") for line in lines)
    assert (exchange.state, exchange.reply.status, exchange.reply.body) == ("done", 200, b"hello")


def test_dribbling_server_is_followed_without_waiting():
    with ScriptedServer(answers(*(CHUNKED[i : i + 1] for i in range(len(CHUNKED))), pause_s=0.004)) as server:
        exchange = get(server.url, timeouts=QUICK)
        took = drive(exchange)
    assert exchange.reply.body == b"hello"
    assert_never_waited(took)


def test_many_tiny_chunks_at_once_stay_within_a_tick():
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n"
    with ScriptedServer(answers(raw)) as server:
        exchange = get(server.url)
        took = drive(exchange)
    assert exchange.reply.body == b"x" * 100_000
    assert_never_waited(took)


def test_silent_server_never_blocks_and_is_given_up():
    with ScriptedServer(lambda connection: server.silent(connection)) as server:
        exchange = get(server.url, timeouts=QUICK)
        began = time.monotonic()
        exchange.tick()
        while exchange.state == "connecting":
            exchange.tick()
        assert exchange._socket.gettimeout() == 0.0
        took = drive(exchange)
        waited = time.monotonic() - began
    assert exchange.failure.code == "silent" and exchange.failure.again
    assert waited >= 0.3 and exchange._socket is None
    assert_never_waited(took, least=10)


def test_nothing_listens_there():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    exchange = get(f"http://127.0.0.1:{port}")
    drive(exchange)
    assert exchange.failure.code == "connect"
    assert f"http://127.0.0.1:{port}" in exchange.failure.sentence()
    assert "nothing listens there" in exchange.failure.sentence()


def test_server_that_does_not_take_connections_is_given_up():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):  # its queue of connections is full: further ones are not answered
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            waiting.append(filler)
        exchange = get(f"http://127.0.0.1:{full.getsockname()[1]}", timeouts=QUICK)
        took = drive(exchange)
        for filler in waiting:
            filler.close()
    assert exchange.failure.code == "connect" and "does not answer" in exchange.failure.sentence()
    assert_never_waited(took, least=10)


def test_every_address_of_a_name_is_tried(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("localhost was looked up"))
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        listener.settimeout(5)
        exchange = get(f"http://localhost:{listener.getsockname()[1]}")
        while exchange.state == "connecting":
            exchange.tick()
        connection, _ = listener.accept()
        with connection:
            read_head(connection)
            connection.sendall(OK)
        drive(exchange)
    assert exchange.reply.body == b"hello"


def test_unknown_name(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    exchange = get("http://server.example")
    drive(exchange)
    assert exchange.failure.code == "name" and "server.example" in exchange.failure.sentence()


def test_reply_that_waited_for_a_busy_panel_is_no_timeout():
    with ScriptedServer(answers(OK)) as server:
        exchange = get(server.url, timeouts=QUICK)
        while exchange.state in ("connecting", "sending"):
            exchange.tick()
        time.sleep(0.5)
        exchange.tick()
    assert exchange.reply.body == b"hello"


# -- sending -----------------------------------------------------------------------------------------------------------


def upload(url: str, file: Path, timeouts: Timeouts = PATIENT) -> Exchange:
    body = multipart({"study": '{"a": "ü"}'}, [FilePart("T1.nii.gz", file)])
    return Exchange(ServerUrl.parse(url), Request("POST", "/jobs", {}, body), timeouts=timeouts)


def test_upload_arrives_whole_with_progress(tmp_path):
    data = bytes(range(256)) * 12_000  # 3 MB: several pieces, and more than the system's buffers
    (tmp_path / "SMITH^JOHN.nii.gz").write_bytes(data)
    got = []

    def script(connection):
        head = read_head(connection)
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        body = b""
        while len(body) < length:
            body += connection.recv(100_000)
        got.append((head, body))
        connection.sendall(OK)

    with ScriptedServer(script) as server:
        exchange = upload(server.url, tmp_path / "SMITH^JOHN.nii.gz")
        seen = []
        while not exchange.is_over:
            exchange.tick(0.0)  # one step
            seen.append(exchange.bytes_sent)
    head, body = got[0]
    assert exchange.reply.status == 200
    assert seen == sorted(seen) and seen[-1] == exchange.bytes_total == len(body)
    assert len({s for s in seen if 0 < s < len(body)}) >= 5
    form = message_from_bytes(head.split(b"\r\n", 1)[1] + body).get_payload()
    assert [part.get_param("name", header="content-disposition") for part in form] == ["study", "files"]
    assert json.loads(form[0].get_payload(decode=True)) == {"a": "ü"}
    assert form[1].get_filename() == "T1.nii.gz" and form[1].get_payload(decode=True) == data
    assert b"SMITH" not in head + body


@pytest.mark.parametrize("status, linger_s", [(413, 0.0), (401, 0.2)])
def test_early_refusal_is_read_while_sending(tmp_path, status, linger_s):
    (tmp_path / "large").write_bytes(bytes(30_000_000))
    refusal = json.dumps({"code": "no", "message": "not this"}).encode()

    def script(connection):
        read_head(connection)
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%s" % (status, len(refusal), refusal))
        time.sleep(linger_s)  # then hangs up with most of the upload unread: the connection is reset

    with ScriptedServer(script) as server:
        exchange = upload(server.url, tmp_path / "large")
        took = drive(exchange)
    assert exchange.failure is None, exchange.failure
    assert (exchange.reply.status, exchange.reply.body) == (status, refusal)
    assert exchange.bytes_sent < 30_000_000
    assert_never_waited(took)


def test_server_that_dies_during_the_upload(tmp_path):
    (tmp_path / "large").write_bytes(bytes(30_000_000))
    with ScriptedServer(lambda connection: read_head(connection)) as server:
        exchange = upload(server.url, tmp_path / "large")
        drive(exchange)
    assert exchange.failure.code == "lost" and "connection" in exchange.failure.sentence()


def test_upload_to_a_server_that_stops_reading_is_given_up(tmp_path):
    (tmp_path / "large").write_bytes(bytes(30_000_000))
    with ScriptedServer(lambda connection: server.silent(connection)) as server:
        exchange = upload(server.url, tmp_path / "large", QUICK)
        took = drive(exchange)
    assert exchange.failure.code == "silent"
    assert_never_waited(took, least=10)


@pytest.mark.parametrize("change", [b"", b"longer than before"])
def test_file_that_changes_while_it_is_sent(tmp_path, change):
    file = tmp_path / "image"
    file.write_bytes(b"as it was")
    with ScriptedServer(lambda connection: server.silent(connection)) as server:
        exchange = upload(server.url, file)
        file.write_bytes(change)
        drive(exchange)
    assert exchange.failure.code == "file" and "changed" in exchange.failure.sentence()


def test_file_that_does_not_exist(tmp_path):
    with pytest.raises(TransportError, match="cannot be read"):
        upload("http://127.0.0.1:1", tmp_path / "nothing")


@pytest.mark.parametrize("name", ['a"b', "a\r\nb", "a/b", "ü"])
def test_names_that_break_out_of_a_header_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="plain name"):
        multipart({}, [FilePart(name, tmp_path)])


# -- receiving into files ----------------------------------------------------------------------------------------------


def reply_with(data: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data)


def test_download_to_a_file(tmp_path):
    data = bytes(range(256)) * 4000
    target = Target(tmp_path / "CT.nii.gz", hashlib.sha256(data).hexdigest())
    with ScriptedServer(answers(reply_with(data))) as server:
        exchange = get(server.url, target)
        drive(exchange)
    assert exchange.reply.file.read_bytes() == data and exchange.reply.body == b""
    assert exchange.bytes_received == exchange.bytes_expected == len(data)
    assert [f.name for f in tmp_path.iterdir()] == ["CT.nii.gz"]


@pytest.mark.parametrize(
    "raw, sha256, code",
    [
        (reply_with(b"data"), "0" * 64, "sha256"),
        (reply_with(b"data" * 100)[:-1], None, "lost"),
        (CHUNKED[:-4], None, "lost"),
        (b"", None, "lost"),
    ],
)
def test_no_part_of_a_bad_download_stays(tmp_path, raw, sha256, code):
    with ScriptedServer(answers(raw)) as server:
        exchange = get(server.url, Target(tmp_path / "CT.nii.gz", sha256))
        drive(exchange)
    assert exchange.failure.code == code
    assert list(tmp_path.iterdir()) == []


def test_refused_download_is_read_as_words_and_keeps_what_was_there(tmp_path):
    (tmp_path / "CT.nii.gz").write_bytes(b"older")
    with ScriptedServer(answers(reply_with(b'{"code": "gone"}', 410))) as server:
        exchange = get(server.url, Target(tmp_path / "CT.nii.gz"))
        drive(exchange)
    assert (exchange.reply.status, exchange.reply.file) == (410, None)
    assert exchange.reply.body == b'{"code": "gone"}'
    assert (tmp_path / "CT.nii.gz").read_bytes() == b"older"


def test_folder_that_cannot_be_written(tmp_path):
    with ScriptedServer(answers(OK)) as server:
        exchange = get(server.url, Target(tmp_path / "nowhere" / "CT.nii.gz"))
        drive(exchange)
    assert exchange.failure.code == "file" and "cannot be saved" in exchange.failure.sentence()


def test_abort_closes_the_connection_and_removes_the_partial_file(tmp_path):
    ended = []

    def script(connection):
        read_head(connection)
        connection.sendall(reply_with(b"data" * 100)[:-1])
        ended.append(connection.recv(1))

    with ScriptedServer(script) as server:
        exchange = get(server.url, Target(tmp_path / "CT.nii.gz"))
        while not exchange.bytes_received:
            exchange.tick()
        assert [f.name for f in tmp_path.iterdir()] == ["CT.nii.gz.partial"]
        exchange.abort()
    assert ended == [b""] and exchange.failure.code == "aborted"
    assert list(tmp_path.iterdir()) == []
