"""From samples on the prior's grid back to the scanner's geometry and units (METHOD §4).

Synthetic modalities are interpolated. A reconstructed modality first meets all of its measured data once more, on its
own acquisition grid, so that detail which the prior's grid cannot hold survives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .degraded import DegradedImage, detail, has_detail
from .diffusion.prior import PriorCard
from .frame import Frame, between_slices, effective_resolution_mm
from .geometry import Grid, Volume, canonical, resample, to_grid
from .inputs import Inputs, RawData
from .intensity import from_u, head_mask, scale_of, to_u
from .other_grids import crosses
from .output import ModalityResult
from .physics.grids import Interpolate
from .physics.measurements import Channel
from .physics.solve import final_solve
from .samplers.noise import seeded
from .spread import one_pixel, pooled_std
from .stack import Modality, Stack

DEFAULT_DETAIL_MSE = 2e-3
NO_NOISE_STD = 1e-3


@dataclass(frozen=True, eq=False)
class Restoring:
    """Everything that the way back needs beside the samples.

    ``calibrated_std``: widen the std by the prior's own factors (`PriorCard.std_scale`, measured for mcs alone).
    """

    inputs: Inputs
    frame: Frame
    card: PriorCard
    stack: Stack
    keep_samples: bool
    truth: dict[str, Volume]
    draws: tuple[int, str] = (0, "")
    calibrated_std: bool = False

    def output(self, name: str, samples: Tensor) -> ModalityResult:
        """One output from its samples (K, Z, H, W) in u on the frame's grid."""
        raw = next((r for r in self.inputs.raw if r.name == name), None)
        degraded = next((image for image in self.inputs.degraded if image.name == name), None)
        modality, measured = self.stack[name], raw or degraded
        scale = measured.scale if measured else None
        factor = self.card.std_factor(name, raw is not None) if self.calibrated_std and not degraded else 1.0
        kept, moments, grid = [], RunningMoments(), self.inputs.reference.grid
        restored = self._with_detail(samples, degraded, modality) if degraded else self._on_grids(samples, raw)
        for u, sampled_on in restored:
            volume = self._in_units(u, sampled_on, modality, scale)
            moments.add(volume.data)
            if self.keep_samples:
                kept.append(volume)
        std = moments.std(one_pixel(grid, self.frame.grid))
        return ModalityResult(
            name=name,
            role="reconstructed" if measured else "synthetic",
            mean=Volume(moments.mean, grid),
            std=None if std is None else Volume(factor * std, grid),
            std_scale=factor,
            samples=tuple(kept),
            units=modality.units,
            effective_resolution_mm=tuple(round(mm, 3) for mm in effective_resolution_mm(self.frame, measured)),
            truth=self._truth(name, raw, modality, measured is not None),
            shown_input=self._shown(raw, degraded, modality),
        )

    def _shown(self, raw: RawData | None, degraded: DegradedImage | None, modality: Modality) -> Volume | None:
        if degraded:
            return self._to_reference(degraded.volume, _air(modality))
        return self._to_reference(raw.first, 0.0) if raw else None

    def _with_detail(
        self, samples: Tensor, image: DegradedImage, modality: Modality
    ) -> Iterator[tuple[np.ndarray, Grid]]:
        """Samples on the reference grid, with what the degraded image itself shows beyond the prior's grid."""
        reference, frame = self.inputs.reference.grid, self.frame.grid
        carried = (to_grid(Volume(sample.numpy(), frame), reference, order=3).data.clip(0) for sample in samples)
        if not has_detail(image, frame):
            yield from ((u, reference) for u in carried)
            return
        details = detail(image, frame, modality, len(samples), self.draws[0])
        for u, more in zip(carried, details):
            yield u + self._to_reference(Volume(more, image.grid), 0.0).data, reference

    def _on_grids(self, samples: Tensor, raw: RawData | None) -> Iterator[tuple[np.ndarray, Grid]]:
        if raw is None:
            for sample in samples:
                yield sample.numpy(), self.frame.grid
            return
        started, solved = _solved(samples, raw, self.frame, self.card, self.draws)
        if not crosses(raw.grid, self.frame.grid):
            yield from ((sample.numpy(), raw.grid) for sample in solved)
            return
        for sample, before, after in zip(samples, started, solved):
            yield self._crossed(sample.numpy(), before.numpy(), after.numpy(), raw), self.inputs.reference.grid

    def _crossed(self, sample: np.ndarray, before: np.ndarray, after: np.ndarray, raw: RawData) -> np.ndarray:
        """A sample on the reference grid with what the last solve changed: thick slices that cross the reference's
        cannot hold what the volume solve has found between them. Beyond the sampled slices the first reconstruction."""
        reference, frame = self.inputs.reference.grid, self.frame.grid
        carried = to_grid(Volume(sample, frame), reference, order=3).data.clip(0)
        classical = self._to_reference(raw.first, 0.0).data / raw.scale
        change = self._to_reference(Volume(after - before, raw.grid), 0.0).data
        return np.where(between_slices(frame, reference), carried, classical) + change

    def _in_units(self, u: np.ndarray, grid: Grid, modality: Modality, scale: float | None) -> Volume:
        u_reference = self._to_reference(Volume(u, grid), 0.0)
        return Volume(
            from_u(np.clip(u_reference.data, 0, None if scale else 1), modality.normalisation, scale), u_reference.grid
        )

    def _to_reference(self, volume: Volume, fill: float) -> Volume:
        # linear: an interpolating spline would ring around bone and write values that no sample holds
        return to_grid(volume, self.inputs.reference.grid, order=1, fill=fill)

    def _truth(self, name: str, raw: RawData | None, modality: Modality, measured: bool) -> Volume | None:
        """The true image on the reference grid, in the output's units.

        The scanner's units of an MR image mean nothing to an output that was never acquired: its truth is brought to
        the same a.u. by its own head, as a given image would be.
        """
        if name not in self.truth:
            return self._to_reference(raw.truth, 0.0) if raw and raw.truth else None
        given, normalisation = self.truth[name], modality.normalisation
        truth = self._to_reference(given, _air(modality))
        if measured:
            return truth
        image = canonical(given).data
        scale = scale_of(image, head_mask(image), normalisation)
        return Volume(from_u(to_u(truth.data, normalisation, scale), normalisation), truth.grid)


def reconstructed(samples: Tensor, raw: RawData, frame: Frame, card: PriorCard, draws: tuple[int, str]) -> Tensor:
    """Samples (K, Z, H, W) in u → (K, Z_acq, H_acq, W_acq) on the acquisition grid after the final solve.

    Each sample meets its own copy of the data, y + e_k (see `_noise_images`), so that the spread of the samples holds
    what the noise of the measurement leaves open. Slices that were not sampled (no head in them) keep the classical
    reconstruction. ``draws``: the study's (seed, subject).
    """
    return _solved(samples, raw, frame, card, draws)[1]


def _solved(
    samples: Tensor, raw: RawData, frame: Frame, card: PriorCard, draws: tuple[int, str]
) -> tuple[Tensor, Tensor]:
    """The samples on the acquisition grid before and after the final solve, see `reconstructed`."""
    acquisition = raw.acquisition.scaled(raw.scale)
    start, slices = _on_acquisition_grid(samples, raw, frame)
    channel = acquisition.channel().select(slices)
    before = torch.from_numpy(raw.first.data / raw.scale).expand(len(samples), *raw.grid.shape).clone()
    after = before.clone()
    before[:, slices] = start
    noise_variance = max(acquisition.noise_std, NO_NOISE_STD) ** 2 / 2
    prior_variance = card.detail_mse.get(raw.name, DEFAULT_DETAIL_MSE)
    if len(samples) > 1:
        keys = [(*draws, raw.name, z) for z in slices.tolist()]
        start = start + prior_variance / noise_variance * _noise_images(channel, noise_variance, len(samples), keys)
    after[:, slices] = final_solve(channel.data, channel.operator, start, noise_variance, prior_variance)
    return before, after


def _on_acquisition_grid(samples: Tensor, raw: RawData, frame: Frame) -> tuple[Tensor, Tensor]:
    """Samples (K, Z, H, W) carried to the acquisition's slices that were sampled, and the indices of these.

    Where such a slice leaves the sampled volume, its classical reconstruction goes on.
    """
    if frame.carries(raw):
        up = Interpolate((frame.grid.shape[1], frame.grid.shape[2]), raw.acquisition.matrix, frame.encoded)
        return up.forward(samples).clamp(0, None), torch.arange(frame.slices.start, frame.slices.stop)
    sampled = between_slices(frame.grid, raw.grid)
    slices = torch.from_numpy(np.flatnonzero(sampled.any(axis=(1, 2))))
    classical = raw.first.data / raw.scale
    carried = (resample(Volume(sample.numpy(), frame.grid), raw.grid, order=3).data.clip(0) for sample in samples)
    started = np.stack([np.where(sampled, image, classical) for image in carried])
    return torch.from_numpy(started)[:, slices], slices


def _noise_images(channel: Channel, noise_variance: float, samples: int, keys: list[tuple]) -> Tensor:
    """Re(A^H e_k) (K, Z, H, W) of simulated noise e_k; added to the start of the final solve it acts as y + e_k.

    The K draws of a slice are centred and rescaled, so that the mean of the samples is what the data alone would give.
    """
    images = []
    for z in range(channel.data.shape[0]):
        shape = (samples, *channel.data.shape[1:], 2)
        noise = torch.view_as_complex(torch.randn(shape, generator=seeded(*keys[z])) * noise_variance**0.5)
        noise = (noise - noise.mean(0)) * (samples / (samples - 1)) ** 0.5
        images.append(channel.operator.select(torch.tensor([z])).adjoint(noise))
    return torch.stack(images, dim=1)


class RunningMoments:
    """Mean and standard deviation (n - 1) of volumes that need not be in memory together (Welford, 1962)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray | None = None
        self._squares: np.ndarray | None = None

    def add(self, data: np.ndarray) -> None:
        """Take in one more sample; all have one shape."""
        if self.mean is None:
            self.mean, self._squares = np.zeros_like(data, np.float32), np.zeros_like(data, np.float32)
        self.count += 1
        difference = data - self.mean
        self.mean += difference / self.count
        self._squares += difference * (data - self.mean)

    def std(self, sigma: Sequence[float]) -> np.ndarray | None:
        """Pooled with the neighbours' (`spread.pooled_std`); None for a single sample: its uncertainty is not known."""
        return None if self.count < 2 else pooled_std(self._squares / (self.count - 1), self.count, sigma)


def given_on_reference(inputs: Inputs, stack: Stack) -> dict[str, Volume]:
    """Available images on the reference grid, air around them, for the picture."""
    grid = inputs.reference.grid
    return {i.name: to_grid(i.volume, grid, order=1, fill=_air(stack[i.name])) for i in inputs.images}


def _air(modality: Modality) -> float:
    """u = 0 in units."""
    return float(from_u(np.zeros(1, np.float32), modality.normalisation)[0])
