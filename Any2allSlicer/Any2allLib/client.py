"""Contract 3 as calls: each builds one exchange, is advanced by ``tick``, and ends with a value or with one failure."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from .exchange import Exchange, Timeouts
from .failures import Failure, ProtocolError, ServerError, TransportError
from .protocol import JobStatus, ServerInfo, SubjectInfo, Submitted, parse_subjects
from .request import FilePart, Request, multipart, study_text
from .response import Reply, Target
from .route import AddressBook, ServerUrl, is_loopback, proxy_for

__all__ = ["Call", "Client", "Patience", "is_loopback"]

BASE = "/any2all/v1"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Patience:
    """Time limits by kind of call: ``quick`` for info and polls; an upload waits until its files have been checked."""

    quick: Timeouts = Timeouts(5.0, 10.0)
    upload: Timeouts = Timeouts(5.0, 120.0)
    download: Timeouts = Timeouts(5.0, 30.0)


class Call(Generic[Value]):
    """One call under way.

    Attributes:
        value: what the server said, once over and well.
        failure: why there is no value, once over and not well.
        status: HTTP status of the reply, or None.
    """

    def __init__(self, make: Callable[[], Exchange], read: Callable[[Reply], Value]) -> None:
        self.value: Value | None = None
        self.failure: Failure | None = None
        self.status: int | None = None
        self._read = read
        self._exchange: Exchange | None = None
        try:
            self._exchange = make()
        except Failure as failure:
            self.failure = failure

    @property
    def is_over(self) -> bool:
        return self._exchange is None or self._exchange.is_over

    @property
    def bytes_sent(self) -> int:
        return self._exchange.bytes_sent if self._exchange else 0

    @property
    def bytes_total(self) -> int:
        return self._exchange.bytes_total if self._exchange else 0

    @property
    def bytes_received(self) -> int:
        return self._exchange.bytes_received if self._exchange else 0

    @property
    def bytes_expected(self) -> int | None:
        return self._exchange.bytes_expected if self._exchange else None

    def tick(self, budget_s: float = 0.02) -> bool:
        """Go on for about ``budget_s`` seconds → whether the call is over."""
        if self.is_over:
            return True
        if self._exchange.tick(budget_s):
            self._conclude()
        return self.is_over

    def abort(self) -> None:
        """Give up; nothing stays behind."""
        if not self.is_over:
            self._exchange.abort()
            self._conclude()

    def _conclude(self) -> None:
        reply = self._exchange.reply
        if reply is None:
            self.failure = self._exchange.failure
            return
        self.status = reply.status
        try:
            self.value = self._read(reply)
        except Failure as failure:
            self.failure = failure


class Client:
    """A server, by its address and token.

    Args:
        url: ``http(s)://host[:port][/prefix]``.
        token: sent as ``Authorization: Bearer``, unless empty.
        patience: time limits.
        tls: context for https; default: the system's certificates.

    Raises:
        ValueError: an address or token that cannot be used, in words.
    """

    def __init__(
        self, url: str, token: str = "", patience: Patience = Patience(), tls: ssl.SSLContext | None = None
    ) -> None:
        self.url, self.token, self.patience, self._tls = ServerUrl.parse(url), token.strip(), patience, tls
        if not self.token.isascii() or any(not c.isprintable() or c == " " for c in self.token):
            raise ValueError("The token holds characters that no token has.")
        self._book = AddressBook()

    @property
    def is_loopback(self) -> bool:
        """Whether the server is this computer: nothing leaves it then."""
        return self.url.is_loopback

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read token and images: https, or a server on this computer."""
        return self.is_loopback or self.url.scheme == "https"

    def info(self) -> Call[ServerInfo]:
        """What the server is and can do. Ask `protocol.compatibility` before anything else of it is used."""
        return self._call("GET", "/info", self._read_info)

    def submit(self, study: Mapping[str, Any], files: Mapping[str, Path]) -> Call[Submitted]:
        """Send a study; ``files`` are by the names that it uses (`form.Form.study_document`)."""
        parts = [FilePart(name, Path(path)) for name, path in files.items()]
        return self._post({"study": study_text(study)}, parts)

    def submit_subject(self, subject: str, changes: Mapping[str, Any] | None = None) -> Call[Submitted]:
        """Have the server take a subject of its own study store; ``changes`` replace keys of its study."""
        fields = {"subject": subject}
        return self._post({**fields, "study": study_text(changes)} if changes else fields, [])

    def status(self, job_id: str) -> Call[JobStatus]:
        """How far a job is."""
        return self._call("GET", _job(job_id), lambda reply: JobStatus.parse(self._json(reply)))

    def cancel(self, job_id: str) -> Call[None]:
        """Cancel a job; `status` says when it has stopped."""
        return self._call("DELETE", _job(job_id), self._accepted)

    def result(self, job_id: str, name: str, file: Path, sha256: str | None = None) -> Call[Path]:
        """Receive one volume into ``file``, which appears only when it is whole and has the right checksum."""
        target = f"{_job(job_id)}/results/{quote(name, safe='/')}"
        return self._call("GET", target, self._saved, self.patience.download, Target(Path(file), sha256))

    def subjects(self) -> Call[tuple[SubjectInfo, ...]]:
        """Subjects of the server's study store; none where the server does not list them."""
        return self._call("GET", "/subjects", self._read_subjects)

    # -- sending -------------------------------------------------------------------------------------------------------

    def _post(self, fields: Mapping[str, str], files: list[FilePart]) -> Call[Submitted]:
        def make() -> Exchange:
            request = Request("POST", self._target("/jobs"), self._headers(), multipart(fields, files))
            return self._exchange(request, self.patience.upload)

        return Call(make, lambda reply: Submitted.parse(self._json(reply)))

    def _call(
        self,
        method: str,
        path: str,
        read: Callable[[Reply], Value],
        timeouts: Timeouts | None = None,
        target: Target | None = None,
    ) -> Call[Value]:
        request = Request(method, self._target(path), self._headers())
        return Call(lambda: self._exchange(request, timeouts or self.patience.quick, target), read)

    def _exchange(self, request: Request, timeouts: Timeouts, target: Target | None = None) -> Exchange:
        if self.url.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()  # reads the system's certificates: once is enough
        return Exchange(self.url, request, target, timeouts, proxy_for(self.url), self._tls, self._book)

    def _target(self, path: str) -> str:
        return f"{self.url.prefix}{BASE}{path}"

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json, */*", "User-Agent": "Any2allSlicer"}
        return {**headers, "Authorization": f"Bearer {self.token}"} if self.token else headers

    # -- reading -------------------------------------------------------------------------------------------------------

    def _accepted(self, reply: Reply) -> None:
        """Raises what the server complains about."""
        if 300 <= reply.status < 400:
            where = reply.headers.get("location", "another address")
            raise TransportError("redirect", f"the server sends on to {where[:200]}", "Enter that address instead")
        if not 200 <= reply.status < 300:
            error = ServerError.parse(_document(reply), reply.status)
            if reply.status == 401 and not self.token:
                error.code = "token_missing"
            raise error

    def _json(self, reply: Reply) -> Any:
        self._accepted(reply)
        document = _document(reply)
        if document is None:
            raise ProtocolError("it is no JSON")
        return document

    def _read_info(self, reply: Reply) -> ServerInfo:
        if reply.status in (404, 405):
            raise ServerError(
                "not_any2all",
                f"no Any2all server answers at {self.url}, or one that is too old for this module",
                hint="check the address, or ask the server's administrator to update it",
                http_status=reply.status,
            )
        return ServerInfo.parse(self._json(reply))

    def _read_subjects(self, reply: Reply) -> tuple[SubjectInfo, ...]:
        return () if reply.status in (404, 405) else parse_subjects(self._json(reply))

    def _saved(self, reply: Reply) -> Path:
        self._accepted(reply)
        if reply.file is None:
            raise ProtocolError(f"a volume was asked for, and HTTP {reply.status} came without one")
        return reply.file


def _job(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


def _document(reply: Reply) -> Any:
    """The reply's JSON, or None."""
    try:
        return json.loads(reply.body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
