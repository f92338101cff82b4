"""Contract 3: ``/any2all/v1``. Jobs, their progress, their results; nothing here waits for the device."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from any2all.errors import Any2allError
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from .forms import aside, fields_of, files_of, form_of, only_queries
from .intake import study_document
from .jobs import Job
from .replies import Json
from .service import Service

PIECE = 1 << 18
TYPES = {".gz": "application/gzip", ".png": "image/png", ".json": "application/json"}


def router(service: Service) -> APIRouter:
    """The routes of one service."""
    routes = APIRouter(prefix="/any2all/v1", tags=["Any2all"])
    limits = service.settings.limits

    @routes.get("/info", summary="Protocol, stack, samplers, presets with their expected time, limits, prior, device")
    def info(request: Request) -> Json:
        only_queries(request)
        return Json(service.info())

    @routes.get("/health", summary="starting, ok, failing or stopping; open to everybody")
    def health() -> Json:
        told = service.health()
        return Json(told, 200 if told["state"] == "ok" else 503)

    @routes.get("/study-schema", summary="JSON Schema of a study of this server's stack")
    def schema(request: Request) -> Json:
        only_queries(request)
        return Json(service.schema())

    @routes.get("/metrics", summary="Numbers for Prometheus")
    def metrics(request: Request) -> Response:
        only_queries(request)
        return Response(service.metrics.page(service.book), media_type="text/plain; version=0.0.4; charset=utf-8")

    @routes.get("/subjects", summary="Subjects of the study store")
    def subjects(request: Request) -> Json:
        only_queries(request)
        return Json({"subjects": [subject_of(service, name) for name in service.studies.subjects()]})

    @routes.post("/jobs", status_code=202, summary="Fill a study: fields study and files, or subject (and save)")
    async def submit(request: Request) -> Json:
        only_queries(request)
        await run_in_threadpool(service.check_open)
        async with form_of(request, limits) as form:
            texts = fields_of(form, ("study", "subject", "save"), ("files",))
            job = await aside(submitted, service, texts, files_of(form, "files"))
        told = await run_in_threadpool(service.book.status, job)
        return Json({"job_id": job.id, "position": told["position"]}, 202)

    @routes.get("/jobs/{job_id}", summary="State, stage, step of total, remaining time, results")
    def status(request: Request, job_id: str) -> Json:
        only_queries(request)
        return Json(service.book.status(service.book.get(job_id)))

    @routes.delete("/jobs/{job_id}", summary="Cancel a job; forget one that has ended")
    def cancel(request: Request, job_id: str) -> Json:
        only_queries(request)
        return Json(service.book.status(service.book.cancel(job_id)))

    @routes.get("/jobs/{job_id}/results/{name:path}", summary="One result: a volume, report.png or summary.json")
    def result(request: Request, job_id: str, name: str) -> Response:
        only_queries(request)
        return sent(name, service.result(job_id, name))

    return routes


def submitted(service: Service, texts: dict[str, str], files: list[tuple[str | None, BinaryIO]]) -> Job:
    """The job of a form: its own study with files, or a subject of the study store whose study may be replaced."""
    document = study_document(texts["study"], service.settings.limits) if "study" in texts else None
    if "subject" not in texts:
        if document is None:
            raise Any2allError(
                "a job needs a study", key="study", allowed="study with files, or subject", code="invalid_request"
            )
        if "save" in texts:
            raise Any2allError("only a subject's results can be saved beside it", key="save", value=texts["save"][:80])
        return service.submit_upload(document, files)
    if files:
        raise Any2allError("a subject of the study store brings its own files", key="files", code="invalid_request")
    return service.submit_subject(texts["subject"], document, texts.get("save"))


def subject_of(service: Service, name: str) -> dict[str, object]:
    """One line of the study store's list."""
    return {
        "subject": name,
        "modalities": service.studies.modalities(name),
        "problem": service.studies.problem(name),
        "results": service.studies.results(name),
    }


def opened(file: Path, gone: Any2allError) -> BinaryIO:
    """A file to send. Raises ``gone`` where it was removed after it had been found, or may not be read."""
    try:
        return file.open("rb")
    except (FileNotFoundError, PermissionError):
        raise gone from None


def sent(name: str, stream: BinaryIO) -> StreamingResponse:
    """An opened file as an attachment; it may be removed while it is sent."""
    size = os.fstat(stream.fileno()).st_size
    plain = re.sub(r"[^A-Za-z0-9._+ -]", "_", Path(name).name)  # a file of the study store may be called anything
    headers = {"Content-Disposition": f'attachment; filename="{plain}"', "Content-Length": str(size)}
    kind = TYPES.get(Path(name).suffix, "application/octet-stream")
    return StreamingResponse(pieces(stream), media_type=kind, headers=headers)


def pieces(stream: BinaryIO) -> Iterator[bytes]:
    """A file's content, closed at the end or when the client is gone."""
    with stream:
        while piece := stream.read(PIECE):
            yield piece
