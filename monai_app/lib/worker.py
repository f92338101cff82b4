"""The process that owns the device: it loads the prior once, CDM when it is asked for, and fills study after study.

It is a process of its own because registration and some solves hold Python's lock for seconds, in which a server in
the same process could answer nobody; and because whatever kills it (the system short of memory, a library's crash)
leaves the server alive to say so. Orders come as JSON lines on stdin, events leave as JSON lines on stdout:

    run {job, document, folder, output, batch_size}   →  stage, progress …, then done | failed | cancelled
    time                                              →  timed: what presets, and CDM where there is one, cost now
    cancel {job}                                         honoured before the sampler's next step
    (stdin closed)                                       the server is gone: stop
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import torch
from any2all import pipeline
from any2all.cdm.cost import seconds_per_slice
from any2all.cdm.source import CDMSource
from any2all.diffusion.prior import NetworkPrior, file_sha256, load_prior
from any2all.errors import Any2allError, Cancelled
from any2all.forecast import Forecast, preset_seconds
from any2all.output.summary import plain
from any2all.run import Run, is_out_of_memory
from any2all.study import parse_study

from .logs import where

PROGRESS_SECONDS = 0.1
LAST_SECONDS = 20.0  # for a step that is being taken when the server goes


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the prior, say ``ready``, and work until stdin is closed."""
    options = _parser().parse_args(arguments)
    said = Events(_only_events_on_stdout())
    orders = Orders(sys.stdin, leave_soon)
    try:
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        prior = load_prior(options.model_file, device)
        cdm = CDMSource(options.cdm_file, device)
        ready = {"device": str(prior.device), "seconds_per_slice": preset_seconds(prior)}
    except (Any2allError, RuntimeError) as error:
        said.say("broken", error=in_words(error))
        return
    said.say("ready", **ready)
    while (order := orders.next_run()) is not None:
        if order["do"] == "time":
            said.say("timed", seconds_per_slice=preset_seconds(prior), seconds_of_cdm=cdm_seconds(cdm, prior))
        else:
            fill(order, prior, cdm, orders, said)


def leave_soon() -> None:
    """The server is gone: end this process even where a step that cannot be interrupted holds it."""
    time.sleep(LAST_SECONDS)
    os._exit(1)


def cdm_seconds(cdm: CDMSource, prior: NetworkPrior) -> float | None:
    """What a slice of one of CDM's samples costs; None where there is no CDM that can be used."""
    try:
        return seconds_per_slice(cdm.load(prior.card)) if cdm.present else None
    except (Any2allError, RuntimeError):  # a study that asks for it is told why
        return None


class Events:
    """What the server is told."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def say(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **plain(fields)}, allow_nan=False)
        with suppress(BrokenPipeError):  # the server is gone; `Orders` notices, and the job ends
            self.stream.write(line + "\n")
            self.stream.flush()


class Orders:
    """Orders from the server, read by a thread so that a cancel is seen while a study is being filled.

    ``gone`` is called by that thread when the server has closed its end.
    """

    def __init__(self, stream: TextIO, gone: Callable[[], None] = lambda: None) -> None:
        self.gone = gone
        self.runs: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.cancelled: set[str] = set()
        self.closed = False
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def next_run(self) -> dict[str, Any] | None:
        """The next study, or a timing; None when the server is gone."""
        return self.runs.get()

    def unwanted(self, job: str) -> bool:
        """Whether a job has been cancelled, or has nobody left to wait for it."""
        return self.closed or job in self.cancelled

    def _read(self, stream: TextIO) -> None:
        for line in stream:
            order = json.loads(line)
            if order["do"] in ("run", "time"):
                self.runs.put(order)
            else:
                self.cancelled.add(order["job"])
        self.closed = True
        self.runs.put(None)
        self.gone()


class Told:
    """Tells the server how far one job is: a new stage at once, progress at most every tenth of a second."""

    def __init__(self, job: str, said: Events) -> None:
        self.job, self.said = job, said
        self.stage, self.last = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self.stage and done < total and now - self.last < PROGRESS_SECONDS:
            return
        self.stage, self.last = stage, now
        counted = {"step": done, "total": total} if stage == "sampling" and total > 1 else {}
        self.said.say("progress", job=self.job, stage=stage, **counted)

    def forecast(self, forecast: Forecast) -> None:
        self.said.say("forecast", job=self.job, seconds=forecast.seconds, slices=forecast.slices)


def fill(order: dict[str, Any], prior: NetworkPrior, cdm: CDMSource, orders: Orders, said: Events) -> None:
    """Fill one study and say how that ended; the memory it used is given back."""
    job = order["job"]
    orders.cancelled.intersection_update({job})  # a cancel that came after its job had ended is of no use any more
    try:
        result = _within_memory(order, prior, cdm, orders, said)
        said.say("done", job=job, results=results(Path(order["output"])), warnings=result[0], seconds=result[1])
    except Cancelled:
        said.say("cancelled", job=job)
    except Exception as error:  # whatever it is, the next job must find a worker
        said.say("failed", job=job, error=in_words(error))
    finally:
        orders.cancelled.discard(job)
        free_memory()


def _within_memory(
    order: dict[str, Any], prior: NetworkPrior, cdm: CDMSource, orders: Orders, said: Events
) -> tuple[list[str], dict[str, float]]:
    """Warnings and seconds of a filled study; short of memory, the same with half as many slices at once."""
    batch_size = order["batch_size"] or Run().batch(prior.device)
    while True:
        try:
            return _run(order, prior, cdm, orders, said, batch_size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise Any2allError(
                    "the device ran out of memory, even with one slice at a time",
                    hint="smaller images, or a server with more memory",
                    code="out_of_memory",
                ) from None
        free_memory()
        batch_size //= 2
        said.say("retry", job=order["job"], batch_size=batch_size)


def _run(
    order: dict[str, Any], prior: NetworkPrior, cdm: CDMSource, orders: Orders, said: Events, batch_size: int
) -> tuple[list[str], dict[str, float]]:
    spec = parse_study(order["document"], prior.stack, order["folder"])
    told = Told(order["job"], said)
    run = Run(
        progress=told,
        cancelled=lambda: orders.unwanted(order["job"]),
        batch_size=batch_size,
        announce=told.forecast,
        cdm=cdm,
    )
    result = pipeline.run_study(spec, prior, order["output"], run=run)
    return result.warnings, result.seconds


def results(folder: Path) -> list[dict[str, Any]]:
    """What a finished job offers: each volume with modality, role and checksum, named as in its folder."""
    outputs = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["outputs"]
    found = []
    for modality in outputs:
        named = [(f"{modality}.nii.gz", "mean"), (f"{modality}_std.nii.gz", "std")]
        samples = sorted((folder / "samples").glob(f"{modality}_*.nii.gz"), key=lambda p: (len(p.name), p.name))
        named += [(f"samples/{file.name}", "sample") for file in samples]
        for name, role in named:
            if (folder / name).is_file():
                sha256 = file_sha256(folder / name)
                found.append({"name": name, "modality": modality, "role": role, "sha256": sha256})
    return found


def in_words(error: BaseException) -> dict[str, Any]:
    """An error as contract 3 sends it. Of an unexpected one only the kind is told: its text may hold anything."""
    if isinstance(error, Any2allError):
        return error.as_dict()
    told = Any2allError(
        f"the study could not be filled ({type(error).__name__})",
        hint="the server's log says more",
        code="failed",
    )
    print(f"unexpected {type(error).__name__} in {where(error)}", file=sys.stderr, flush=True)
    return told.as_dict()


def free_memory() -> None:
    """Give back what the last job held, to the device and to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def _only_events_on_stdout() -> TextIO:
    """The real stdout, for events; whatever libraries print goes to stderr from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-file", type=Path, required=True)
    parser.add_argument("--device")
    parser.add_argument("--cdm-file", type=Path)
    return parser


if __name__ == "__main__":
    main()
