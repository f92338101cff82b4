"""A real server process and requests that mean harm: by their form, their sender, their pace, or all at once."""

from __future__ import annotations

import itertools
import re
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import attack_builders as evil
import pytest
from attack_builders import Watch, one_file, refused, sent_job
from server_builders import REPOSITORY, Server, free_port, wait_until

TOKEN = "Correct-Horse-Battery-1"
NASTY = (
    "%2e%2e", "%2e%2e%2fx", "..%2f..%2fetc%2fpasswd", "%00", "a%00b", "%ed%a0%80", "%ff%fe", "a%0d%0aSet-Cookie:%20x=1",
    "%0aHTTP/1.1%20200%20OK", "1'%20OR%20'1'='1", "1;DROP%20TABLE%20jobs--", "${7*7}", "%7b%7b7*7%7d%7d", "a" * 5000,
    "%e2%80%ae", "CON", "*", "$(id)", "%25252e", "-1", "NaN", "__proto__", "..;",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model_file, phantom_files):
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "studies" / "p01").mkdir(parents=True)
    (folder / "tmp").mkdir()
    shutil.copy(phantom_files / "T1.nii.gz", folder / "studies" / "p01")
    server = Server(folder, tiny_model_file, {"queue": 6, "idle_seconds": 3}, {"TMPDIR": str(folder / "tmp")})
    server.watch = Watch(server)
    yield server
    server.stop()


@pytest.fixture
def t1(phantom_files) -> bytes:
    return (phantom_files / "T1.nii.gz").read_bytes()


# -- requests ----------------------------------------------------------------------------------------------------------


def declared(server) -> dict[str, dict]:
    return server.http.get("/openapi.json").json()["paths"]


def filled(path: str, value: str) -> str:
    return re.sub(r"\{\w+\}", lambda _: value, path)


def test_every_unknown_query_is_refused(server):
    for path, methods in declared(server).items():
        for method in set(methods) - {"head"}:
            if not path.endswith("/health"):
                url = filled(path, "any2all")
                told = refused(
                    server.http.request(method, url, params={"zzz": "1", "image": "p01", "label": "p01", "tag": "x"})
                )
                assert told["key"] in ("zzz", "image", "label"), (path, told)


def test_every_other_method_is_refused(server):
    for path, methods in declared(server).items():
        for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"}:
            if method.lower() not in methods:
                reply = server.http.request(method, filled(path, "any2all"))
                assert reply.status_code == 405 and (method == "HEAD" or evil.in_words(reply)), (method, path)
    for path in (
        "/reload",
        "/docs",
        "/static/",
        "/proxy/dicom",
        "/login",
        "/scoring/x",
        "/activelearning/random",
        "/ohif/",
    ):
        for method in ("GET", "POST", "PUT", "DELETE"):
            refused(server.http.request(method, path), 404)


@pytest.mark.parametrize("text", NASTY)
def test_no_text_in_a_path_or_query_breaks_anything(server, text):
    for path, methods in declared(server).items():
        places = [filled(path, text)] if "{" in path else [f"{path}?{key}={text}" for key in ("image", "tag", "output")]
        for method, url in itertools.product(set(methods) & {"get", "delete"}, places):
            if path in ("/any2all/v1/health", "/batch/infer", "/train/") or method == "delete" and "{" not in path:
                continue
            reply = server.http.request(method, url)
            assert reply.status_code != 307 and "set-cookie" not in reply.headers
            refused(reply)
    for url in (f"/infer/any2all?session_id={text}", f"/infer/any2all?image={text}", f"/infer/any2all?output={text}"):
        refused(server.http.post(url, data={"params": "{}"}))


def test_requests_that_are_no_requests(server):
    host = b"Host: 127.0.0.1\r\nConnection: close\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    requests = [
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + host, b"GET http://127.0.0.1:22/ HTTP/1.1\r\n" + host,
        b"OPTIONS * HTTP/1.1\r\n" + host, b"GET / HTTP/1.0\r\n", b"\x16\x03\x01\x02",
        b"GET /\xff\xfe HTTP/1.1\r\n" + host,
        b"GET /any2all/v1/zzz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + upgrade, b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
        b"POST /any2all/v1/jobs HTTP/1.1\r\n" + host + b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"POST /any2all/v1/jobs HTTP/1.1\r\n" + host + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /any2all/v1/jobs HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n",
    ]  # fmt: skip
    for request in requests:
        answer = evil.said(server.port, request + b"\r\n\r\n", 6)
        assert answer.startswith(b"HTTP/1.1 4"), (request[:60], answer[:100])
        server.watch.replies.append(answer)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "0.0.0.0", "", "[::1"]
)
def test_only_under_this_machines_name(server, host):
    for path in ("/any2all/v1/info", "/any2all/v1/health", "/info/"):
        refused(server.http.get(path, headers={"Host": host}), 403)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "http://127.0.0.1:1"]
)
def test_no_web_page_uses_the_server(server, origin):
    for method, path in (("GET", "/any2all/v1/info"), ("POST", "/any2all/v1/jobs"), ("DELETE", "/session/x")):
        reply = server.http.request(method, path, headers={"Origin": origin})
        refused(reply, 403)
        assert not [name for name in reply.headers if name.startswith("access-control")]
    preflight = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    refused(server.http.options("/any2all/v1/info", headers=preflight), 403)


def test_slow_clients_hold_up_nobody(server):
    start = b"POST /any2all/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(64)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(start + (b"Content-Length: 1000000\r\n\r\n--b\r\n" if number % 2 else b"X: "))
        polls = []
        for _ in range(20):
            begun = time.monotonic()
            assert server.http.get("/any2all/v1/health").status_code == 200
            polls.append(time.monotonic() - begun)
        assert sorted(polls)[10] < 0.5
        answer = slow[1]
        answer.settimeout(20)
        assert b"408" in answer.recv(1000)[:20], "a body that came to a halt is refused after idle_seconds"
    finally:
        for connection in slow:
            connection.close()


# -- the token and the address -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, tiny_model_file):
    """A server with a token, on all addresses."""
    folder = tmp_path_factory.mktemp("guarded")
    server = Server(folder, tiny_model_file, {}, {"ANY2ALL_TOKEN": TOKEN}, ("--host", "0.0.0.0"))
    yield server
    server.stop()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "Bearer wrong")],
        [("Authorization", TOKEN)],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", f"Bearer {TOKEN.upper()}")],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", f"Bearer {TOKEN},")],
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer wrong")],
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer \xff")],
        [("X-Authorization", f"Bearer {TOKEN}")],
        [("Cookie", f"token={TOKEN}")],
        [("X-Forwarded-For", "127.0.0.1"), ("X-Original-URL", "/any2all/v1/health")],
    ],
)
def test_nothing_without_the_token(guarded, headers):
    headers = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    for method, path in (("GET", "/any2all/v1/info"), ("POST", "/any2all/v1/jobs"), ("GET", "/"), ("GET", "/zzz"),
                         ("GET", "/openapi.json"), ("GET", "/any2all/v1//health"), ("GET", "/any2all/v1/health/"),
                         ("GET", "/any2all/v1/health/..%2finfo"), ("DELETE", "/train/")):  # fmt: skip
        reply = guarded.http.request(method, path, headers=headers)
        assert refused(reply, 401)["code"] == "unauthorized" and reply.headers["www-authenticate"] == "Bearer"


def test_the_token_does_not_come_in_a_url(guarded):
    for query in (f"token={TOKEN}", f"access_token={TOKEN}", f"Authorization=Bearer%20{TOKEN}"):
        refused(guarded.http.get(f"/any2all/v1/info?{query}"), 401)


def test_the_token_opens_and_is_told_to_nobody(guarded):
    headers = {"Authorization": f"bearer  {TOKEN}"}
    told = [guarded.http.get(p, headers=headers) for p in ("/any2all/v1/info", "/info/", "/logs/", "/openapi.json")]
    assert all(r.status_code == 200 and TOKEN not in r.text for r in told) and TOKEN not in guarded.log()
    open_to_all = guarded.http.get("/any2all/v1/health")
    assert open_to_all.json() == {"state": "ok"}
    refused(guarded.http.get("/any2all/v1/info", headers={**headers, "Origin": "http://evil.example"}), 403)


def test_it_does_not_start_open_to_everybody(tmp_path, tiny_model_file):
    """Several workers are tried in `test_binding`: uvicorn restarts those that need 5 s before they can refuse."""
    server, folder = Server.__new__(Server), tmp_path / "open"
    (folder / "studies").mkdir(parents=True)
    conf = {"work_dir": folder / "work", "model_file": tiny_model_file, "device": "cpu"}
    server.__dict__.update(folder=folder, studies=folder / "studies", port=free_port(), conf=conf, environment={})
    server.__dict__.update(arguments=("--host", "0.0.0.0"), app=REPOSITORY / "monai_app")
    server.launch()
    try:
        server.process.wait(180)
        assert "error: host: other machines could reach this server" in server.log()
        assert "worker ready" not in server.log()
    finally:
        server.process.kill()


# -- races -------------------------------------------------------------------------------------------------------------


def test_results_are_deleted_while_they_are_sent_and_waited_for(server, t1):
    job = sent_job(server, one_file("T1.nii.gz"), ("T1.nii.gz", t1)).json()["job_id"]
    assert server.wait(job)["state"] == "done"
    url = f"/any2all/v1/jobs/{job}/results/CT.nii.gz"
    whole = server.http.get(url).content
    with ThreadPoolExecutor(6) as threads:
        sent = [threads.submit(server.http.get, url) for _ in range(6)]
        gone = [threads.submit(server.http.delete, f"/any2all/v1/jobs/{job}") for _ in range(3)]
    assert sorted(g.result().status_code for g in gone)[0] == 200
    for reply in (s.result() for s in sent):
        assert reply.content == whole if reply.status_code == 200 else refused(reply, 404)
    assert not list((server.work / "jobs").iterdir())


def test_sessions_come_and_go_in_many_threads(server, t1):
    def client(number: int) -> set[int]:
        seen = set()
        for _ in range(6):
            session = server.http.put("/session/", files={"files": ("T1.nii.gz", t1)})
            seen.add(session.status_code)
            url = f"/session/{session.json().get('session_id')}"
            with ThreadPoolExecutor(4) as threads:
                asked = [threads.submit(server.http.request, m, u) for m, u in
                         (("GET", url), ("GET", url + "?image=true"), ("DELETE", url), ("DELETE", url))]  # fmt: skip
            seen |= {a.result().status_code for a in asked}
        return seen

    with ThreadPoolExecutor(6) as threads:
        seen = set().union(*threads.map(client, range(6)))
    assert seen <= {200, 404}, seen
    assert not list((server.work / "sessions").iterdir())


def test_a_session_that_is_deleted_before_its_inference_leaves_nothing(server, t1):
    for pause in (0.0, 0.01, 0.03):
        session = server.http.put("/session/", files={"files": ("T1.nii.gz", t1)}).json()["session_id"]
        query, body = {"session_id": session, "output": "json"}, {"params": '{"outputs": ["CT"], "preset": "fast"}'}
        with ThreadPoolExecutor(2) as threads:
            filled_in = threads.submit(server.http.post, "/infer/any2all", params=query, data=body)
            time.sleep(pause)
            server.http.delete(f"/session/{session}")
        reply = filled_in.result()
        assert reply.status_code == 200 or refused(reply, 404, 422)
    assert not list((server.work / "jobs").iterdir())


def test_polls_while_a_job_runs(server, t1):
    document = {**one_file("T1.nii.gz"), "preset": "balanced", "sampler": {"name": "mcs", "steps": 900, "samples": 8}}
    job = sent_job(server, document, ("T1.nii.gz", t1)).json()["job_id"]
    wait_until(lambda: server.status(job)["step"] > 0)
    polls = []
    for _ in range(50):
        begun = time.monotonic()
        assert server.status(job)["state"] == "running"
        polls.append(time.monotonic() - begun)
    print(f"median of 50 polls while a job runs: {1000 * sorted(polls)[25]:.1f} ms, longest {1000 * max(polls):.1f} ms")
    server.http.delete(f"/any2all/v1/jobs/{job}")
    assert server.wait(job)["state"] == "cancelled"
    server.http.delete(f"/any2all/v1/jobs/{job}")


def test_last_everything_is_as_it_was(server):
    server.watch.assert_nothing_was_left()
    server.watch.assert_no_reply_told_a_path()
    server.watch.assert_it_lives()
