"""Training slices: rendered heads, real stacks from a datalist, their mixture, and a replay buffer.

Every item is ``{"image": (M, H, W) float32 in [-1, 1], "present": (M,) bool}``; a modality that a subject does not have
is marked absent and its image is zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import Any2allError
from ..geometry import Volume, canonical, prior_grid, read_volume, resample
from ..intensity import head_mask, scale_of, to_u
from ..stack import Stack

Item = dict[str, Tensor]
MIN_HEAD_FRACTION = 0.02


def read_datalist(file: str | Path, section: str = "training") -> list[dict[str, str]]:
    """Entries of a MONAI datalist JSON: ``{"training": [{"T1": "p01/t1.nii.gz", …}, …]}``, paths relative to the file.

    A section other than ``training`` may be absent. Raises Any2allError for a file that is no datalist.
    """
    file = Path(str(file))
    try:
        document = json.loads(file.read_text())
        entries = document.get(section, [] if section != "training" else None)
        if entries is None:
            raise Any2allError("section not in the datalist", key=file.name, value=section, allowed=sorted(document))
        return [{name: str(file.parent / path) for name, path in entry.items()} for entry in entries]
    except Any2allError:
        raise
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise Any2allError(f"the datalist cannot be read: {error}", key="datalist_file", value=str(file)) from error


def load_stack_volumes(
    entry: Mapping[str, str], stack: Stack, spacing_mm: Sequence[float], matrix: Sequence[int]
) -> Item:
    """One co-registered subject on the prior's grid: ``image`` (Z, M, H, W) in prior range, ``present`` (M,).

    Slices with next to no head in them are left out.
    """
    volumes = {name: canonical(read_volume(path, name)) for name, path in entry.items() if name in stack.names}
    if not volumes:
        raise Any2allError(
            "no modality of the stack in this entry", key="datalist", value=sorted(entry), allowed=stack.names
        )
    anchor = next(iter(volumes.values()))
    grid = prior_grid(anchor.grid, tuple(spacing_mm), tuple(matrix))
    image = np.zeros((grid.shape[0], len(stack), *grid.shape[1:]), np.float32)
    inside = np.zeros(grid.shape, bool)
    for name, volume in volumes.items():
        normalisation, mask = stack[name].normalisation, head_mask(volume.data)
        u = to_u(volume.data, normalisation, scale_of(volume.data, mask, normalisation))
        image[:, stack.index(name)] = resample(Volume(u.astype(np.float32), volume.grid), grid).data
        inside |= resample(Volume(mask.astype(np.float32), volume.grid), grid).data > 0.5
    keep = inside.mean(axis=(1, 2)) > MIN_HEAD_FRACTION
    present = torch.tensor([name in volumes for name in stack.names])
    return {"image": torch.from_numpy(2 * image[keep].clip(0, 1) - 1), "present": present}


def centre_fit(image: Tensor, matrix: Sequence[int], fill: float = -1.0) -> Tensor:
    """Crop or pad the last two axes of an image to ``matrix`` about its centre."""
    for axis, size in zip((-2, -1), matrix):
        extra = image.shape[axis] - size
        if extra > 0:
            image = image.narrow(axis, extra // 2, size)
        elif extra < 0:
            pad = [0, 0, 0, 0]
            pad[2 * (-1 - axis)], pad[2 * (-1 - axis) + 1] = -extra // 2, -extra - (-extra // 2)
            image = torch.nn.functional.pad(image, pad, value=fill)
    return image


def load_fitted_stack(
    entry: Mapping[str, str], stack: Stack, spacing_mm: Sequence[float], matrix: Sequence[int]
) -> Item:
    """`load_stack_volumes` at exactly (H, W) = ``matrix``: what a large head has beyond it is cut off."""
    item = load_stack_volumes(entry, stack, spacing_mm, matrix)
    return {**item, "image": centre_fit(item["image"], matrix)}


class StackCohort(IterableDataset):
    """Endless random slices of real subjects, complete or not, all held in memory on a few in-plane spacings.

    Args:
        entries: datalist entries (modality → file), see `read_datalist`.
        stack: the stack.
        matrix: (H, W) of the prior.
        spacing_mm: (H, W, slice) of the prior.
        spacing_factors: the in-plane spacings at which each subject is resampled, relative to the prior's.
        seed: of the order and of the augmentation (left-right flip, shift of a few pixels, gain, gamma).
    """

    def __init__(
        self,
        entries: Sequence[Mapping[str, str]],
        stack: Stack,
        matrix: Sequence[int],
        spacing_mm: Sequence[float],
        spacing_factors: Sequence[float] = (0.9, 1.0, 1.1),
        seed: int = 0,
    ) -> None:
        self.matrix, self.seed, self.kinds = tuple(matrix), seed, [m.kind for m in stack.modalities]
        self.subjects: list[Item] = []
        for entry in entries:
            for f in spacing_factors:
                spacing = (spacing_mm[0] * f, spacing_mm[1] * f, spacing_mm[2])
                self.subjects.append(load_fitted_stack(entry, stack, spacing, matrix))

    def __iter__(self) -> Iterator[Item]:
        generator = worker_generator(self.seed)
        while True:
            subject = self.subjects[_below(len(self.subjects), generator)]
            image = subject["image"][_below(len(subject["image"]), generator)]
            yield {
                "image": augment(image, self.kinds, generator) * subject["present"][:, None, None],
                "present": subject["present"],
            }


def augment(image: Tensor, kinds: Sequence[str], generator: torch.Generator) -> Tensor:
    """Flip left-right, shift up to 3 pixels, and give each MR channel its own gain and gamma; (M, H, W) in [-1, 1]."""
    if torch.rand((), generator=generator) < 0.5:
        image = image.flip(-1)
    shifts = (torch.randint(-3, 4, (2,), generator=generator)).tolist()
    image = _shifted(image, shifts)
    u = (image + 1) / 2
    gain = 1 + 0.16 * (torch.rand(len(kinds), generator=generator) - 0.5)
    gamma = 1 + 0.24 * (torch.rand(len(kinds), generator=generator) - 0.5)
    mr = torch.tensor([kind == "MR" for kind in kinds])
    gain, gamma = torch.where(mr, gain, 1.0)[:, None, None], torch.where(mr, gamma, 1.0)[:, None, None]
    return 2 * (gain * u.clamp(min=0) ** gamma).clamp(0, 1) - 1


def _shifted(image: Tensor, shifts: Sequence[int]) -> Tensor:
    """Shift by whole pixels; what comes in at the border is air."""
    down, right = shifts
    h, w = image.shape[-2:]
    out = torch.full_like(image, -1.0)
    out[..., max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = image[
        ..., max(-down, 0) : h + min(-down, 0), max(-right, 0) : w + min(-right, 0)
    ]
    return out


class MixedSlices(IterableDataset):
    """Items drawn from several endless datasets with given weights."""

    def __init__(self, datasets: Sequence[IterableDataset], weights: Sequence[float], seed: int = 0) -> None:
        self.datasets, self.weights, self.seed = list(datasets), torch.tensor(weights, dtype=torch.float), seed

    def __iter__(self) -> Iterator[Item]:
        generator = worker_generator(self.seed + 101)
        streams = [iter(dataset) for dataset in self.datasets]
        while True:
            yield next(streams[int(torch.multinomial(self.weights, 1, generator=generator))])


def mixture(
    rendered: IterableDataset | None, real: IterableDataset | None, real_fraction: float, seed: int = 0
) -> IterableDataset:
    """Rendered and real slices, ``real_fraction`` of them real; where one kind is absent, the other alone.

    Raises Any2allError where there is nothing to train on.
    """
    if rendered is None and real is None:
        raise Any2allError(
            "nothing to train on", key="datalist_file", hint="give a datalist, or the data folder by ANY2ALL_DATA"
        )
    if rendered is None or real is None:
        return rendered if real is None else real
    return MixedSlices([rendered, real], [1 - real_fraction, real_fraction], seed)


class ReplayBuffer(IterableDataset):
    """Each item of a costly dataset is given out about ``reuse`` times, newly augmented, mixed over ``size`` items."""

    def __init__(self, dataset: IterableDataset, stack: Stack, size: int = 4000, reuse: int = 4, seed: int = 0) -> None:
        self.dataset, self.size, self.reuse, self.seed = dataset, size, reuse, seed
        self.kinds = [m.kind for m in stack.modalities]

    def __iter__(self) -> Iterator[Item]:
        generator = worker_generator(self.seed + 202)
        buffer: list[Item] = []
        for item in self.dataset:
            if len(buffer) < self.size:
                buffer.append(item)
            else:
                buffer[_below(self.size, generator)] = item
            for _ in range(self.reuse):
                old = buffer[_below(len(buffer), generator)]
                image = augment(old["image"], self.kinds, generator) * old["present"][:, None, None]
                yield {"image": image, "present": old["present"]}


def worker_generator(seed: int) -> torch.Generator:
    """A generator that differs between the workers of a data loader; ranks get other seeds (`engine.fresh_seed`)."""
    info = get_worker_info()
    return torch.Generator().manual_seed(seed * 1_000_003 + (0 if info is None else info.id))


def _below(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))


def single_threaded(worker: int) -> None:
    """Loader workers render beside the training, not instead of it."""
    torch.set_num_threads(1)
