"""Which heads and scans the released prior learns from: the splits of the project's data folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Any2allError
from ..phantom.dataset import to_prior_range
from ..phantom.labels import load_head_labels
from ..phantom.parameters import draw_parameters
from ..phantom.render import RenderGrid, render
from ..stack import Stack

DATA_VARIABLE = "ANY2ALL_DATA"
DEFAULT_DATA = Path("../shared/data")


def data_folder(required: bool = True) -> Path | None:
    """The folder of label maps and scans: the environment variable ANY2ALL_DATA, else ``../shared/data``."""
    folder = Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA))
    if (folder / "splits.json").is_file():
        return folder
    if required:
        raise Any2allError("data folder not found", key=DATA_VARIABLE, value=str(folder), hint="it holds splits.json")
    return None


@dataclass(frozen=True)
class DataSplits:
    """Files of one split of the data folder."""

    folder: Path
    split: str

    def _names(self, group: str) -> list[str]:
        return json.loads((self.folder / "splits.json").read_text())[group][self.split]

    @property
    def head_labels(self) -> list[Path]:
        return [self.folder / "head_labels" / f"{name}.nii.gz" for name in self._names("head_labels")]

    @property
    def lesion_masks(self) -> Path | None:
        """Folder of MS lesion masks; all of them belong to training."""
        return self.folder / "lesion_masks" / "ms_mni" if self.split == "train" else None

    def real_stacks(self, stack: Stack) -> list[dict[str, str]]:
        """One datalist entry per real subject: modality → file."""
        entries = []
        for name in self._names("real_mr"):
            files = {file: stack.match(file.name) for file in sorted((self.folder / "real_mr" / name).glob("*.nii.gz"))}
            entries.append({modality: str(file) for file, modality in files.items() if modality})
        return entries


def validation_slices(
    head_file: str | Path,
    stack: Stack,
    matrix: Sequence[int],
    spacing_mm: Sequence[float],
    slices: int = 6,
    seeds: Sequence[int] = (0,),
) -> Tensor:
    """Complete slices (len(seeds) * slices, M, H, W) in the prior range of a validation head, evenly through its brain.

    Each seed is another rendering of the head: contrast, lesions, pose and amyloid status are drawn anew.
    """
    head = load_head_labels(head_file)
    positions = tuple(torch.linspace(-36, 54, slices, dtype=torch.float64).tolist())
    grid = RenderGrid(tuple(matrix), tuple(spacing_mm[:2]), positions, spacing_mm[2])
    return torch.cat([to_prior_range(render(head, draw_parameters(seed), grid, stack), stack) for seed in seeds])
