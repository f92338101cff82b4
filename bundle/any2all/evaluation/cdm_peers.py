"""CDM in the comparison: one row for each guidance."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cdm.predictor import CDM, Guidance
from ..kspace.acquisition import Acquisition
from .peers import Capabilities, refuse_what_it_cannot, volume_shape

SUBJECT = "evaluation"  # of the noise, as for the samplers
NAMES: dict[Guidance, str] = {
    "source": "cdm",
    "unconditional": "cdm-unconditional",
    "null": "cdm-null",
    "oracle": "cdm-oracle",
}


@dataclass(frozen=True, eq=False)
class CDMPeer:
    """CDM with one guidance as a method under comparison.

    ``cdm-oracle`` looks at the truth through its representation: an upper bound, never a result. It can predict only
    what `with_truth` has shown it.

    Args:
        cdm: the trained networks.
        guidance: where the representations of the missing modalities come from.
        truth: (Z, M, H, W) in u, of the case that is predicted; for ``oracle`` only.
        batch_size: rows that the networks see at once; changes nothing in the result.
        rho: correlation of the noise of neighbouring slices.
    """

    cdm: CDM
    guidance: Guidance = "source"
    truth: Tensor | None = None
    batch_size: int = 24
    rho: float | tuple[float, ...] = 0.0

    @property
    def name(self) -> str:
        return NAMES[self.guidance]

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(any_mask=True, samples=self.guidance in ("source", "unconditional"))

    def with_truth(self, truth: Tensor) -> CDMPeer:
        """The same for one case whose true stack (Z, M, H, W) in u is known; only ``oracle`` looks at it."""
        return replace(self, truth=truth)

    def can(self, measured: Collection[str], available: Collection[str], target: str) -> bool:
        known = set(available) <= set(self.cdm.stack.names) and target in self.cdm.stack.names
        shown = self.guidance != "oracle" or self.truth is not None
        return known and shown and bool(available) and not measured and target not in available

    def passes(
        self, measured: Collection[str], available: Collection[str], targets: Collection[str] | None = None
    ) -> int:
        """See `CDM.passes`: the C-UNet's one pass."""
        return self.cdm.passes()

    def predict(
        self,
        measurements: Mapping[str, Acquisition],
        available: Mapping[str, Tensor],
        targets: Sequence[str],
        samples: int = 1,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Tensor]:
        """See `Peer.predict`; ``progress(done, total)`` counts passes."""
        refuse_what_it_cannot(self, measurements, available, targets)
        stack, (slices, height, width) = self.cdm.stack, volume_shape(measurements, available)
        images = torch.full((slices, len(stack), height, width), -1.0)
        for name, image in available.items():
            images[:, stack.index(name)] = 2 * image.clamp(0, 1) - 1
        x = self.cdm.predict(
            images,
            [stack.index(name) for name in available],
            samples,
            seed,
            SUBJECT,
            self.guidance,
            2 * self.truth.clamp(0, 1) - 1 if self.guidance == "oracle" else None,
            self.rho,
            self.batch_size,
            progress,
        )
        return {target: (x[:, :, stack.index(target)] + 1) / 2 for target in targets}


def cdm_peers(cdm: CDM, batch_size: int = 24) -> dict[str, CDMPeer]:
    """All four by name; ``cdm-oracle`` still has to be shown the truth."""
    return {name: CDMPeer(cdm, guidance, batch_size=batch_size) for guidance, name in NAMES.items()}
