"""Exchanges that are encrypted, and those that go through a proxy."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path  # noqa: F401
from Any2allLib.exchange import Exchange, Timeouts
from Any2allLib.failures import TransportError
from Any2allLib.request import FilePart, Request, multipart
from Any2allLib.route import Proxy, ServerUrl, proxy_for
from lib_servers import ScriptedServer, answers, assert_never_waited, drive, read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n1;name=value\r\no\r\n0\r\nTrailer: yes\r\n\r\n"
)
PATIENT = Timeouts()
QUICK = Timeouts(connect_s=0.3, idle_s=0.3)


def get(url: str, timeouts: Timeouts = PATIENT, **options) -> Exchange:
    return Exchange(ServerUrl.parse(url), Request("GET", "/x"), timeouts=timeouts, **options)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate of 127.0.0.1 and server.example: (file with key, file without)."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server.example")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("server.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    public = signed.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(private + public)
    (folder / "public.pem").write_bytes(public)
    return folder / "both.pem", folder / "public.pem"


@pytest.fixture
def server_tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[0])
    return context


@pytest.fixture
def trusting(certificate):
    return ssl.create_default_context(cafile=str(certificate[1]))


def test_tls_with_a_trusted_certificate(tmp_path, server_tls, trusting):
    data = bytes(2_000_000)
    (tmp_path / "image").write_bytes(data)
    got = []

    def script(connection):
        length = int(read_head(connection).split(b"Content-Length: ")[1].split(b"\r\n")[0])
        while length:
            length -= len(connection.recv(min(length, 100_000)))
        got.append(length)
        connection.sendall(CHUNKED)

    with ScriptedServer(script, tls=server_tls) as server:
        body = multipart({}, [FilePart("T1.nii.gz", tmp_path / "image")])
        exchange = Exchange(ServerUrl.parse(server.url), Request("POST", "/x", {}, body), tls=trusting)
        took = drive(exchange)
    assert exchange.failure is None and exchange.reply.body == b"hello" and got == [0]
    assert_never_waited(took)


def test_tls_with_an_unknown_certificate(server_tls):
    with ScriptedServer(answers(OK), tls=server_tls) as server:
        exchange = get(server.url)
        drive(exchange)
    assert exchange.failure.code == "tls" and "certificate of 127.0.0.1" in exchange.failure.sentence()


def test_http_to_a_tls_server_and_https_to_a_plain_one(server_tls, trusting):
    with ScriptedServer(answers(OK), tls=server_tls) as server:
        exchange = get(server.url.replace("https", "http"))
        drive(exchange)
    assert exchange.failure.code in ("not_http", "lost")
    with ScriptedServer(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")) as server:
        exchange = get(server.url.replace("http", "https"), tls=trusting)
        drive(exchange)
    assert exchange.failure.code == "tls" and "http://" in exchange.failure.sentence()


def test_silent_server_during_the_handshake(trusting):
    with ScriptedServer(lambda connection: server.silent(connection)) as server:
        exchange = get(server.url.replace("http", "https"), timeouts=QUICK, tls=trusting)
        took = drive(exchange)
    assert exchange.failure.code == "silent"
    assert_never_waited(took, least=10)


def test_plain_proxy_gets_the_whole_address():
    heads = []

    def script(connection):
        heads.append(read_head(connection).decode())
        connection.sendall(OK)

    with ScriptedServer(script) as server:
        exchange = get("http://server.example:81/app", proxy=Proxy("127.0.0.1", server.port, "Basic abc"))
        drive(exchange)
    assert heads[0].startswith("GET http://server.example:81/x HTTP/1.1\r\nHost: server.example:81\r\n")
    assert "Proxy-Authorization: Basic abc\r\n" in heads[0]
    assert exchange.reply.body == b"hello"


def test_tls_through_a_proxy(server_tls, trusting):
    heads = []

    def script(connection):
        heads.append(read_head(connection).decode())
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with server_tls.wrap_socket(connection, server_side=True) as secure:
            heads.append(read_head(secure).decode())
            secure.sendall(OK)

    with ScriptedServer(script) as server:
        exchange = get("https://server.example", proxy=Proxy("127.0.0.1", server.port, "Basic abc"), tls=trusting)
        drive(exchange)
    assert exchange.failure is None and exchange.reply.body == b"hello"
    assert heads[0].startswith("CONNECT server.example:443 HTTP/1.1\r\n") and "Basic abc" in heads[0]
    assert heads[1].startswith("GET /x HTTP/1.1\r\n") and "Basic abc" not in heads[1]


def test_proxy_that_refuses():
    with ScriptedServer(answers(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")) as server:
        exchange = get("https://server.example", proxy=Proxy("127.0.0.1", server.port))
        drive(exchange)
    assert exchange.failure.code == "proxy" and "407" in exchange.failure.sentence()


def test_which_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:p%40ss@gate.example:3128")
    monkeypatch.setenv("https_proxy", "gate.example")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for(ServerUrl.parse("http://127.0.0.1:8000")) is None
    assert proxy_for(ServerUrl.parse("http://localhost:8000")) is None
    assert proxy_for(ServerUrl.parse("http://[::1]:8000")) is None
    assert proxy_for(ServerUrl.parse("http://inside.example")) is None
    assert proxy_for(ServerUrl.parse("http://server.example")) == Proxy("gate.example", 3128, "Basic bWU6cEBzcw==")
    assert proxy_for(ServerUrl.parse("https://server.example")) == Proxy("gate.example", 80)
    monkeypatch.setenv("https_proxy", "socks5://gate.example")
    with pytest.raises(TransportError, match="socks5"):
        proxy_for(ServerUrl.parse("https://server.example"))
