"""The thread that hands jobs to the worker process one at a time and keeps a worker alive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from any2all.errors import Any2allError

from .jobs import Job, JobBook
from .logs import events, where
from .replies import bounded
from .settings import ServerSettings

log = events("dispatch")
APP = Path(__file__).resolve().parents[1]
CANCEL_PATIENCE_S = 60.0  # registration cannot be interrupted; a worker that takes longer is ended
EXPIRE_SECONDS = 30.0
TIME_AGAIN_SECONDS = 60.0  # of quiet after a start or a job: the machine may have been busy when presets were timed
REST_SECONDS = (1.0, 5.0, 30.0)  # before a worker that fell at once is started again
BROKEN_REST_SECONDS = 60.0  # before one that could not load its prior is
DIED = Any2allError(
    "the computing process ended unexpectedly",
    hint="probably the machine ran out of memory; try smaller images",
    code="worker_died",
)


class WorkerProcess:
    """`lib.worker` as a child. ``heard(event)`` is called for each of its events, and with None when it has ended."""

    def __init__(self, settings: ServerSettings, heard: Callable[[WorkerProcess, dict[str, Any] | None], None]) -> None:
        command = [sys.executable, "-m", "lib.worker", "--model-file", str(settings.model_file)]
        if settings.device:
            command += ["--device", settings.device]
        if settings.cdm_file:
            command += ["--cdm-file", str(settings.cdm_file)]
        paths = [str(APP), *filter(None, [os.environ.get("PYTHONPATH")])]
        secrets = {k: v for k, v in os.environ.items() if not k.startswith("ANY2ALL_TOKEN")}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**secrets, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for the server, which then ends its worker in order
        )
        self.ready = False
        threading.Thread(target=self._listen, args=(heard,), daemon=True, name="any2all-events").start()

    def order(self, **order: Any) -> bool:
        """Send an order; False when the worker has ended."""
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            return True
        except (OSError, ValueError):
            return False

    def end(self, patience: float = 5.0) -> None:
        """Close its orders, which ends it before the sampler's next step, or kill it when that takes too long."""
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _listen(self, heard: Callable[[WorkerProcess, dict[str, Any] | None], None]) -> None:
        try:
            for line in self.process.stdout:
                heard(self, json.loads(line))
        except Exception as error:  # whatever it is, the queue goes on with another worker
            log.error("event not understood", error=type(error).__name__, where=where(error))
            self.process.kill()
        self.process.wait()
        heard(self, None)


class Dispatcher:
    """Runs the jobs of a book on one worker.

    Args:
        settings: prior, device, batch size, limits.
        book: the jobs.
        save: puts the results of a job beside its subject when the client asked for that (study store).
        log: is told of events by name, with fields.
        expire: forgets what else has expired (sessions); called about twice a minute.
    """

    def __init__(
        self,
        settings: ServerSettings,
        book: JobBook,
        save: Callable[[Job], None],
        log: Callable[..., None] = lambda event, **fields: None,
        expire: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings, self.book, self.save, self.log, self.expire = settings, book, save, log, expire
        self.device: str | None = None
        self.seconds_per_slice: dict[str, dict[str, float]] = {}
        self.seconds_of_cdm: float | None = None  # a slice of one sample, once it has been timed
        self.broken: dict[str, Any] | None = None
        self.stopping = False
        self._worker: WorkerProcess | None = None
        self._job: Job | None = None
        self._falls = 0
        self._fall = ""  # the last one, in words
        self._quiet_since: float | None = None  # and nothing has been timed in that quiet yet
        self._thread = threading.Thread(target=self._run, daemon=True, name="any2all-dispatcher")

    @property
    def health(self) -> str:
        """``starting``, ``ok``, ``failing`` or ``stopping``."""
        if self.stopping:
            return "stopping"
        if self.broken is not None or self._falls >= len(REST_SECONDS):
            return "failing"
        return "ok" if self._worker is not None and self._worker.ready else "starting"

    @property
    def reason(self) -> str | None:
        """Why no worker can load its prior, where that is so (`health` is then ``failing``)."""
        broken, falls = self.broken, self._falls  # once: the listening thread takes them back
        if broken is not None:
            return broken["message"]
        if falls < len(REST_SECONDS):
            return None
        return f"{falls} times in turn the computing process {self._fall} before it could work"

    @property
    def worker_pid(self) -> int | None:
        return None if self._worker is None else self._worker.process.pid

    def check_able(self) -> None:
        """Raises Any2allError (``unavailable``) while no worker can load its prior: a job would wait for nothing."""
        if (reason := self.reason) is not None:
            raise Any2allError(
                f"the server cannot compute: {reason}",
                hint="ask its administrator; it tries again by itself",
                code="unavailable",
            )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more jobs; the running one has ``shutdown_seconds`` to finish and is cancelled then."""
        with self.book.changed:
            if self.stopping:
                return
            self.stopping = True
            self.book.close()
        self._wait_for_job(self.settings.limits.shutdown_seconds)
        with self.book.changed:
            if self._job is not None:
                self._job.wanted = False
                self.book.changed.notify_all()
        self._wait_for_job(5.0)
        self._thread.join(10.0)
        worker = self._worker
        if worker is not None:  # nothing computes on without a server
            worker.end(0.0)
        job = self.book.running()
        if job is not None:
            self.book.end(job, "cancelled")

    def _wait_for_job(self, seconds: float) -> None:
        with self.book.changed:
            self.book.changed.wait_for(lambda: self._job is None, seconds)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        expired = time.monotonic()
        while not (self.stopping and self._job is None):
            try:
                self._have_worker()
                self._begin_job()
                self._pass_on_cancel()
                self._time_again()
                if time.monotonic() - expired > EXPIRE_SECONDS:
                    expired = time.monotonic()
                    self.book.expire()
                    self.expire()
            except Exception as error:  # a short resource, say a process or a file handle: again in a moment
                log.error("dispatcher failed", error=type(error).__name__, where=where(error))
            with self.book.changed:
                self.book.changed.wait(0.5)
        if self._worker is not None:
            self._worker.end()

    def _have_worker(self) -> None:
        """Start a worker where there is none; one that keeps falling gets a rest first."""
        if self._worker is not None or self.stopping:
            return
        if self._falls:
            rest = BROKEN_REST_SECONDS if self.broken else REST_SECONDS[min(self._falls, len(REST_SECONDS)) - 1]
            with self.book.changed:
                self.book.changed.wait_for(lambda: self.stopping, rest)
        if self.stopping:
            return
        try:
            self._worker = WorkerProcess(self.settings, self._heard)
        except OSError as error:
            self._falls, self._fall = self._falls + 1, f"could not be started ({error.strerror})"
            raise

    def _begin_job(self) -> None:
        worker = self._worker
        if self._job is not None or worker is None or not worker.ready:
            return
        with self.book.changed:
            if self._worker is not worker:  # it has just fallen
                return
            self._job = job = self.book.next()
        if job is None:
            return
        self.log("job started", job=job.id, seconds=round(time.time() - job.created, 1))
        worker.order(
            do="run",
            job=job.id,
            document=job.document,
            folder=str(job.folder),
            output=str(job.output),
            batch_size=self.settings.batch_size,
        )

    def _time_again(self) -> None:
        """What presets cost, once in every time of quiet."""
        with self.book.changed:
            quiet = self._quiet_since
            if quiet is None or self._job is not None or time.monotonic() - quiet < TIME_AGAIN_SECONDS:
                return
            self._quiet_since, worker = None, self._worker
        if worker is not None and worker.ready:
            worker.order(do="time")

    def _pass_on_cancel(self) -> None:
        """Tell the worker of a cancelled job; end a worker that does not listen."""
        job, worker = self._job, self._worker
        if job is None or job.wanted or worker is None:
            return
        if job.cancel_since is None:
            job.cancel_since = time.monotonic()
            worker.order(do="cancel", job=job.id)
        elif time.monotonic() - job.cancel_since > CANCEL_PATIENCE_S:
            self.log("worker ended", job=job.id, code="cancel_ignored")
            worker.process.kill()

    # -- what the worker says (its listening thread) ----------------------------------------------------------------

    def _heard(self, worker: WorkerProcess, event: dict[str, Any] | None) -> None:
        if event is not None and event["event"] == "done":
            event = self._saved(event)
        with self.book.changed:
            if event is None:
                self._fallen(worker)
            elif event["event"] == "ready":
                worker.ready, self._falls, self._quiet_since = True, 0, time.monotonic()
                self.broken = None
                self.device, self.seconds_per_slice = event["device"], event["seconds_per_slice"]
                self.log("worker ready", device=self.device)
            elif event["event"] == "timed":
                self.seconds_per_slice, self.seconds_of_cdm = event["seconds_per_slice"], event["seconds_of_cdm"]
            elif event["event"] == "broken":
                self.broken = event["error"]
                self.log("worker broken", code=event["error"]["code"])
            elif self._job is not None and event["job"] == self._job.id:
                self._of_job(self._job, event)
            self.book.changed.notify_all()

    def _of_job(self, job: Job, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "progress":
            job.progress(event["stage"], event.get("step"), event.get("total"))
        elif kind == "forecast":
            job.forecast_s = event["seconds"]
        elif kind == "retry":
            job.begin_again()
            self.log("out of memory, again with fewer slices", job=job.id, count=event["batch_size"])
        elif kind == "done":
            self.book.end(job, "done", None, event["results"], event["warnings"], event["seconds"])
            self._job, self._quiet_since = None, time.monotonic()
        else:
            error = event.get("error")
            self._end(job, kind, error and bounded(error, job.folder, job.folder.parent, self.settings.work_dir))

    def _saved(self, event: dict[str, Any]) -> dict[str, Any]:
        """Save the results of a job that wants it: without the lock, as the study store may be slow.

        A job that was cancelled behind its last step is not done: nobody may find results of it. Where they cannot be
        saved the job is done all the same: its results wait for the client, who is told.
        """
        job = self._job
        if job is None or job.id != event["job"]:
            return event
        if not job.wanted:
            return {"event": "cancelled", "job": job.id}
        try:
            if job.save is not None:
                self.save(job)
        except Any2allError as error:
            hidden = job.folder, job.folder.parent, self.settings.work_dir
            told = bounded({"warning": f"not saved: {error.sentence()}"}, *hidden)["warning"]
            job.save = None
            return {**event, "warnings": [*event["warnings"], told]}
        return event

    def _end(self, job: Job, state: Any, error: Any2allError | dict[str, Any] | None) -> None:
        self.book.end(job, state, error)
        self._job = None

    def _fallen(self, worker: WorkerProcess) -> None:
        """The worker's process has ended, whether it was asked to or not."""
        if worker is not self._worker:
            return
        self._worker = None
        if self._job is not None:
            cancelled = not self._job.wanted
            self._end(self._job, "cancelled" if cancelled else "failed", None if cancelled else DIED)
        if not self.stopping:
            self._fall = _ended(worker.process.returncode)
            self._falls = 0 if worker.ready else self._falls + 1
        if not self.stopping and self.broken is None:
            self.log("worker fell", code="worker_died", status=worker.process.returncode)


def _ended(status: int) -> str:
    """How a process ended, in words."""
    if status == -9:  # SIGKILL, which Windows has no name for
        return "was killed (perhaps the machine is short of memory)"
    return f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
