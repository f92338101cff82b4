"""CDM beside the paper's sampler on the one kind of study that both can do: images given, the rest missing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ..cdm.predictor import CDM
from ..diffusion.prior import NetworkPrior
from ..filling import given_images
from ..physics.measurements import Measurements
from ..samplers import Problem
from ..study import SamplerDocument, StudySpec, resolve_sampler
from ..study.spec import ModalitySpec
from .presets import MDS_STEPS, some_slices, timed

NOTE = (
    "The same study with every undersampled modality missing. CDM's only counted pass is that of its U-Net; encoding "
    "and the small diffusion are in its seconds."
)


def rows(spec: StudySpec, prior: NetworkPrior, cdm: CDM, slices: int) -> list[dict[str, Any]]:
    """One sample of mds, then one and four of CDM, on the study's middle slices."""
    spec = images_only(spec)
    measured, shape = some_slices(spec, prior, slices)
    paper = resolve_sampler(replace(spec, sampler=SamplerDocument(name="mds", samples=1)), prior.noise_levels)
    first = timed(f"mds-{MDS_STEPS}", replace(paper, steps=MDS_STEPS), measured, shape, prior, spec)
    return [first, *(timed_cdm(cdm, measured, shape, samples) for samples in (1, 4))]


def images_only(spec: StudySpec) -> StudySpec:
    """The study without anything that is measured but no clean image."""
    lost = {name: ModalitySpec(name, "missing") for name in spec.measured}
    return replace(spec, modalities={**spec.modalities, **lost}, reference=spec.available[0])


def timed_cdm(cdm: CDM, measured: Measurements, shape: tuple[int, int, int, int], samples: int) -> dict[str, Any]:
    """Seconds of all samples of all slices, after a first sample that nobody is charged for."""
    problem = Problem.of(measured, shape)
    images, given = given_images(problem), problem.measurements.available
    cdm.predict(images, given)
    started = time.perf_counter()
    cdm.predict(images, given, samples)
    seconds = round(time.perf_counter() - started, 3)
    name = "cdm" if samples == 1 else f"cdm, {samples} samples"
    return {"name": name, "samples": samples, "slices": shape[0], "passes": samples * cdm.passes(), "seconds": seconds}
