"""One press of Apply: the volumes are written, the job runs, the results come into the scene, the files go.

writing → (the states of `job.JobRun`) → loading → done, failed, cancelled or lost
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .client import Call, Client
from .form import Form
from .job import JobRun, JobSnapshot
from .parts import Parts
from .protocol import ServerInfo

SOFTWARE = "Any2all module of 3D Slicer"


@dataclass(frozen=True)
class Order:
    """What is to be done, as it was when Apply was pressed. ``names``: modality → name of its source here.

    ``form`` belongs to the order: nobody changes it any more.
    """

    client: Client
    info: ServerInfo
    form: Form
    names: Mapping[str, str]
    expected_s: float | None


class Run:
    """Advanced by `tick`; nothing of it stays on disk, however it ends.

    Attributes:
        outputs: what came into the scene, once done.
    """

    def __init__(self, parts: Parts, scene: slicer.vtkMRMLScene, order: Order, temporary: Path) -> None:
        """Raises OSError where the temporary folder cannot be made."""
        self._parts, self._scene, self._order = parts, scene, order
        self.outputs: list[Any] = []
        self._folder = Path(tempfile.mkdtemp(prefix="Any2all-", dir=str(temporary)))
        self._results = self._folder / "results"
        self._results.mkdir()
        self._sources = list(self._order.form.upload_names().items())
        self._files: dict[str, Path] = {}
        self._pieces: Generator[Any, None, Any] | None = None
        self._job: JobRun | None = None
        self._farewell: Call[None] | None = None
        self._state, self._error = "writing", ""
        self._warnings: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        return self._state in ("done", "failed", "cancelled", "lost")

    def tick(self, now: float, budget_s: float = 0.02) -> bool:
        """Go on for about ``budget_s`` seconds at the monotonic time ``now`` → whether all is over."""
        if self._state == "writing":
            self._write(budget_s)
        elif self._state == "loading":
            self._load(budget_s)
        elif self._job is not None and not self.is_over:
            self._job.tick(now, budget_s)
            self._follow_job()
        return self.is_over

    def cancel(self) -> None:
        """Stop; what has been computed is thrown away."""
        if self._job is not None and not self._job.is_over:
            self._job.cancel()
            self._follow_job()
        elif not self.is_over:
            self._end("cancelled")

    def resume(self, now: float) -> None:
        """Go on with a job whose server was away for too long."""
        self._job.resume(now)
        self._state = self._job.state

    def leave(self, words: str = "") -> None:
        """Be over at once, as when the scene is closed; ``words`` say why. `tell_server` does the rest."""
        if not self.is_over:
            self.cancel()
            self._end("cancelled", words)

    def tell_server(self, now: float) -> bool:
        """Go on telling the server to stop, then to forget what it keeps of the job → whether that is over.

        However it ended: a job may have been done just before it was cancelled, and results that cannot be shown here
        are of no use there.
        """
        job = self._job
        if job is not None and not job.is_over and not job.tick(now, 0.01):
            return False
        if job is None or job.job_id is None or job.state == "lost":
            return True
        if self._farewell is None:
            self._farewell = self._order.client.cancel(job.job_id)
        return self._farewell.tick(0.01)

    def close(self) -> None:
        """Leave, and wait for nothing: the module goes away."""
        self.leave()
        self.tell_server(time.monotonic())  # one chance to hand the message to the network
        if self._job is not None:
            self._job.close()

    def snapshot(self) -> JobSnapshot:
        """What the panel shows."""
        if self._job is None:
            return self._own_snapshot()
        shown = self._job.snapshot()
        shown = replace(shown, warnings=(*shown.warnings, *self._warnings))
        if self._state == "loading":
            return replace(shown, state="loading", title=_("Showing the results"), can_cancel=False)
        if self._state != shown.state or self._error:
            return replace(shown, state=self._state, title=_title(self._state), error=self._error or shown.error)
        return shown

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _write(self, budget_s: float) -> None:
        """Write pieces of the volumes until the time is up; raw files go as they are."""
        deadline = time.monotonic() + budget_s
        try:
            while self._state == "writing" and time.monotonic() < deadline:
                if self._pieces is not None:
                    self._next_piece()
                elif len(self._files) < len(self._sources):
                    self._begin_file(*self._sources[len(self._files)])
                else:
                    self._submit()
        except (ValueError, OSError) as error:
            self._end("failed", str(error))

    def _next_piece(self) -> Any:
        """One piece of what is written or loaded → what it has come to, once it has ended."""
        try:
            next(self._pieces)
        except StopIteration as end:
            self._pieces = None
            return end.value
        return None

    def _begin_file(self, source: str, name: str) -> None:
        node = self._scene.GetNodeByID(source)
        if node is None and source in {row.volume for row in self._order.form.rows.values() if row.uses_volume}:
            raise ValueError(_("A volume left the scene before it was sent."))
        self._files[name] = Path(source) if node is None else self._folder / name
        if node is not None:
            self._pieces = self._parts.upload.write_pieces(node, self._files[name])

    def _submit(self) -> None:
        order = self._order
        self._job = JobRun(
            order.client, self._results, order.form.study_document(), self._files, expected_s=order.expected_s
        )
        self._state = "uploading"

    def _follow_job(self) -> None:
        state = self._job.state
        if state == "done":
            self._begin_loading()
        elif self._job.is_over:
            self._end(state)
        else:
            self._state = state

    def _begin_loading(self) -> None:
        form = self._order.form
        self._pieces = self._parts.results.show_pieces(
            self._scene,
            self._results,
            self._job.results,
            self._order.info.stack,
            self._facts(),
            self._file_of(form.result_volume),
            form.measured,
            form.reference_volume,
        )
        self._state = "loading"

    def _file_of(self, volume: str) -> Path | None:
        """What was sent of a volume, by its node id; None for ''."""
        return self._files[self._order.form.upload_names()[volume]] if volume else None

    def _warn_if_moved(self) -> None:
        """The results lie where the reference was when it was sent: say so where it is elsewhere now."""
        volume = self._order.form.reference_volume
        node = self._scene.GetNodeByID(volume) if volume else None
        if node is not None and self._parts.results.is_moved(node, self._file_of(volume)):
            words = _(
                "The volume '{0}' was moved or resized while the server was computing: the results lie where it was "
                "when it was sent, not where it is now."
            )
            self._warnings = (words.format(node.GetName()),)

    def _load(self, budget_s: float) -> None:
        """Bring pieces of the results into the scene until the time is up; the scene sees all of them or none."""
        deadline = time.monotonic() + budget_s
        try:
            while self._pieces is not None and time.monotonic() < deadline:
                self.outputs = self._next_piece() or []
            if self._pieces is None:
                self._warn_if_moved()
        except (ValueError, OSError) as error:
            self._end("failed", str(error))
            return
        if self._pieces is None:
            self._end("done")

    def _facts(self) -> Any:
        """What the result volumes remember of their making, unless their files know better."""
        form, info = self._order.form, self._order.info
        sampler, steps, samples = form.effective_sampler(info)
        known = info.samplers.get(sampler)
        weights = (known.weights if known is not None else None) or info.prior
        return self._parts.results.RunFacts(
            sampler=sampler,
            steps=steps,
            samples=samples,
            seed=form.seed or 0,
            preset=form.preset,
            prior_sha256=weights.sha256,
            prior_version=weights.version,
            server=str(self._order.client.url),
            inputs=dict(self._order.names),
            software=SOFTWARE,
            filled_by=f"any2all {info.version}",
        )

    def _end(self, state: str, error: str = "") -> None:
        self._state, self._error = state, error
        if self._pieces is not None:
            self._pieces.close()
        self._pieces = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _own_snapshot(self) -> JobSnapshot:
        which = _("image {0} of {1}").format(min(len(self._files), len(self._sources)) or 1, len(self._sources))
        writing = self._state == "writing"
        return JobSnapshot(
            state=self._state,
            fraction=0.0,
            title=_("Preparing the images") if writing else _title(self._state),
            detail=which if writing else "",
            remaining_s=None,
            queue_position=None,
            can_cancel=not self.is_over,
            can_resume=False,
            reconnecting=False,
            error=self._error,
            warnings=(),
            job_id=None,
        )


def _title(state: str) -> str:
    return {
        "done": _("Done"),
        "failed": _("Failed"),
        "cancelled": _("Cancelled"),
        "lost": _("Lost on the server"),
    }.get(state, state)
