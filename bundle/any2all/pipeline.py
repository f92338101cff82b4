"""The main job, top to bottom: a study becomes measurements, a sampler fills the stack, volumes return to the scanner.

study → inputs → one world → the prior's grid → measurements → self-check → samples → the reference grid → files
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import __version__
from .diffusion.prior import NetworkPrior, file_sha256
from .diffusion.selfcheck import Report, check_images, slices_to_check
from .errors import Cancelled
from .evaluation.baselines import baselines_of, load_mean_image
from .evaluation.metrics import compare
from .forecast import Forecast, expected_seconds
from .frame import Frame, expected_shape, lay_frame, measure
from .geometry import Volume, read_volume
from .inputs import Inputs, aligned, read_inputs, with_thin_slices
from .output import ModalityResult, Result, write_results
from .output.write import check_folder
from .restore import Restoring, given_on_reference
from .samplers import build_sampler
from .samplers.base import Problem
from .samplers.noise import VolumeNoise
from .study import SamplerSettings, StudySpec, for_coupled_slices, ignored_keys, load_study, resolve_sampler

Progress = Callable[[str, int, int], None]
# Of the noise of slices that are as far apart as the prior's own (see the model card); of the network's errors as well:
# a thick T2FLAIR gains 0.6 dB over errors that are taken for independent.
SLICE_CORRELATION = 0.6
DEFAULT_BATCH = {"cpu": 16, "cuda": 128}


@dataclass
class Run:
    """How a study is run, as opposed to what it asks: progress, cancelling, the slices that a device holds at once.

    ``progress(stage, done, total)``; while sampling, done and total count network passes over the whole job.
    ``announce``: is told before sampling what will be done and how long it should take.
    ``truth``: a folder with true images of outputs (named as the stack's patterns say), for scores and the picture.
    ``mean_image``: the prior's mean training image, which a synthetic image of known truth is compared with.
    """

    progress: Progress | None = None
    cancelled: Callable[[], bool] | None = None
    batch_size: int | None = None
    truth: Path | None = None
    mean_image: Path | None = None
    announce: Callable[[Forecast], None] | None = None
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

    def batch(self, prior: NetworkPrior) -> int:
        """Slices that the network sees at once."""
        return self.batch_size or DEFAULT_BATCH.get(prior.device.type, 16)

    def report(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)


def run_study(
    study: str | Path | StudySpec,
    prior: NetworkPrior,
    output_dir: str | Path,
    overwrite: bool = False,
    run: Run | None = None,
) -> Result:
    """Fill one study, a file or already checked, and write what came out (contracts 1 and 2).

    Raises:
        Any2allError: the study, a file or the output folder cannot be used; nothing is written then.
        Cancelled: ``run.cancelled`` said yes; nothing is written then either.
    """
    spec = study if isinstance(study, StudySpec) else load_study(study, prior.stack)
    check_folder(output_dir, list(spec.outputs), overwrite)
    result = fill_study(spec, prior, run)
    write_results(result, output_dir, prior.stack, overwrite)
    return result


def fill_study(spec: StudySpec, prior: NetworkPrior, run: Run | None = None) -> Result:
    """The same without writing: from a checked study to its volumes on the reference grid."""
    run = run or Run()
    settings = resolve_sampler(spec, prior.noise_levels)
    with run.stage("reading"):
        inputs = read_inputs(spec, prior.stack)
        truth = read_truth(run.truth, spec, prior)
    with run.stage("registration"):
        inputs = aligned(inputs, spec, prior.stack, settings.seed)
        inputs = with_thin_slices(inputs, spec.reference, prior.card.spacing_mm[2])
    with run.stage("measurements"):
        frame = lay_frame(inputs, prior.card)
        measurements = measure(inputs, frame, prior.stack)
        problem = Problem.of(measurements, expected_shape(frame, prior), slice_correlation(frame, prior))
        coupled = tuple(prior.stack.names[m] for m in problem.coupled)
        settings = for_coupled_slices(settings, spec, coupled)
    with run.stage("self-check"):
        check = self_check(problem, frame, prior, run)
    if run.announce is not None:
        run.announce(forecast(problem, prior, settings, spec, run))
    with run.stage("sampling"):
        samples = draw(problem, prior, settings, spec, frame, run)
    with run.stage("restoring"):
        restoring = Restoring(
            inputs,
            frame,
            prior.card,
            prior.stack,
            spec.save_samples,
            truth,
            (settings.seed, spec.subject),
            calibrated_std=settings.name == "mcs",
        )
        outputs = [restoring.output(name, samples[:, :, prior.stack.index(name)]) for name in spec.outputs]
    with run.stage("scores"):
        outputs = [scored(output, inputs, prior, run) for output in outputs]
    return Result(
        subject=spec.subject,
        reference=inputs.reference,
        given=given_on_reference(inputs, prior.stack),
        outputs=outputs,
        warnings=[*inputs.warnings, *frame.warnings, *check.warnings, *_warnings(spec, prior, settings, coupled)],
        provenance=provenance(spec, prior, settings),
        seconds=run.seconds,
        reference_file=spec.modalities[spec.reference].file,
        headline=headline(settings),
        self_check=check.to_json(),
    )


def self_check(problem: Problem, frame: Frame, prior: NetworkPrior, run: Run) -> Report:
    """Whether the given images look like what the prior knows; raw and degraded data is left out."""
    given = problem.measurements.available
    if prior.noise_levels != "per_modality":
        return Report(skipped=f"a prior with {prior.noise_levels} noise levels cannot predict one image from another")
    if prior.card.selfcheck is None:
        return Report(skipped="no limits were measured for this prior")
    if not given:
        return Report(skipped="no image was given")
    images = torch.full(problem.shape, -1.0)
    for m in given:
        images[:, m] = problem.measurements.channels[m].data
    chosen = slices_to_check((images[:, list(given)] + 1) / 2, frame.grid.spacing_mm[0])
    if not chosen:
        return Report(skipped="no slice shows the head in all given images")
    return Report(tuple(check_images(prior, images[chosen], given, run.batch(prior), run.cancelled)), len(chosen))


def forecast(problem: Problem, prior: NetworkPrior, settings: SamplerSettings, spec: StudySpec, run: Run) -> Forecast:
    """What sampling will do and how long it should take."""
    slices, _, *matrix = problem.shape
    seconds = expected_seconds(
        build_sampler(settings, prior.stack, spec.outputs),
        prior,
        (matrix[0], matrix[1]),
        slices,
        settings.samples,
        bool(spec.measured),
        bool(set(spec.outputs) - set(spec.measured)),
        run.batch(prior),
    )
    return Forecast(headline(settings), slices, seconds)


def headline(settings: SamplerSettings) -> str:
    """One line for pictures and messages."""
    return f"{settings.name}, {settings.steps} steps, {settings.samples} sample{'s' * (settings.samples > 1)}"


def draw(
    problem: Problem, prior: NetworkPrior, settings: SamplerSettings, spec: StudySpec, frame: Frame, run: Run
) -> Tensor:
    """Samples (K, Z, M, H, W) in u of the frame's slices."""
    sampler = build_sampler(settings, prior.stack, spec.outputs)
    rho = slice_correlation(frame, prior)
    noise = VolumeNoise(problem.shape[1:], settings.seed, spec.subject, rho, frame.first_slice)
    x = sampler.sample(
        prior,
        problem,
        noise,
        samples=settings.samples,
        batch_size=run.batch(prior),
        device=prior.device,
        progress=lambda done, total: run.report("sampling", done, total),
        cancelled=run.cancelled,
    )
    return (x + 1) / 2


def slice_correlation(frame: Frame, prior: NetworkPrior) -> float:
    """``SLICE_CORRELATION`` at the frame's distance of slices."""
    return SLICE_CORRELATION ** (frame.grid.spacing_mm[0] / prior.card.spacing_mm[2])


def read_truth(folder: Path | None, spec: StudySpec, prior: NetworkPrior) -> dict[str, Volume]:
    """True images of outputs in a folder, matched by name; a modality without one is left out."""
    if folder is None:
        return {}
    files = {prior.stack.match(file.name): file for file in sorted(Path(folder).iterdir())}
    return {name: read_volume(files[name], f"truth.{name}") for name in spec.outputs if name in files}


def scored(output: ModalityResult, inputs: Inputs, prior: NetworkPrior, run: Run) -> ModalityResult:
    """The output beside its baselines, where its truth is known."""
    if output.truth is None:
        return output
    mean_image = load_mean_image(run.mean_image, prior.card) if run.mean_image else None
    baselines = baselines_of(output.name, inputs, prior.card, prior.stack, mean_image)
    return compare(output, prior.stack[output.name], baselines)


def provenance(spec: StudySpec, prior: NetworkPrior, settings: SamplerSettings) -> dict[str, Any]:
    """Where a result comes from: prior, sampler, seed, and the checksums of what was given."""
    files = {path for modality in spec.modalities.values() for path in modality.paths}
    folder = spec.folder.resolve()
    return {
        "software": f"any2all {__version__}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "prior": {"sha256": prior.card.sha256, "version": prior.card.version, "noise_levels": prior.noise_levels},
        "sampler": asdict(settings),
        "seed": settings.seed,
        "study": spec.document,
        "inputs_sha256": {file.relative_to(folder).as_posix(): file_sha256(file) for file in sorted(files)},
    }


def _warnings(spec: StudySpec, prior: NetworkPrior, settings: SamplerSettings, coupled: tuple[str, ...]) -> list[str]:
    """What a reader of the result has to know beside the grids."""
    warnings = []
    trained_on = set(prior.card.training.get("file_sha256", ()))
    for modality in spec.modalities.values():
        if any(file_sha256(path) in trained_on for path in modality.paths):
            warnings.append(f"{modality.name}: the prior was trained on this very image, so the result flatters it")
    for key in ignored_keys(spec, settings):
        warnings.append(f"sampler.{key} means nothing to {settings.name} and was ignored")
    if settings.name != "mcs" and spec.degraded:
        warnings.append(f"{settings.name} knows no noise: that of {', '.join(spec.degraded)} stays; mcs weighs it")
    for name in coupled:
        if settings.name == "mcs" and settings.consistency == "moment" or spec.sampler.consistency == "moment":
            warnings.append(f"{name} couples slices: its data consistency is calibrated, not by moments")
    if settings.samples == 1:
        warnings.append("one sample was drawn: no uncertainty was computed")
    return warnings
