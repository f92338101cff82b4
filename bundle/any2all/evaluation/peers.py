"""What the samplers are compared with, and the samplers themselves, behind one interface.

A peer is given k-space of some modalities and images of others, all on one grid and in u, and predicts what is asked.
What a peer cannot do it says beforehand (`Peer.can`); tables print n/a there. Nothing that is returned is clipped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..diffusion.prior import NetworkPrior
from ..errors import Any2allError
from ..intensity import head_mask
from ..kspace.acquisition import Acquisition
from ..kspace.reconstruct import (
    REAL_WAVELET_LAMDA,
    TV_LAMDA,
    WAVELET_LAMDA,
    l1_wavelet,
    real_l1_wavelet,
    sense,
    total_variation,
    zero_filled,
)
from ..physics.measurements import Channel, Measurements
from ..samplers import MCS, Ancestral, Problem, Sampler
from ..samplers.noise import VolumeNoise
from ..scores.baselines import MEAN_IMAGE, SENSE, ZERO_FILLED
from ..scores.metrics import psnr
from ..stack import Stack
from ..study.presets import MCS_LEAST_STEPS_WITH_RAW_DATA
from .matched_copy import fit_maps

SUBJECT = "evaluation"  # of the samplers' noise
# Weights of the best PSNR on validation data (`tune_lamda`): T2FLAIR at 80×64 and 2.8 mm, equispaced R = 4, 8 coils,
# noise 0.01; rendered: subject16, three renderings, six slices; real: stroke_01, six slices.
LAMDAS = {
    "rendered": {SENSE: 0.001, "L1_wavelet": 0.0005, "L1_wavelet_real": 0.0005, "TV": 0.0005},
    "real": {SENSE: 0.002, "L1_wavelet": 0.002, "L1_wavelet_real": 0.0015, "TV": 0.0015},
}


@dataclass(frozen=True)
class Capabilities:
    """What a method can do at all.

    Attributes:
        any_mask: any set of modalities may be given, any other missing.
        kspace: undersampled k-space may be given.
        mixed: k-space and images are used together.
        unconditional: whole stacks are drawn from nothing (``any2all.generate``, not `Peer.predict`).
        samples: several draws differ.
    """

    any_mask: bool = False
    kspace: bool = False
    mixed: bool = False
    unconditional: bool = False
    samples: bool = False


class Peer(Protocol):
    """A method under comparison."""

    name: str

    @property
    def capabilities(self) -> Capabilities:
        """What it can do at all."""

    def can(self, measured: Collection[str], available: Collection[str], target: str) -> bool:
        """Whether it predicts ``target`` from k-space of ``measured`` and images of ``available``."""

    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        """Network passes of one sample of one slice, a vector–Jacobian product counting as one; 0: no network.

        ``targets``: what is wanted of it; None: everything.
        """

    def predict(
        self,
        measurements: Mapping[str, Acquisition],
        available: Mapping[str, Tensor],
        targets: Sequence[str],
        samples: int = 1,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        """Predict the targets.

        Args:
            measurements: k-space by modality, in u, on the grid of the images.
            available: images (Z, H, W) in u by modality.
            targets: what is wanted.
            samples: how many to draw; ignored where `Capabilities.samples` is False.
            seed: of the draws.

        Returns:
            (K, Z, H, W) in u by target; K = 1 where the method draws no samples.

        Raises:
            Any2allError: for a target that it cannot predict from this.
        """


def refuse_what_it_cannot(
    peer: Peer, measured: Collection[str], available: Collection[str], targets: Sequence[str]
) -> None:
    """Raise Any2allError for the first target that the peer cannot predict."""
    for target in targets:
        if not peer.can(measured, available, target):
            raise Any2allError(
                f"{peer.name} cannot predict this",
                key="targets",
                value=target,
                hint=f"from k-space of [{', '.join(measured)}] and images of [{', '.join(available)}]",
            )


class Reconstruction(ABC):
    """A classical reconstruction: every target from its own k-space, whatever else is given."""

    name: str
    capabilities = Capabilities(kspace=True)

    @abstractmethod
    def reconstruct(self, acquisition: Acquisition) -> np.ndarray:
        """The image (Z, H, W) in the acquisition's units."""

    def can(self, measured: Collection[str], available: Collection[str], target: str) -> bool:
        return target in measured

    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        return 0

    def predict(
        self,
        measurements: Mapping[str, Acquisition],
        available: Mapping[str, Tensor],
        targets: Sequence[str],
        samples: int = 1,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        refuse_what_it_cannot(self, measurements, available, targets)
        return {target: torch.from_numpy(self.reconstruct(measurements[target]))[None] for target in targets}


@dataclass(frozen=True)
class ZeroFilled(Reconstruction):
    """`zero_filled`."""

    name: str = ZERO_FILLED

    def reconstruct(self, acquisition: Acquisition) -> np.ndarray:
        return zero_filled(acquisition)


@dataclass(frozen=True)
class Sense(Reconstruction):
    """`sense` over real images; ``lamda=None`` takes its weight from the data."""

    lamda: float | None = None
    name: str = SENSE

    def reconstruct(self, acquisition: Acquisition) -> np.ndarray:
        return sense(acquisition, self.lamda)


@dataclass(frozen=True)
class L1Wavelet(Reconstruction):
    """SigPy's `l1_wavelet` over complex images, or ``real``: `real_l1_wavelet`; ``lamda=None`` is their own default."""

    lamda: float | None = None
    real: bool = False

    @property
    def name(self) -> str:
        return "L1_wavelet_real" if self.real else "L1_wavelet"

    def reconstruct(self, acquisition: Acquisition) -> np.ndarray:
        if self.real:
            return real_l1_wavelet(acquisition, REAL_WAVELET_LAMDA if self.lamda is None else self.lamda)
        return l1_wavelet(acquisition, WAVELET_LAMDA if self.lamda is None else self.lamda)


@dataclass(frozen=True)
class TotalVariation(Reconstruction):
    """`total_variation` over real images."""

    lamda: float = TV_LAMDA
    name: str = "TV"

    def reconstruct(self, acquisition: Acquisition) -> np.ndarray:
        return total_variation(acquisition, self.lamda)


def tuned_reconstructions(kind: str) -> dict[str, Reconstruction]:
    """Every classical reconstruction by name, at its best weight (`LAMDAS`) for ``rendered`` or ``real`` images."""
    lamda = LAMDAS[kind]
    peers = [
        ZeroFilled(),
        Sense(lamda[SENSE]),
        L1Wavelet(lamda["L1_wavelet"]),
        L1Wavelet(lamda["L1_wavelet_real"], real=True),
        TotalVariation(lamda["TV"]),
    ]
    return {peer.name: peer for peer in peers}


@dataclass(frozen=True, eq=False)
class MeanImage:
    """The mean training image in every slice, for a modality of which nothing was acquired.

    Args:
        mean: (M, H, W) in u, see `load_mean_image`.
        stack: its modalities.
    """

    mean: np.ndarray | Tensor
    stack: Stack
    name: str = MEAN_IMAGE
    capabilities = Capabilities(any_mask=True)

    def can(self, measured: Collection[str], available: Collection[str], target: str) -> bool:
        return target in self.stack.names and target not in (*measured, *available) and bool(measured or available)

    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        return 0

    def predict(
        self,
        measurements: Mapping[str, Acquisition],
        available: Mapping[str, Tensor],
        targets: Sequence[str],
        samples: int = 1,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        refuse_what_it_cannot(self, measurements, available, targets)
        shape = volume_shape(measurements, available)
        if shape[1:] != self.mean.shape[1:]:
            raise Any2allError(
                "the mean image has another matrix",
                key="mean",
                value=tuple(self.mean.shape[1:]),
                allowed=str(shape[1:]),
            )
        mean = torch.as_tensor(self.mean, dtype=torch.float32)
        return {target: mean[self.stack.index(target)].expand(1, *shape).clone() for target in targets}


class MatchedCopy:
    """Copy the nearest contrast, histogram-matched.

    A missing modality is the given image whose copy was best on the training slices. Inside that image's head its
    values get the target's training quantiles, rank by rank, upwards or downwards; outside it is air.

    Args:
        slices, stack, present: training slices, see `fit_maps`; nothing else is kept of them.
    """

    name = "matched_copy"
    capabilities = Capabilities(any_mask=True)

    def __init__(self, slices: Tensor, stack: Stack, present: Tensor | None = None) -> None:
        self.maps = fit_maps(slices, stack, present)

    def source_of(self, available: Collection[str], target: str) -> str | None:
        """Which of these images is copied for a target; None when none can be."""
        sources = [name for name in available if (name, target) in self.maps]
        return max(sources, key=lambda name: self.maps[name, target].psnr, default=None)

    def can(self, measured: Collection[str], available: Collection[str], target: str) -> bool:
        return target not in (*measured, *available) and self.source_of(available, target) is not None

    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        return 0

    def predict(
        self,
        measurements: Mapping[str, Acquisition],
        available: Mapping[str, Tensor],
        targets: Sequence[str],
        samples: int = 1,
        seed: int = 0,
    ) -> dict[str, Tensor]:
        refuse_what_it_cannot(self, measurements, available, targets)
        return {target: self._copy(available, target)[None] for target in targets}

    def _copy(self, available: Mapping[str, Tensor], target: str) -> Tensor:
        source = self.source_of(available, target)
        image = available[source].clamp(0, 1).numpy()
        return torch.from_numpy(self.maps[source, target].apply(image, head_mask(image)))


@dataclass(frozen=True, eq=False)
class SampledPeer:
    """A sampler on a prior.

    Args:
        name: of the row.
        prior, sampler: what is compared.
        batch_size: rows (slice of a sample) that the network sees at once; changes nothing in the result.
        rho: correlation of the noise of neighbouring slices, of all channels or of each.
    """

    name: str
    prior: NetworkPrior
    sampler: Sampler
    batch_size: int = 24
    rho: float | tuple[float, ...] = 0.0

    @property
    def capabilities(self) -> Capabilities:
        if isinstance(self.sampler, Ancestral):
            return Capabilities(unconditional=True, samples=True)
        if not isinstance(self.sampler, MCS):
            return Capabilities(any_mask=True, kspace=True, mixed=True, unconditional=True, samples=True)
        if self.prior.noise_levels == "shared":
            return Capabilities()
        raw = self.sampler.steps >= MCS_LEAST_STEPS_WITH_RAW_DATA
        several = self.sampler.steps > 1
        return Capabilities(any_mask=True, kspace=raw, mixed=raw, unconditional=several, samples=several)

    def can(self, measured: Collection[str], available: Collection[str], target: str) -> bool:
        able, names = self.capabilities, {*measured, *available, target}
        if not able.any_mask or not (measured or available) or not names <= set(self.prior.stack.names):
            return False
        fits = (able.kspace or not measured) and (able.mixed or not (measured and available))
        return fits and target not in available

    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        wanted = set(self.prior.stack.names if targets is None else targets)
        return self.sampler.passes(self.prior.schedule, bool(measured), bool(wanted - {*measured, *available}))

    def predict(
        self,
        measurements: Mapping[str, Acquisition],
        available: Mapping[str, Tensor],
        targets: Sequence[str],
        samples: int = 1,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Tensor]:
        """See `Peer.predict`; a single-pass `MCS` gives one sample. ``progress(done, total)`` counts passes."""
        refuse_what_it_cannot(self, measurements, available, targets)
        stack = self.prior.stack
        problem, sampler = problem_of(stack, measurements, available), self.sampler
        if isinstance(sampler, MCS):
            sampler = replace(sampler, wanted=frozenset(stack.index(target) for target in targets))
        x = sampler.sample(
            self.prior,
            problem,
            VolumeNoise(problem.shape[1:], seed, SUBJECT, self.rho),
            samples if self.capabilities.samples else 1,
            self.batch_size,
            self.prior.device,
            progress,
        )
        return {target: (x[:, :, stack.index(target)] + 1) / 2 for target in targets}


def problem_of(stack: Stack, measurements: Mapping[str, Acquisition], available: Mapping[str, Tensor]) -> Problem:
    """What a sampler is given, see `measurements_of`."""
    slices, height, width = volume_shape(measurements, available)
    return Problem.of(measurements_of(stack, measurements, available), (slices, len(stack), height, width))


def measurements_of(
    stack: Stack, measurements: Mapping[str, Acquisition], available: Mapping[str, Tensor]
) -> Measurements:
    """All channels in u: images clipped to [0, 1] as the pipeline clips them, and the k-space."""
    channels = {name: Channel.available(image.clamp(0, 1)) for name, image in available.items()}
    channels |= {name: acquisition.channel() for name, acquisition in measurements.items()}
    return Measurements(tuple(channels.get(name, Channel.missing()) for name in stack.names))


def volume_shape(measurements: Mapping[str, Acquisition], available: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """(Z, H, W) of everything that is given. Raises Any2allError where that is not one shape."""
    shapes = {name: (len(a.kspace), *a.matrix) for name, a in measurements.items()}
    shapes |= {name: tuple(image.shape) for name, image in available.items()}
    if len(set(shapes.values())) != 1:
        raise Any2allError("k-space and images must be on one grid", key="measurements", value=shapes)
    return next(iter(shapes.values()))


def tune_lamda(
    reconstruct: Callable[[Acquisition, float], np.ndarray],
    acquisition: Acquisition,
    truth: np.ndarray,
    grid: Sequence[float],
) -> tuple[float, dict[float, float]]:
    """The weight of the best PSNR, and the PSNR in dB of every weight tried.

    Args:
        reconstruct: such as `total_variation`.
        acquisition: of validation data, in u.
        truth: (Z, H, W) in u; both images are clipped to [0, 1], the data range is 1.
        grid: weights to try.
    """
    scores = {lamda: psnr(reconstruct(acquisition, lamda).clip(0, 1), truth.clip(0, 1)) for lamda in grid}
    return max(scores, key=scores.__getitem__), scores
