"""Every error as JSON in words: ``{code, message, key, value, allowed, hint}`` (contract 3) with a fitting status."""

from __future__ import annotations

import errno
import json
import re
import secrets
from pathlib import Path
from typing import Any

from any2all.errors import Any2allError
from any2all.output.summary import plain
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

from .logs import events, where

LONGEST_VALUE = 80
LONGEST_BITS = 256  # of a whole number that is echoed
LONGEST_KEY = 200
LONGEST_TEXT = 1000
RETRY_SECONDS = 10
SERVER = "<server>"  # stands for a folder of this machine

STATUS: dict[str, int] = {
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "unknown_job": 404,
    "unknown_subject": 404,
    "unknown_session": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "conflict": 409,
    "exists": 409,
    "lost": 409,
    "not_ready": 409,
    "too_large": 413,
    "unsupported": 415,
    "invalid_image": 422,
    "invalid_request": 422,
    "invalid_setting": 422,
    "invalid_study": 422,
    "invalid_upload": 422,
    "missing_file": 422,
    "registration": 422,
    "queue_full": 429,
    "internal": 500,
    "failed": 503,
    "out_of_memory": 503,
    "prior_unavailable": 503,
    "stopping": 503,
    "unavailable": 503,
    "worker_died": 503,
    "storage": 507,
}
OTHER_STATUS = 422  # an `Any2allError` is about what was asked, whatever its code

HTTP_WORDS: dict[int, tuple[str, str]] = {  # status of an HTTPException → our code and sentence
    401: ("unauthorized", "this server wants a token"),
    403: ("forbidden", "this is not allowed"),
    404: ("not_found", "there is nothing under this path"),
    405: ("method_not_allowed", "this path does not take this method"),
    408: ("timeout", "the request took too long"),
    409: ("conflict", "this does not fit the present state"),
    413: ("too_large", "the request is too large"),
    415: ("unsupported", "this kind of content is not read"),
    429: ("queue_full", "there are too many requests"),
    503: ("unavailable", "the server cannot do this at the moment"),
    507: ("storage", "there is no room left on the server"),
}

VALIDATION_WORDS: dict[str, str] = {  # beginnings of pydantic's error types → our sentence
    "missing": "this field is missing",
    "extra_forbidden": "this field is not known",
    "json_invalid": "this is not JSON",
    "int": "this has to be a whole number",
    "float": "this has to be a number",
    "finite_number": "this has to be a finite number",
    "bool": "this has to be true or false",
    "string": "this text cannot be used",
    "enum": "this is none of the allowed values",
    "literal": "this is none of the allowed values",
    "greater": "this number is too small",
    "less": "this number is too large",
    "too_long": "this has too many entries",
    "too_short": "this has too few entries",
    "uuid": "this is not an id",
}
PLACES = ("body", "query", "path", "header", "cookie")

_log = events("replies")


class Json(JSONResponse):
    """JSON that every reader takes: NaN and infinity are null, and a lone surrogate is an escape."""

    def render(self, content: Any) -> bytes:
        return json.dumps(plain(content), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def without_paths(text: str, *folders: str | Path) -> str:
    """``text`` without the given absolute folders: what lies below keeps its relative path, a bare one is ``<server>``.

    >>> without_paths("cannot read /srv/studies/p01/t1.nii.gz", "/srv/studies")
    'cannot read p01/t1.nii.gz'
    """
    paths = [path for folder in folders for path in (Path(folder), Path(folder).resolve())]
    names = {str(path) for path in paths if path.is_absolute() and path != Path(path.anchor)}
    for name in sorted(names, key=len, reverse=True):
        folder = rf"(?<![\w.-]){re.escape(name)}"
        text = re.sub(rf"{folder}/+(?=[\w.-])", "", text)
        text = re.sub(rf"{folder}/*(?![\w-]|\.\w)", SERVER, text)
    return text


def error_body(error: Any2allError, *hidden: Path) -> dict[str, Any]:
    """The six fields of contract 3. No value is longer than 80 characters, and no ``hidden`` folder is named."""
    return bounded(error.as_dict(), *hidden)


def bounded(fields: dict[str, Any], *hidden: Path) -> dict[str, Any]:
    """The fields of an error, cut to their lengths and without the ``hidden`` folders."""
    most = {"value": LONGEST_VALUE, "key": LONGEST_KEY}
    return {name: _short(value, most.get(name, LONGEST_TEXT), hidden) for name, value in fields.items()}


def error_reply(error: Any2allError, *hidden: Path) -> Json:
    """The reply for an error; ``hidden`` are folders whose paths it may not name."""
    status = STATUS.get(error.code, OTHER_STATUS)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 429:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return Json(error_body(error, *hidden), status_code=status, headers=headers)


def unforeseen(error: Exception, method: str | None = None, path_template: str | None = None) -> Any2allError:
    """What the client is told about an exception that nobody foresaw; the log gets the rest under the same id.

    Neither the reply nor the log holds the exception's text, which may name files and patients.
    """
    known = _resources(error)
    error_id = secrets.token_hex(8)
    _log.error(
        "unforeseen",
        error_id=error_id,
        error=type(error).__name__,
        where=where(error),
        code=known.code if known else "internal",
        method=method,
        path_template=path_template,
    )
    return known or Any2allError(
        "the server failed in a way that it did not foresee",
        key="error_id",
        value=error_id,
        hint="the server's log says more under this id",
        code="internal",
    )


def path_template(scope: Any) -> str | None:
    """The path of the route that took the request, as it was declared; None where no route did."""
    return getattr(scope.get("route"), "path", None)


def install(app: FastAPI, *hidden: Path) -> None:
    """Set the handlers for our errors, a request's validation, HTTP errors and everything else.

    They take effect when the middleware is built next. ``hidden``: see `error_reply`.
    """

    async def ours(request: Request, error: Any2allError) -> Json:
        return error_reply(error, *hidden)

    async def validation(request: Request, error: RequestValidationError) -> Json:
        return error_reply(_complaint(error), *hidden)

    async def http(request: Request, error: HTTPException) -> Json:
        if error.status_code == 500:
            return error_reply(unforeseen(error, request.method, path_template(request.scope)), *hidden)
        reply = error_reply(_http_error(error), *hidden)
        reply.headers.update({k: v for k, v in (error.headers or {}).items() if k.lower() == "allow"})
        return reply

    async def other(request: Request, error: Exception) -> Json:
        return error_reply(unforeseen(error, request.method, path_template(request.scope)), *hidden)

    app.add_exception_handler(Any2allError, ours)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, other)


def _short(value: Any, most: int, hidden: tuple[Path, ...]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_short(part, most, hidden) for part in value]
    if isinstance(value, int) and value.bit_length() > LONGEST_BITS:
        return "a number of more than 70 digits"
    if not isinstance(value, str):
        return value
    text = without_paths(value, *hidden)
    return text if len(text) <= most else text[: most - 1] + "…"


def _complaint(error: RequestValidationError) -> Any2allError:
    """The first of a request's complaints. The body that lacks a field is not echoed."""
    first = error.errors()[0]
    kind, place = str(first["type"]), [str(part) for part in first["loc"]]
    if kind == "json_invalid":  # its place ends with a count of characters
        place = place[:1]
    elif len(place) > 1 and place[0] in PLACES:
        place = place[1:]
    words = next((w for start, w in VALIDATION_WORDS.items() if kind.startswith(start)), "this value cannot be used")
    value, context = first.get("input"), first.get("ctx", {})
    bounds = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    allowed = [f"{said} {context[name]}" for name, said in bounds.items() if name in context]
    return Any2allError(
        words,
        key=".".join(place),
        value=value if isinstance(value, (str, int, float)) else None,
        allowed=context.get("expected") or " and ".join(allowed) or None,
        code="invalid_request",
    )


def _http_error(error: HTTPException) -> Any2allError:
    known = _resources(error.__cause__)
    if known:
        return known
    status = error.status_code
    if status in HTTP_WORDS:
        code, words = HTTP_WORDS[status]
        allowed = (error.headers or {}).get("Allow") if status == 405 else None
        return Any2allError(words, allowed=allowed, code=code)
    if status > 500:
        return Any2allError("the server cannot do this", code="unavailable")
    hint = error.detail if status == 400 and isinstance(error.detail, str) else None
    return Any2allError("the request cannot be read", hint=hint, code="invalid_request")


def _resources(error: BaseException | None) -> Any2allError | None:
    """The machine's own limits, which are no fault of the program."""
    if isinstance(error, MemoryError):
        return Any2allError("the server's memory does not suffice", hint="ask for less at once", code="out_of_memory")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Any2allError("there is no room left on the server", hint="tell its administrator", code="storage")
    return None
