"""Long work that a client starts, watches and stops, one at a time: batches and trainings."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from any2all.errors import Any2allError

KEPT = 10
Status = Literal["RUNNING", "DONE", "ERROR", "CANCELED"]


class Task:
    """One piece of work. ``work`` does it, in a thread of its own; `told` is its status in MONAI Label's words."""

    name: str

    def __init__(self, request: dict[str, Any]) -> None:
        self.id, self.request = str(uuid.uuid4()), {"model": "any2all", **request}
        self.started, self.ended = datetime.now(), None
        self.status: Status = "RUNNING"
        self.stopped, self.over = threading.Event(), threading.Event()

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"

    def begin(self) -> None:
        threading.Thread(target=self._run, daemon=True, name=f"any2all-{self.name}").start()

    def work(self) -> bool:
        """Do it; whether all went well. It has to end soon after ``stopped`` is set."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ask for its end."""
        self.stopped.set()

    def told(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": self.status,
            "request": self.request,
            "start_ts": self.started.strftime("%Y-%m-%d %H:%M:%S"),
            "end_ts": self.ended.strftime("%Y-%m-%d %H:%M:%S") if self.ended else None,
        }

    def _run(self) -> None:
        good = False
        try:
            good = self.work()
        finally:  # whatever happens, the next one can be started
            self.ended = datetime.now()
            self.status = "CANCELED" if self.stopped.is_set() else "DONE" if good else "ERROR"
            self.over.set()


class OneAtATime:
    """The last tasks of one kind. ``name``: what they are called in errors."""

    name: str

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._lock = threading.Lock()

    def begin(self, make: Callable[[], Task]) -> dict[str, Any]:
        """Start a task and tell its status. Raises Any2allError (``conflict``) while one is running."""
        with self._lock:
            if self._tasks and self._tasks[-1].running:
                message = f"a {self.name} is running"
                raise Any2allError(message, key=self.name, hint="stop it first, or wait", code="conflict")
            task = make()
            self._tasks = [*self._tasks[1 - KEPT :], task]
            task.begin()
            return task.told()

    def status(self, everything: bool = False, running: bool = False) -> Any:
        """The last task, or all of them. Raises Any2allError (``not_found``) where there is none, or none runs."""
        found = [task for task in self._tasks if task.running or not running]
        if not found:
            words = f"no {self.name} is running" if running else f"there was no {self.name} yet"
            raise Any2allError(words, key=self.name, code="not_found")
        return [task.told() for task in found] if everything else found[-1].told()

    def stop(self) -> Any:
        """Ask for the end of the running task, if there is one, and tell the last one's status."""
        self.close()
        return self.status()

    def close(self) -> None:
        """Ask for the end of the running task without waiting for it."""
        if self._tasks and self._tasks[-1].running:
            self._tasks[-1].stop()

    def wait(self, seconds: float) -> None:
        """Give the last task so long to end, as to write its checkpoint."""
        if self._tasks:
            self._tasks[-1].over.wait(seconds)
