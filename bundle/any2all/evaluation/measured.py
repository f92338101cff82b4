"""The measured k-space of the data folder through a study, scored by samples that no estimate has seen (METHOD §5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..diffusion.prior import NetworkPrior
from ..geometry import canonical
from ..kspace.acquisition import Acquisition
from ..kspace.formats import RawKspace, read_kspace
from ..kspace.holdout import HeldOut, hold_out
from ..kspace.prepare import prepare
from ..kspace.reconstruct import l1_wavelet, sense, zero_filled
from ..pipeline import run_study
from ..run import Progress, Run
from ..scores.baselines import SENSE, ZERO_FILLED

FRACTION, SEED = 0.1, 0
VOXEL_MM = (1.0, 1.0, 5.0)  # an assumption: the file does not say; 1 x 1 mm fits the head
L1_WAVELET = "L1_wavelet"
TUNED_SENSE, TUNED_LAMDA = "SENSE_tuned", 0.02  # the weight that was best on this very slice: the stronger rival
FULL = 0.995  # percentile of the picture's window


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """An image (Z, H, W) in the file's units and its error on the held-out samples."""

    name: str
    image: np.ndarray
    error: float


@dataclass(frozen=True, eq=False)
class HoldOutCheck:
    """Samples set aside, and what is left of the data with everything that was estimated from it."""

    remaining: RawKspace
    held: HeldOut
    acquisition: Acquisition

    @classmethod
    def of(cls, file: Path) -> HoldOutCheck:
        """Set samples aside first; maps, phase and noise then come from the rest alone."""
        remaining, held = hold_out(read_kspace(file, "kspace"), FRACTION, SEED)
        return cls(remaining, held, prepare(remaining))

    def scored(self, name: str, image: np.ndarray) -> Reconstruction:
        return Reconstruction(name, image, self.held.error(image, self.acquisition.coil_maps))

    def classical(self) -> list[Reconstruction]:
        """Zero-filled, SENSE by its default and by its best weight, L1-wavelet; the same data, maps and phase."""
        methods = {
            ZERO_FILLED: zero_filled,
            SENSE: sense,
            TUNED_SENSE: lambda acquisition: sense(acquisition, TUNED_LAMDA),
            L1_WAVELET: l1_wavelet,
        }
        return [self.scored(name, method(self.acquisition)) for name, method in methods.items()]

    def write_study(self, folder: Path, modality: str, sampler: Mapping[str, Any]) -> Path:
        """A study of what is left; the pipeline estimates everything anew from it."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "kspace.npz", kspace=self.remaining.kspace, mask=self.remaining.mask, voxel_size_mm=VOXEL_MM)
        document = {
            "version": 1,
            "subject": "measured kspace",
            "modalities": {modality: {"status": "undersampled", "kspace": "kspace.npz"}},
            "outputs": [modality],
            "sampler": dict(sampler),
        }
        (folder / "study.json").write_text(json.dumps(document, indent=1))
        return folder / "study.json"

    def through_pipeline(
        self, name: str, study: Path, prior: NetworkPrior, output: Path, progress: Progress | None = None
    ) -> Reconstruction:
        """One study, its results written, its image scored. The reference is the data's own grid."""
        result = run_study(study, prior, output, overwrite=True, run=Run(progress))
        return self.scored(name, canonical(result.outputs[0].mean).data)


def draw_comparison(items: Sequence[Reconstruction], file: Path) -> None:
    """The images side by side in one window, the same for all, with a close-up of the middle below each."""
    top = float(np.quantile(items[min(1, len(items) - 1)].image, FULL))
    height, width = items[0].image.shape[1:]
    close = (slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3))
    figure = Figure(figsize=(2.6 * len(items), 6.4), dpi=110, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(items), squeeze=False)
    for column, item in enumerate(items):
        for row, part in enumerate((item.image[0], item.image[0][close])):
            axes[row][column].imshow(part, cmap="gray", vmin=0, vmax=top)
            axes[row][column].set_axis_off()
        title = f"{item.name.replace('_', ' ')}\nhold-out {item.error:.3f}"
        axes[0][column].set_title(title, color="white", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, facecolor="black")
