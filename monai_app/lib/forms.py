"""Reading what a client sends: forms with bounds, closed sets of keys, JSON in words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, BinaryIO, TypeVar

import anyio
import anyio.to_thread
from any2all.errors import Any2allError
from pydantic import BaseModel, ConfigDict, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from .intake import shown, study_document
from .settings import Limits

T = TypeVar("T", bound="Closed")
R = TypeVar("R")
MOST_FIELDS = 8
UPLOADS = anyio.CapacityLimiter(4)  # that are stored and checked at once
FORM_KINDS = ("multipart/form-data", "application/x-www-form-urlencoded")


class Closed(BaseModel):
    """Keys that a client may send, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def only_queries(request: Request, *allowed: str) -> None:
    """Refuse query parameters that the route does not know: a misspelt one would be ignored in silence."""
    for name in request.query_params:
        if name not in allowed:
            raise Any2allError(
                "unknown query parameter", key=name[:80], allowed=allowed or "none", code="invalid_request"
            )


@asynccontextmanager
async def form_of(request: Request, limits: Limits) -> AsyncIterator[FormData]:
    """A multipart form: at most so many files and fields, fields not longer than a study; its files close with it."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    charset = options.get(b"charset", b"utf-8").lower()
    if kind.decode("latin-1") not in FORM_KINDS or charset not in (b"utf-8", b"utf8"):  # others are not all total
        raise Any2allError(
            "this route takes a form in UTF-8",
            key="Content-Type",
            value=shown(request.headers.get("content-type", "")),
            allowed="multipart/form-data",
            code="unsupported",
        )
    most = {"max_files": limits.files, "max_fields": MOST_FIELDS, "max_part_size": limits.study_bytes}
    async with request.form(**most) as form:
        yield form


async def aside(function: Callable[..., R], *arguments: Any) -> R:
    """Run what may take seconds in a thread, few at a time: the threads that answer polls are left alone."""
    return await anyio.to_thread.run_sync(function, *arguments, limiter=UPLOADS)


def fields_of(form: FormData, texts: Collection[str], files: Collection[str]) -> dict[str, str]:
    """The text fields of a form, each once; unknown ones and files in the place of texts are refused."""
    found: dict[str, str] = {}
    for name, value in form.multi_items():
        if name not in (*texts, *files):
            raise Any2allError("unknown field", key=name[:80], allowed=[*texts, *files], code="invalid_request")
        if isinstance(value, UploadFile) != (name in files):
            raise Any2allError(
                "this field is a file" if name in files else "this field is a text", key=name, code="invalid_request"
            )
        if name in texts:
            if name in found:
                raise Any2allError("this field was sent twice", key=name, code="invalid_request")
            found[name] = str(value)
    return found


def files_of(form: FormData, field: str) -> list[tuple[str | None, BinaryIO]]:
    """(name, stream) of each file of a field."""
    return [(f.filename, f.file) for f in form.getlist(field) if isinstance(f, UploadFile)]


def parsed(model: type[T], text: str | bytes, key: str, limits: Limits) -> T:
    """JSON text as a closed model. Raises Any2allError that names the key below ``key``."""
    try:
        document = study_document(text or "{}", limits)
    except Any2allError as error:
        code = "invalid_request" if error.code == "invalid_study" else error.code
        message = error.message.replace("study", key)
        raise Any2allError(message, key=key, value=error.value, allowed=error.allowed, code=code) from None
    return validated(model, document, key)


def validated(model: type[T], document: dict[str, Any], key: str) -> T:
    """Values as a closed model, with the first complaint in words."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join([key, *map(str, first["loc"])])
        unknown = first["type"] == "extra_forbidden"
        raise Any2allError(
            "unknown key" if unknown else first["msg"],
            key=path[:120],
            value=None if unknown else repr(first["input"])[:80],
            allowed=sorted(model.model_fields) if unknown else None,
            code="invalid_request",
        ) from None
