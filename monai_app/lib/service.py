"""The server without HTTP: what the routes ask for. Made once; its parts are made from `ServerSettings`."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from any2all import __version__
from any2all.cdm.source import CDMSource, OtherGridError, no_cdm
from any2all.diffusion.prior import PriorCard, load_card
from any2all.errors import Any2allError
from any2all.geometry.reading import ITK_SUFFIXES, NIFTI_SUFFIXES
from any2all.output.write import check_folder
from any2all.studies import StudyFolder
from any2all.study import SamplerDocument, StudySpec, parse_study, resolve_sampler, study_json_schema
from any2all.study.presets import PRESETS, preset_settings, taken_by
from any2all.study.spec import KSPACE_SUFFIXES

from .dispatch import Dispatcher
from .intake import check_study, check_used, store_files
from .jobs import Job, JobBook
from .lock import take_folder
from .logs import events
from .metrics import Metrics
from .sessions import Session, Sessions, unknown
from .settings import ServerSettings

PROTOCOL = 1
log = events("service")
Files = Iterable[tuple[str | None, BinaryIO]]


class Service:
    """Jobs, sessions and the study store of one server.

    Args:
        settings: what the administrator decided.
        studies: folder of the study store.

    Raises:
        Any2allError: the prior or CDM cannot be used, or another server works in the same work folder.
    """

    def __init__(self, settings: ServerSettings, studies: str | Path) -> None:
        self.card = load_card(settings.model_file)
        self.settings = settings = _without_foreign_cdm(settings, self.card)
        self.stack = self.card.stack
        self.cdm = CDMSource(settings.cdm_file)
        self.cdm_card = self.cdm.card(self.card) if self.cdm.present else None
        self.studies = StudyFolder(studies, self.stack)
        self._lock = take_folder(settings.work_dir)
        self.metrics = Metrics()
        self.book = JobBook(settings.work_dir / "jobs", settings.limits, self._ended)
        self.sessions = Sessions(settings.work_dir / "sessions", settings.limits)
        self.dispatcher = Dispatcher(settings, self.book, self._save, log.info, self.sessions.expire)
        self._stopped = threading.Event()

    def start(self) -> None:
        self.dispatcher.start()

    def stop(self) -> None:
        """Finish or cancel the running job; waiting ones stay for the next server. May be called twice."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        log.info("stopping", count=len(self.book.queued()))
        self.dispatcher.stop()
        self._lock.close()

    # -- what a client can know --------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Contract 3's ``info``; seconds are null until the worker has timed its network."""
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "state": self.dispatcher.health,
            "reason": self.dispatcher.reason,
            "device": self.dispatcher.device,
            "stack": [m.model_dump(mode="json") for m in self.stack.modalities],
            "presets": {name: self._preset(name) for name in PRESETS} if self._has_mcs else {},
            "samplers": {name: self._sampler(name) for name in self._samplers},
            "slice_mm": self.card.spacing_mm[2],
            "limits": asdict(self.settings.limits),
            "prior": {"sha256": self.card.sha256, "version": self.card.version, "noise_levels": self.card.noise_levels},
            "accepts": {"images": [*NIFTI_SUFFIXES, *ITK_SUFFIXES], "raw": list(KSPACE_SUFFIXES)},
            "queue": {"waiting": len(self.book.queued()), "running": int(self.book.running() is not None)},
        }

    def health(self) -> dict[str, Any]:
        """Open to everybody, so it tells a word and no more."""
        return {"state": self.dispatcher.health}

    def schema(self) -> dict[str, Any]:
        return study_json_schema(self.stack)

    @property
    def _has_mcs(self) -> bool:
        return self.card.noise_levels == "per_modality"

    @property
    def _samplers(self) -> tuple[str, ...]:
        of_prior = ("mcs", "mds", "mps") if self._has_mcs else ("mds", "mps")
        return of_prior if self.cdm_card is None else (*of_prior, "cdm")

    def _preset(self, name: str) -> dict[str, Any]:
        steps, samples, _ = PRESETS[name]
        measured = self.dispatcher.seconds_per_slice.get(name, {})
        seconds = {kind: measured.get(kind) for kind in ("images", "raw")}
        return {"steps": steps, "samples": samples, "seconds_per_slice": seconds}

    def _sampler(self, name: str) -> dict[str, Any]:
        """Its defaults, and the statuses of what it can be given.

        Of CDM also its weights, and what a slice of one sample costs; of the others the presets say that.
        """
        defaults = asdict(preset_settings("balanced", False, SamplerDocument(name=name)))
        if name != "cdm":
            return {**defaults, "takes": taken_by(name)}
        weights = {"sha256": self.cdm_card.sha256, "version": self.cdm_card.version}
        seconds = self.dispatcher.seconds_of_cdm
        return {**defaults, "takes": taken_by(name), "seconds_per_slice": seconds, "weights": weights}

    # -- jobs --------------------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raises Any2allError where no job can be taken: asked before an upload is read, and again behind it."""
        self.dispatcher.check_able()
        self.book.check_room()

    def submit_upload(self, document: dict[str, Any], files: Files) -> Job:
        """A job from what a client sent: stored, checked and queued; nothing is left where it is refused."""
        home = self._new_home()
        return self._whole_or_gone(home, lambda: self._stored(home, document, files))

    def submit_subject(self, subject: str, changes: dict[str, Any] | None = None, save: str | None = None) -> Job:
        """A job on a subject of the study store.

        Args:
            subject: its name.
            changes: replace top-level keys of its study.
            save: label under which the results are also saved beside it.
        """
        folder, own = self.studies.folder(subject), self.studies.document(subject)
        document = {**own, **(changes or {}), "subject": own["subject"]}
        if save is not None and self.studies.results_folder(subject, save).exists():
            raise Any2allError("results of this name are there already", key="save", value=save, code="exists")
        home = self._new_home()
        return self._whole_or_gone(home, lambda: self._queued(home, document, folder, subject, save))

    def submit_session(self, session: Session, document: dict[str, Any]) -> Job:
        """A job on a session's files, which it holds on to when the session ends first."""
        home = self._new_home()
        return self._whole_or_gone(home, lambda: self._linked(home, document, session))

    def _new_home(self) -> Path:
        """A folder for a job, where one can be taken and worked on."""
        self.check_open()
        return self.book.new_home()

    def _stored(self, home: Path, document: dict[str, Any], files: Files) -> Job:
        stored = store_files(files, home / "study", self.settings.limits)
        check_used(document, [path.name for path in stored])
        return self._queued(home, document, home / "study", None, None)

    def _linked(self, home: Path, document: dict[str, Any], session: Session) -> Job:
        try:
            for file in session.files:
                os.link(file, home / "study" / file.name)
        except FileNotFoundError:  # another client has just deleted the session
            raise unknown(session.id) from None
        return self._queued(home, document, home / "study", None, None)

    def _queued(self, home: Path, document: dict[str, Any], folder: Path, subject: str | None, save: str | None) -> Job:
        spec = self.checked(document, folder)
        job = Job(home.name, home, spec.document, folder, subject, save)
        check_folder(job.output, list(spec.outputs), False)
        self.book.submit(job)
        log.info("job queued", job=job.id, count=len(self.book.queued()))
        return job

    def checked(self, document: dict[str, Any], folder: Path) -> StudySpec:
        """The study, refused in words for anything that can be known before the device is touched."""
        spec = parse_study(document, self.stack, folder)
        if resolve_sampler(spec, self.card.noise_levels).name == "cdm" and self.cdm_card is None:
            raise no_cdm()
        check_study(spec, self.settings.limits)
        return spec

    def _whole_or_gone(self, home: Path, make: Callable[[], Job]) -> Job:
        try:
            return make()
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise

    def result(self, job_id: str, name: str) -> BinaryIO:
        """One result, opened, so that it may expire while it is sent. ``name`` is one of the job's list."""
        job = self.book.get(job_id)
        known = {r["name"] for r in job.results} | ({"report.png", "summary.json"} if job.results else set())
        if job.state != "done":
            raise Any2allError("this job has no results", key="job_id", value=job.state, code="not_ready")
        if name in known:
            try:
                return (job.output / name).open("rb")
            except FileNotFoundError:
                pass
        raise Any2allError(
            "this job has no such result", key="name", value=name[:80], allowed=sorted(known), code="not_found"
        )

    def _save(self, job: Job) -> None:
        """Copy a job's results beside its subject, whole or not at all."""
        target = self.studies.results_folder(job.subject, job.save)
        partial = _partial(target, job)
        try:
            shutil.copytree(job.output, partial)
            partial.rename(target)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise Any2allError(
                f"the results could not be saved in the study store ({error.strerror or type(error).__name__})",
                key="save",
                value=job.save,
                code="storage",
            ) from None

    def _ended(self, job: Job) -> None:
        if job.save is not None:  # a server that was killed while it saved left a part
            with suppress(Any2allError):
                shutil.rmtree(_partial(self.studies.results_folder(job.subject, job.save), job), ignore_errors=True)
        self.metrics.ended(job)
        log.info("job ended", job=job.id, state=job.state, code=(job.error or {}).get("code"), seconds=job.spent())


def _partial(target: Path, job: Job) -> Path:
    """Where results are collected before they appear under their name."""
    return target.with_name(f".{target.name}.{job.id[:8]}.partial")


def _without_foreign_cdm(settings: ServerSettings, prior: PriorCard) -> ServerSettings:
    """A ``cdm.pt`` that merely lies beside the prior and was trained on another grid is left out; a named one is not.

    So a prior of one's own can take the released one's place beside its CDM.
    """
    beside = settings.model_file.with_name("cdm.pt")
    try:
        if settings.cdm_file == beside and beside.is_file():
            CDMSource(beside).card(prior)
    except OtherGridError as error:
        log.warning("cdm beside the prior left out, trained for another", code=error.code)
        return replace(settings, cdm_file=None)
    return settings
