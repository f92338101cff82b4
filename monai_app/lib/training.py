"""``/train``: the bundle's own training on the study store, as a process beside the worker.

The subjects are prepared first (``prepare.json``), then the prior is trained (``train.json``). Stopping writes a
checkpoint; the same request goes on from it. The new prior is not put to use by itself: an administrator looks at it
and starts the server with it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import Any

from any2all.errors import Any2allError
from pydantic import Field

from .forms import Closed
from .logs import events
from .replies import without_paths
from .settings import BUNDLE, Limits

log = events("training")
LINES = 40
MOST_WORDS = 300


class TrainParams(Closed):
    """What a training may be asked for. ``name``: folder of its prior in the server's work folder."""

    minutes: float = Field(60, gt=0)
    workers: int = Field(1, ge=0)
    name: str = Field("prior", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    total_iterations: int | None = Field(None, ge=1)
    client_id: str | None = None


class Training:
    """One training: its steps one after another, its last lines for whoever asks."""

    def __init__(self, studies: Path, folder: Path, params: TrainParams) -> None:
        self.id, self.params, self.folder = str(uuid.uuid4()), params, folder / params.name
        self.hidden = (studies, folder, BUNDLE.parent, sys.prefix, sys.base_prefix, Path.home())
        self.status, self.started, self.ended = "RUNNING", datetime.now(), None
        self.lines: deque[str] = deque(maxlen=LINES)
        self._process: subprocess.Popen | None = None
        self._stopped = threading.Event()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        steps = [self._prepare(studies), self._train()]
        threading.Thread(target=self._run, args=(steps,), daemon=True, name="any2all-training").start()

    @property
    def running(self) -> bool:
        return self.status == "RUNNING"

    def stop(self) -> None:
        """Ask the process to write its checkpoint and end."""
        self._stopped.set()
        process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)

    def told(self) -> dict[str, Any]:
        """The status in MONAI Label's words."""
        return {
            "id": self.id,
            "status": self.status,
            "request": {"model": "any2all", **self.params.model_dump(exclude={"client_id"})},
            "start_ts": self.started.strftime("%Y-%m-%d %H:%M:%S"),
            "end_ts": self.ended.strftime("%Y-%m-%d %H:%M:%S") if self.ended else None,
            "progress": self._share(),
            "details": list(self.lines),
        }

    def _prepare(self, studies: Path) -> list[str]:
        workers = str(max(self.params.workers, 1))
        return _bundle("prepare", source=str(studies), output_dir=str(self.folder / "cohort"), workers=workers)

    def _train(self) -> list[str]:
        extra = {} if self.params.total_iterations is None else {"total_iterations": str(self.params.total_iterations)}
        return _bundle(
            "train",
            datalist_file=str(self.folder / "cohort" / "datalist.json"),
            output_dir=str(self.folder),
            minutes=str(self.params.minutes),
            workers=str(self.params.workers),
            **extra,
        )

    def _share(self) -> float | None:
        """Share of the run that the trainer last named."""
        for line in reversed(self.lines):
            if found := re.search(r"([\d.]+) % of the run", line):
                return float(found.group(1)) / 100
        return None

    def _run(self, steps: list[list[str]]) -> None:
        code = -1
        try:
            for command in steps:
                code = 0 if self._stopped.is_set() else self._follow(command)
                if code or self._stopped.is_set():
                    break
        finally:  # whatever happens, the next training can be started
            self.ended = datetime.now()
            self.status = "CANCELED" if self._stopped.is_set() else "DONE" if code == 0 else "ERROR"
        log.info("training ended", state=self.status, status=code)

    def _follow(self, command: list[str]) -> int:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ANY2ALL_TOKEN")}
        self._process = process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
        if self._stopped.is_set():  # before the process was known here
            self.stop()
        for line in process.stdout:
            words = without_paths(line.rstrip(), *self.hidden)
            if words and "Warning" not in words:
                self.lines.append(words[:MOST_WORDS])
        return process.wait()


class Trainings:
    """Trainings of one server; one runs at a time."""

    def __init__(self, studies: Path, folder: Path, limits: Limits) -> None:
        self.studies, self.folder, self.limits = studies, folder, limits
        self._all: list[Training] = []
        self._lock = threading.Lock()

    def start(self, params: TrainParams) -> dict[str, Any]:
        for key, most in (("minutes", self.limits.train_minutes), ("workers", self.limits.train_workers)):
            if getattr(params, key) > most:
                raise Any2allError(
                    "more than this server gives a training",
                    key=f"body.{key}",
                    value=getattr(params, key),
                    allowed=f"at most {most}",
                    code="invalid_request",
                )
        with self._lock:
            if self._all and self._all[-1].running:
                raise Any2allError("a training is running", key="train", hint="stop it first, or wait", code="conflict")
            self._all = [*self._all[-9:], Training(self.studies, self.folder, params)]
            return self._all[-1].told()

    def status(self, everything: bool = False, running: bool = False) -> Any:
        """The last training, or all. Raises Any2allError (``not_found``) where there is none, or none runs."""
        found = [training for training in self._all if training.running or not running]
        if not found:
            words = "no training is running" if running else "there was no training yet"
            raise Any2allError(words, key="train", code="not_found")
        return [training.told() for training in found] if everything else found[-1].told()

    def stop(self) -> Any:
        training = self._all[-1] if self._all else None
        if training is not None and training.running:
            training.stop()
        return self.status()

    def close(self) -> None:
        """Stop a running training without waiting for it."""
        if self._all and self._all[-1].running:
            self._all[-1].stop()


def _bundle(config: str, **overrides: str) -> list[str]:
    """The command line of one of the bundle's configurations."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / f"{config}.json")]
    return command + [part for key, value in overrides.items() for part in (f"--{key}", value)]
