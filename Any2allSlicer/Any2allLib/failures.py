"""What can go wrong between the module and its server, each as one sentence that a radiologist can act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Failure(Exception):
    """Base of everything that a call to the server can fail with."""

    @property
    def again(self) -> bool:
        """Whether the same call may succeed a little later (the server is away, busy or restarting)."""
        return False

    def sentence(self) -> str:
        """What happened and what to do, in words."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.sentence()


@dataclass(eq=False)
class ProtocolError(Failure):
    """The server answered, but not in the way that this module understands."""

    message: str

    def sentence(self) -> str:
        return _sentences("The server's answer is not understood", self.message)


@dataclass(eq=False)
class TransportError(Failure):
    """No whole answer arrived. Codes that pass by themselves are in ``PASSING``.

    Attributes:
        code: name, connect, lost, silent, tls, proxy, not_http, redirect, too_large, file, sha256 or aborted.
        message: what happened, in words.
        hint: what to do about it, or ''.
    """

    code: str
    message: str
    hint: str = ""

    PASSING = ("name", "connect", "lost", "silent")

    @property
    def again(self) -> bool:
        return self.code in self.PASSING

    def sentence(self) -> str:
        return _sentences(self.message, self.hint)


@dataclass(eq=False)
class ServerError(Failure):
    """The server refused or failed: contract 3's error document, and the HTTP status that it came with."""

    code: str
    message: str
    key: str | None = None
    value: Any = None
    allowed: Any = None
    hint: str | None = None
    http_status: int | None = None

    @property
    def again(self) -> bool:
        return self.http_status in (408, 500, 502, 503, 504)

    @classmethod
    def parse(cls, document: Any, http_status: int | None = None) -> ServerError:
        """From an error document; whatever it lacks is filled from the HTTP status, for proxies speak no JSON."""
        fields = document if isinstance(document, Mapping) else {}
        code, message, hint = fields.get("code"), fields.get("message"), fields.get("hint")
        return cls(
            code=code if isinstance(code, str) else f"http_{http_status}",
            message=message if isinstance(message, str) and message else _of_status(http_status),
            key=str(fields["key"]) if fields.get("key") is not None else None,
            value=fields.get("value"),
            allowed=fields.get("allowed"),
            hint=hint if isinstance(hint, str) and hint else None,
            http_status=http_status,
        )

    def sentence(self) -> str:
        if self.code == "token_missing":
            return "The server wants a token. Enter the one that its administrator gave out."
        if self.http_status == 401:
            return "The server does not accept this token. Enter the one that its administrator gave out."
        if self.http_status == 429 and self.key in (None, "jobs"):
            room = f" ({_words(self.allowed)})" if self.allowed else ""
            return f"The server's queue is full{room}. Press Apply again in a few minutes, or use another server."
        where = [part for part in (self.key, None if self.value is None else _words(self.value)) if part]
        about = f" ({': '.join(where)})" if where else ""
        allowed = f"Allowed: {_words(self.allowed)}" if self.allowed else ""
        return _sentences(f"{self.message.rstrip('.')}{about}", allowed, self.hint or "")


def _of_status(http_status: int | None) -> str:
    known = {
        403: "the server does not allow this",
        404: "the server does not know this address",
        408: "the server waited too long for the data",
        410: "this is no longer on the server",
        413: "this is more than the server takes at once",
        502: "the server is not running behind its gateway",
        503: "the server is busy or being stopped",
        504: "the server did not answer its gateway in time",
    }
    if http_status is None:
        return "the computation failed, and the server does not say why"
    return f"{known.get(http_status, 'the server failed to answer')} (HTTP {http_status})"


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)


def _sentences(*parts: str) -> str:
    """Parts that are not empty, each with a capital and a full stop."""
    written = [part.strip().rstrip(".") for part in parts if part and part.strip()]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in written)
