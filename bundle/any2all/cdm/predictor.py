"""CDM on whole volumes: MDN for every missing modality, one C-UNet pass, given images copied through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..diffusion.prior import has_fast_bf16
from ..diffusion.schedule import cosine_schedule
from ..errors import Any2allError, Cancelled
from ..samplers.noise import START, VolumeNoise
from ..training.datasets import centre_fit
from .card import CDMCard, load_networks
from .mdn import STEPS, sample_missing
from .standardise import representations

Guidance = Literal["source", "unconditional", "null", "oracle"]


class CDM:
    """The three trained networks as one predictor.

    ``guidance`` says where the representations of the missing modalities come from: ``source`` (MDN conditioned on the
    available ones, the method), ``unconditional`` (MDN without a condition), ``null`` (none: a plain U-Net) or
    ``oracle`` (y_0 of the true images: an upper bound that no one has in practice, never a result).

    Args:
        networks: ``mrm``, ``mdn`` and ``cunet``.
        card: grid, stack and standardisation.
        device: where they run.
        autocast: bf16 inside the networks (default: where the processor has bf16 arithmetic).
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        card: CDMCard,
        device: torch.device | str = "cpu",
        autocast: bool | None = None,
    ) -> None:
        self.device, self.card, self.stack = torch.device(device), card, card.stack
        self.mrm, self.mdn, self.cunet = (
            networks[stage].eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)
            for stage in ("mrm", "mdn", "cunet")
        )
        self.schedule = cosine_schedule()
        self.autocast = has_fast_bf16(self.device) if autocast is None else autocast

    @property
    def multiple(self) -> int:
        """Height and width of images must be multiples of this."""
        return self.cunet.multiple

    def passes(self) -> int:
        """Network passes of one sample of one slice: one, of the C-UNet.

        Not counted, because they are far smaller: one MRM encoding of each available image of a slice (once for all
        samples), and `mdn.STEPS` passes of MDN for each missing modality. Timings include everything.
        """
        return 1

    def predict(
        self,
        images: Tensor,
        available: Collection[int],
        samples: int = 1,
        seed: int = 0,
        subject: str = "",
        guidance: Guidance = "source",
        truth: Tensor | None = None,
        rho: float | tuple[float, ...] = 0.0,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Fill a volume (Z, M, H, W) in the prior range → (K, Z, M, H, W), not clipped, given images copied through.

        Args:
            images: H and W multiples of `multiple`; what is not available is not looked at.
            available: channels that are given as images; none of them undersampled.
            samples: K. ``null`` and ``oracle`` draw nothing: their K is 1.
            seed, subject, rho: of the noise of (slice, sample), see `VolumeNoise`; the batch changes nothing.
            guidance: see `CDM`.
            truth: (Z, M, H, W), for ``oracle`` only.
            batch_size: rows (slice of a sample) that the networks see at once.
            progress: ``progress(done, total)`` counts network passes as in `passes`.
            cancelled: asked before every batch; Cancelled is raised when it says yes.

        Raises:
            Any2allError: nothing is available, or an argument does not fit.
        """
        self._refuse(images, available, guidance, truth)
        given = torch.zeros(len(self.stack), dtype=torch.bool)
        given[list(available)] = True
        samples = samples if guidance in ("source", "unconditional") else 1
        noise = VolumeNoise((len(self.stack), 1, self.mrm.features), seed, subject, rho)
        known = self._known(images, given, guidance, truth, batch_size)
        rows = [(z, sample) for sample in range(samples) for z in range(len(images))]
        out = torch.empty(len(rows), *images.shape[1:])
        for first in range(0, len(rows), batch_size):
            if cancelled is not None and cancelled():
                raise Cancelled
            batch = rows[first : first + batch_size]
            slices = [z for z, _ in batch]
            start = noise.draw(START, batch)[:, :, 0]
            out[first : first + len(batch)] = self._batch(images[slices], given, known[slices], start, guidance)
            if progress is not None:
                progress(first + len(batch), len(rows) * self.passes())
        out = out.reshape(samples, *images.shape)
        out[:, :, given] = images[:, given].float().cpu()
        return out

    def _known(
        self, images: Tensor, given: Tensor, guidance: Guidance, truth: Tensor | None, batch_size: int
    ) -> Tensor:
        """Representations (Z, M, features) that a guidance starts from; only what it needs is encoded."""
        if guidance == "source":
            return self._encoded(images, given, batch_size)
        if guidance == "oracle":
            return self._encoded(truth, ~given, batch_size)
        return torch.zeros(len(images), len(given), self.mrm.features, device=self.device)

    @torch.no_grad()
    def _encoded(self, images: Tensor, which: Tensor, batch_size: int) -> Tensor:
        """Standardised y_0 (Z, M, features) of the modalities ``which`` (M,), on the matrix that MRM knows."""
        fitted = centre_fit(torch.where(which[:, None, None], images.float().cpu(), -1.0), self.card.matrix)
        parts = []
        for part in fitted.split(batch_size):
            with self._mixed_precision():
                part = part.to(self.device)
                marks = which.to(self.device).expand(len(part), -1)
                parts.append(representations(self.mrm, self.card.standardisation, part, marks))
        return torch.cat(parts)

    @torch.no_grad()
    def _batch(self, images: Tensor, given: Tensor, known: Tensor, start: Tensor, guidance: Guidance) -> Tensor:
        available = given.to(self.device).expand(len(images), -1)
        with self._mixed_precision():
            if guidance in ("source", "unconditional"):
                condition = available if guidance == "source" else torch.zeros_like(available)
                start = start.to(self.device)
                known = sample_missing(self.mdn, start, ~available, known, condition, self.schedule, STEPS)
            guided = torch.zeros_like(available) if guidance == "null" else ~available
            return self.cunet(images.float().to(self.device), available, known, guided).float().cpu()

    def _mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def _refuse(self, images: Tensor, available: Collection[int], guidance: str, truth: Tensor | None) -> None:
        names, channels = self.stack.names, len(self.stack)
        if not available:
            raise Any2allError(
                "cdm synthesises from images that are given, and none is",
                key="modalities",
                allowed="at least one available modality",
                hint="mcs and mds draw whole stacks from nothing",
            )
        if not set(available) <= set(range(channels)):
            raise Any2allError(
                "no such channel", key="available", value=sorted(available), allowed=f"0 to {channels - 1}"
            )
        if images.dim() != 4 or images.shape[1] != channels or any(n % self.multiple for n in images.shape[2:]):
            allowed = f"(Z, {channels}, H, W), H and W multiples of {self.multiple}; {', '.join(names)}"
            raise Any2allError("cdm cannot take this shape", key="images", value=tuple(images.shape), allowed=allowed)
        if guidance not in get_args(Guidance):
            raise Any2allError("unknown guidance", key="guidance", value=guidance, allowed=get_args(Guidance))
        if guidance == "oracle" and (truth is None or truth.shape != images.shape):
            raise Any2allError("oracle guidance needs the truth of the same shape", key="truth")


def load_cdm(model_file: str | Path, device: torch.device | str = "cpu", autocast: bool | None = None) -> CDM:
    """Load ``cdm.pt`` with the ``cdm.json`` beside it.

    Raises Any2allError when a file is missing, does not fit its card, its checksum differs, or a stage is not trained.
    """
    card, networks = load_networks(model_file)
    return CDM(networks, card, device, autocast)
