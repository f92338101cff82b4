"""What fills a stack: the prior through a sampler, or CDM in its place. `filling_of` chooses as the study says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from .cdm.cost import expected_seconds as seconds_of_cdm
from .cdm.predictor import CDM
from .diffusion.prior import SLICE_CORRELATION, NetworkPrior
from .forecast import Forecast, expected_seconds
from .frame import Frame
from .run import Run
from .samplers import Sampler, build_sampler
from .samplers.base import Problem
from .samplers.noise import VolumeNoise
from .study import SamplerSettings, StudySpec, for_coupled_slices, resolve_sampler


class Filling(Protocol):
    """A study's settings and the networks that follow them.

    Attributes:
        settings: of the study, nothing left open.
        who: fills the stack, in words.
        calibrated_std: whether the prior's factors on the std were measured for this.
    """

    settings: SamplerSettings
    who: str
    calibrated_std: bool

    @property
    def origin(self) -> dict[str, Any]:
        """Which weights fill the stack, for the provenance: its entry ``prior``."""

    @property
    def training(self) -> dict[str, Any]:
        """How these weights were trained, as their card says."""

    def for_coupled_slices(self, coupled: tuple[str, ...]) -> Filling:
        """The same, knowing which modalities' data couples slices (`study.for_coupled_slices`)."""

    def forecast(self, problem: Problem, run: Run) -> Forecast:
        """What `draw` will do and how long it should take."""

    def draw(self, problem: Problem, frame: Frame, run: Run) -> Tensor:
        """Samples (K, Z, M, H, W) in u of the frame's slices. Raises Cancelled when that was asked for."""


def filling_of(spec: StudySpec, prior: NetworkPrior, run: Run) -> Filling:
    """What a study asks for.

    Raises:
        Any2allError: its sampler does not fit the study or the prior, or there is no CDM.
    """
    settings = resolve_sampler(spec, prior.noise_levels)
    if settings.name == "cdm":
        return CDMFilling(settings, spec.subject, run.cdm.load(prior.card))
    return PriorFilling(settings, spec, prior)


def headline(settings: SamplerSettings) -> str:
    """One line for pictures and messages."""
    counts = {"step": settings.steps, "sample": settings.samples}
    return ", ".join([settings.name, *(f"{n} {unit}{'s' * (n > 1)}" for unit, n in counts.items())])


def given_images(problem: Problem) -> Tensor:
    """The available images in the prior range, air elsewhere: (Z, M, H, W)."""
    images = torch.full(problem.shape, -1.0)
    for m in problem.measurements.available:
        images[:, m] = problem.measurements.channels[m].data
    return images


def slice_correlation(frame: Frame, slice_mm: float) -> float:
    """Of the network's errors, and of CDM's noise, in neighbouring slices of a frame, 0 to 1.

    ``slice_mm``: how far apart slices were in training.
    A thick T2FLAIR gains 0.6 dB over errors that are taken for independent.
    """
    return SLICE_CORRELATION ** (frame.grid.spacing_mm[0] / slice_mm)


@dataclass(frozen=True, eq=False)
class PriorFilling:
    """A sampler of the prior."""

    settings: SamplerSettings
    spec: StudySpec
    prior: NetworkPrior
    who: str = "the prior"

    @property
    def calibrated_std(self) -> bool:
        return self.settings.name == "mcs"

    @property
    def origin(self) -> dict[str, Any]:
        means = self._mean_network
        return origin_of(self.prior) | ({"mean_network": means.card.sha256} if means is not None else {})

    @property
    def training(self) -> dict[str, Any]:
        return self.prior.card.training

    def for_coupled_slices(self, coupled: tuple[str, ...]) -> PriorFilling:
        return replace(self, settings=for_coupled_slices(self.settings, self.spec, coupled))

    @property
    def _sampler(self) -> Sampler:
        return build_sampler(self.settings, self.prior.stack, self.spec.outputs, self._mean_network)

    @property
    def _mean_network(self) -> NetworkPrior | None:
        """What states the mean of missing images; None where nothing is centred, or the prior does it itself."""
        synthetic = set(self.spec.outputs) - set(self.spec.measured)
        return self.prior.mean_network if self.settings.centre and synthetic else None

    def forecast(self, problem: Problem, run: Run) -> Forecast:
        slices, _, *matrix = problem.shape
        spec, prior = self.spec, self.prior
        seconds = expected_seconds(
            self._sampler,
            prior,
            (matrix[0], matrix[1]),
            slices,
            self.settings.samples,
            bool(spec.measured),
            bool(set(spec.outputs) - set(spec.measured)),
            run.batch(prior.device),
        )
        return Forecast(headline(self.settings), slices, seconds)

    def draw(self, problem: Problem, frame: Frame, run: Run) -> Tensor:
        prior, settings = self.prior, self.settings
        rho = prior.card.noise_correlation(frame.grid.spacing_mm[0])
        noise = VolumeNoise(problem.shape[1:], settings.seed, self.spec.subject, rho, frame.first_slice)
        x = self._sampler.sample(
            prior,
            problem,
            noise,
            samples=settings.samples,
            batch_size=run.batch(prior.device),
            device=prior.device,
            progress=lambda done, total: run.report("sampling", done, total),
            cancelled=run.cancelled,
        )
        return (x + 1) / 2


@dataclass(frozen=True, eq=False)
class CDMFilling:
    """CDM: the given images in, all others out. Nothing is measured, so nothing is held to data."""

    settings: SamplerSettings
    subject: str
    cdm: CDM
    who: str = "CDM"
    calibrated_std: bool = False

    @property
    def origin(self) -> dict[str, Any]:
        return {"name": "cdm", "sha256": self.cdm.card.sha256, "version": self.cdm.card.version}

    @property
    def training(self) -> dict[str, Any]:
        return self.cdm.card.training

    def for_coupled_slices(self, coupled: tuple[str, ...]) -> CDMFilling:
        return self

    def forecast(self, problem: Problem, run: Run) -> Forecast:
        slices, _, *matrix = problem.shape
        given = problem.measurements.available
        seconds = seconds_of_cdm(self.cdm, (matrix[0], matrix[1]), given, slices * self.settings.samples)
        return Forecast(headline(self.settings), slices, seconds)

    def draw(self, problem: Problem, frame: Frame, run: Run) -> Tensor:
        x = self.cdm.predict(
            given_images(problem),
            problem.measurements.available,
            self.settings.samples,
            self.settings.seed,
            self.subject,
            rho=slice_correlation(frame, self.cdm.card.spacing_mm[2]),
            batch_size=run.batch(self.cdm.device),
            progress=lambda done, total: run.report("sampling", done, total),
            cancelled=run.cancelled,
        )
        return (x + 1) / 2


def origin_of(prior: NetworkPrior) -> dict[str, Any]:
    """Which prior this is, for a provenance."""
    return {"sha256": prior.card.sha256, "version": prior.card.version, "noise_levels": prior.noise_levels}
