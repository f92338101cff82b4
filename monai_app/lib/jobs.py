"""Jobs and their states, in memory and on disk: what a restart must not forget lies in ``jobs/<id>/job.json``.

    queued → running → done | failed | cancelled          a restart finds running → lost

Uploaded files are deleted as soon as a job ends; results wait for their client until they expire.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from any2all.errors import Any2allError
from any2all.output.summary import plain

from .settings import Limits

State = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
ENDED = ("done", "failed", "cancelled", "lost")
RECORD = "job.json"
LOST = Any2allError(
    "the server was stopped while this job was running",
    hint="send the study again",
    code="lost",
)


@dataclass
class Job:
    """One study on its way. What is not in `Job.record` is only known while the server lives.

    Attributes:
        document, folder: the study and where its files are: the job's own folder, or a subject of the study store.
        save: label under which the results are also saved beside the subject, or None.
        step, total: network passes over the whole job; total is None until the study has been read.
    """

    id: str
    home: Path
    document: dict[str, Any]
    folder: Path
    subject: str | None = None
    save: str | None = None
    state: State = "queued"
    created: float = field(default_factory=time.time)
    ended: float | None = None
    stage: str | None = None
    step: int = 0
    total: int | None = None
    warnings: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    wanted: bool = True
    cancel_since: float | None = None
    sampling_since: float | None = None
    sampling_from: int = 0
    counted_at: float = 0.0
    forecast_s: float | None = None

    @property
    def output(self) -> Path:
        return self.home / "results"

    @property
    def is_over(self) -> bool:
        return self.state in ENDED

    def spent(self) -> float | None:
        """Seconds from submission to end."""
        return None if self.ended is None else round(self.ended - self.created, 2)

    def record(self) -> dict[str, Any]:
        """What a later server needs to know; the study itself only as long as it may still have to run."""
        kept = ("id", "subject", "save", "state", "created", "ended", "warnings", "error", "results", "seconds")
        fields = {name: getattr(self, name) for name in kept}
        if not self.is_over:
            fields |= {"document": self.document, "folder": str(self.folder)}
        return fields

    def progress(self, stage: str, step: int | None, total: int | None) -> None:
        """Take in what the worker says; the count never runs backwards, even when a study is begun again."""
        self.stage = stage
        if total is None or step is None:
            return
        self.total = total
        if self.sampling_since is None:
            self.sampling_since, self.sampling_from = time.monotonic(), step
        self.counted_at = time.monotonic()
        self.step = max(self.step, min(step, total))

    def begin_again(self) -> None:
        """The worker starts over with fewer slices at once."""
        self.sampling_since = None

    def eta_s(self) -> float | None:
        """Seconds of sampling left: the forecast at first, then more and more what was measured."""
        if self.total is None or self.sampling_since is None:
            return self.forecast_s
        now, fresh = time.monotonic(), self.step - self.sampling_from
        forecast = None if self.forecast_s is None else max(self.forecast_s - (now - self.sampling_since), 0.0)
        if not fresh:
            return forecast
        each = (self.counted_at - self.sampling_since) / fresh
        measured = max(each * (self.total - self.step) - (now - self.counted_at), 0.0)
        share = min(4 * self.step / self.total, 1.0)
        return measured if forecast is None else share * measured + (1 - share) * forecast


class JobBook:
    """All jobs. Every method may be called from any thread.

    Args:
        folder: ``jobs`` in the work folder; made where it is missing.
        limits: queue length, how long and how many results are kept.
        ended: is told of each job that has ended (metrics, logs).
    """

    def __init__(self, folder: Path, limits: Limits, ended: Callable[[Job], None] = lambda job: None) -> None:
        self.folder, self.limits, self.ended = folder, limits, ended
        self.changed = threading.Condition(threading.RLock())
        self.closed = False
        self._jobs: dict[str, Job] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._recall()

    # -- for clients -----------------------------------------------------------------------------------------------

    def new_home(self) -> Path:
        """A folder for a job that is being received; without a record it is swept away by the next start."""
        home = self.folder / uuid.uuid4().hex
        (home / "study").mkdir(parents=True, mode=0o700)
        return home

    def check_room(self) -> None:
        """Raises Any2allError (``queue_full``, ``stopping``) when no further job is taken."""
        with self.changed:
            if self.closed:
                raise Any2allError("the server is being stopped", code="stopping", hint="try again in a minute")
            if len(self.queued()) >= self.limits.queue:
                raise Any2allError(
                    "the queue is full",
                    key="jobs",
                    allowed=f"{self.limits.queue} waiting jobs",
                    hint="try again later",
                    code="queue_full",
                )

    def submit(self, job: Job) -> Job:
        """Put a job into the queue.

        Raises:
            Any2allError: the queue is full, or another job will save under the same label (``exists``). The caller
                removes the job's home then.
        """
        with self.changed:
            self.check_room()
            if job.save is not None and self._saving(job.subject, job.save):
                message = "another job will save under this name"
                raise Any2allError(message, key="save", value=job.save, code="exists")
            self._write(job)
            self._jobs[job.id] = job
            self.changed.notify_all()
        return job

    def get(self, job_id: str) -> Job:
        """Raises Any2allError (``unknown_job``) for an id that never was or whose results have expired."""
        with self.changed:
            if job_id not in self._jobs:
                raise Any2allError(
                    "there is no such job",
                    key="job_id",
                    value=job_id[:64],
                    hint="it may have expired",
                    code="unknown_job",
                )
            return self._jobs[job_id]

    def status(self, job: Job) -> dict[str, Any]:
        """The reply of contract 3."""
        with self.changed:
            waiting = [j.id for j in self.queued()]
            eta = job.eta_s() if job.state == "running" else None
            return plain(
                {
                    "job_id": job.id,
                    "state": job.state,
                    "stage": job.stage if job.state == "running" else None,
                    "step": job.step,
                    "total": job.total,
                    "eta_s": None if eta is None else round(eta, 1),
                    "position": waiting.index(job.id) + 1 if job.id in waiting else None,
                    "warnings": job.warnings,
                    "error": job.error,
                    "results": job.results,
                    "seconds": job.seconds,
                    "saved_as": job.save if job.state == "done" else None,
                }
            )

    def cancel(self, job_id: str) -> Job:
        """Cancel a waiting or running job; forget one that has ended, results and all."""
        with self.changed:
            job = self.get(job_id)
            was_over = job.is_over
            if job.state == "queued":
                self.end(job, "cancelled")
            elif job.state == "running":
                job.wanted = False
                self.changed.notify_all()
        if was_over:
            self.forget(job)
        return job

    def forget(self, job: Job) -> None:
        """Remove a job that has ended, results and all; a slow disk holds up no poll meanwhile."""
        with self.changed, suppress(OSError):
            self._jobs.pop(job.id, None)
            (job.home / RECORD).unlink()  # first: what has no record is swept away by the next start
        shutil.rmtree(job.home, ignore_errors=True)

    async def over(self, job: Job, gone: Callable[[], Any]) -> Job:
        """Wait without a thread until a job has ended. When the client is ``gone``, the job is cancelled.

        Raises:
            Any2allError: ``stopping``; a job that still waits then is cancelled, as nobody could ask the next server
                for it.
        """
        while not job.is_over:
            if self.closed and job.state == "queued":
                await asyncio.to_thread(self.cancel, job.id)
                self.check_room()
            if await gone():
                await asyncio.to_thread(self.cancel, job.id)
            await asyncio.sleep(0.1)
        return job

    # -- for the dispatcher ----------------------------------------------------------------------------------------

    def queued(self) -> list[Job]:
        """Waiting jobs, the next one first."""
        with self.changed:
            return sorted((j for j in self._jobs.values() if j.state == "queued"), key=lambda j: (j.created, j.id))

    def running(self) -> Job | None:
        with self.changed:
            return next((j for j in self._jobs.values() if j.state == "running"), None)

    def next(self) -> Job | None:
        """The next job, now running; None when there is none or the book is closed."""
        with self.changed:
            waiting = [] if self.closed else self.queued()
            if not waiting:
                return None
            waiting[0].state = "running"
            self._note(waiting[0])
            return waiting[0]

    def end(
        self,
        job: Job,
        state: State,
        error: Any2allError | dict[str, Any] | None = None,
        results: list[dict[str, Any]] | None = None,
        warnings: list[str] | None = None,
        seconds: dict[str, float] | None = None,
    ) -> None:
        """A job has ended: its record is written first, then what nobody may see any more is removed."""
        with self.changed:
            if job.is_over:
                return
            job.state, job.ended, job.document, job.stage = state, time.time(), {}, None
            job.error = error.as_dict() if isinstance(error, Any2allError) else error
            job.results, job.warnings, job.seconds = results or [], warnings or [], seconds or {}
            if state == "done":
                job.step = job.total or job.step
            self._note(job)
            self._strip(job)
            self.changed.notify_all()
        self.ended(job)

    def close(self) -> None:
        """Take and start no further job; those that wait stay on disk for the next server."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def expire(self) -> int:
        """Forget what has waited too long, and the oldest where too many or too large results wait → how many."""
        with self.changed:
            over = sorted((j for j in self._jobs.values() if j.is_over), key=lambda j: j.ended or 0, reverse=True)
        count, size = 0, 0
        for number, job in enumerate(over):
            size += _size(job.output)
            old = time.time() - (job.ended or 0) > self.limits.result_seconds
            if old or number >= self.limits.kept_jobs or size > self.limits.kept_bytes:
                self.forget(job)
                count += 1
        return count

    def _saving(self, subject: str | None, label: str) -> bool:
        """Whether a job that has not ended will save its results beside a subject under this label."""
        return any(not j.is_over and (j.subject, j.save) == (subject, label) for j in self._jobs.values())

    # -- on disk ---------------------------------------------------------------------------------------------------

    def _write(self, job: Job) -> None:
        record = job.home / RECORD
        partial = record.with_suffix(".partial")
        partial.write_text(json.dumps(plain(job.record()), allow_nan=False), encoding="utf-8")
        partial.replace(record)

    def _note(self, job: Job) -> None:
        """`_write`; on a full disk the queue goes on, and a later server believes what was written last."""
        with suppress(OSError):
            self._write(job)

    def _strip(self, job: Job) -> None:
        """Leave the record, and the results of a job that is done; somebody may have swept its folder away."""
        with suppress(OSError):
            for path in job.home.iterdir():
                if path.name == RECORD or (path == job.output and job.state == "done"):
                    continue
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _recall(self) -> None:
        """What an earlier server left: waiting jobs wait on, a running one is lost, the rest is swept away."""
        for home in self.folder.iterdir():
            job = _recalled(home)
            if job is None:
                shutil.rmtree(home, ignore_errors=True) if home.is_dir() else home.unlink(missing_ok=True)
                continue
            self._jobs[job.id] = job
            if job.state == "running":
                self.end(job, "lost", LOST)
            elif job.is_over:
                self._strip(job)
        self.expire()


def _size(folder: Path) -> int:
    """Bytes of all files of a folder that may be removed meanwhile."""
    size = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.stat(os.path.join(where, name)).st_size
    return size


def _recalled(home: Path) -> Job | None:
    """The job of a folder, or None where there is no whole record."""
    try:
        record = json.loads((home / RECORD).read_text(encoding="utf-8"))
        if record["id"] != home.name:
            return None
        folder = Path(record.pop("folder", home / "study"))
        return Job(home=home, document=record.pop("document", {}), folder=folder, **record)
    except (OSError, ValueError, KeyError, TypeError):
        return None
