"""How a study is run, as opposed to what it asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .cdm.source import CDMSource
from .errors import Cancelled
from .forecast import Forecast

Progress = Callable[[str, int, int], None]
DEFAULT_BATCH = {"cpu": 16, "cuda": 128}
NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "Cannot allocate memory")


@dataclass
class Run:
    """Progress, cancelling, the slices that a device holds at once, and what else a caller brings along.

    ``progress(stage, done, total)``; while sampling, done and total count network passes over the whole job.
    ``announce``: is told before sampling what will be done and how long it should take.
    ``truth``: a folder with true images of outputs (named as the stack's patterns say), for scores and the picture.
    ``mean_image``: the prior's mean training image, which a synthetic image of known truth is compared with.
    ``cdm``: the second system, for studies whose sampler is ``cdm``; it is loaded by the first of them.
    """

    progress: Progress | None = None
    cancelled: Callable[[], bool] | None = None
    batch_size: int | None = None
    truth: Path | None = None
    mean_image: Path | None = None
    announce: Callable[[Forecast], None] | None = None
    cdm: CDMSource = field(default_factory=CDMSource)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Name a stage to the listener and take its time. Raises Cancelled before it when that was asked for."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled
        self.report(name, 0, 1)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)

    def batch(self, device: torch.device) -> int:
        """Slices that a network sees at once on a device."""
        return self.batch_size or DEFAULT_BATCH.get(device.type, 16)

    def report(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU (where torch has no error of its own)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
