"""The way to a server: its address as the user writes it, what it resolves to, and a proxy where one is set."""

from __future__ import annotations

import base64
import ipaddress
import socket
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from .failures import TransportError

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ServerUrl:
    """A checked address. ``prefix`` is '' or a path that begins with '/' and does not end with it."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        """Host and, where it is not the scheme's own, port: the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @classmethod
    def parse(cls, text: str) -> ServerUrl:
        """Check an address; without ``http://`` it is taken to be http. Raises ValueError, in words."""
        text = text.strip()
        if not text:
            raise ValueError("Enter the server's address, for example http://127.0.0.1:8000.")
        parts = _split(text if "://" in text else f"http://{text}")
        if parts.scheme not in DEFAULT_PORTS:
            raise ValueError(f"The address begins with {parts.scheme}://; only http:// and https:// are possible.")
        if parts.username is not None or parts.password is not None:
            raise ValueError("The address holds a user or password; a server takes a token, which has its own field.")
        if parts.query or parts.fragment:
            raise ValueError("The address ends with '?' or '#'; leave that away.")
        host = _ascii_host(parts.hostname or "")
        try:
            port = parts.port
        except ValueError:
            raise ValueError("The port of the address is not a number from 1 to 65535.") from None
        if port == 0:
            raise ValueError("The port of the address is not a number from 1 to 65535.")
        prefix = quote(unquote(parts.path), safe="/-._~").rstrip("/")
        return cls(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], prefix)


def _split(text: str) -> SplitResult:
    if any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("The address holds blanks.")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("The address cannot be read; it looks like http://127.0.0.1:8000.") from None
    return parts


def _ascii_host(host: str) -> str:
    try:
        written = host if ":" in host else host.encode("idna").decode("ascii")
    except UnicodeError:
        written = ""
    if not written or any(c in "\\%<>^`{|}\"'" for c in written):
        raise ValueError("The address has no valid host name; it looks like http://127.0.0.1:8000.")
    return written


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this computer by its name or number, without looking anything up."""
    if _is_localhost(host):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_localhost(host: str) -> bool:
    name = host.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


Address = tuple  # (family, sockaddr), as `socket.connect` takes it


class AddressBook:
    """Names and their addresses, each looked up once until a connection to it fails.

    Numbers and localhost need no look-up. Another name is looked up by the system, which may take seconds when its
    name server is silent: the one call of this package that can wait. There is no way round it without a thread.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], list[Address]] = {}

    def addresses(self, host: str, port: int) -> list[Address]:
        """All addresses to try, in turn. Raises TransportError for an unknown name."""
        if _is_localhost(host):
            return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))]
        if (host, port) not in self._known:
            self._known[host, port] = _look_up(host, port)
        return self._known[host, port]

    def forget(self, host: str, port: int) -> None:
        """Look the name up again the next time."""
        self._known.pop((host, port), None)


def _look_up(host: str, port: int) -> list[Address]:
    for flags in (socket.AI_NUMERICHOST, 0):
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        except (OSError, UnicodeError):
            continue
        return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    raise TransportError("name", f"no computer named {host} is known here", "Check the address and the network")


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy, with the value of ``Proxy-Authorization`` or ''."""

    host: str
    port: int
    authorization: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


def proxy_for(url: ServerUrl) -> Proxy | None:
    """The system's proxy for this server; never one for this computer itself.

    Raises TransportError for a proxy that this module cannot use.
    """
    if url.is_loopback:
        return None
    configured: Any = urllib.request.getproxies().get(url.scheme)
    if not configured or urllib.request.proxy_bypass(url.host):
        return None
    parts = urlsplit(configured if "://" in configured else f"http://{configured}")
    if parts.scheme != "http" or not parts.hostname:
        raise TransportError("proxy", f"the system's proxy is of the kind {parts.scheme}://, which cannot be used here")
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    basic = f"Basic {base64.b64encode(login.encode('utf-8')).decode('ascii')}" if login else ""
    return Proxy(parts.hostname, parts.port or 80, basic)
