"""Real stacks from a datalist as training slices, and how slices are augmented.

Every item is ``{"image": (M, H, W) float32 in [-1, 1], "present": (M,) bool}``; a modality that a subject does not have
is marked absent and its image is zero. Training slices also say which modalities were ``acquired`` (M,) bool: what is
present but was not acquired was drawn by a prior (`completion`), and nothing is learnt from it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate
from tqdm import tqdm

from ..errors import Any2allError
from ..geometry import Volume, canonical, prior_grid, read_volume, resample
from ..given import check_acquired
from ..intensity import head_mask, scale_of, to_u
from ..stack import Stack
from .completion import Completion

Item = dict[str, Tensor]
MIN_HEAD_FRACTION = 0.02
COMPLETED = 0.5  # how often a completed subject's slice comes with what was drawn; else its gaps stay gaps


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


@dataclass(frozen=True, eq=False)
class RealStack:
    """One co-registered subject as its files are: images in u and their heads, by modality, canonical."""

    images: dict[str, Volume]
    heads: dict[str, Volume]
    name: str

    @classmethod
    def of(cls, entry: Mapping[str, str], stack: Stack) -> RealStack:
        """Read an entry of a datalist.

        Raises:
            Any2allError: none of its modalities is in the stack; or, with the file's path for its key, an image that
                cannot be read, shows no head, or is a result of Any2all.
        """
        images, heads = {}, {}
        for name in (name for name in entry if name in stack.names):
            images[name], heads[name] = _in_u(entry[name], name, stack)
        if not images:
            raise Any2allError(
                "no modality of the stack in this entry", key="datalist", value=sorted(entry), allowed=stack.names
            )
        return cls(images, heads, next(str(entry[name]) for name in images))

    def on(self, spacing_mm: Sequence[float], matrix: Sequence[int], stack: Stack) -> tuple[np.ndarray, np.ndarray]:
        """(Z, M, H, W) in u on the prior's grid, of at least its matrix, and the head (Z, H, W), bool.

        Slices with next to no head in them are left out. Raises Any2allError where none is left.
        """
        anchor = next(iter(self.images.values()))
        try:
            grid = prior_grid(anchor.grid, tuple(spacing_mm), tuple(matrix))
        except Any2allError as error:
            raise _of_file(error, self.name) from error
        u = np.zeros((grid.shape[0], len(stack), *grid.shape[1:]), np.float32)
        inside = np.zeros(grid.shape, bool)
        for name, volume in self.images.items():
            u[:, stack.index(name)] = resample(volume, grid).data
            inside |= resample(self.heads[name], grid).data > 0.5
        keep = inside.mean(axis=(1, 2)) > MIN_HEAD_FRACTION
        if not keep.any():
            share = f"at most {100 * inside.mean(axis=(1, 2)).max():.2g} % of a slice is head"
            allowed = f"more than {100 * MIN_HEAD_FRACTION:.0f} % of some slice"
            raise Any2allError("there is next to no head in this subject", key=self.name, value=share, allowed=allowed)
        return u[keep], inside[keep]

    def fitted(self, stack: Stack, spacing_mm: Sequence[float], matrix: Sequence[int]) -> Item:
        """``image`` (Z, M, H, W) in prior range at exactly (H, W) = ``matrix``, and ``present`` (M,).

        The middle of the image is taken, or as much off it as the head needs to be in it, as far as it fits.
        """
        u, inside = self.on(spacing_mm, matrix, stack)
        rows, columns = (_window(inside.any(axis=(0, 3 - a)), size) for a, size in zip((1, 2), matrix))
        image = torch.from_numpy(2 * u[:, :, rows, columns].clip(0, 1) - 1)
        return {"image": image, "present": torch.tensor([name in self.images for name in stack.names])}


def _in_u(path: str, name: str, stack: Stack) -> tuple[Volume, Volume]:
    """An image in u and its head mask. Errors are those of `RealStack.of`."""
    normalisation = stack[name].normalisation
    try:
        check_acquired(Path(path), name)
        volume = canonical(read_volume(path, name))
        mask = head_mask(volume.data)
        u = to_u(volume.data, normalisation, scale_of(volume.data, mask, normalisation))
    except Any2allError as error:
        raise _of_file(error, path) from error
    return Volume(u.astype(np.float32), volume.grid), Volume(mask.astype(np.float32), volume.grid)


def _of_file(error: Any2allError, path: str) -> Any2allError:
    """The error with the file's path: every subject has a T1."""
    return Any2allError(
        error.message, key=str(path), value=error.value, allowed=error.allowed, hint=error.hint, code=error.code
    )


def _window(head: np.ndarray, size: int) -> slice:
    """``size`` places of an axis, the middle ones if they hold the head (bool along the axis)."""
    there = np.flatnonzero(head)
    first, last, middle = int(there[0]), int(there[-1]) + 1, (len(head) - size) // 2
    if last - first > size:
        start = (first + last - size) // 2
    else:
        start = min(max(middle, last - size), first)
    start = min(max(start, 0), len(head) - size)
    return slice(start, start + size)


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
    """An entry of a datalist as slices of the prior's grid, see `RealStack`."""
    return RealStack.of(entry, stack).fitted(stack, spacing_mm, matrix)


class StackCohort:
    """Random slices of real subjects, complete or not, all held in memory on a few in-plane spacings.

    Args:
        entries: datalist entries (modality → file), see `read_datalist`.
        stack: the stack.
        matrix: (H, W) of the prior.
        spacing_mm: (H, W, slice) of the prior.
        completion: draws what incomplete subjects lack, see there; None leaves the gaps.
        spacing_factors: the in-plane spacings at which each subject is resampled, relative to the prior's.
    """

    def __init__(
        self,
        entries: Sequence[Mapping[str, str]],
        stack: Stack,
        matrix: Sequence[int],
        spacing_mm: Sequence[float],
        completion: Completion | None = None,
        spacing_factors: Sequence[float] = (0.9, 1.0, 1.1),
    ) -> None:
        if completion is not None and completion.prior.stack.names != stack.names:
            raise Any2allError(
                "the prior to complete with was trained on other modalities",
                key="complete_with",
                value=completion.prior.stack.names,
                allowed=stack.names,
            )
        self.subjects: list[Item] = []
        bar = tqdm(entries, "reading", unit="subject", file=sys.stderr, mininterval=10.0, delay=10.0)
        for number, entry in enumerate(bar):  # seconds each, which would pass in silence
            real = RealStack.of(entry, stack)
            for f in spacing_factors:
                spacing = (spacing_mm[0] * f, spacing_mm[1] * f, spacing_mm[2])
                item = real.fitted(stack, spacing, matrix)
                if completion is not None and not bool(item["present"].all()):
                    item["completed"] = completion.of(item["image"], item["present"], f"{number}/{f}")
                self.subjects.append(item)

    def draw(self, rng: np.random.Generator) -> Item:
        """One slice of any subject."""
        subject = self.subjects[int(rng.integers(len(self.subjects)))]
        z, present = int(rng.integers(len(subject["image"]))), subject["present"]
        if "completed" in subject and rng.random() < COMPLETED:
            drawn = subject["completed"]
            image = drawn[int(rng.integers(len(drawn))), z]
            return {"image": image, "present": torch.ones_like(present), "acquired": present}
        return {"image": subject["image"][z], "present": present, "acquired": present}


def another_head(image: Tensor, kinds: Sequence[str], rng: np.random.Generator) -> Tensor:
    """A real slice (M, H, W) in [-1, 1] as of another head in another scanner: few real heads must serve for many.

    Turned by up to 10°, stretched by up to 8 % along each axis (all channels alike); each MR channel with a smooth
    shading of up to 12 % and its own gamma from 0.8 to 1.25.
    """
    angle, (sy, sx) = np.deg2rad(rng.uniform(-10, 10)), rng.uniform(0.92, 1.08, 2)
    aspect = image.shape[-2] / image.shape[-1]
    cos, sin = np.cos(angle), np.sin(angle)
    theta = torch.tensor([[cos * sx, -sin * sy * aspect, 0.0], [sin * sx / aspect, cos * sy, 0.0]], dtype=image.dtype)
    grid = affine_grid(theta[None], [1, *image.shape], align_corners=False)
    u = ((grid_sample((image + 1)[None], grid, "bicubic", "zeros", align_corners=False)[0]) / 2).clamp(0, 1)
    mr = torch.tensor([kind == "MR" for kind in kinds])
    coarse = torch.from_numpy(rng.uniform(-0.12, 0.12, (1, len(kinds), 4, 4))).to(image.dtype)
    shading = 1 + interpolate(coarse, image.shape[-2:], mode="bicubic", align_corners=True)[0]
    gamma = torch.from_numpy(np.exp(rng.uniform(-0.22, 0.22, len(kinds)))).to(image.dtype)[:, None, None]
    return 2 * torch.where(mr[:, None, None], (shading * u**gamma).clamp(0, 1), u) - 1


def augment(image: Tensor, kinds: Sequence[str], rng: np.random.Generator) -> Tensor:
    """Flip left-right, shift up to 3 pixels, and give each MR channel its own gain and gamma; (M, H, W) in [-1, 1]."""
    if rng.random() < 0.5:
        image = image.flip(-1)
    image = _shifted(image, rng.integers(-3, 4, 2).tolist())
    u = (image + 1) / 2
    mr = np.array([kind == "MR" for kind in kinds])
    gain, gamma = (
        torch.from_numpy(np.where(mr, 1 + width * (rng.random(len(kinds)) - 0.5), 1.0).astype(np.float32))
        for width in (0.16, 0.24)
    )
    return 2 * (gain[:, None, None] * u.clamp(min=0) ** gamma[:, None, None]).clamp(0, 1) - 1


def _shifted(image: Tensor, shifts: Sequence[int]) -> Tensor:
    """Shift by whole pixels; what comes in at the border is air."""
    down, right = shifts
    h, w = image.shape[-2:]
    out = torch.full_like(image, -1.0)
    out[..., max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = image[
        ..., max(-down, 0) : h + min(-down, 0), max(-right, 0) : w + min(-right, 0)
    ]
    return out
