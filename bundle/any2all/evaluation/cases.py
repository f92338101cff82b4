"""What methods are tried on: complete or incomplete stacks of truth on the prior's own grid, from a committed manifest.

``configs/manifest.json`` names, for each split, the renderings (head and seed), the slices, a block of neighbouring
slices, and real subjects. A rendering is the unit of statistics: its slices belong together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import Any2allError
from ..geometry import Grid, Volume, canonical, prior_grid, read_volume, resample
from ..intensity import head_mask, scale_of, to_u
from ..phantom.labels import HeadLabels, load_head_labels
from ..phantom.parameters import HeadParameters, draw_parameters
from ..phantom.render import RenderGrid, Rendering, render
from ..stack import Stack
from ..training.cohort import DataSplits
from ..training.datasets import centre_fit
from .regions import cortical_suvr

MANIFEST = Path(__file__).parents[2] / "configs" / "manifest.json"
Kind = Literal["rendered", "block", "real"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST_HEAD = 0.08  # of a real slice; thinner caps of the head are left out
LESION = "lesion"


@dataclass(frozen=True, eq=False)
class Cases:
    """Slices of truth.

    Attributes:
        name: of the set.
        kind: ``rendered``, ``block`` (neighbouring slices of one rendering) or ``real``.
        slices: (Z, M, H, W) in u, NOT clipped; zero where a subject lacks the modality.
        present: modalities that every slice has.
        groups: the rendering or the subject of each slice.
        inside: (Z, H, W) bool, the head.
        labels: (Z, H, W) int16 FreeSurfer codes of rendered heads.
        lesions: (Z, H, W) bool, where a mask is known.
        facts: of each group, JSON-able.
    """

    name: str
    kind: Kind
    slices: Tensor
    present: tuple[str, ...]
    groups: tuple[str, ...]
    inside: np.ndarray
    labels: np.ndarray | None = None
    lesions: np.ndarray | None = None
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def origin(self) -> dict[str, Any]:
        """What results depend on, JSON-able: the names and the images themselves, in short."""
        sums = self.slices.double().mean(dim=(0, 2, 3)).tolist()
        return {"cases": self.name, "groups": list(self.groups), "means": [round(value, 7) for value in sums]}

    def of(self, group: str) -> Cases:
        """The slices of one group."""
        return self.select([z for z, name in enumerate(self.groups) if name == group])

    def select(self, chosen: Sequence[int]) -> Cases:
        """Some of the slices."""
        keep = list(chosen)
        return replace(
            self,
            slices=self.slices[keep],
            groups=tuple(self.groups[z] for z in keep),
            inside=self.inside[keep],
            labels=None if self.labels is None else self.labels[keep],
            lesions=None if self.lesions is None else self.lesions[keep],
        )


@dataclass(frozen=True)
class Manifest:
    """The part of ``manifest.json`` that belongs to one split.

    Attributes:
        name: of the entry, such as ``test_small``.
        split: of ``splits.json`` whose heads and subjects it uses.
        renderings: (head, seed).
        positions_mm: slices of each rendering, upward from the head's centre.
        block_mm: lowest slice of the block of neighbouring slices, their number is ``block_slices``.
        block_heads: whose first rendering gives a block; every head's by default.
        real: subjects, ``real_slices`` of each.
    """

    name: str
    split: str
    renderings: tuple[tuple[str, int], ...]
    positions_mm: tuple[float, ...]
    block_mm: float
    block_slices: int
    block_heads: tuple[str, ...]
    real: tuple[str, ...]
    real_slices: int

    @classmethod
    def read(cls, name: str, file: str | Path = MANIFEST) -> Manifest:
        """Raises Any2allError for a file that is no manifest, and for an entry that it does not have."""
        try:
            document = json.loads(Path(str(file)).read_text(encoding="utf-8"))
            entries = dict(sorted(document.items()))
            found = cls._of(name, entries[name]) if name in entries else None
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            message = f"the manifest cannot be read: {error.strerror if isinstance(error, OSError) else error}"
            allowed = f"a file such as configs/{MANIFEST.name}"
            raise Any2allError(message, key="manifest", value=str(file), allowed=allowed) from error
        if found is None:
            raise Any2allError("no such set of cases", key="cases", value=name, allowed=list(entries))
        return found

    @classmethod
    def _of(cls, name: str, entry: Mapping[str, Any]) -> Manifest:
        for head in entry.get("block_heads", ()):
            if not entry["renderings"].get(head):
                raise ValueError(f"block_heads names {head!r}, of which there is no rendering")
        return cls(
            name,
            entry["split"],
            tuple((head, int(seed)) for head, seeds in entry["renderings"].items() for seed in seeds),
            tuple(float(z) for z in entry["positions_mm"]),
            float(entry["block_mm"]),
            int(entry["block_slices"]),
            tuple(entry.get("block_heads", entry["renderings"])),
            tuple(entry["real"]),
            int(entry["real_slices"]),
        )

    def rendered(self, folder: Path, stack: Stack, matrix: Sequence[int], spacing_mm: Sequence[float]) -> Cases:
        """All renderings at the manifest's slices."""
        return rendered_cases(
            self.name, "rendered", folder, self.renderings, self.positions_mm, stack, matrix, spacing_mm
        )

    def blocks(self, folder: Path, stack: Stack, matrix: Sequence[int], spacing_mm: Sequence[float]) -> Iterator[Cases]:
        """The first rendering of each of `block_heads`: neighbouring slices at the prior's slice spacing."""
        positions = [self.block_mm + i * spacing_mm[2] for i in range(self.block_slices)]
        for head in self.block_heads:
            first = next(r for r in self.renderings if r[0] == head)
            name = f"{self.name} block {head}"
            yield rendered_cases(name, "block", folder, [first], positions, stack, matrix, spacing_mm)

    def subjects(
        self, folder: Path, stack: Stack, matrix: Sequence[int], spacing_mm: Sequence[float]
    ) -> Iterator[Cases]:
        """The real subjects, one by one. Raises Any2allError for one that the split does not have."""
        splits = DataSplits(folder, self.split)
        entries = dict(zip(splits.names("real_mr"), splits.real_stacks(stack), strict=True))
        for name in self.real:
            if name not in entries:
                message = f"no such subject in the split {self.split}"
                raise Any2allError(message, key="manifest", value=name, allowed=list(entries))
            mask = next((folder / "real_mr" / name).glob(f"*{LESION}*.nii.gz"), None)
            yield real_cases(name, entries[name], mask, stack, matrix, spacing_mm, self.real_slices)


def rendered_cases(
    name: str,
    kind: Kind,
    folder: Path,
    renderings: Sequence[tuple[str, int]],
    positions_mm: Sequence[float],
    stack: Stack,
    matrix: Sequence[int],
    spacing_mm: Sequence[float],
) -> Cases:
    """Rendered slices; every seed is another contrast, pose, set of lesions and amyloid status of its head."""
    grid = RenderGrid(tuple(matrix), tuple(spacing_mm[:2]), tuple(positions_mm), spacing_mm[2])
    images, labels, groups, facts = [], [], [], {}
    for head, seed in renderings:
        anatomy = load_head_labels(folder / "head_labels" / f"{head}.nii.gz")
        parameters = draw_parameters(seed)
        rendering = render(anatomy, parameters, grid, stack)
        images.append(_in_u(rendering, stack))
        labels.append(rendering.labels.cpu().numpy())
        group = f"{head}/{seed}"
        groups += [group] * len(positions_mm)
        facts[group] = {
            "amyloid_positive": parameters.amyloid_positive,
            "skull_stripped": parameters.skull_stripped,
            "cortex_suvr": _cortex_of_both_states(anatomy, parameters, grid, stack, labels[-1]),
        }
    codes = np.concatenate(labels)
    return Cases(name, kind, torch.cat(images), stack.names, tuple(groups), codes > 0, codes, None, facts)


def _cortex_of_both_states(
    anatomy: HeadLabels, parameters: HeadParameters, grid: RenderGrid, stack: Stack, labels: np.ndarray
) -> tuple[float, float] | None:
    """Cortical SUVr of this head amyloid negative and positive, all else equal; None where it shows no cortex."""
    if "PET" not in stack.names:
        return None
    pair = Stack(modalities=(stack.modalities[0], stack["PET"]))
    twins = np.stack(
        [
            _in_u(render(anatomy, replace(parameters, amyloid_positive=state), grid, pair), pair)[:, 1].numpy()
            for state in (False, True)
        ]
    )
    found = cortical_suvr(twins, twins[0], stack["PET"].normalisation, labels, [0] * len(labels), {0: False})
    return (found[0].samples[0], found[0].samples[1]) if found else None


def _in_u(rendering: Rendering, stack: Stack) -> Tensor:
    """Images (Z, M, H, W) in u; the scale of an MR image is that of its whole rendering."""
    head = (rendering.labels > 0).cpu().numpy()
    channels = []
    for m, modality in enumerate(stack.modalities):
        image = rendering.images[:, m].cpu()
        scale = scale_of(image.numpy(), head, modality.normalisation)
        channels.append(to_u(image, modality.normalisation, scale))
    return torch.stack(channels, dim=1)


def real_cases(
    name: str,
    entry: Mapping[str, str],
    lesion_file: Path | None,
    stack: Stack,
    matrix: Sequence[int],
    spacing_mm: Sequence[float],
    slices: int,
) -> Cases:
    """Slices of a real, co-registered subject, evenly through its head, resampled to the prior's grid."""
    volumes = {modality: canonical(read_volume(file, modality)) for modality, file in entry.items()}
    grid = prior_grid(next(iter(volumes.values())).grid, tuple(spacing_mm), tuple(matrix))
    image = torch.zeros(grid.shape[0], len(stack), *grid.shape[1:])
    inside = np.zeros(grid.shape, bool)
    for modality, volume in volumes.items():
        normalisation, mask = stack[modality].normalisation, head_mask(volume.data)
        u = to_u(volume.data, normalisation, scale_of(volume.data, mask, normalisation)).astype(np.float32)
        image[:, stack.index(modality)] = torch.from_numpy(resample(Volume(u, volume.grid), grid).data)
        inside |= _share(mask, volume, grid) > 0.5
    lesions = None
    if lesion_file is not None:
        mask = canonical(read_volume(lesion_file, LESION))
        lesions = _share(mask.data > 0.5, mask, grid) > 0.5
    filled = np.flatnonzero(inside.mean(axis=(1, 2)) > LEAST_HEAD)
    keep = filled[np.linspace(0, len(filled) - 1, min(slices, len(filled))).round().astype(int)]
    cut = [centre_fit(torch.as_tensor(part[keep]), matrix, 0.0) for part in (image, inside.astype(np.float32))]
    marked = None if lesions is None else centre_fit(torch.as_tensor(lesions[keep].astype(np.float32)), matrix, 0.0)
    return Cases(
        name,
        "real",
        cut[0],
        tuple(n for n in stack.names if n in volumes),
        (name,) * len(keep),
        cut[1].numpy() > 0.5,
        None,
        None if marked is None else marked.numpy() > 0.5,
        {name: {"real": True}},
    )


def _share(mask: np.ndarray, volume: Volume, grid: Grid) -> np.ndarray:
    return resample(Volume(mask.astype(np.float32), volume.grid), grid).data
