"""MONAI Label's web app with our routes, our gate and our errors in the place of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from . import routes, stock
from .binding import on_shutdown, running_server, secure_binding
from .cohort import Batches
from .gate import Gate
from .logs import events, setup
from .replies import install

if TYPE_CHECKING:
    from main import Any2allApp

log = events("server")
WELCOME = "Any2all server. Routes: /openapi.json. For 3D Slicer: the module Any2all.\n"


def close_the_door(label_app: Any2allApp, arguments: Sequence[str]) -> None:
    """Replace everything that answers requests, and see to the address that the server listens on.

    Raises:
        Any2allError: an address that others can reach without a token; several server processes.
    """
    from monailabel.app import app

    setup()
    server = running_server()
    service = label_app.service
    host = secure_binding(server, arguments, service.settings) if server is not None else None
    furnish(app, label_app)
    on_shutdown(server, lambda: stop(label_app))
    log.info("server starts", code="token" if service.settings.token else "loopback-only", peer=host)


def furnish(app: FastAPI, label_app: Any2allApp) -> None:
    """Our routes and gate on an app. What was there before is gone."""
    service = label_app.service
    app.router.routes.clear()
    app.title, app.version, app.openapi_schema = "Any2all", label_app.version, None
    app.include_router(routes.router(service))
    app.include_router(stock.router(service, label_app.info, Batches(service), label_app.trainings))
    app.add_api_route("/", lambda: PlainTextResponse(WELCOME), include_in_schema=False)
    app.add_api_route("/openapi.json", lambda: app.openapi(), include_in_schema=False)
    app.user_middleware[:] = [Middleware(Gate, settings=service.settings)]
    install(app, service.settings.work_dir, service.studies.root)
    app.middleware_stack = app.build_middleware_stack()


def stop(label_app: Any2allApp) -> None:
    """End what runs: the training writes its checkpoint, the job finishes or is cancelled; both have the same time.

    What is not over by then is killed with the server where a service manager or a container ends.
    """
    deadline = time.monotonic() + label_app.service.settings.limits.shutdown_seconds
    label_app.trainings.close()
    label_app.service.stop()
    label_app.trainings.wait(max(0.0, deadline - time.monotonic()))
