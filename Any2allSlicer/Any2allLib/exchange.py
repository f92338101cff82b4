"""ONE HTTP exchange on a socket that never waits, advanced by `Exchange.tick` from a GUI timer.

connecting → (tunnel: CONNECT through a proxy) → (securing: TLS) → sending → receiving → done | failed
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import time
from dataclasses import dataclass

from .failures import TransportError
from .request import Request
from .response import Reply, ResponseReader, Target
from .route import AddressBook, Proxy, ServerUrl

_RECEIVE = 16 * 1024  # at once: even in chunks of one byte this is read in a few ms
_UNDER_WAY = {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR, 10035}  # 10035: WSAEWOULDBLOCK
_WAITS = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True)
class Timeouts:
    """Seconds: ``connect`` until one of the addresses answers, ``idle`` without any progress after that."""

    connect_s: float = 5.0
    idle_s: float = 30.0


class Exchange:
    """Sends one request and receives its reply. Sockets are closed as soon as it is done, failed or aborted.

    Args:
        url: the server.
        request: what to send.
        target: file for the body of a reply 200; other bodies stay in memory.
        proxy: an HTTP proxy to go through.
        tls: context for https.
        book: addresses that are known already.

    Attributes:
        state: connecting, tunnel, securing, sending, receiving, done or failed.
        reply: the whole response, once done.
        failure: why there is none, once failed.
        bytes_sent, bytes_total: of the request's body, handed to the system.
    """

    def __init__(
        self,
        url: ServerUrl,
        request: Request,
        target: Target | None = None,
        timeouts: Timeouts = Timeouts(),
        proxy: Proxy | None = None,
        tls: ssl.SSLContext | None = None,
        book: AddressBook | None = None,
    ) -> None:
        self.url, self.timeouts, self.proxy, self.tls = url, timeouts, proxy, tls
        self.book = book or AddressBook()
        self.state = "connecting"
        self.reply: Reply | None = None
        self.failure: TransportError | None = None
        self.bytes_sent = 0
        self.bytes_total = request.body.length if request.body else 0
        self._reader = ResponseReader(target)
        self._socket: socket.socket | None = None
        self._addresses: list | None = None
        self._last_reason = ""
        self._cannot_send = False
        self._outgoing = memoryview(b"")
        self._through_proxy = proxy if url.scheme == "http" else None
        self._head_left = 0
        self._pieces = request.pieces()
        self._request = request
        self._progressed = self._attempt_began = time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed")

    @property
    def bytes_received(self) -> int:
        """Of the response's body."""
        return self._reader.received

    @property
    def bytes_expected(self) -> int | None:
        """Of the response's body, where the server says so."""
        return self._reader.total

    def tick(self, budget_s: float = 0.02) -> bool:
        """Do what can be done at once, for about ``budget_s`` seconds → whether the exchange is over."""
        began = time.monotonic()
        try:
            while not self.is_over and self._advance():
                self._progressed = time.monotonic()
                if self._progressed - began >= budget_s:
                    break
            self._check_time()
        except TransportError as failure:
            self._fail(failure)
        return self.is_over

    def abort(self) -> None:
        """Give up at once; nothing stays behind."""
        if not self.is_over:
            self._fail(TransportError("aborted", "this was stopped"))

    # -- steps: each returns whether it got any further ----------------------------------------------------------------

    def _advance(self) -> bool:
        step = getattr(self, f"_{self.state}")
        try:
            return step()
        except _WAITS:
            return False
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            return self._broken(error)
        except ssl.SSLError as error:
            raise _tls_failure(error, self.url) from None
        except OSError as error:
            return self._broken(error)

    def _connecting(self) -> bool:
        if self._addresses is None:
            peer = self._peer()
            self._addresses = list(self.book.addresses(*peer))
            self._share_s = self.timeouts.connect_s / len(self._addresses)
            return True
        if self._socket is None:
            self._open_next()
            return True
        if not self._writable():
            if time.monotonic() - self._attempt_began > self._share_s:
                self._next_address("it does not answer")
                return True
            return False
        problem = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            self._next_address(_reason(problem))
            return True
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connected()
        return True

    def _tunnel(self) -> bool:
        """Ask the proxy for a way through; the reply to CONNECT has no body."""
        if self._outgoing:
            return self._send()
        self._tunnel_reader.feed(self._received(1))  # one byte at a time: what follows belongs to TLS
        reply = self._tunnel_reader.reply
        if reply is not None and not 200 <= reply.status < 300:
            raise TransportError("proxy", f"the proxy {self.proxy.host} refuses the connection (HTTP {reply.status})")
        if reply is not None:
            self._secure()
        return True

    def _securing(self) -> bool:
        self._socket.do_handshake()
        self._begin_sending()
        return True

    def _sending(self) -> bool:
        """Listen before each piece: a server that refuses early is heard before its connection breaks."""
        if self._listen():
            return True
        if self._outgoing:
            return self._send()
        piece = next(self._pieces, None)
        if piece is None:
            self.state = "receiving"
        else:
            self._outgoing = memoryview(piece)
        return True

    def _receiving(self) -> bool:
        return self._listen()

    def _listen(self) -> bool:
        """Take what has arrived. Once an answer has begun, nothing more is sent."""
        try:
            data = self._received(_RECEIVE)
        except _WAITS:
            return False
        if data:
            self._reader.feed(data)
        else:
            self._reader.end()
        if self._reader.reply is not None:
            self._finish(self._reader.reply)
        elif self._reader.started:
            self.state = "receiving"
        return True

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _peer(self) -> tuple[str, int]:
        return (self.proxy.host, self.proxy.port) if self.proxy else (self.url.host, self.url.port)

    def _open_next(self) -> None:
        """Begin to connect to the next address; raises TransportError when none is left."""
        if not self._addresses:
            self.book.forget(*self._peer())
            where = f"the proxy {self.proxy.host}" if self.proxy else f"the server at {self.url}"
            hint = "Check that it is running, and the address"
            raise TransportError("connect", f"{where} cannot be reached: {self._last_reason}", hint)
        family, address = self._addresses.pop(0)
        self._attempt_began = time.monotonic()
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            problem = self._socket.connect_ex(address)
        except OSError as error:
            self._next_address(error.strerror or type(error).__name__)
            return
        if problem and problem not in _UNDER_WAY:
            self._next_address(_reason(problem))

    def _next_address(self, reason: str) -> None:
        self._last_reason = reason
        self._close()

    def _writable(self) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_WRITE)
            return bool(selector.select(0))

    def _connected(self) -> None:
        if self.url.scheme != "https":
            return self._begin_sending()
        if self.proxy is None:
            return self._secure()
        target = (
            f"{self.url.host}:{self.url.port}" if ":" not in self.url.host else f"[{self.url.host}]:{self.url.port}"
        )
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
        head += "".join(f"{key}: {value}\r\n" for key, value in self.proxy.headers.items())
        self._outgoing = memoryview(f"{head}\r\n".encode("ascii"))
        self._head_left = len(self._outgoing)
        self._tunnel_reader = ResponseReader(headers_only=True)
        self.state = "tunnel"
        return None

    def _secure(self) -> None:
        context = self.tls or ssl.create_default_context()
        self._socket = context.wrap_socket(self._socket, server_hostname=self.url.host, do_handshake_on_connect=False)
        self.state = "securing"

    def _begin_sending(self) -> None:
        absolute, request = "", self._request
        if self._through_proxy:
            absolute = f"http://{self.url.authority}"
            request = Request(request.method, request.target, {**request.headers, **self.proxy.headers}, request.body)
        self._outgoing = memoryview(request.head(self.url.authority, absolute))
        self._head_left = len(self._outgoing)
        self.state = "sending"

    def _send(self) -> bool:
        size = self._socket.send(self._outgoing)
        self._outgoing = self._outgoing[size:]
        of_head = min(size, self._head_left)
        self._head_left -= of_head
        self.bytes_sent += size - of_head if self.state == "sending" else 0
        return size > 0

    def _received(self, size: int) -> bytes:
        data = self._socket.recv(size)
        if not data and self.state == "tunnel":
            raise TransportError("proxy", f"the proxy {self.proxy.host} closed the connection")
        return data

    def _broken(self, error: OSError) -> bool:
        """A send fails when the server has hung up; its reason may still be waiting to be read."""
        if self.state == "sending" and not self._cannot_send:
            self._cannot_send = True
            self.state = "receiving"
            return True
        raise TransportError(
            "lost", f"the connection to {self.url} was lost ({error.strerror or type(error).__name__})"
        ) from None

    def _check_time(self) -> None:
        if self.is_over or self.state == "connecting":
            return
        if time.monotonic() - self._progressed > self.timeouts.idle_s:
            waited = f"{self.timeouts.idle_s:.0f} s"
            raise TransportError("silent", f"the server at {self.url} has been silent for {waited}")

    def _finish(self, reply: Reply) -> None:
        self.reply, self.state = reply, "done"
        self._close()

    def _fail(self, failure: TransportError) -> None:
        self.failure, self.state = failure, "failed"
        self._close()
        self._reader.discard()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self.is_over:
            self._pieces = iter(())
            self._outgoing = memoryview(b"")


def _reason(number: int) -> str:
    reasons = {
        errno.ECONNREFUSED: "nothing listens there",
        errno.ETIMEDOUT: "it does not answer",
        errno.EHOSTUNREACH: "there is no way to it",
        errno.ENETUNREACH: "there is no way to it",
        10061: "nothing listens there",
        10060: "it does not answer",
    }
    return reasons.get(number) or f"system error {errno.errorcode.get(number, number)}"


def _tls_failure(error: ssl.SSLError, url: ServerUrl) -> TransportError:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message or "it is not trusted"
        return TransportError(
            "tls", f"the certificate of {url.host} is not accepted: {why}", "Ask the server's administrator"
        )
    if "WRONG_VERSION" in (error.reason or "") or "HTTP_REQUEST" in (error.reason or ""):
        return TransportError("tls", "what answers there does not speak TLS", "Begin the address with http://")
    return TransportError("tls", f"no secure connection to {url.host} could be made ({error.reason or 'TLS'})")
