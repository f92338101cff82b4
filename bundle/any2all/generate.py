"""What ``configs/generate.json`` is made of: whole stacks drawn from the prior, and how near they are to its training.

A draw resembles no patient unless the prior has learned one by heart. So every draw is shown with its distance to the
nearest training slice, beside the same distance of slices that the prior has never seen.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from . import __version__
from .diffusion.prior import NetworkPrior
from .geometry import Grid, Volume
from .intensity import display_window_u, from_u
from .output.report import BACKGROUND, MUTED, PANEL, TEXT
from .output.summary import DISCLAIMER, SUMMARY_VERSION, plain
from .output.volumes import save_volume
from .output.write import SUMMARY, check_folder, whole_folder
from .phantom.dataset import RenderedHeads
from .physics.measurements import Channel, Measurements
from .run import DEFAULT_BATCH, Progress
from .samplers import Ancestral, Problem
from .samplers.noise import VolumeNoise
from .scores import neighbours
from .stack import Modality
from .training.cohort import TrainingData, training_data, validation_stacks
from .training.datasets import load_fitted_stack
from .workflow import StageProgress, as_count, as_flag, as_folder, front_door, shortest

PICTURE = "generated.png"
NOTE = "Every slice is a draw of its own: neighbouring slices belong to no common head, and no slice to a patient."
SHOWN = 16
CELL_IN, LEFT_IN, HEAD_IN, FOOT_IN, DPI = 1.5, 0.9, 0.5, 0.55, 110


@dataclass(frozen=True)
class Bank:
    """Training slices to compare with: images (N, M, H, W) in the prior range, which modalities they have (N, M)."""

    images: Tensor
    present: Tensor
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """What draws are compared with: the bank, and slices (N, M, H, W) that nothing is trained on, if there are any."""

    bank: Bank
    held_out: Tensor | None

    @classmethod
    def of(cls, prior: NetworkPrior, data: TrainingData, slices: int, progress: Progress | None = None) -> Reference:
        """From the files of a prior's training, see `training_bank`. Raises Any2allError for one that is no image."""
        bank = training_bank(prior, data, slices, progress)
        return cls(bank, validation_stacks(data, prior.stack, prior.card.matrix, prior.card.spacing_mm))


@dataclass(frozen=True)
class Nearest:
    """The nearest training slice: root mean square of the difference in u, over ``channels`` modalities."""

    rms_u: float
    source: str
    channels: int


def draw_stacks(
    prior: NetworkPrior, slices: int, steps: int, seed: int, batch_size: int, progress: Progress | None = None
) -> Tensor:
    """Independent draws (slices, M, H, W) in u, by `ancestral`; draw i does not depend on how many there are."""
    shape = (slices, prior.channels, *prior.card.matrix)
    problem = Problem.of(Measurements(tuple(Channel.missing() for _ in range(prior.channels))), shape)
    x = Ancestral(steps).sample(
        prior,
        problem,
        VolumeNoise(shape[1:], seed, "generate"),
        batch_size=batch_size,
        device=prior.device,
        progress=None if progress is None else lambda done, total: progress("sampling", done, total),
    )
    return (x[0] + 1) / 2


def likenesses(images: Tensor, bank: Bank) -> list[Nearest]:
    """The bank's slice nearest to each image (B, M, H, W) in the prior range, mirrored or not."""
    found = neighbours.nearest(images, bank.images, bank.present)
    return [
        Nearest(round(float(distance), 4), bank.sources[at], int(channels))
        for distance, at, channels in zip(found.rms_u, found.index.tolist(), found.channels)
    ]


def training_bank(prior: NetworkPrior, data: TrainingData, slices: int, progress: Progress | None = None) -> Bank:
    """``slices`` slices of training heads (rendered from the training's seed), and all real training slices."""
    card, images, present, sources = prior.card, [], [], []
    rendered = 0
    if data.head_labels:
        seed = int(card.training.get("seed", 0))
        heads = RenderedHeads(
            data.head_labels, card.stack, card.matrix, card.spacing_mm[:2], seed, lesion_masks=data.lesion_masks
        )
        for number in range(slices):
            if rendered >= slices:
                break
            images.append(heads.subject(number).images[: slices - rendered])
            present.append(torch.ones(len(images[-1]), len(card.stack), dtype=torch.bool))
            sources += ["rendered"] * len(images[-1])
            rendered += len(images[-1])
            if progress is not None:
                progress(f"rendering training slices ({rendered} of {slices})", rendered, slices)
    for entry in data.entries:
        item = load_fitted_stack(entry, card.stack, card.spacing_mm, card.matrix)
        images.append(item["image"])
        present.append(item["present"].expand(len(item["image"]), -1))
        sources += ["real"] * len(item["image"])
    return Bank(torch.cat(images), torch.cat(present), tuple(sources))


def compare_with_training(draws: Tensor, reference: Reference) -> dict[str, Any]:
    """Distance of every draw (B, M, H, W) in u to its nearest training slice, beside that of held-out slices."""
    bank, held_out = reference.bank, reference.held_out
    of_draws = likenesses(2 * draws - 1, bank)
    of_held_out = [] if held_out is None else likenesses(held_out, bank)
    distances = [[found.rms_u for found in part] for part in (of_draws, of_held_out)]
    return {
        "measure": "root mean square difference in u over pixels and the training slice's modalities, mirrored or not",
        "training_slices": {kind: bank.sources.count(kind) for kind in sorted(set(bank.sources))},
        "draws": [asdict(found) for found in of_draws],
        "held_out": [asdict(found) for found in of_held_out],
        "median_draws": float(np.median(distances[0])),
        "median_held_out": float(np.median(distances[1])) if of_held_out else None,
        "distribution": asdict(neighbours.compare_distances(*distances)) if of_held_out else None,
    }


class Generation:
    """The ``generator`` of ``generate.json``: `run` draws stacks, compares them with training, and writes all of it.

    What they are compared with is read first, so that a wrong folder or file costs no sampling.

    Args:
        prior: the prior.
        slices: number of draws.
        steps: of `ancestral`, 1 to 1000.
        seed: of the draws.
        batch_size: slices that the network sees at once; changes no result.
        dataset_dir, datalist_file: what the prior was trained on, for the comparison; see ``train.json``.
        bank_slices: rendered training slices to compare with.
    """

    def __init__(
        self,
        prior: NetworkPrior,
        slices: int,
        steps: int,
        seed: int,
        batch_size: int | None = None,
        dataset_dir: str | Path | None = None,
        datalist_file: str | Path | None = None,
        bank_slices: int = 400,
    ) -> None:
        self.prior, self.slices, self.steps, self.seed, self.batch_size = prior, slices, steps, seed, batch_size
        self.dataset_dir, self.datalist_file, self.bank_slices = dataset_dir, datalist_file, bank_slices

    def run(self, output_dir: str | Path | None, overwrite: bool | str = False) -> Path:
        """Draw and write into a folder. Leaves the process with status 2 on a user's error, 130 on Ctrl-C."""
        with front_door():
            progress = StageProgress()
            try:
                folder = self._run(as_folder(output_dir, "output_dir"), as_flag(overwrite, "overwrite"), progress)
            finally:
                progress.close()
            return folder

    def _run(self, folder: Path, overwrite: bool, progress: StageProgress) -> Path:
        self._check()
        started = time.perf_counter()
        names = [f"generated_{name}" for name in self.prior.stack.names]
        check_folder(folder, names, overwrite)
        reference, reason = self._reference(progress)
        with whole_folder(folder, names, overwrite) as partial:
            batch_size = self.batch_size or DEFAULT_BATCH.get(self.prior.device.type, 16)
            progress("sampling", 0, 1)
            draws = draw_stacks(self.prior, self.slices, self.steps, self.seed, batch_size, progress)
            progress("comparing with training slices", 0, 1)
            likeness = None if reference is None else compare_with_training(draws, reference)
            progress("writing", 0, 1)
            self._write(partial, draws, likeness, reason, time.perf_counter() - started)
        print("\n".join(self._describe(folder, likeness, reason)), flush=True)
        return folder

    def _check(self) -> None:
        as_count(self.slices, "slices")
        as_count(self.steps, "steps", most=self.prior.schedule.steps)
        as_count(self.seed, "seed", least=0)
        as_count(self.bank_slices, "bank_slices")
        if self.batch_size is not None:
            as_count(self.batch_size, "batch_size")

    def _reference(self, progress: Progress) -> tuple[Reference | None, str | None]:
        """What to compare with, or why there is nothing."""
        if self.dataset_dir is None and self.datalist_file is None:
            return None, "what the prior was trained on is not here: set ANY2ALL_DATA or give datalist_file"
        data = training_data(self.dataset_dir, self.datalist_file, self.prior.stack)
        if not data.head_labels and not data.entries:
            return None, "the datalist names no training image"
        progress("reading what the prior was trained on", 0, 1)
        return Reference.of(self.prior, data, self.bank_slices, progress), None

    def _write(
        self, folder: Path, draws: Tensor, likeness: dict[str, Any] | None, reason: str | None, seconds: float
    ) -> None:
        card = self.prior.card
        provenance = {
            "software": f"any2all {__version__}",
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "prior": {"sha256": card.sha256, "version": card.version, "noise_levels": card.noise_levels},
            "sampler": {"name": "ancestral", "steps": self.steps},
            "seed": self.seed,
            "note": NOTE,
        }
        for m, modality in enumerate(self.prior.stack.modalities):
            _save(folder, draws[:, m], modality, card.spacing_mm, provenance)
        figure = draw_picture(draws, self.prior.stack.modalities, likeness)
        figure.savefig(folder / PICTURE, facecolor=figure.get_facecolor())
        summary = {
            "any2all_summary": SUMMARY_VERSION,
            "kind": "generated",
            "disclaimer": DISCLAIMER,
            "note": NOTE,
            "nearest_training_slice": likeness,
            "nearest_training_slice_missing_because": reason,
            "provenance": provenance,
            "seconds": round(seconds, 1),
            "files": sorted([*(p.name for p in folder.iterdir()), SUMMARY]),
        }
        (folder / SUMMARY).write_text(json.dumps(plain(summary), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def _describe(self, folder: Path, likeness: dict[str, Any] | None, reason: str | None) -> list[str]:
        shown = shortest(folder)
        lines = [f"{self.slices} stacks drawn by ancestral in {self.steps} steps, seed {self.seed}. {NOTE}"]
        if likeness is None:
            lines.append(f"Distance to training slices: not measured ({reason}).")
        else:
            compared = ", ".join(f"{count} {kind}" for kind, count in likeness["training_slices"].items())
            held_out = likeness["median_held_out"]
            beside = f", of held-out slices {held_out:.4f}" if held_out is not None else ""
            lines.append(
                f"Nearest of {compared} training slices (RMS in u): median of the draws {likeness['median_draws']:.4f}"
                f"{beside}."
            )
        return [*lines, f"Volumes, {shown / PICTURE} and {shown / SUMMARY} are in {shown}.", DISCLAIMER]


def _save(
    folder: Path, u: Tensor, modality: Modality, spacing_mm: tuple[float, float, float], provenance: dict[str, Any]
) -> None:
    """One modality of all draws (B, H, W) in u as a volume in the modality's units, one draw per slice."""
    h, w, z = spacing_mm
    affine = np.array([[0, 0, -w, 0], [0, -h, 0, 0], [z, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
    data = from_u(u.numpy(), modality.normalisation).astype(np.float32)
    origin = {
        **provenance,
        "modality": modality.name,
        "role": "synthetic",
        "statistic": "independent draws",
        "units": modality.units,
    }
    save_volume(folder / f"generated_{modality.name}.nii.gz", Volume(data, Grid(data.shape, affine)), origin)


def draw_picture(draws: Tensor, modalities: tuple[Modality, ...], likeness: dict[str, Any] | None) -> Figure:
    """Draws (B, M, H, W) in u: one row per modality, one column per draw, of many the first `SHOWN`."""
    count, rows = min(len(draws), SHOWN), draws.shape[1]
    cell_height = CELL_IN * draws.shape[2] / draws.shape[3]
    width, height = LEFT_IN + count * CELL_IN, HEAD_IN + rows * cell_height + FOOT_IN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    for m, modality in enumerate(modalities):
        bottom = height - HEAD_IN - (m + 1) * cell_height
        figure.text(0.1 / width, (bottom + cell_height / 2) / height, modality.name, color=TEXT, size=10, va="center")
        low, high = display_window_u(modality)
        for i in range(count):
            box = (
                (LEFT_IN + i * CELL_IN) / width,
                bottom / height,
                0.98 * CELL_IN / width,
                0.98 * cell_height / height,
            )
            axes = figure.add_axes(box, facecolor=PANEL, xticks=[], yticks=[], label=f"{modality.name}:{i}")
            axes.imshow(draws[i, m].numpy(), cmap=modality.display.colormap, vmin=low, vmax=high)
            if m == 0 and likeness is not None:
                axes.set_title(f"nearest {likeness['draws'][i]['rms_u']:.3f}", color=MUTED, size=7, pad=3)
    figure.text(0.1 / width, 1 - 0.12 / height, "SYNTHETIC Any2all", color=TEXT, size=11, weight="bold", va="top")
    words = "independent draws from the prior; no patient"
    words += "" if count == len(draws) else f"; the first {count} of {len(draws)}"
    words += "" if likeness is None else "; nearest: RMS in u to the nearest training slice"
    figure.text(0.1 / width, 0.3 / height, words, color=MUTED, size=7, va="top", wrap=True)
    return figure
