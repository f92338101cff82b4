"""What ``configs/inference.json`` is made of: the command line around `pipeline.run_study`.

An error that a user can mend is one line and exit status 2, Ctrl-C is status 130; nothing is written in either case.
The other commands use the same pieces: `front_door` and `StageProgress`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from monai.engines import Trainer
from tqdm import tqdm

from . import pipeline
from .cdm.source import CDMSource
from .diffusion import prior as priors
from .errors import Any2allError
from .output import ModalityResult, Result
from .output.summary import DISCLAIMER
from .run import Progress, Run, is_out_of_memory
from .scores.text import markdown_table
from .study import StudySpec, asked_of, parse_study, read_document

T = TypeVar("T")
USER_ERROR, INTERRUPTED = 2, 130
WITHOUT_HASH = "change into that folder and give the path from there, or link to it"
BAR = "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} network passes, {elapsed} gone, {remaining} left"
STAGES = {
    "registration": "registering",
    "measurements": "laying the prior's grid",
    "restoring": "returning to the reference grid",
    "scores": "scoring and writing",
}


@contextmanager
def front_door() -> Iterator[None]:
    """Leave the process with one line on stderr: status 2 for what a user can mend, 130 after Ctrl-C."""
    try:
        _refuse_hashes(sys.argv)
        yield
    except Any2allError as error:
        _leave(f"error: {error.sentence()}", USER_ERROR)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _leave("error: the device ran out of memory (a smaller batch_size or fewer samples need less)", USER_ERROR)
    except KeyboardInterrupt:
        _leave("cancelled: nothing was written", INTERRUPTED)


def _refuse_hashes(arguments: Sequence[str]) -> None:
    """Refuse values that MONAI's command line has cut at a # (to Fire a comment) or rewritten (to its configs ``::``).

    References, expressions, and what is no single word may hold one. Other commands take a # as it is.
    """
    if Path(*arguments[:1]).parts[-3:] != ("monai", "bundle", "__main__.py"):
        return
    key = None
    for value in arguments[1:]:
        if value.startswith("--"):
            key, _, value = value[2:].partition("=")
        if "#" in value and not value.startswith(("@", "%", "$", "{", "[")):
            message = "MONAI's command line cannot take a #"
            raise Any2allError(message, key=key, value=value, allowed="values without #", hint=WITHOUT_HASH)


def _leave(line: str, status: int) -> None:
    print(line, file=sys.stderr, flush=True)
    raise SystemExit(status) from None


class StageProgress:
    """Listens to `run.Run`: one line per stage, and while sampling a bar of network passes with the time left.

    The bar's clock starts with the sampling, so that what came before does not spoil its forecast. It writes to stderr,
    so that stdout holds results only.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.sampling_since = time.time()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != "sampling":
            self.close()
            print(f"{STAGES.get(stage, stage)} …", file=sys.stderr, flush=True)
        elif done == 0:
            self.sampling_since = time.time()
        else:
            self.bar = self.bar or self._open(total)
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """End the bar where there is one; call it also when the work breaks off."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _open(self, total: int) -> tqdm:
        # a log file gets a line every ten seconds, a terminal a moving bar
        wait = 0.2 if sys.stderr.isatty() else 10.0
        bar = tqdm(total=total, desc="sampling", bar_format=BAR, file=sys.stderr, mininterval=wait, smoothing=0.1)
        bar.start_t = bar.last_print_t = self.sampling_since
        return bar


def checked(function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)`` for a config: what a user can mend becomes one line and exit status 2."""
    with front_door():
        return function(*arguments)


def load_prior(model_file: str | Path, device: torch.device | str = "cpu") -> priors.NetworkPrior:
    """`diffusion.prior.load_prior` for a config: a file that cannot be used is one line and exit status 2."""
    return checked(priors.load_prior, str(model_file), device)


def as_flag(value: Any, key: str) -> bool:
    """A switch as the command line gives it: ``--overwrite``, ``--overwrite true``, ``--overwrite False``.

    Raises Any2allError for anything else.
    """
    words = {"true": True, "false": False, "1": True, "0": False}
    if str(value).lower() not in words:
        raise Any2allError("this is a switch", key=key, value=value, allowed=("true", "false"))
    return words[str(value).lower()]


def as_count(value: Any, key: str, least: int = 1, most: int | None = None) -> int:
    """A whole number from ``least`` (to ``most``). Raises Any2allError for anything else."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        allowed = f"a whole number from {least}" + (f" to {most}" if most is not None else "")
        raise Any2allError("this number cannot be used", key=key, value=value, allowed=allowed)
    return value


def as_folder(value: Any, key: str) -> Path:
    """A folder for results, which need not exist. Raises Any2allError where none was given."""
    if value is None or str(value) == "":
        raise Any2allError("no folder for the results was given", key=key, hint=f"--{key} FOLDER")
    if not isinstance(value, (str, Path)):
        message = "the command line takes this for a number or a list"
        raise Any2allError(message, key=key, value=value, hint=f"write it as a path: --{key} ./NAME")
    if "::" in str(value):
        message = "MONAI's configs write :: for #, so no path may hold either"
        raise Any2allError(message, key=key, value=value, hint=WITHOUT_HASH)
    return Path(value)


def train(trainer: Trainer) -> None:
    """Run a trainer. Ctrl-C and SIGTERM (what a cluster sends) end it with status 130; its checkpoint is written first.

    Errors leave as in `front_door`.
    """

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    with front_door():
        try:
            trainer.run()
        except (KeyboardInterrupt, RuntimeError) as error:
            # a signal to the whole group ends the loader's workers too, and their end is reported as an error
            if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
                raise
            _leave("stopped: the same command goes on from the last checkpoint", INTERRUPTED)
        finally:
            signal.signal(signal.SIGTERM, before)


def announce(words: object) -> None:
    """A line on stderr, so that stdout holds results only."""
    print(words, file=sys.stderr, flush=True)


class StudyInferer:
    """Fills one study with a prior: ``inferer(study, output_dir)`` is `pipeline.run_study` with these settings.

    Args:
        prior: the prior.
        batch_size: slices that the network sees at once; changes no result. None: what suits the device.
        truth: folder of true images of outputs, for scores and the picture.
        mean_image: the prior's mean training image, which a synthetic image of known truth is compared with.
        cdm_file: CDM, for studies whose sampler it is; nothing is loaded before the first of them.
        preset, sampler, outputs: take the place of the study's own, see `study.asked_of`.
    """

    def __init__(
        self,
        prior: priors.NetworkPrior,
        batch_size: int | None = None,
        truth: str | Path | None = None,
        mean_image: str | Path | None = None,
        cdm_file: str | Path | None = None,
        preset: str | None = None,
        sampler: dict[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> None:
        self.prior, self.batch_size, self.truth, self.mean_image = prior, batch_size, truth, mean_image
        self.preset, self.sampler, self.outputs = preset, sampler, outputs
        self.cdm = CDMSource(None if cdm_file is None else Path(str(cdm_file)), prior.device)

    def __call__(
        self, study: Path, output_dir: Path, overwrite: bool = False, progress: Progress | None = None
    ) -> Result:
        batch_size = None if self.batch_size is None else as_count(self.batch_size, "batch_size")
        truth = None if self.truth is None else Path(str(self.truth))
        if truth is not None and not truth.is_dir():
            raise Any2allError("this folder does not exist", key="truth", value=str(truth))
        mean_image = None if self.mean_image is None else Path(self.mean_image)
        run = Run(progress, None, batch_size, truth, mean_image, announce, self.cdm)
        return pipeline.run_study(self._asked(study), self.prior, output_dir, overwrite, run)

    def _asked(self, study: Path) -> StudySpec:
        """The study with what the command says in its own keys' place."""
        document, stack = read_document(study), self.prior.stack
        asked = asked_of(stack, self.preset, self.sampler, self.outputs)
        whole = {**document, **asked} if isinstance(document, dict) else document
        return parse_study(whole, stack, study.parent)


class StudyEvaluator:
    """The ``evaluator`` of ``inference.json``: `run` fills the study and says what came out and where it lies.

    Args:
        dataset: the study files; exactly one.
        inferer: fills a study.
        output_dir: where results go.
        overwrite: replace the results of an earlier run.
    """

    def __init__(
        self,
        dataset: Sequence[str],
        inferer: StudyInferer,
        output_dir: str | Path | None,
        overwrite: bool | str = False,
    ) -> None:
        self.dataset, self.inferer = dataset, inferer
        self.output_dir, self.overwrite = output_dir, overwrite

    def run(self) -> Result:
        """Fill the study. Leaves the process with status 2 on a user's error, 130 on Ctrl-C."""
        with front_door():
            if len(self.dataset) != 1:
                raise Any2allError("no study was given", key="study", hint="--study STUDY.json")
            study, folder = Path(str(self.dataset[0])), as_folder(self.output_dir, "output_dir")
            overwrite, started = as_flag(self.overwrite, "overwrite"), time.perf_counter()
            progress = StageProgress()
            try:
                result = self.inferer(study, folder, overwrite, progress)
            finally:
                progress.close()
            print("\n".join(describe(result, folder, time.perf_counter() - started)), flush=True)
            for warning in result.warnings:
                print(f"warning: {warning}", file=sys.stderr, flush=True)
            return result


def describe(result: Result, folder: Path, seconds: float) -> list[str]:
    """The lines that end a run: one for each output, its scores where the truth is known, and where the files lie."""
    shown = shortest(folder)
    header = ("output", "how", "units", "PSNR dB", "SSIM", "to beat (PSNR dB)", "file")
    rows = [_row(output) for output in result.outputs]
    known = [i for i, name in enumerate(header) if name == "file" or any(row[i] != "–" for row in rows)]
    table = markdown_table([header[i] for i in known], [[row[i] for i in known] for row in rows])
    scored = {(o.metrics["data_range"], o.metrics["grid"]) for o in result.outputs if o.metrics}
    return [
        f"{result.subject}: {result.headline}, {seconds:.1f} s",
        table,
        *(f"Scores against the truth, {data_range}, {grid} grid." for data_range, grid in sorted(scored)),
        f"Volumes, {shown / 'report.png'} and {shown / 'summary.json'} are in {shown}.",
        DISCLAIMER,
    ]


def shortest(path: Path) -> Path:
    """The path from here where it lies below, else as it is."""
    below = os.path.relpath(path)
    return path if below.startswith("..") else Path(below)


def _row(output: ModalityResult) -> tuple[str, ...]:
    scores = output.metrics or {}
    rivals = {k.removeprefix("psnr_"): v for k, v in scores.items() if k.startswith("psnr_") and k != "psnr_head"}
    spread = f", {output.name}_std.nii.gz" if output.std is not None else ""
    return (
        output.name,
        output.role,
        output.units,
        f"{scores['psnr']:.2f}" if scores else "–",
        f"{scores['ssim']:.3f}" if scores else "–",
        ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in rivals.items()) or "–",
        f"{output.name}.nii.gz{spread}",
    )
