"""Where uvicorn listens and how it ends, decided from inside the application that it is starting.

MONAI Label starts uvicorn with 0.0.0.0 unless told otherwise. The application is built while uvicorn starts up, before
it opens its socket: what is changed in its configuration then is where it binds.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import socket
import threading
from collections.abc import Callable, Sequence

import uvicorn
from any2all.errors import Any2allError

from .gate import is_loopback
from .logs import events
from .settings import ServerSettings

LOOPBACK = "127.0.0.1"
HOST_OPTIONS = ("--ho", "--hos", "--host")  # argparse takes what can only mean --host

_log = events("binding")


def running_server() -> uvicorn.Server | None:
    """The uvicorn server that starts or runs this process's application; None once it ends, and under anything else.

    uvicorn hands itself to nobody, so it is looked for among the live objects.
    """
    servers = [s for s in gc.get_objects() if issubclass(type(s), uvicorn.Server)]  # isinstance() would wake proxies
    serving = [s for s in servers if hasattr(s, "lifespan") and not (s.started and s.should_exit)]
    if len(serving) > 1:
        raise Any2allError("several servers run in one process", allowed="one", code="invalid_setting")
    return serving[0] if serving else None


def secure_binding(server: uvicorn.Server, arguments: Sequence[str], settings: ServerSettings) -> str:
    """Make ``server`` listen on loopback unless the command line names a host, and return the host.

    Also: one process, no ``Server`` header, and no endless wait for idle clients at the end.

    Args:
        server: a server that has not yet opened its socket.
        arguments: the command line, without the program's name.
        settings: a token is required for a host that other machines can reach.

    Raises:
        Any2allError: several processes, or a host without the token that it needs.
    """
    config = server.config
    if config.workers > 1 or config.should_reload:
        raise Any2allError(
            "one process owns the device",
            key="workers",
            value=config.workers,
            allowed="one worker, without --reload",
            hint="unset WEB_CONCURRENCY and leave --workers out",
            code="invalid_setting",
        )
    if not _names_host(arguments):
        config.host = LOOPBACK
    if settings.token is None and not is_loopback(config.host):
        raise Any2allError(
            "other machines could reach this server, and it has no token",
            key="host",
            value=config.host,
            hint=f"set ANY2ALL_TOKEN or ANY2ALL_TOKEN_FILE, or listen on {LOOPBACK}, which is the default",
            code="invalid_setting",
        )
    config.server_header = False
    config.encoded_headers = [(name, value) for name, value in config.encoded_headers if name != b"server"]
    if config.timeout_graceful_shutdown is None:
        config.timeout_graceful_shutdown = settings.limits.shutdown_seconds
    return config.host


def on_shutdown(server: uvicorn.Server | None, stop: Callable[[], None]) -> None:
    """Call ``stop`` once, in a thread of its own, when ``server`` begins to shut down.

    uvicorn still answers polls while ``stop`` runs; only then are connections closed. If uvicorn ends without that (it
    could not bind), or where there is no uvicorn, ``stop`` runs as the interpreter exits; threads that are not daemons
    keep the interpreter from getting there.
    """
    once = _Once(stop)
    atexit.register(once)
    if server is None:
        return
    shutdown = server.shutdown

    async def stop_first(sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(once)
        await shutdown(sockets=sockets)

    server.shutdown = stop_first


class _Once:
    """Calls a function the first time; what it raises is logged, because the shutdown has to go on."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function, self._lock, self._called = function, threading.Lock(), False

    def __call__(self) -> None:
        with self._lock:
            if self._called:
                return
            self._called = True
            try:
                self._function()
            except Exception as error:
                _log.error("stop failed", error=type(error).__name__)


def _names_host(arguments: Sequence[str]) -> bool:
    return any(
        argument.partition("=")[0] in HOST_OPTIONS or (argument.startswith("-i") and not argument.startswith("--"))
        for argument in arguments
    )
