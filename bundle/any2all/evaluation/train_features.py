"""``python -m any2all.evaluation.train_features``: the feature network behind FID and KID, on rendered training heads.

Its questions have answers that the rendering knows: modality, slice height, share of each tissue. Half of what it
sees is degraded by noise, blur or aliasing of random strength, and it has to say which and how much. Real training
scans ask for modality and degradation only. It never sees a head that anything is evaluated on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ..diffusion.prior import load_card
from ..phantom.dataset import RenderedHeads
from ..phantom.tissues import INDEX, TISSUES
from ..stack import Stack
from ..training.cohort import DataSplits, data_folder
from ..training.datasets import load_fitted_stack
from ..workflow import as_count, front_door
from .degradations import degrade
from .distribution import fid
from .feature_network import DEGRADATIONS, FEATURES, FeatureNetwork
from .features import OWN, FeatureExtractor, save_own

VERSION = "1"
SEED, VALIDATION_SEED = 411, 412
BATCH, LEARNING_RATE, HEIGHT_MM, SHIFT_PX = 48, 2e-3, 50.0, 4
STRENGTHS = (0.25, 0.5, 1.0)  # of degradations that the card reports FID for
GAIN = 0.1  # of MR brightness, either way
WEIGHTS = {"modality": 1.0, "degradation": 1.0, "strength": 5.0, "height": 1.0, "tissues": 20.0}
TISSUE_GROUPS: dict[str, tuple[str, ...]] = {
    "white_matter": ("white_matter",),
    "cortex": ("cortex",),
    "cerebellum": ("cerebellar_cortex",),
    "deep_grey": ("thalamus", "caudate", "putamen", "pallidum", "accumbens", "hippocampus", "amygdala"),
    "fluid": ("ventricle", "csf"),
    "brain_stem": ("brain_stem",),
    "bone": ("cortical_bone", "cancellous_bone"),
    "other": ("skin", "muscle", "mucosa", "eyeball", "eye_muscle"),
}


@dataclass(frozen=True, eq=False)
class Lessons:
    """Slices with what is known of them.

    Attributes:
        images: (N, M, H, W) half precision, u.
        present: (N, M) bool.
        height: (N,) in 50 mm; NaN where it is unknown.
        tissues: (N, T) square roots of shares; NaN where they are unknown.
    """

    images: Tensor
    present: Tensor
    height: Tensor
    tissues: Tensor

    def __len__(self) -> int:
        return len(self.images)


def rendered_lessons(heads: RenderedHeads, renderings: int) -> Lessons:
    """All slices of ``renderings`` heads."""
    images, heights, tissues = [], [], []
    for number in tqdm(range(renderings), desc="rendering", unit="head", file=sys.stderr, mininterval=10):
        subject = heads.subject(number)
        images.append(((subject.images + 1) / 2).half())
        heights.append(torch.tensor(subject.positions_mm) / HEIGHT_MM)
        tissues.append(tissue_roots(subject.labels))
    every = torch.cat(images)
    present = torch.ones(every.shape[:2], dtype=torch.bool)
    return Lessons(every, present, torch.cat(heights).float(), torch.cat(tissues))


def tissue_roots(labels: Tensor) -> Tensor:
    """Square roots (Z, T) of the share of all pixels of labels (Z, H, W) that each of `TISSUE_GROUPS` has."""
    shares = []
    for names in TISSUE_GROUPS.values():
        codes = [code for name in names for code in TISSUES[INDEX[name]].labels]
        shares.append(torch.isin(labels, torch.tensor(codes, dtype=labels.dtype)).float().mean(dim=(1, 2)))
    return torch.stack(shares, dim=1).sqrt()


def real_lessons(
    entries: Sequence[dict[str, str]], stack: Stack, matrix: Sequence[int], spacing_mm: Sequence[float]
) -> Lessons:
    """Slices of real scans, of which height and tissues are unknown."""
    items = [load_fitted_stack(entry, stack, spacing_mm, matrix) for entry in entries]
    images = torch.cat([(item["image"] + 1) / 2 for item in items]).half()
    present = torch.cat([item["present"].expand(len(item["image"]), -1) for item in items])
    unknown = torch.full((len(images), len(TISSUE_GROUPS)), torch.nan)
    return Lessons(images, present, unknown[:, 0], unknown)


def together(parts: Sequence[Lessons]) -> Lessons:
    """All lessons in one."""
    return Lessons(*(torch.cat([getattr(part, key) for part in parts]) for key in Lessons.__annotations__))


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (B, 1, H, W) in u, and the answers."""

    images: Tensor
    modality: Tensor
    degradation: Tensor
    strength: Tensor
    height: Tensor
    tissues: Tensor


def draw_batch(lessons: Lessons, stack: Stack, size: int, generator: torch.Generator) -> Batch:
    """Random images, mirrored, shifted, MR brighter or darker, half of them degraded."""
    at = torch.randint(len(lessons), (size,), generator=generator)
    modality = torch.multinomial(lessons.present[at].float(), 1, generator=generator)[:, 0]
    u = lessons.images[at, modality].float()
    mirrored = torch.rand(size, generator=generator) < 0.5
    u = torch.where(mirrored[:, None, None], u.flip(-1), u)
    shifts = torch.randint(-SHIFT_PX, SHIFT_PX + 1, (2,), generator=generator).tolist()
    u = torch.roll(u, shifts, dims=(1, 2))
    is_mr = torch.tensor([m.kind == "MR" for m in stack.modalities])[modality]
    gain = 1 + GAIN * (2 * torch.rand(size, generator=generator) - 1) * is_mr
    kinds = torch.randint(1, len(DEGRADATIONS), (size,), generator=generator)
    kinds = torch.where(torch.rand(size, generator=generator) < 0.5, 0, kinds)
    strength = (0.1 + 0.9 * torch.rand(size, generator=generator)) * (kinds > 0)
    images = degrade((u * gain[:, None, None]).clamp(0, 1), kinds, strength, generator)[:, None]
    return Batch(images, modality, kinds, strength, lessons.height[at], lessons.tissues[at])


def loss(network: FeatureNetwork, batch: Batch) -> Tensor:
    """The sum of all questions' losses, weighted by `WEIGHTS`; what is unknown is not asked."""
    said = network(batch.images)
    known = ~torch.isnan(batch.height)
    parts = {
        "modality": functional.cross_entropy(said.modality, batch.modality),
        "degradation": functional.cross_entropy(said.degradation, batch.degradation),
        "strength": functional.mse_loss(said.strength, batch.strength),
        "height": functional.smooth_l1_loss(said.height[known], batch.height[known]),
        "tissues": functional.mse_loss(said.tissues[known], batch.tissues[known]),
    }
    return sum(WEIGHTS[name] * part for name, part in parts.items())


def train(lessons: Lessons, stack: Stack, iterations: int, seed: int) -> FeatureNetwork:
    """Train a fresh network by Adam with one cycle of the learning rate."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = FeatureNetwork(len(stack), len(TISSUE_GROUPS))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=iterations)
    with tqdm(range(iterations), desc="training", file=sys.stderr, mininterval=10) as bar:
        for _ in bar:
            found = loss(network, draw_batch(lessons, stack, BATCH, generator))
            optimizer.zero_grad()
            found.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{found.item():.3f}")
    return network.eval()


@torch.no_grad()
def examine(network: FeatureNetwork, lessons: Lessons, stack: Stack, batches: int = 20) -> dict[str, float]:
    """How well it answers on lessons that it was not trained on."""
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    right = {"modality": [], "degradation": [], "strength": [], "height_mm": [], "tissue_share": []}
    for _ in range(batches):
        batch = draw_batch(lessons, stack, 2 * BATCH, generator)
        said = network(batch.images)
        right["modality"].append((said.modality.argmax(1) == batch.modality).float().mean())
        right["degradation"].append((said.degradation.argmax(1) == batch.degradation).float().mean())
        right["strength"].append((said.strength - batch.strength).abs().mean())
        right["height_mm"].append(HEIGHT_MM * (said.height - batch.height).abs().mean())
        right["tissue_share"].append((said.tissues**2 - batch.tissues**2).abs().mean())
    return {name: round(float(torch.stack(values).mean()), 4) for name, values in right.items()}


def sensitivity(network: FeatureNetwork, lessons: Lessons, channel: int) -> dict[str, list[float]]:
    """FID of one modality's slices against the same slices degraded by `STRENGTHS`."""
    features, u = FeatureExtractor("in training", "", FEATURES, network.features), lessons.images[:, channel].float()
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    clean, found = features(u), {}
    for number, name in enumerate(DEGRADATIONS[1:], start=1):
        kinds = torch.full((len(u),), number)
        worse = [degrade(u, kinds, torch.full((len(u),), s), generator) for s in STRENGTHS]
        found[name] = [round(fid(clean, features(images)).value, 3) for images in worse]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, train, examine, and write weights and card."""
    options = _parser().parse_args(arguments)
    with front_door():
        card = load_card(options.model)
        folder, started = options.data or data_folder(), time.perf_counter()
        stack, grid = card.stack, (card.matrix, card.spacing_mm[:2])
        split, held_out = DataSplits(folder, "train"), DataSplits(folder, "validation")
        heads = RenderedHeads(split.head_labels, stack, *grid, SEED, lesion_masks=split.lesion_masks)
        renderings = as_count(options.renderings, "renderings")
        parts = [rendered_lessons(heads, renderings)]
        parts.append(real_lessons(split.real_stacks(stack), stack, card.matrix, card.spacing_mm))
        lessons = together(parts)
        rendered_s = time.perf_counter() - started
        network = train(lessons, stack, as_count(options.iterations, "iterations"), SEED)
        trained_s = time.perf_counter() - started - rendered_s
        others = RenderedHeads(held_out.head_labels, stack, *grid, VALIDATION_SEED)
        unseen = rendered_lessons(others, max(1, renderings // 8))
        facts: dict[str, Any] = {
            "version": VERSION,
            "modalities": list(stack.names),
            "tissues": {name: list(parts) for name, parts in TISSUE_GROUPS.items()},
            "matrix": list(card.matrix),
            "spacing_mm": list(card.spacing_mm),
            "training": {
                "heads": len(split.head_labels),
                "renderings": renderings,
                "rendered_slices": len(parts[0]),
                "real_slices": len(parts[1]),
                "images_seen": BATCH * options.iterations,
                "iterations": options.iterations,
                "batch": BATCH,
                "learning_rate": LEARNING_RATE,
                "loss_weights": WEIGHTS,
                "seed": SEED,
                "threads": torch.get_num_threads(),
                "seconds_rendering": round(rendered_s),
                "seconds_training": round(trained_s),
            },
            "validation": {"slices": len(unseen), **examine(network, unseen, stack)},
        }
        channel = stack.index("T2FLAIR") if "T2FLAIR" in stack.names else 0
        facts["fid_of_degraded"] = {
            "modality": stack.names[channel],
            "strengths": list(STRENGTHS),
            **sensitivity(network, unseen, channel),
        }
        save_own(network, facts, options.output)
    print(facts["validation"], facts["fid_of_degraded"], f"{options.output}", sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m any2all.evaluation.train_features", description=__doc__)
    parser.add_argument(
        "--model", type=Path, default=OWN.with_name("model.pt"), help="prior whose stack and grid it is"
    )
    parser.add_argument("--data", type=Path, help="the data folder; default: $ANY2ALL_DATA")
    parser.add_argument("--renderings", type=int, default=96)
    parser.add_argument("--iterations", type=int, default=1600)
    parser.add_argument("--output", type=Path, default=OWN)
    return parser


if __name__ == "__main__":
    main()
