"""Unconditional generation (the paper's first experiment): stacks drawn from nothing, beside held-out renderings.

Without data, `mps` is `ancestral` sampling: its gradient is zero. Two more rows say how small a distance can be: other
renderings of the same held-out heads (the floor), and renderings of the heads that the prior was trained on, which is
what a prior that has learned its training perfectly would draw. Everything that is drawn or rendered is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..diffusion.prior import NetworkPrior
from ..phantom.dataset import RenderedHeads
from ..physics.measurements import Channel, Measurements
from ..samplers import Problem
from ..samplers.noise import VolumeNoise
from .distribution import FID, KID, LEAST_FOR_KID, fid, kid
from .features import FeatureExtractor
from .predictions import Prediction, PredictionFolder
from .ranks import Ranks
from .records import fingerprint
from .tasks import Method

NAME = "unconditional"
PART = 40  # draws that are kept at once
SLICES_PER_HEAD = 8
REFERENCE_SEED, FLOOR_SEED, TRAINING_SEED = 9101, 9102, 9103
REFERENCE, FLOOR, TRAINING = "held-out renderings", "other held-out renderings (floor)", "renderings of training heads"
RENDERING = 1000  # a slice's number is its rendering's times this, plus its place


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one source: modality → (N, H, W) in u, the group of each image, passes and seconds of one."""

    name: str
    images: Mapping[str, np.ndarray]
    groups: tuple[str, ...]
    passes: int = 0
    seconds: float | None = None

    def __len__(self) -> int:
        return len(self.groups)


@dataclass(frozen=True)
class Distance:
    """How far a set of draws is from the held-out renderings, by modality; KID is None of fewer than 200."""

    name: str
    n: int
    passes: int
    seconds: float | None
    fid: Mapping[str, FID]
    kid: Mapping[str, KID | None]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(eq=False)
class Unconditional:
    """The experiment.

    Args:
        prior: that is evaluated; methods may name others in ``models``, tried where the file exists.
        methods: samplers, see `Method`.
        draws: N of every set.
        heads: held-out label maps, ``training_heads`` and ``lesion_masks`` those of training; without, no such row.
        features: what FID and KID compare.
        find_prior: another prior by its file name; None where there is none.
        folder: where draws are kept; None: nowhere.
        batch_size: slices that the network sees at once.
        seed: of the draws.
    """

    prior: NetworkPrior
    methods: Sequence[Method]
    draws: int
    heads: Sequence[Path]
    features: FeatureExtractor
    training_heads: Sequence[Path] = ()
    lesion_masks: Path | None = None
    find_prior: Callable[[str], NetworkPrior | None] = lambda name: None
    folder: Path | None = None
    batch_size: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        self._store = PredictionFolder(None if self.folder is None else self.folder / NAME)

    def run(self) -> list[Distance]:
        """Draw and render what is not there yet, and compare everything with the held-out renderings."""
        reference = self.rendered(*self._sources()[0])
        known = {name: self.features(images) for name, images in reference.images.items()}
        return [self._distance(found, known, reference.groups) for found in self._sets()]

    @cached_property
    def distances(self) -> list[Distance]:
        """What `run` finds, once."""
        return self.run()

    def prepare(self, ranks: Ranks) -> None:
        """Draw and render this rank's share of what is not there yet; all ranks keep it in the same folder."""
        parts = [(method, prior, start) for method, prior in self._tried() for start in range(0, self.draws, PART)]
        for method, prior, start in ranks.share(parts, lambda part: self._passes(part[0], part[1])):
            self._part(method, prior, start, lambda _: None)
        for source in ranks.share(self._sources(), lambda _: 1):
            self.rendered(*source)

    def _tried(self) -> list[tuple[Method, NetworkPrior]]:
        """Every method whose prior is there."""
        found = ((m, self.find_prior(m.model) if m.model else self.prior) for m in self.methods)
        return [(method, prior) for method, prior in found if prior is not None]

    def _sources(self) -> list[tuple[str, Sequence[Path], int, Path | None]]:
        """What is rendered: name, heads, seed and masks of lesions; the reference first."""
        training = [(TRAINING, self.training_heads, TRAINING_SEED, self.lesion_masks)] if self.training_heads else []
        return [(REFERENCE, self.heads, REFERENCE_SEED, None), *training, (FLOOR, self.heads, FLOOR_SEED, None)]

    def _sets(self) -> Iterator[ImageSet]:
        for method, prior in self._tried():
            yield self.drawn(method, prior)
        for source in self._sources()[1:]:
            yield self.rendered(*source)

    def drawn(self, method: Method, prior: NetworkPrior) -> ImageSet:
        """N independent draws; draw i depends on the seed and on i alone."""
        parts, passes = [], self._passes(method, prior)
        with tqdm(total=self.draws * passes, desc=method.name, unit="pass", file=sys.stderr, mininterval=5) as bar:
            for start in range(0, self.draws, PART):
                parts.append(self._part(method, prior, start, bar.update))
                bar.update(max(0, sum(len(p.slices) for p in parts) * passes - bar.n))
        images = {name: np.concatenate([p.images[name][0] for p in parts]) for name in prior.stack.names}
        groups = tuple(f"{method.name}/{i}" for i in range(self.draws))
        seconds = sum(p.seconds * len(p.slices) for p in parts) / self.draws
        return ImageSet(method.name, images, groups, passes, seconds)

    def _passes(self, method: Method, prior: NetworkPrior) -> int:
        """Of one draw."""
        return method.build_sampler(prior.stack).passes(prior.schedule, False, True)

    def _part(self, method: Method, prior: NetworkPrior, start: int, update: Callable[[int], Any]) -> Prediction:
        """At most `PART` draws, from the folder where they are there already."""
        count = min(PART, self.draws - start)
        task, mark = f"draws {start} to {start + count - 1}", self._mark(method, prior)
        found = self._store.find(NAME, task, method.name, mark)
        if found is not None:
            return found
        shape, started, done = (count, prior.channels, *prior.card.matrix), time.perf_counter(), [0]

        def progress(now: int, _: int) -> None:
            update(now - done[0])
            done[0] = now

        x = method.build_sampler(prior.stack).sample(
            prior,
            nothing(shape),
            VolumeNoise(shape[1:], self.seed, NAME, first_slice=start),
            batch_size=self.batch_size,
            device=prior.device,
            progress=progress,
        )
        seconds = (time.perf_counter() - started) / count
        images = {n: _stored((x[:, :, m] + 1) / 2) for m, n in enumerate(prior.stack.names)}
        passes, slices = self._passes(method, prior), tuple(range(start, start + count))
        part = Prediction(NAME, task, method.name, slices, passes, seconds, images, mark)
        self._store.add(part)
        return part

    def _mark(self, method: Method, prior: NetworkPrior) -> str:
        """Checksum of what draws depend on; of the priors' facts about contrast only those of mcs do."""
        contrast = [prior.card.to_json()["contrast"]] if method.sampler == "mcs" else []
        return fingerprint(method.settings(), prior.card.sha256, *contrast, self.seed)

    def rendered(self, name: str, heads: Sequence[Path], seed: int, lesion_masks: Path | None = None) -> ImageSet:
        """N rendered slices, `SLICES_PER_HEAD` of each rendering; other seeds are other renderings."""
        card = self.prior.card
        stack, lesions = card.stack.model_dump(mode="json"), lesion_masks is not None
        place = [list(card.matrix), list(card.spacing_mm), stack]
        mark = fingerprint([Path(p).name for p in heads], seed, self.draws, place, lesions)
        found = self._store.find(NAME, name, "rendered", mark)
        if found is None:
            series = RenderedHeads(
                [str(p) for p in heads], card.stack, card.matrix, card.spacing_mm[:2], seed, lesion_masks
            )
            slices, numbers = _random_slices(series, self.draws, seed, name)
            u = (slices + 1) / 2
            images = {n: _stored(u[None, :, m]) for m, n in enumerate(card.stack.names)}
            found = Prediction(NAME, name, "rendered", numbers, 0, 0.0, images, mark)
            self._store.add(found)
        groups = tuple(f"{name}/{number // RENDERING}" for number in found.slices)
        return ImageSet(name, {n: image[0] for n, image in found.images.items()}, groups)

    def _distance(self, found: ImageSet, known: Mapping[str, np.ndarray], groups: Sequence[str]) -> Distance:
        features = {name: self.features(images) for name, images in found.images.items()}
        enough = len(found) >= LEAST_FOR_KID
        return Distance(
            found.name,
            len(found),
            found.passes,
            found.seconds,
            {name: fid(x, known[name]) for name, x in features.items()},
            {name: kid(x, known[name], found.groups, groups) if enough else None for name, x in features.items()},
        )


def nothing(shape: tuple[int, int, int, int]) -> Problem:
    """The problem (Z, M, H, W) in which every image is missing."""
    return Problem.of(Measurements(tuple(Channel.missing() for _ in range(shape[1]))), shape)


def _stored(images: Tensor) -> np.ndarray:
    return images.clamp(0, 1).cpu().numpy().astype(np.float32)


def _random_slices(heads: RenderedHeads, count: int, seed: int, name: str) -> tuple[Tensor, tuple[int, ...]]:
    """Slices (count, M, H, W) in the prior range, and their numbers (`RENDERING`)."""
    rng = np.random.default_rng(seed)
    slices: list[Tensor] = []
    numbers: list[int] = []
    with tqdm(total=count, desc=name, unit="slice", file=sys.stderr, mininterval=5) as bar:
        for rendering in range(count):
            images = heads.subject(rendering).images
            wanted = min(SLICES_PER_HEAD, count - len(numbers), len(images))
            places = sorted(rng.choice(len(images), wanted, replace=False).tolist())
            slices.append(images[places])
            numbers += [RENDERING * rendering + place for place in places]
            bar.update(wanted)
            if len(numbers) == count:
                break
    return torch.cat(slices), tuple(numbers)
