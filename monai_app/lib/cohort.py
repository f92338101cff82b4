"""``/batch/infer``: every subject of the study store, one after another, beside the jobs of clients.

Only one of its jobs is in the queue at a time, so a client never waits for more than one of them.
"""

from __future__ import annotations

import threading
import time
import uuid
from datetime import datetime
from typing import Any, Literal

from any2all.errors import Any2allError
from any2all.study import SamplerDocument
from pydantic import Field

from .forms import Closed
from .jobs import ENDED, Job
from .service import Service

Images = Literal["all", "labeled", "unlabeled"]
WAIT_SECONDS = 0.5
MOST_WORDS = 300  # that are kept of a problem


class BatchParams(Closed):
    """What a batch may ask for; the rest is each subject's own study. ``save``: label of the saved results."""

    preset: Literal["fast", "balanced", "best"] | None = None
    outputs: list[str] | None = Field(None, max_length=32)
    sampler: SamplerDocument | None = None
    save: str = Field("batch", max_length=64)
    client_id: str | None = None

    def changes(self) -> dict[str, Any]:
        """Keys of the study that are replaced."""
        return self.model_dump(include={"preset", "outputs", "sampler"}, exclude_none=True)


class Batch:
    """One run over the study store, in a thread of its own."""

    def __init__(self, service: Service, images: Images, params: BatchParams) -> None:
        self.id, self.service, self.images, self.params = str(uuid.uuid4()), service, images, params
        self.started, self.ended = datetime.now(), None
        self.status = "RUNNING"
        self.subjects = {name: "waiting" for name in self._wanted()}
        self.problems: dict[str, str] = {}
        self._current: Job | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="any2all-batch").start()

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"

    def stop(self) -> None:
        """Cancel the current subject and leave the rest."""
        self._stopped.set()
        job = self._current
        if job is not None and not job.is_over:
            self.service.book.cancel(job.id)

    def told(self) -> dict[str, Any]:
        """The status in MONAI Label's words, with ours beside them."""
        states = list(self.subjects.values())
        job = self._current
        return {
            "id": self.id,
            "status": self.status,
            "request": {
                "model": "any2all",
                "images": self.images,
                "params": self.params.model_dump(exclude={"client_id"}),
            },
            "start_ts": self.started.strftime("%Y-%m-%d %H:%M:%S"),
            "end_ts": self.ended.strftime("%Y-%m-%d %H:%M:%S") if self.ended else None,
            "total": len(states),
            "finished": sum(s in ENDED or s in ("kept", "refused") for s in states),
            "failed": sum(s in ("failed", "refused", "lost") for s in states),
            "subjects": dict(self.subjects),
            "problems": dict(self.problems),
            "current": self.service.book.status(job) if job is not None else None,
            "details": [f"{name}: {state}" for name, state in self.subjects.items() if state != "waiting"][-20:],
        }

    def _wanted(self) -> list[str]:
        studies = self.service.studies
        labelled = {name: self.params.save in studies.results(name) for name in studies.subjects()}
        if self.images == "all":
            return list(labelled)
        return [name for name, done in labelled.items() if done == (self.images == "labeled")]

    def _run(self) -> None:
        status = "ERROR"
        try:
            for name in self.subjects:
                if self._stopped.is_set():
                    break
                self._fill(name)
            failed = any(s in ("failed", "refused", "lost") for s in self.subjects.values())
            status = "CANCELED" if self._stopped.is_set() else "ERROR" if failed else "DONE"
        finally:  # whatever happens, the next batch can be started
            self.ended, self._current, self.status = datetime.now(), None, status

    def _fill(self, name: str) -> None:
        try:
            if self.params.save in self.service.studies.results(name):
                self.subjects[name] = "kept"
                return
            self._current = job = self._submitted(name)
        except Any2allError as error:
            self.subjects[name], self.problems[name] = "refused", error.sentence()[:MOST_WORDS]
            return
        if job is None:
            return
        if self._stopped.is_set():  # between the submission and its being known here
            self.service.book.cancel(job.id)
        while not job.is_over:
            self.subjects[name] = job.state
            time.sleep(WAIT_SECONDS / 5)
        self.subjects[name] = job.state
        if job.error:
            self.problems[name] = str(job.error["message"])[:MOST_WORDS]
        self._current = None
        self.service.book.forget(job)

    def _submitted(self, name: str) -> Job | None:
        """The subject's job, once the queue has room; None when the batch is stopped before."""
        while not self._stopped.is_set():
            try:
                return self.service.submit_subject(name, self.params.changes(), self.params.save)
            except Any2allError as error:
                if error.code != "queue_full":
                    raise
            self._stopped.wait(WAIT_SECONDS)
        return None


class Batches:
    """Batches of one server; one runs at a time."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._all: list[Batch] = []
        self._lock = threading.Lock()

    def start(self, images: Images, params: BatchParams) -> dict[str, Any]:
        with self._lock:
            if self._all and self._all[-1].running:
                raise Any2allError("a batch is running", key="batch", hint="stop it first, or wait", code="conflict")
            self._all = [*self._all[-9:], Batch(self.service, images, params)]
            return self._all[-1].told()

    def status(self, everything: bool = False, running: bool = False) -> Any:
        """The last batch, or all of them. Raises Any2allError (``not_found``) where there is none, or none runs."""
        found = [batch for batch in self._all if batch.running or not running]
        if not found:
            raise Any2allError(
                "no batch is running" if running else "there was no batch yet", key="batch", code="not_found"
            )
        return [batch.told() for batch in found] if everything else found[-1].told()

    def stop(self) -> Any:
        batch = self._all[-1] if self._all else None
        if batch is not None and batch.running:
            batch.stop()
        return self.status()
