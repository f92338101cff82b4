"""A whole job, owned by the panel and advanced by `JobRun.tick`: the study goes out, the volumes come back.

uploading → queued → running → downloading → done
and out of any of them: failed · cancelled · lost · disconnected (which `JobRun.resume` goes on from)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .client import Call, Client
from .failures import Failure, ServerError, TransportError
from .progress import Pace, Progress
from .protocol import JobStatus, ResultInfo, Submitted

ENDED = ("done", "failed", "cancelled", "lost")
POLL_S = 0.5
SLOWEST_POLL_S = 5.0
DOWNLOAD_ATTEMPTS = 3


@dataclass(frozen=True)
class ResultFile:
    """One volume of a finished job, in a file of this computer."""

    name: str
    modality: str
    role: str
    file: Path


@dataclass(frozen=True)
class JobSnapshot:
    """What the panel shows. ``fraction`` (0 to 1) never runs backwards; ``error`` is one sentence or ''."""

    state: str
    fraction: float
    title: str
    detail: str
    remaining_s: float | None
    queue_position: int | None
    can_cancel: bool
    can_resume: bool
    reconnecting: bool
    error: str
    warnings: tuple[str, ...]
    job_id: str | None


class JobRun:
    """One job from Apply to its results.

    Args:
        client: the server.
        folder: an existing folder for the volumes; only whole and checked files appear there, all of them or none.
        study, files: a study document and its files by the names that it uses; or
        subject: a subject of the server's study store; ``study`` holds then what is to be changed in its own.
        expected_s: seconds of computing that the panel foresees.
        give_up_s: seconds without the server until the state becomes ``disconnected``.
        cancel_wait_s: seconds that `cancel` tries to tell a server that does not answer.

    Attributes:
        state: uploading, queued, running, downloading, done, failed, cancelled, lost or disconnected.
        job_id: once the server has the study.
        results: all volumes, once ``done``; empty in every other state.
        failure: what went wrong, or None.
    """

    def __init__(
        self,
        client: Client,
        folder: Path,
        study: Mapping[str, Any] | None = None,
        files: Mapping[str, Path] | None = None,
        subject: str | None = None,
        expected_s: float | None = None,
        give_up_s: float = 300.0,
        cancel_wait_s: float = 10.0,
    ) -> None:
        if study is None and subject is None or subject is not None and files:
            raise ValueError("a job takes a study with files, or a subject, which brings its own")
        self.client, self.folder = client, Path(folder)
        self.give_up_s, self.cancel_wait_s = give_up_s, cancel_wait_s
        self.state = "uploading"
        self.job_id: str | None = None
        self.results: tuple[ResultFile, ...] = ()
        self.failure: Failure | None = None
        self.cancelling = False
        self._study, self._files, self._subject = study or {}, files or {}, subject
        self._call: Call | None = None
        self._then: Callable[[Call], None] = self._submitted
        self._now = 0.0
        self._next_s = 0.0
        self._unreachable_since: float | None = None
        self._cancel_since: float | None = None
        self._told = False
        self._pause_s = POLL_S
        self._attempts = 0
        self._status: JobStatus | None = None
        self._waiting: list[ResultInfo] = []
        self._received: list[ResultFile] = []
        self._progress = Progress(len(files or {}), expected_s)

    # -- for the panel -------------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return self.state in ENDED

    @property
    def reconnecting(self) -> bool:
        return self._unreachable_since is not None and not self.is_over and self.state != "disconnected"

    def tick(self, now: float, budget_s: float = 0.02) -> bool:
        """Go on for about ``budget_s`` seconds at the monotonic time ``now`` → whether the job is over."""
        self._now = now
        if self.is_over or self.state == "disconnected":
            return self.is_over
        if self.cancelling and self.state == "uploading" and now - self._cancel_since >= self.cancel_wait_s:
            self._end("cancelled", _NOT_TOLD)
        elif self._call is None and now >= self._next_s:
            self._begin()
        if self._call is not None and self._call.tick(budget_s):
            call, self._call = self._call, None
            self._then(call)
        self._measure()
        return self.is_over

    def cancel(self) -> None:
        """Stop in whatever state. Results that have arrived are removed."""
        if self.is_over or self.cancelling:
            return
        self.cancelling, self._cancel_since = True, self._now
        if self.state == "disconnected":
            self._end("cancelled", _NOT_TOLD)
        elif self.state == "uploading" and not self._server_may_have_it():
            self._end("cancelled")
        elif self.state != "uploading":
            self._drop_call()
            self._next_s = self._now

    def resume(self, now: float) -> None:
        """Go on with a job whose server was away for too long."""
        if self.state == "disconnected":
            self.state, self.failure = "queued" if self._status is None else self._status.state, None
            self.state = "downloading" if self._waiting else self.state
            self._unreachable_since, self._pause_s, self._next_s = None, POLL_S, now

    def close(self) -> None:
        """Leave at once, as when the panel is closed: the server is not told, and no partial file stays."""
        if not self.is_over:
            self._end("cancelled")

    def snapshot(self) -> JobSnapshot:
        """Everything that the panel shows."""
        position = self._status.position if self._status and self.state == "queued" else None
        return JobSnapshot(
            state=self.state,
            fraction=1.0 if self.state == "done" else self._progress.fraction,
            title=self._title(position),
            detail=self._detail(),
            remaining_s=None
            if self.is_over or self.cancelling or self._unreachable_since is not None
            else self._progress.remaining_s(self._now),
            queue_position=position,
            can_cancel=not self.is_over and not self.cancelling,
            can_resume=self.state == "disconnected",
            reconnecting=self.reconnecting,
            error=self.failure.sentence() if self.failure else "",
            warnings=self._status.warnings if self._status else (),
            job_id=self.job_id,
        )

    # -- what comes next -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start the next call."""
        if self.state == "uploading":
            self._call, self._then = self._submit(), self._submitted
        elif self.cancelling and not self._told:
            self._call, self._then = self.client.cancel(self.job_id), self._cancel_told
        elif self.state == "downloading":
            item = self._waiting[0]
            file = self.folder / _file_name(item)
            self._call = self.client.result(self.job_id, item.name, file, item.sha256)
            self._then = self._downloaded
        else:
            self._call, self._then = self.client.status(self.job_id), self._polled

    def _submit(self) -> Call[Submitted]:
        if self._subject is not None:
            return self.client.submit_subject(self._subject, self._study)
        return self.client.submit(self._study, self._files)

    def _submitted(self, call: Call[Submitted]) -> None:
        if call.failure is not None:
            return self._end("cancelled" if self.cancelling else "failed", None if self.cancelling else call.failure)
        self.job_id, self.state = call.value.job_id, "queued"
        self._progress.uploaded()
        self._next_s = self._now
        return None

    def _polled(self, call: Call[JobStatus]) -> None:
        if call.failure is not None:
            return self._poll_failed(call.failure)
        self._reached()
        status = self._status = call.value
        self._progress.computing(status, self._now)
        self._next_s = self._now + POLL_S
        if not status.is_over:
            self.state = status.state
            return None
        if self.cancelling:
            return self._end("cancelled")
        if status.state == "done":
            return self._begin_downloads(status)
        return self._end(status.state, status.error or _UNSAID[status.state])

    def _poll_failed(self, failure: Failure) -> None:
        if _is_gone(failure):
            return self._end("cancelled" if self.cancelling else "lost", None if self.cancelling else _FORGOTTEN)
        return self._away(failure)

    def _cancel_told(self, call: Call[None]) -> None:
        if call.failure is not None and call.failure.again:
            return self._away(call.failure)
        self._told = True
        self._reached()
        if call.failure is not None or self.state == "downloading":
            return self._end("cancelled", None if _is_gone(call.failure) else call.failure)
        self._next_s = self._now
        return None

    def _begin_downloads(self, status: JobStatus) -> None:
        if not status.results:
            return self._end("failed", ServerError("no_results", "the job is done, and holds no volume"))
        self.state, self._waiting, self._attempts = "downloading", list(status.results), 0
        self._progress.downloading(len(status.results))
        self._next_s = self._now
        return None

    def _downloaded(self, call: Call[Path]) -> None:
        if call.failure is None:
            item = self._waiting.pop(0)
            self._received.append(ResultFile(item.name, item.modality, item.role, call.value))
            self._progress.one_downloaded()
            self._reached()
            self._attempts, self._next_s = 0, self._now
            if not self._waiting:
                self.results, self._received = tuple(self._received), []
                self._end("done")
            return None
        if _is_gone(call.failure):
            return self._end("lost", _FORGOTTEN)
        if not (isinstance(call.failure, TransportError) and call.failure.code == "sha256"):
            return self._away(call.failure)
        self._attempts += 1
        if self._attempts >= DOWNLOAD_ATTEMPTS:
            return self._end("failed", call.failure)
        self._next_s = self._now + POLL_S
        return None

    # -- a server that is away -----------------------------------------------------------------------------------------

    def _away(self, failure: Failure) -> None:
        """Try again later, ever more rarely; stop where trying again does not help or has taken too long."""
        if not failure.again:
            return self._end("cancelled" if self.cancelling else "failed", None if self.cancelling else failure)
        if self._unreachable_since is None:
            self._unreachable_since, self._pause_s = self._now, POLL_S
        self.failure = failure
        if self._cancel_since is not None and self._now - self._cancel_since >= self.cancel_wait_s:
            return self._end("cancelled", None if self._told else _NOT_TOLD)
        if self._now - self._unreachable_since >= self.give_up_s:
            self._drop_call()
            self.state = "disconnected"
            return None
        self._next_s = self._now + self._pause_s
        self._pause_s = min(2 * self._pause_s, SLOWEST_POLL_S)
        return None

    def _reached(self) -> None:
        self._unreachable_since, self._pause_s, self.failure = None, POLL_S, None

    def _end(self, state: str, failure: Failure | None = None) -> None:
        self._drop_call()
        self.state, self.failure = state, failure
        for item in self._received:
            try:
                item.file.unlink()
            except OSError:
                pass
        self._received, self._waiting = [], []

    def _drop_call(self) -> None:
        if self._call is not None:
            self._call.abort()
            self._call = None

    def _server_may_have_it(self) -> bool:
        """Whether the whole study has been sent, so that a job may exist whose id is still to come."""
        return self._call is not None and self._call.bytes_sent >= self._call.bytes_total > 0

    # -- words ---------------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        if self._call is not None and self.state == "uploading":
            self._progress.uploading(Pace(self._call.bytes_sent, self._call.bytes_total), self._now)
        elif self._call is not None and self.state == "downloading" and not self.cancelling:
            self._progress.one_downloading(Pace(self._call.bytes_received, self._call.bytes_expected or 0), self._now)

    def _title(self, position: int | None) -> str:
        if self.cancelling and not self.is_over:
            return "Cancelling"
        if self.reconnecting:
            return "The server does not answer: trying again"
        if self.state == "queued" and position:
            others = position - 1
            return f"Waiting for {others} other job{'s' * (others > 1)}" if others else "Next in the queue"
        return _TITLES[self.state]

    def _detail(self) -> str:
        if self.cancelling or self.reconnecting or self.state not in ("uploading", "running", "downloading"):
            return ""
        return self._progress.detail(self.state, self._status.stage if self._status else None)


_TITLES = {
    "uploading": "Sending the images",
    "queued": "Waiting for the server",
    "running": "Computing",
    "downloading": "Receiving the results",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "lost": "Lost on the server",
    "disconnected": "The server cannot be reached",
}
_UNSAID = {
    "failed": ServerError("failed", "the computation failed, and the server does not say why"),
    "cancelled": ServerError("cancelled", "the job was cancelled on the server"),
    "lost": ServerError("lost", "the server was restarted while this job was running", hint="press Apply again"),
}
_FORGOTTEN = ServerError("unknown_job", "the server no longer knows this job or its results", hint="press Apply again")
_NOT_TOLD = ServerError("not_told", "the server could not be told, and may go on computing for a while")


def _is_gone(failure: Failure | None) -> bool:
    """Whether the server does not know the job (any more)."""
    return isinstance(failure, ServerError) and failure.http_status in (404, 410)


def _file_name(item: ResultInfo) -> str:
    name = item.name.replace("/", "_")
    return name if name.lower().endswith((".nii", ".nii.gz")) else f"{name}.nii.gz"
