"""``/batch/infer``: every subject of the study store, one after another, beside the jobs of clients.

Only one of its jobs is in the queue at a time, so a client never waits for more than one of them.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from any2all.errors import Any2allError
from any2all.study import SamplerDocument
from pydantic import Field

from .forms import Closed
from .jobs import ENDED, Job
from .service import Service
from .tasks import OneAtATime, Task

Images = Literal["all", "labeled", "unlabeled"]
WAIT_SECONDS = 0.5
MOST_WORDS = 300  # that are kept of a problem
OVER = (*ENDED, "kept", "refused")
BAD = ("failed", "refused", "lost")


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


class Batch(Task):
    """One run over the study store."""

    name = "batch"

    def __init__(self, service: Service, images: Images, params: BatchParams) -> None:
        super().__init__({"images": images, "params": params.model_dump(exclude={"client_id"})})
        self.service, self.params = service, params
        self.subjects = {name: "waiting" for name in self._wanted(images)}
        self.problems: dict[str, str] = {}
        self._current: Job | None = None

    def stop(self) -> None:
        """Cancel the current subject and leave the rest."""
        super().stop()
        job = self._current
        if job is not None and not job.is_over:
            self.service.book.cancel(job.id)

    def told(self) -> dict[str, Any]:
        states, job = list(self.subjects.values()), self._current
        return {
            **super().told(),
            "total": len(states),
            "finished": sum(s in OVER for s in states),
            "failed": sum(s in BAD for s in states),
            "subjects": dict(self.subjects),
            "problems": dict(self.problems),
            "current": self.service.book.status(job) if job is not None else None,
            "details": [f"{name}: {state}" for name, state in self.subjects.items() if state != "waiting"][-20:],
        }

    def _wanted(self, images: Images) -> list[str]:
        studies = self.service.studies
        labelled = {name: self.params.save in studies.results(name) for name in studies.subjects()}
        if images == "all":
            return list(labelled)
        return [name for name, done in labelled.items() if done == (images == "labeled")]

    def work(self) -> bool:
        for name in self.subjects:
            if not self.stopped.is_set():
                self._fill(name)
        return not any(state in BAD for state in self.subjects.values())

    def _fill(self, name: str) -> None:
        try:
            if self.params.save in self.service.studies.results(name):
                self.subjects[name] = "kept"
                return
            self._current = job = self._submitted(name)
        except Any2allError as error:
            self.subjects[name], self.problems[name] = "refused", error.sentence()[:MOST_WORDS]
            return
        except OSError as error:
            self.subjects[name] = "refused"
            self.problems[name] = f"the job could not be stored ({error.strerror or type(error).__name__})"
            return
        if job is None:
            return
        if self.stopped.is_set():  # between the submission and its being known here
            self.service.book.cancel(job.id)
        while not job.is_over:
            self.subjects[name] = job.state
            time.sleep(WAIT_SECONDS / 5)
        self.subjects[name] = job.state
        if job.error:
            self.problems[name] = str(job.error["message"])[:MOST_WORDS]
        elif job.state == "done" and job.save is None:
            self.subjects[name], self.problems[name] = "failed", job.warnings[-1][:MOST_WORDS]
        self._current = None
        self.service.book.forget(job)

    def _submitted(self, name: str) -> Job | None:
        """The subject's job, once the queue has room and a worker its prior; None when the batch is stopped before."""
        while not self.stopped.is_set():
            try:
                return self.service.submit_subject(name, self.params.changes(), self.params.save)
            except Any2allError as error:
                if error.code not in ("queue_full", "unavailable"):
                    raise
            self.stopped.wait(WAIT_SECONDS)
        return None


class Batches(OneAtATime):
    """Batches of one server."""

    name = "batch"

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.service = service

    def start(self, images: Images, params: BatchParams) -> dict[str, Any]:
        """Raises Any2allError (``conflict``) while one is running."""
        return self.begin(lambda: Batch(self.service, images, params))
