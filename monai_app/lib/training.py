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
from collections import deque
from pathlib import Path
from typing import Any

from any2all.errors import Any2allError
from pydantic import Field

from .forms import Closed
from .logs import events
from .replies import without_paths
from .settings import BUNDLE, Limits
from .tasks import OneAtATime, Task

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


class Training(Task):
    """One training: its steps one after another, its last lines for whoever asks."""

    name = "training"

    def __init__(self, studies: Path, folder: Path, params: TrainParams) -> None:
        super().__init__(params.model_dump(exclude={"client_id"}))
        self.studies, self.folder, self.params = studies, folder / params.name, params
        self.hidden = (studies, folder, BUNDLE.parent, sys.prefix, sys.base_prefix, Path.home())
        self.lines: deque[str] = deque(maxlen=LINES)
        self._process: subprocess.Popen | None = None

    def stop(self) -> None:
        """Ask the process to write its checkpoint and end."""
        super().stop()
        process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)

    def told(self) -> dict[str, Any]:
        return {**super().told(), "progress": self._share(), "details": list(self.lines)}

    def work(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        code = 0
        for command in (self._prepare(self.studies), self._train()):
            if code == 0 and not self.stopped.is_set():
                code = self._follow(command)
        log.info("training ended", status=code)
        return code == 0

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
        if self.stopped.is_set():  # before the process was known here
            self.stop()
        for line in process.stdout:
            words = without_paths(line.rstrip(), *self.hidden)
            if words and "Warning" not in words:
                self.lines.append(words[:MOST_WORDS])
        return process.wait()


class Trainings(OneAtATime):
    """Trainings of one server: on ``studies``, into folders below ``folder``."""

    name = "training"

    def __init__(self, studies: Path, folder: Path, limits: Limits) -> None:
        super().__init__()
        self.studies, self.folder, self.limits = studies, folder, limits

    def start(self, params: TrainParams) -> dict[str, Any]:
        """Raises Any2allError: more than the administrator gives, or (``conflict``) one is running."""
        for key, most in (("minutes", self.limits.train_minutes), ("workers", self.limits.train_workers)):
            if getattr(params, key) > most:
                raise Any2allError(
                    "more than this server gives a training",
                    key=f"body.{key}",
                    value=getattr(params, key),
                    allowed=f"at most {most}",
                    code="invalid_request",
                )
        return self.begin(lambda: Training(self.studies, self.folder, params))


def _bundle(config: str, **overrides: str) -> list[str]:
    """The command line of one of the bundle's configurations."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / f"{config}.json")]
    return command + [part for key, value in overrides.items() for part in (f"--{key}", value)]
