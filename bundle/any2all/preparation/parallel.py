"""Many subjects at once, in processes that leave nothing half-written when they are stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import SimpleITK as sitk

from ..errors import Any2allError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_processes(
    function: Callable[[Item], Answer], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Answer | Any2allError]]:
    """``function`` of every item, each answer as it comes; an `Any2allError` is an answer, too.

    When the caller breaks off (Ctrl-C), the processes clean up what they were at and end.

    Raises:
        Any2allError: a process was killed, as the system does when memory runs out.
    """
    waiting = list(reversed(items))
    running: dict[Future, Item] = {}
    pool = ProcessPoolExecutor(min(workers, len(items)), initializer=_start)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                item = waiting.pop()
                running[pool.submit(function, item)] = item
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), _answer(done)
    except BrokenProcessPool:
        raise Any2allError(
            "a worker process was killed",
            key="workers",
            value=workers,
            hint="fewer workers need less memory; what is done is kept",
            code="failed",
        ) from None
    finally:
        if running:
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _answer(done: Future) -> Any:
    error = done.exception()
    if isinstance(error, Any2allError):
        return error
    return done.result()


def _start() -> None:
    """One thread for a process; Ctrl-C is the parent's business, and a parent that is gone ends its children."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _stop(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(1)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
