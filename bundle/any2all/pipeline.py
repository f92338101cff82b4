"""The main job, top to bottom: a study becomes measurements, the stack is filled, volumes return to the scanner.

study → inputs → one world → the prior's grid → measurements → self-check → samples → the reference grid → files
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import __version__
from .diffusion.prior import NetworkPrior
from .diffusion.selfcheck import Report, check_images, slices_to_check
from .errors import Any2allError
from .filling import Filling, filling_of, given_images, headline, origin_of, slice_correlation
from .frame import Frame, expected_shape, lay_frame, measure
from .geometry import Volume, read_volume
from .given import GivenFiles, check_acquired
from .inputs import Inputs, aligned, read_inputs, with_thin_slices
from .output import ModalityResult, Result, write_results
from .output.write import check_folder
from .restore import Restoring, given_on_reference
from .run import Run
from .samplers.base import Problem
from .scores.baselines import baselines_of, load_mean_image
from .scores.metrics import compare
from .study import StudySpec, ignored_keys, load_study
from .study.files import files_by_modality, several_files


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
    filling = filling_of(spec, prior, run)
    with run.stage("reading"):
        files = GivenFiles.of(spec)
        inputs = read_inputs(spec, prior.stack)
        files.check_unchanged()
        truth = read_truth(run.truth, spec, prior)
    with run.stage("registration"):
        inputs = aligned(inputs, spec, prior.stack, filling.settings.seed)
        inputs = with_thin_slices(inputs, spec.reference, prior.card.spacing_mm[2])
    with run.stage("measurements"):
        frame = lay_frame(inputs, prior.card)
        measurements = measure(inputs, frame, prior.stack)
        rho = slice_correlation(frame, prior.card.spacing_mm[2])
        problem = Problem.of(measurements, expected_shape(frame, prior), rho)
        coupled = tuple(prior.stack.names[m] for m in problem.coupled)
        filling = filling.for_coupled_slices(coupled)
    with run.stage("self-check"):
        check = self_check(problem, frame, prior, run)
    if run.announce is not None:
        run.announce(filling.forecast(problem, run))
    with run.stage("sampling"):
        samples = filling.draw(problem, frame, run)
    with run.stage("restoring"):
        restoring = Restoring(
            inputs,
            frame,
            prior.card,
            prior.stack,
            spec.save_samples,
            truth,
            (filling.settings.seed, spec.subject),
            calibrated_std=filling.calibrated_std,
        )
        outputs = [restoring.output(name, samples[:, :, prior.stack.index(name)]) for name in spec.outputs]
    with run.stage("scores"):
        outputs = [scored(output, inputs, prior, run) for output in outputs]
    return Result(
        subject=spec.subject,
        reference=inputs.reference,
        given=given_on_reference(inputs, prior.stack),
        outputs=outputs,
        warnings=[*inputs.warnings, *frame.warnings, *check.warnings, *_warnings(spec, filling, files, coupled)],
        provenance=provenance(spec, prior, filling, files),
        seconds=run.seconds,
        reference_file=spec.modalities[spec.reference].file,
        headline=headline(filling.settings),
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
    images = given_images(problem)
    chosen = slices_to_check((images[:, list(given)] + 1) / 2, frame.grid.spacing_mm[0])
    if not chosen:
        return Report(skipped="no slice shows the head in all given images")
    batch_size = run.batch(prior.device)
    return Report(tuple(check_images(prior, images[chosen], given, batch_size, run.cancelled)), len(chosen))


def read_truth(folder: Path | None, spec: StudySpec, prior: NetworkPrior) -> dict[str, Volume]:
    """True images of outputs in a folder, matched by name; a modality without one is left out.

    Raises:
        Any2allError: no image of any output, several of one, or one that Any2all made.
    """
    if folder is None:
        return {}
    found, _ = files_by_modality(folder, prior.stack)
    files = {name: [file for file in found[name] if file.parent == folder] for name in spec.outputs}
    files = {name: several for name, several in files.items() if several}
    if not files:
        message = "no image in this folder is that of an output"
        raise Any2allError(message, key="truth", value=str(folder), allowed=spec.outputs)
    for name, several in files.items():
        if len(several) > 1:
            hint = "leave one of them in the folder"
            raise Any2allError(several_files(folder, several), key=f"truth.{name}", hint=hint)
        check_acquired(several[0], f"truth.{name}")
    return {name: read_volume(several[0], f"truth.{name}") for name, several in files.items()}


def scored(output: ModalityResult, inputs: Inputs, prior: NetworkPrior, run: Run) -> ModalityResult:
    """The output beside its baselines, where its truth is known."""
    if output.truth is None:
        return output
    mean_image = load_mean_image(run.mean_image, prior.card) if run.mean_image else None
    baselines = baselines_of(output.name, inputs, prior.card, prior.stack, mean_image)
    return compare(output, prior.stack[output.name], baselines)


def provenance(spec: StudySpec, prior: NetworkPrior, filling: Filling, files: GivenFiles) -> dict[str, Any]:
    """Where a result comes from: what filled it, sampler, seed, and the checksums of what was given.

    ``prior`` are the weights that filled the stack; where these are CDM's, the prior that checked the given images
    is named beside them.
    """
    settings = filling.settings
    checked_by = {"self_check_prior": origin_of(prior)} if settings.name == "cdm" else {}
    return {
        "software": f"any2all {__version__}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "prior": filling.origin,
        **checked_by,
        "sampler": asdict(settings),
        "seed": settings.seed,
        "study": spec.document,
        "inputs_sha256": files.by_name(),
    }


def _warnings(spec: StudySpec, filling: Filling, files: GivenFiles, coupled: tuple[str, ...]) -> list[str]:
    """What a reader of the result has to know beside the grids."""
    warnings, settings = [], filling.settings
    trained_on = set(filling.training.get("file_sha256", ()))
    for modality in spec.modalities.values():
        if any(files.sha256[path] in trained_on for path in modality.paths):
            who = f"{modality.name}: {filling.who}"
            warnings.append(f"{who} was trained on this very image, so the result flatters it")
    for key in ignored_keys(spec, settings):
        warnings.append(f"sampler.{key} means nothing to {settings.name} and was ignored")
    if settings.name != "mcs" and spec.degraded:
        warnings.append(f"{settings.name} knows no noise: that of {', '.join(spec.degraded)} stays; mcs weighs it")
    for name in coupled:
        if settings.name == "mcs" and settings.consistency == "moment" or spec.sampler.consistency == "moment":
            warnings.append(f"{name} couples slices: its data consistency is calibrated, not by moments")
    if settings.samples == 1:
        warnings.append("one sample was drawn: no uncertainty was computed")
    elif settings.name == "cdm":
        warnings.append("the std is the plain spread of cdm's draws: it was calibrated for no modality")
    return warnings
