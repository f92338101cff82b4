"""What was measured, per modality: Any2all eq. 2 as data, and the one place that owns the change of range."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .operators import Identity, Missing, Operator

Status = Literal["available", "missing", "undersampled", "degraded"]

# Below this complex std (u units) coil maps, grids and 16-bit images are wrong by more than the noise, and
# gamma = r^2 / v would exceed what float32 can solve. It also keeps noise-free simulations finite.
MIN_NOISE_STD = 1e-3


@dataclass(frozen=True)
class Channel:
    """y_m = A_m u_m + e_m of one modality, for Z slices.

    Attributes:
        status: available, missing, undersampled (k-space) or degraded (an image of it that A_m made worse).
        operator: A_m.
        data: y_m, ``(Z, H, W)`` real or ``(Z, C, H, W)`` complex; None when missing. Where A_m couples slices: of the
            whole volume, ``(1, Z', H', W')``.
        noise_std: sqrt(E|e|^2) of the complex noise, in the units of ``data``'s image.
    """

    status: Status
    operator: Operator
    data: Tensor | None = None
    noise_std: float = 0.0

    @property
    def variance(self) -> float:
        """Noise variance per REAL component, noise_std^2 / 2: sigma^2 / 2 in u, and v = 2 sigma^2 in prior range."""
        return self.noise_std**2 / 2

    def select(self, slices: Tensor) -> Channel:
        """The channel of these slices ``(B,)``; one that couples slices stays whole."""
        if self.operator.couples_slices:
            return self
        data = None if self.data is None else self.data[slices.to(self.data.device)]
        return dataclasses.replace(self, operator=self.operator.select(slices), data=data)

    def to(self, device: torch.device | str) -> Channel:
        """The channel with its tensors on ``device``."""
        data = None if self.data is None else self.data.to(device)
        return dataclasses.replace(self, operator=self.operator.to(device), data=data)

    @staticmethod
    def available(image: Tensor, noise_std: float = 0.0) -> Channel:
        """An image that was acquired, ``(Z, H, W)`` in u."""
        return Channel("available", Identity(), image, noise_std)

    @staticmethod
    def degraded(operator: Operator, image: Tensor, noise_std: float) -> Channel:
        """An image in u that shows A u, with noise of this std; it counts as complex noise of that std in each part."""
        return Channel("degraded", operator, image, 2**0.5 * noise_std)

    @staticmethod
    def missing() -> Channel:
        """A modality that was not acquired."""
        return Channel("missing", Missing())


@dataclass(frozen=True)
class Measurements:
    """All channels in stack order; ``prior_range`` says whether data are in u (False) or x = 2u - 1 (True)."""

    channels: tuple[Channel, ...]
    prior_range: bool = False

    def in_prior_range(self) -> Measurements:
        """The same measurements of x = 2u - 1 (METHOD §1): y' = 2y - A1, noise doubled, so v = 2 sigma_y^2.

        The noise of measured channels is held at or above ``MIN_NOISE_STD``.
        """
        if self.prior_range:
            return self
        return Measurements(tuple(_channel_in_prior_range(c) for c in self.channels), prior_range=True)

    def select(self, slices: Tensor) -> Measurements:
        """The measurements of these slices ``(B,)``."""
        return dataclasses.replace(self, channels=tuple(c.select(slices) for c in self.channels))

    def to(self, device: torch.device | str) -> Measurements:
        """The measurements with their tensors on ``device``."""
        return dataclasses.replace(self, channels=tuple(c.to(device) for c in self.channels))

    @property
    def available(self) -> tuple[int, ...]:
        """Stack indices of the modalities that were acquired as images."""
        return self._indices("available")

    @property
    def missing(self) -> tuple[int, ...]:
        """Stack indices of the modalities that were not acquired."""
        return self._indices("missing")

    @property
    def undersampled(self) -> tuple[int, ...]:
        """Stack indices of the modalities that were acquired as undersampled k-space."""
        return self._indices("undersampled")

    @property
    def measured(self) -> tuple[int, ...]:
        """Stack indices of all that was measured but is no clean image: undersampled and degraded."""
        return tuple(m for m, c in enumerate(self.channels) if c.status in ("undersampled", "degraded"))

    @property
    def slices(self) -> int | None:
        """Z, or None when nothing was measured (slices that are coupled are no slices of the stack)."""
        by_slice = (c for c in self.channels if c.data is not None and not c.operator.couples_slices)
        return next((c.data.shape[0] for c in by_slice), None)

    def _indices(self, status: Status) -> tuple[int, ...]:
        return tuple(m for m, channel in enumerate(self.channels) if channel.status == status)


def _channel_in_prior_range(channel: Channel) -> Channel:
    if channel.data is None:
        return channel
    if channel.status == "available":
        return dataclasses.replace(channel, data=2 * channel.data - 1, noise_std=2 * channel.noise_std)
    shape = getattr(channel.operator, "image_shape", channel.data.shape[-2:])
    ones = torch.ones(1, *shape, device=channel.data.device, dtype=channel.data.real.dtype)
    data = 2 * channel.data - channel.operator.forward(ones)
    return dataclasses.replace(channel, data=data, noise_std=2 * max(channel.noise_std, MIN_NOISE_STD))
