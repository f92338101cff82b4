"""What ``configs/batch.json`` is made of: a folder of studies filled by one process, or by several that share it.

Rank r of w takes every w-th subject. Each subject's results appear whole or not at all, so a run that was stopped goes
on, and one that cannot be used stops no other.
"""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from . import pipeline
from .cdm.source import CDMSource
from .diffusion.prior import NetworkPrior
from .errors import Any2allError
from .filling import filling_of
from .given import GivenFiles
from .output.summary import DISCLAIMER, plain
from .output.write import SUMMARY, check_folder, sweep, write_results
from .run import Run, is_out_of_memory
from .studies import StudyFolder
from .study import StudySpec, asked_of, parse_study
from .study.document import validated
from .study.presets import preset_settings
from .workflow import INTERRUPTED, announce, as_count, as_flag, as_folder, front_door, shortest

FAILED = "failed"  # folder of the errors, beside the subjects'
SOME_FAILED = 1
STORE_TIMEOUT = timedelta(seconds=30)  # for an answer of torchrun's store, not for the other ranks
_ASKED = ("modalities", "reference", "registration", "save_samples")  # of a study, beside outputs and sampler


@dataclass(frozen=True)
class Outcome:
    """What became of a subject, in words; ``seconds`` that it took."""

    subject: str
    state: Literal["filled", "kept", "failed"]
    words: str
    seconds: float


class BatchEvaluator:
    """The ``evaluator`` of ``batch.json``: `run` fills every subject of a folder.

    Args:
        studies: the folder, see `StudyFolder`.
        prior: the prior.
        output_dir: results go to ``<output_dir>/<subject>/``, errors to ``<output_dir>/failed/<subject>.json``.
        overwrite: replace results that other settings or other files led to.
        preset: takes the place of the preset and the sampler of every study.
        sampler: takes the place of the sampler of every study.
        outputs: takes the place of the outputs of every study.
        batch_size: slices that the network sees at once; changes no result. None: what suits the device.
        rank, world_size: this process and how many there are.
        cdm_file: CDM, for studies whose sampler it is.
    """

    def __init__(
        self,
        studies: str | Path | None,
        prior: NetworkPrior,
        output_dir: str | Path | None,
        overwrite: bool | str = False,
        preset: str | None = None,
        sampler: dict[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        cdm_file: str | Path | None = None,
    ) -> None:
        self.studies, self.prior, self.output_dir, self.overwrite = studies, prior, output_dir, overwrite
        self.preset, self.sampler, self.outputs, self.batch_size = preset, sampler, outputs, batch_size
        self.rank, self.world_size = rank, world_size
        self.cdm = CDMSource(None if cdm_file is None else Path(str(cdm_file)), prior.device)

    def run(self) -> list[Outcome]:
        """Fill this rank's subjects.

        Leaves the process with status 1 when any failed, 2 where no subject can be tried, 130 on Ctrl-C and SIGTERM.
        """
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        with front_door():
            try:
                outcomes = self._run()
                failed = any(outcome.state == "failed" for outcome in outcomes)
                _all_done(self.rank, self.world_size, wait=failed)
            except KeyboardInterrupt:
                announce("stopped: the subjects that are done are kept, and the same command goes on")
                raise SystemExit(INTERRUPTED) from None
            finally:
                signal.signal(signal.SIGTERM, before)
        if failed:
            raise SystemExit(SOME_FAILED)
        return outcomes

    def _run(self) -> list[Outcome]:
        studies, job, names = self._checked()
        mine = names[self.rank :: self.world_size]
        who = f"rank {self.rank} of {self.world_size}: " if self.world_size > 1 else ""
        announce(f"{who}{len(mine)} of {len(names)} subjects of {shortest(studies.root)}")
        outcomes: list[Outcome] = []
        for subject in mine:
            outcomes.append(job.fill(subject))
            announce(f"{who}{len(outcomes)} of {len(mine)}: {_line(outcomes[-1])}{_left(outcomes, len(mine))}")
        print("\n".join(_told(outcomes, job.folder, who)), flush=True)
        return outcomes

    def _checked(self) -> tuple[StudyFolder, _Job, list[str]]:
        """Everything that concerns all subjects alike is refused here, before any work."""
        if self.studies is None or str(self.studies) == "":
            raise Any2allError("no folder of studies was given", key="studies", hint="--studies FOLDER")
        studies = StudyFolder(str(self.studies), self.prior.stack)
        folder = as_folder(self.output_dir, "output_dir")
        _check_output(studies.root, folder)
        as_count(self.world_size, "world_size")
        as_count(self.rank, "rank", 0, self.world_size - 1)
        if self.batch_size is not None:
            as_count(self.batch_size, "batch_size")
        overwrite = as_flag(self.overwrite, "overwrite")
        asked = asked_of(self.prior.stack, self.preset, self.sampler, self.outputs)
        job = _Job(studies, self.prior, folder, overwrite, asked, self.batch_size, self.cdm)
        names = studies.subjects()
        others = [path.name for path in studies.root.iterdir() if path.is_dir() and path.name not in names]
        others = sorted(name for name in others if not name.startswith("."))
        if others:
            announce(f"left out, as misnamed or linked from elsewhere: {', '.join(others)}")
        if not names:
            message, wanted = "no subject was found", "one folder for each subject"
            raise Any2allError(message, key="studies", value=str(self.studies), allowed=wanted)
        return studies, job, names


@dataclass(frozen=True)
class _Job:
    """How every subject is filled, and where its results go."""

    studies: StudyFolder
    prior: NetworkPrior
    folder: Path
    overwrite: bool
    asked: dict[str, Any]
    batch_size: int | None
    cdm: CDMSource

    def fill(self, subject: str) -> Outcome:
        """Fill one subject, or say why not; an error is kept in a file until the subject succeeds."""
        started = time.perf_counter()
        try:
            state, words = self._filled(subject)
            self._record(subject, None)
        except Any2allError as error:
            state, words = "failed", self._record(subject, error)
        except Exception as unforeseen:  # a night's run is not lost for one subject
            state, words = "failed", self._record(subject, _in_words(unforeseen))
        return Outcome(subject, state, words, time.perf_counter() - started)

    def _filled(self, subject: str) -> tuple[Literal["filled", "kept"], str]:
        if subject.casefold() == FAILED:
            raise Any2allError("this name is taken by the folder of errors", key="subject", value=subject)
        document = self.studies.document(subject)
        spec = parse_study({**document, **self.asked}, self.prior.stack, self.studies.folder(subject))
        target = self.folder / subject
        sweep(target)
        run = Run(batch_size=self.batch_size, cdm=self.cdm)
        if is_done(target, spec, self.prior, self.overwrite, run):
            return "kept", "results of the same files and settings are there"
        check_folder(target, list(spec.outputs), self.overwrite)
        result = pipeline.fill_study(spec, self.prior, run)
        write_results(result, target, self.prior.stack, self.overwrite)
        number = len(result.warnings)
        warnings = f", {number} warning{'s' * (number > 1)} in its {SUMMARY}" if number else ""
        return "filled", f"{', '.join(spec.outputs)} ({result.headline}){warnings}"

    def _record(self, subject: str, error: Any2allError | None) -> str:
        """Write the error of a subject, or take away the one that it had. Returns the error in one line."""
        file = self.folder / FAILED / f"{subject}.json"
        try:
            if error is None:
                file.unlink(missing_ok=True)
                return ""
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f".{file.name}.partial")
            draft.write_text(json.dumps(plain(error.as_dict()), indent=1, allow_nan=False) + "\n", encoding="utf-8")
            os.replace(draft, file)
        except OSError as failure:
            message = f"the error of {subject} could not be kept: {failure.strerror}"
            raise Any2allError(message, key="output_dir", value=str(self.folder), code="storage") from error
        return error.sentence()


def is_done(folder: Path, spec: StudySpec, prior: NetworkPrior, overwrite: bool, run: Run) -> bool:
    """Whether a folder holds the results of this very study, by these weights, complete.

    Raises:
        Any2allError: it holds other results, and ``overwrite`` is not given; or there is no CDM.
    """
    summary = _summary(folder)
    if summary is None:
        return False
    origin = pipeline.provenance(spec, prior, filling_of(spec, prior, run), GivenFiles.of(spec))
    wanted = _facts({"outputs": spec.outputs, "provenance": plain(origin)})
    try:
        there = _facts(summary)
        lost = not all((folder / name).is_file() for name in summary["files"])
    except (Any2allError, KeyError, TypeError):
        there, lost = {}, False
    other = [name for name, value in wanted.items() if there.get(name) != value] + ["files that are lost"] * lost
    if other and not overwrite:
        raise Any2allError(
            f"the results there differ in: {', '.join(other)}",
            key="output_dir",
            value=folder.name,
            hint="choose another folder or allow overwrite",
            code="exists",
        )
    return not other


def _summary(folder: Path) -> dict[str, Any] | None:
    """The summary of an earlier run; None where there is none of ours."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "any2all_summary" in summary else None


def _facts(summary: dict[str, Any]) -> dict[str, Any]:
    """What results depend on, as a summary says it; of the consistency what was asked, which raw data may overrule."""
    provenance = summary["provenance"]
    study = validated(provenance["study"])
    consistency = preset_settings(study.preset, False, study.sampler).consistency
    return {
        "prior": provenance["prior"]["sha256"],
        "network for means": provenance["prior"].get("mean_network"),
        "sampler": {**provenance["sampler"], "consistency": consistency},
        "outputs": list(summary["outputs"]),
        "input files": provenance["inputs_sha256"],
        "study": study.model_dump(include=set(_ASKED)),
    }


def _check_output(studies: Path, folder: Path) -> None:
    """Refuse a folder for results that lies among the studies: it would be taken for a subject next time."""
    here = Path(os.path.realpath(folder))
    if here == studies or studies in here.parents:
        message = "the results must not lie in the folder of studies"
        raise Any2allError(message, key="output_dir", value=str(folder), hint="choose another folder")
    if folder.exists() and not folder.is_dir():
        raise Any2allError("this is not a folder", key="output_dir", value=str(folder), code="exists")


def _all_done(rank: int, world_size: int, wait: bool) -> None:
    """Tell the other ranks of torchrun that this one is done, and wait for them before it ends with a failure.

    torchrun ends all ranks as soon as one fails, and theirs are other subjects. Without torchrun nobody is told.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    with suppress(dist.DistError):  # the store ends with torchrun, and then there is nobody to wait for
        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(*where, is_master=False, timeout=STORE_TIMEOUT)
        store = dist.PrefixStore(f"any2all/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        store.set(str(rank), "done")
        while wait and not store.check([str(other) for other in range(world_size)]):
            time.sleep(0.5)


def _in_words(error: Exception) -> Any2allError:
    """What is written down of an error that was not foreseen; the traceback on stderr says where it was."""
    if is_out_of_memory(error):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        hint = "a smaller batch_size or fewer samples need less"
        return Any2allError("the device ran out of memory", key="batch_size", hint=hint, code="out_of_memory")
    traceback.print_exception(error)
    return Any2allError(f"an unforeseen error: {type(error).__name__}: {error}", code=FAILED)


def _line(outcome: Outcome) -> str:
    took = f" in {_duration(outcome.seconds)}" if outcome.state == "filled" else ""
    return f"{outcome.subject}: {outcome.state}{took}: {outcome.words}"


def _left(outcomes: Sequence[Outcome], total: int) -> str:
    """The time that the rest should take if each of it has to be filled; nothing where that is not known."""
    filled = [outcome.seconds for outcome in outcomes if outcome.state == "filled"]
    rest = total - len(outcomes)
    return f"; about {_duration(rest * sum(filled) / len(filled))} left" if filled and rest else ""


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _told(outcomes: Sequence[Outcome], folder: Path, who: str) -> list[str]:
    """The lines that end a run."""
    count = {state: sum(o.state == state for o in outcomes) for state in ("filled", "kept", "failed")}
    errors = f", errors in {shortest(folder / FAILED)}" if count["failed"] else ""
    return [
        *(f"{who}{_line(outcome)}" for outcome in outcomes),
        f"{who}{', '.join(f'{number} {state}' for state, number in count.items())}.",
        f"{who}Results are in {shortest(folder)}, a folder for each subject{errors}.",
        DISCLAIMER,
    ]
