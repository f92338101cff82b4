"""The door: who gets in, from which page, with how much and how slowly; an ASGI middleware around everything.

In this order: the machine (without a token), the web page, the token, the body. Behind the door, an exception that
nobody foresaw becomes words here, and a client that hangs up becomes nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
import re

import anyio
from any2all.errors import Any2allError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import events
from .replies import error_reply, path_template, unforeseen
from .settings import Limits, ServerSettings

UPLOADS_AT_ONCE = 4  # of the largest size, in all requests together: they wait on the disk until they are answered
FRAMING_BYTES = 2**20  # boundaries and headers of a multipart body, beside the files
LINGER_SECONDS = 2.0  # a client that still sends hears the answer only if we go on listening for a while
LOOPBACK_NAME = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
RESPONSE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
    "Referrer-Policy": "no-referrer",
}

_log = events("gate")


class Gate:
    """ASGI middleware.

    Args:
        app: what is behind the door.
        settings: token, origins and limits.
        open_paths: paths that need no token, such as a health check.
    """

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, open_paths: tuple[str, ...] = ("/any2all/v1/health",)
    ) -> None:
        self.app, self.settings, self.open_paths = app, settings, open_paths
        self._held = _Held(UPLOADS_AT_ONCE * (settings.limits.upload_bytes + FRAMING_BYTES))
        self._entrance: ASGIApp = self._inside
        if settings.cors_origins:
            self._entrance = CORSMiddleware(
                self._inside,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
                expose_headers=["Retry-After", "Content-Disposition"],
                allow_private_network=True,  # a page of an allowed origin may reach the server on its reader's machine
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            body = _Body(receive, Headers(scope=scope), self.settings.limits, self._held)
            answer = _Answer(send, body)
            try:
                self._check_origin(scope)
                await self._entrance(scope, body, answer)
            except Any2allError as error:
                await _refuse(error, scope, body, answer)
            finally:
                body.release()
        else:
            await self.app(scope, receive, send)

    def _check_origin(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self.settings.token is None:
            _only_this_machine(scope, headers)
        _only_known_pages(headers, self.settings.cors_origins)

    async def _inside(self, scope: Scope, body: Receive, send: Send) -> None:
        """Token, body, application. ``body`` is the `_Body` that `__call__` made; CORS hands it through."""
        assert isinstance(body, _Body)

        async def speak(message: Message) -> None:
            if body.refusal is None:  # else the application's words about a broken upload come too late
                await send(message)

        try:
            self._check_token(scope)
            body.check_headers()
            await self.app(scope, body, speak)
        except ClientDisconnect:  # the client hung up, or the body was refused and looks as if it had
            pass
        except Any2allError as error:
            body.refusal = body.refusal or error
        except Exception as error:
            body.refusal = body.refusal or unforeseen(error, scope["method"], path_template(scope))
        if body.refusal is not None and not body.answered:
            await _refuse(body.refusal, scope, body, send)

    def _check_token(self, scope: Scope) -> None:
        if self.settings.token is None or _path(scope) in self.open_paths:
            return
        given = Headers(scope=scope).getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        right = hmac.compare_digest(token.strip().encode("latin-1"), self.settings.token.encode("ascii"))
        if not (right and scheme.lower() == "bearer"):
            raise Any2allError(
                "this server wants a token",
                key="Authorization",
                allowed="Bearer and the server's token",
                hint="ask the administrator of the server for its token",
                code="unauthorized",
            )


class _Held:
    """Bytes of bodies that all requests hold together, and how many they may hold; used on the event loop only."""

    def __init__(self, most: int) -> None:
        self.most, self.now = most, 0


class _Body:
    """A request's body under the limits; as an ASGI ``receive`` it ends with a disconnect once a limit is broken.

    Attributes:
        unread: pieces are still to come.
        refusal: why no more is read.
        answered: the response has begun.
    """

    def __init__(self, receive: Receive, headers: Headers, limits: Limits, held: _Held) -> None:
        self._receive, self._headers, self._limits, self._held = receive, headers, limits, held
        self._bytes, self._most = 0, limits.upload_bytes + FRAMING_BYTES
        self._deadline = anyio.current_time() + limits.upload_seconds
        self.unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self.refusal: Any2allError | None = None
        self.answered = False

    def check_headers(self) -> None:
        """Refuse what the headers alone give away, before a byte of the body is read."""
        if "content-encoding" in self._headers:
            raise Any2allError("compressed requests are not read", key="Content-Encoding", code="unsupported")
        length = self._headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise Any2allError("this is not a length", key="Content-Length", value=length, code="invalid_request")
        if int(length) > self._most:
            raise self._too_large()

    async def __call__(self) -> Message:
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if not self.unread or self.answered:
            return await self._receive()
        message = await self._next_piece()
        count = len(message.get("body", b""))
        self._bytes, self._held.now = self._bytes + count, self._held.now + count
        if self._bytes > self._most:
            self.refusal = self._too_large()
        elif self._held.now > self._held.most:
            self.refusal = Any2allError(
                "too much is being uploaded at once", key="upload_bytes", hint="try again later", code="queue_full"
            )
        self.unread = message["type"] == "http.request" and message.get("more_body", False)
        return message if self.refusal is None else {"type": "http.disconnect"}

    async def _next_piece(self) -> Message:
        left = self._deadline - anyio.current_time()
        with anyio.move_on_after(min(self._limits.idle_seconds, left)):
            return await self._receive()
        late = left < self._limits.idle_seconds
        self.refusal = Any2allError(
            "the request took too long" if late else "the request came to a halt",
            key="upload_seconds" if late else "idle_seconds",
            allowed=f"{self._limits.upload_seconds if late else self._limits.idle_seconds} seconds",
            code="timeout",
        )
        return {"type": "http.request", "more_body": True}

    def release(self) -> None:
        """The request is over, and what it sent is kept elsewhere or gone."""
        self._held.now -= self._bytes
        self._bytes = 0

    def _too_large(self) -> Any2allError:
        return Any2allError(
            "the request is too large",
            key="upload_bytes",
            allowed=f"{self._limits.upload_bytes} bytes",
            hint="crop the images, or send them with fewer samples per voxel",
            code="too_large",
        )

    async def drain(self) -> None:
        """Read on for a moment and forget it: closing on unread data would wipe our answer from the client's socket."""
        with anyio.move_on_after(LINGER_SECONDS):
            while self.unread:
                message = await self._receive()
                self.unread = message["type"] == "http.request" and message.get("more_body", False)


class _Answer:
    """An ASGI ``send`` that adds our headers and closes the connection behind an answer to a half-read request."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send, self._body = send, body

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._body.answered = True
            headers = MutableHeaders(scope=message)
            headers.update(RESPONSE_HEADERS)
            if self._body.unread:
                headers["Connection"] = "close"
        elif message["type"] == "http.response.body" and not message.get("more_body", False) and self._body.unread:
            await self._send({**message, "more_body": True})
            await self._body.drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


async def _refuse(error: Any2allError, scope: Scope, body: _Body, send: Send) -> None:
    reply = error_reply(error)
    if error.code != "internal":  # that one is in the log already, under its id
        peer = scope["client"][0] if scope.get("client") else None
        _log.warning("refused", code=error.code, status=reply.status_code, method=scope["method"], peer=peer)
    await reply(scope, body, send)


def _only_this_machine(scope: Scope, headers: Headers) -> None:
    """Without a token: both ends of the connection on this machine, and asked for under a name of this machine.

    The name keeps out a web page whose own name was made to point here (DNS rebinding).
    """
    hint = "set ANY2ALL_TOKEN to serve other machines"
    server, client = scope.get("server"), scope.get("client")
    unix_socket = client is None and (server is None or server[1] is None)
    if not unix_socket and not (server and client and is_loopback(server[0]) and is_loopback(client[0])):
        raise Any2allError("without a token this server answers only its own machine", hint=hint, code="forbidden")
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not LOOPBACK_NAME.fullmatch(hosts[0]):
        raise Any2allError(
            "without a token this server answers only under its machine's own name",
            key="Host",
            value=hosts[0] if hosts else None,
            allowed=["localhost", "127.0.0.1", "[::1]"],
            hint=hint,
            code="forbidden",
        )


def _only_known_pages(headers: Headers, origins: tuple[str, ...]) -> None:
    for origin in headers.getlist("origin"):
        host = headers.get("host", "").lower()
        if origin not in origins and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Any2allError(
                "web pages of this origin may not use this server",
                key="Origin",
                value=origin,
                hint="the administrator can allow it: --conf cors_origins ORIGIN",
                code="forbidden",
            )


def is_loopback(address: str) -> bool:
    """Whether an IP address, or the name ``localhost``, stays on this machine."""
    if address.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _path(scope: Scope) -> str:
    root = scope.get("root_path", "")
    return scope["path"].removeprefix(root) if root else scope["path"]
