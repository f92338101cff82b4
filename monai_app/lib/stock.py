"""MONAI Label's own routes, with their replies and without their holes.

Their handlers are not used: they block the server, take paths from clients and write where a client says.
What a study store cannot answer (active learning, scoring, whole-slide images, proxies) has no route here.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any, Literal

from any2all.errors import Any2allError
from any2all.studies import folder_document
from any2all.study import StudyDocument
from fastapi import APIRouter, Request, Response
from pydantic import Field
from requests_toolbelt import MultipartEncoder
from starlette.concurrency import run_in_threadpool

from .cohort import Batches, BatchParams, Images
from .datastore import StudyDatastore
from .forms import Closed, aside, fields_of, files_of, form_of, only_queries, parsed
from .jobs import Job
from .logs import recent
from .replies import Json
from .routes import opened, sent
from .service import Service
from .sessions import Session, unknown
from .sizes import check_files
from .training import Trainings, TrainParams

MODEL = "any2all"
OUTPUTS = ("image", "json", "all")
MOST_LINES = 2000


class InferParams(Closed):
    """``params`` of an inference: parts of a study, and nothing that names a path, a model or a device.

    ``modalities`` is contract 1's, with the names of uploaded files; without it the files' names say what they are.
    ``save``: for a subject of the study store, label under which the results are also saved beside it.
    """

    modalities: dict[str, Any] | None = None
    reference: str | None = None
    registration: str | None = None
    outputs: list[str] | None = None
    preset: str | None = None
    sampler: dict[str, Any] | None = None
    save_samples: bool | None = None
    save: str | None = Field(None, max_length=64)
    client_id: str | None = None

    def changes(self) -> dict[str, Any]:
        """The study's keys that were sent."""
        return self.model_dump(include=set(StudyDocument.model_fields), exclude_none=True)


def router(service: Service, about: Callable[[], dict[str, Any]], batches: Batches, trainings: Trainings) -> APIRouter:
    """The routes of one service. ``about``: MONAI Label's description of the app."""
    routes = APIRouter(tags=["MONAI Label"])
    _inference(routes, service)
    _sessions(routes, service)
    _datastore(routes, service)
    _batch(routes, service, batches)
    _training(routes, service, trainings)

    @routes.get("/info/", summary="The app, its model, its trainer, the study store")
    def info(request: Request) -> Json:
        only_queries(request)
        return Json(about())

    @routes.get("/logs/", summary="The server's last events, one JSON object a line")
    def logs(request: Request, lines: int = 300, html: bool = False, text: bool = True, refresh: int = 0) -> Response:
        only_queries(request, "lines", "html", "text", "refresh")
        return Response("\n".join(recent(min(max(lines, 1), MOST_LINES))) + "\n", media_type="text/plain")

    return routes


def _inference(routes: APIRouter, service: Service) -> None:
    limits = service.settings.limits

    @routes.post("/infer/{model}", summary="Fill a subject, a session or one uploaded image, and wait for it")
    async def infer(
        request: Request, model: str, image: str = "", session_id: str = "", output: str = "all"
    ) -> Response:
        only_queries(request, "image", "session_id", "output")
        _known(model)
        if output not in OUTPUTS:
            raise Any2allError(
                "unknown kind of reply", key="output", value=output[:80], allowed=OUTPUTS, code="invalid_request"
            )
        await run_in_threadpool(service.check_open)
        async with form_of(request, limits) as form:
            texts = fields_of(form, ("params",), ("file",))
            params = await run_in_threadpool(parsed, InferParams, texts.get("params", "{}"), "params", limits)
            files = files_of(form, "file")
            job = await aside(_submitted, service, image, session_id, files, params)
        try:
            await service.book.over(job, request.is_disconnected)
            return await aside(_reply, service, job, output, params.save)
        finally:  # the reply holds everything; of a failed job, or one whose client has left, nothing is wanted
            if job.is_over:
                await run_in_threadpool(service.book.forget, job)


def _submitted(service: Service, image: str, session_id: str, files: list, params: InferParams) -> Job:
    """A job of exactly one source: a subject, a session, an uploaded image."""
    sources = [name for name, given in (("image", image), ("session_id", session_id), ("file", files)) if given]
    if len(sources) != 1:
        raise Any2allError(
            "an inference takes one source",
            key="image",
            value=", ".join(sources) or None,
            allowed="image (a subject of the study store), session_id, or file",
            code="invalid_request",
        )
    if image:
        return service.submit_subject(image, params.changes(), params.save)
    if params.save is not None:
        raise Any2allError("only a subject's results can be saved beside it", key="params.save", value=params.save)
    if session_id:
        session = service.sessions.get(session_id)
        return service.submit_session(session, _document(service, session, params))
    session = service.sessions.add(files)
    try:
        return service.submit_session(session, _document(service, session, params))
    finally:
        service.sessions.remove(session.id)


def _document(service: Service, session: Session, params: InferParams) -> dict[str, Any]:
    """The study of a session: what ``params`` says, else its files are told apart by their names."""
    if params.modalities is not None:
        return {"subject": "session", **params.changes()}
    check_files(session.files, service.settings.limits)  # the headers are about to be read
    return {**folder_document(session.folder, service.stack, "session"), **params.changes()}


def _reply(service: Service, job: Job, output: str, save: str | None) -> Response:
    """MONAI Label's reply: JSON params and one file, a NIfTI where one output was asked for, else a zip.

    An image alone cannot say that the results were not saved as asked: that is an error then.
    """
    if job.state != "done":
        error = job.error or {"message": f"the job was {job.state}", "code": job.state}
        raise Any2allError(
            error["message"],
            key=error.get("key"),
            value=error.get("value"),
            allowed=error.get("allowed"),
            hint=error.get("hint"),
            code=error["code"] if job.state != "cancelled" else "conflict",
        )
    told = service.book.status(job)
    params = {"job_id": job.id, "results": told["results"], "warnings": told["warnings"], "seconds": told["seconds"]}
    if output == "json":
        return Json(params)
    if output == "image" and job.save != save:
        raise Any2allError(job.warnings[-1], key="params.save", value=save, code="storage")
    name, content = _content(job)
    if output == "image":
        return Response(
            content,
            media_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
    kind = "application/zip" if name.endswith(".zip") else "application/gzip"
    message = MultipartEncoder(
        {"params": (None, json.dumps(params), "application/json"), "image": (name, content, kind)}
    )
    return Response(message.to_string(), media_type=message.content_type)


def _content(job: Job) -> tuple[str, bytes]:
    """Name and bytes of a reply's file. Raises Any2allError where another client has just deleted the job."""
    means = [r["name"] for r in job.results if r["role"] == "mean"]
    try:
        return (means[0], (job.output / means[0]).read_bytes()) if len(means) == 1 else ("any2all.zip", _zip(job))
    except FileNotFoundError:
        raise Any2allError("the results were deleted", key="job_id", value=job.id, code="conflict") from None


def _zip(job: Job) -> bytes:
    """All results of a job; volumes are compressed already."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(p for p in job.output.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(job.output).as_posix())
    return buffer.getvalue()


def _sessions(routes: APIRouter, service: Service) -> None:
    limits = service.settings.limits

    @routes.put("/session/", summary="Upload the files of a study, or one archive of them with uncompress")
    async def create(request: Request, uncompress: bool = False, expiry: int = 0) -> Json:
        only_queries(request, "uncompress", "expiry")
        async with form_of(request, limits) as form:
            fields_of(form, ("client_id",), ("files",))
            session = await aside(service.sessions.add, files_of(form, "files"), uncompress, expiry)
        return Json(session.told())

    @routes.get("/session/{session_id}", summary="The names of a session's files")
    def get(request: Request, session_id: str, update_ts: bool = False, image: bool = False) -> Response:
        only_queries(request, "update_ts", "image")
        session = service.sessions.get(session_id)
        if not image:
            return Json(session.told()["session_info"])
        if len(session.files) != 1:
            raise Any2allError(
                "this session holds several files", key="image", allowed=("false",), code="invalid_request"
            )
        file = session.files[0]
        return sent(file.name, opened(file, unknown(session_id)))

    @routes.delete("/session/{session_id}", summary="Forget a session and its files")
    def remove(request: Request, session_id: str) -> Json:
        only_queries(request)
        told = service.sessions.get(session_id).told()["session_info"]
        service.sessions.remove(session_id)
        return Json(told)


def _datastore(routes: APIRouter, service: Service) -> None:
    store = StudyDatastore(service.studies)

    @routes.get("/datastore/", summary="The study store: stats, train (a list) or all")
    def listing(request: Request, output: Literal["stats", "train", "all"] = "stats") -> Json:
        only_queries(request, "output")
        return Json({"stats": store.status, "train": store.datalist, "all": store.json}[output]())

    @routes.get("/datastore/image", summary="One image: <subject>/<modality>")
    @routes.head("/datastore/image", summary="Whether an image is there")
    def image(request: Request, image: str) -> Response:
        only_queries(request, "image")
        file = service.studies.image(*_two(image, "image"))
        gone = Any2allError("there is no such image", key="image", value=image[:80], code="not_found")
        return sent(file.name, opened(file, gone))

    @routes.get("/datastore/image/info", summary="A subject's modalities")
    def image_info(request: Request, image: str) -> Json:
        only_queries(request, "image")
        return Json(store.get_image_info(image))

    @routes.get("/datastore/label", summary="One saved result: subject, and <label>/<file> as tag")
    @routes.head("/datastore/label", summary="Whether a result is there")
    def label(request: Request, label: str, tag: str) -> Response:
        only_queries(request, "label", "tag")
        name, file = _two(tag, "tag")
        known = store.get_label_info(label, name)["files"]
        gone = Any2allError("there is no such result", key="tag", value=tag[:80], allowed=known, code="not_found")
        if file not in known:
            raise gone
        return sent(file, opened(service.studies.results_folder(label, name) / file, gone))

    @routes.get("/datastore/label/info", summary="The files of one set of results")
    def label_info(request: Request, label: str, tag: str) -> Json:
        only_queries(request, "label", "tag")
        return Json(store.get_label_info(label, tag))


def _two(name: str, key: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not rest:
        raise Any2allError(
            "two names with a slash between are needed", key=key, value=name[:80], code="invalid_request"
        )
    return first, rest


def _batch(routes: APIRouter, service: Service, batches: Batches) -> None:
    @routes.get("/batch/infer", summary="How far the batch is")
    def status(request: Request, all: bool = False, check_if_running: bool = False) -> Json:
        only_queries(request, "all", "check_if_running")
        return Json(batches.status(all, check_if_running))

    @routes.post("/batch/infer/{model}", summary="Fill every subject of the study store")
    async def start(request: Request, model: str, images: Images = "all") -> Json:
        only_queries(request, "images")
        _known(model)
        params = await _body(request, BatchParams, service)
        return Json(await run_in_threadpool(batches.start, images, params))

    @routes.delete("/batch/infer", summary="Stop the batch")
    def stop(request: Request) -> Json:
        only_queries(request)
        return Json(batches.stop())


def _training(routes: APIRouter, service: Service, trainings: Trainings) -> None:
    @routes.get("/train/", summary="How far the training is")
    def status(request: Request, all: bool = False, check_if_running: bool = False) -> Json:
        only_queries(request, "all", "check_if_running")
        return Json(trainings.status(all, check_if_running))

    @routes.post("/train/{model}", summary="Train a prior on the study store")
    async def start(request: Request, model: str) -> Json:
        only_queries(request)
        _known(model)
        params = await _body(request, TrainParams, service)
        return Json(await run_in_threadpool(trainings.start, params))

    @routes.delete("/train/", summary="Stop the training; the same request goes on from its checkpoint")
    def stop(request: Request) -> Json:
        only_queries(request)
        return Json(trainings.stop())


def _known(model: str) -> None:
    if model != MODEL:
        raise Any2allError("unknown model", key="model", value=model[:80], allowed=(MODEL,), code="not_found")


async def _body(request: Request, model: type, service: Service) -> Any:
    """A JSON body as a closed model; an empty one means its defaults."""
    limits = service.settings.limits
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > limits.study_bytes:
            raise Any2allError(
                "the request's body is too long", key="body", allowed=f"{limits.study_bytes} bytes", code="too_large"
            )
    return await run_in_threadpool(parsed, model, body, "body", limits)
