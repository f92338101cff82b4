"""Which heads and scans a prior learns from: the project's data folder, a user's own datalist, or both."""

from __future__ import annotations

import hashlib
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
from .datasets import load_fitted_stack, read_datalist

DATA_VARIABLE = "ANY2ALL_DATA"
DEFAULT_DATA = Path("../shared/data")
HOLDS = "it holds splits.json"


def data_folder(required: bool = True) -> Path | None:
    """The folder of label maps and scans: the environment variable ANY2ALL_DATA, else ``../shared/data``."""
    folder = Path(os.environ.get(DATA_VARIABLE, DEFAULT_DATA))
    if (folder / "splits.json").is_file():
        return folder
    if required:
        raise Any2allError("data folder not found", key=DATA_VARIABLE, value=str(folder), hint=HOLDS)
    return None


@dataclass(frozen=True)
class DataSplits:
    """Files of one split of the data folder."""

    folder: Path
    split: str

    def names(self, group: str) -> list[str]:
        """Of the split's ``head_labels`` or ``real_mr``. Raises Any2allError where ``splits.json`` does not say."""
        file = self.folder / "splits.json"
        try:
            return [str(name) for name in json.loads(file.read_text(encoding="utf-8"))[group][self.split]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Any2allError(
                "splits.json cannot be read",
                key="dataset_dir",
                value=str(file),
                allowed=f'{{"{group}": {{"{self.split}": [names, …], …}}, …}}',
                hint=f"{type(error).__name__}: {error}",
            ) from error

    @property
    def head_labels(self) -> list[Path]:
        return [self.folder / "head_labels" / f"{name}.nii.gz" for name in self.names("head_labels")]

    @property
    def lesion_masks(self) -> Path | None:
        """Folder of MS lesion masks; all of them belong to training."""
        return self.folder / "lesion_masks" / "ms_mni" if self.split == "train" else None

    def real_stacks(self, stack: Stack) -> list[dict[str, str]]:
        """One datalist entry per real subject: modality → file."""
        entries = []
        for name in self.names("real_mr"):
            files = {file: stack.match(file.name) for file in sorted((self.folder / "real_mr" / name).glob("*.nii.gz"))}
            entries.append({modality: str(file) for file, modality in files.items() if modality})
        return entries


@dataclass(frozen=True)
class TrainingData:
    """Files to train on and to validate with; every part may be empty.

    Attributes:
        head_labels: label maps that are rendered.
        lesion_masks: folder of real lesion masks for the rendered heads.
        entries: real stacks, complete or not: modality → file.
        validation_entries: real stacks that are kept apart.
        validation_head: label map that is kept apart.
    """

    head_labels: list[Path]
    lesion_masks: Path | None
    entries: list[dict[str, str]]
    validation_entries: list[dict[str, str]]
    validation_head: Path | None

    @property
    def files(self) -> list[str]:
        """Every real image that is trained on."""
        return [file for entry in self.entries for file in entry.values()]

    @property
    def fingerprint(self) -> str:
        """Of what is trained on, by names and sizes and not by place: it stays on another machine."""
        trained_on = [Path(file) for file in (*self.head_labels, *self.files)]
        said = sorted(f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in trained_on)
        return hashlib.sha256("\n".join(said).encode()).hexdigest()


def training_data(
    dataset_dir: str | Path | None, datalist_file: str | Path | None, stack: Stack, complete_only: bool = False
) -> TrainingData:
    """What to train on: heads of the data folder, and the datalist's stacks (without one, the data folder's).

    Args:
        dataset_dir: the data folder, None where there is none.
        datalist_file: a user's own cohort, see `read_datalist`; sections ``training`` and ``validation``.
        stack: the stack.
        complete_only: leave out subjects that lack a modality, which the ``shared`` recipe cannot use.

    Raises:
        Any2allError: neither is given, the folder is none of this kind, or the datalist cannot be read.
    """
    if dataset_dir is None and datalist_file is None:
        data_folder(required=True)
    folder = None if dataset_dir is None else Path(str(dataset_dir))
    if folder is not None and not (folder / "splits.json").is_file():
        raise Any2allError("data folder not found", key="dataset_dir", value=str(folder), hint=HOLDS)
    train, held_out = (DataSplits(folder, split) if folder else None for split in ("train", "validation"))
    if datalist_file is not None:
        entries, validation = (read_datalist(datalist_file, section) for section in ("training", "validation"))
    else:
        entries, validation = train.real_stacks(stack), held_out.real_stacks(stack)
    if complete_only:
        entries = [entry for entry in entries if set(stack.names) <= set(entry)]
    return TrainingData(
        head_labels=train.head_labels if train else [],
        lesion_masks=train.lesion_masks if train else None,
        entries=entries,
        validation_entries=validation,
        validation_head=held_out.head_labels[0] if held_out else None,
    )


def validation_stacks(
    data: TrainingData, stack: Stack, matrix: Sequence[int], spacing_mm: Sequence[float], slices: int = 6
) -> Tensor | None:
    """Complete slices (B, M, H, W) that nothing is trained on; None where nobody has them.

    Of the validation head (two renderings) where there is one, else evenly through each complete validation subject.
    """
    if data.validation_head is not None:
        return validation_slices(data.validation_head, stack, matrix, spacing_mm, slices, (0, 1))
    complete = [entry for entry in data.validation_entries if set(stack.names) <= set(entry)]
    parts = []
    for entry in complete:
        image = load_fitted_stack(entry, stack, spacing_mm, matrix)["image"]
        parts.append(image[torch.linspace(0, len(image) - 1, min(slices, len(image))).long()])
    return torch.cat(parts) if parts else None


def validation_slices(
    head_file: str | Path,
    stack: Stack,
    matrix: Sequence[int],
    spacing_mm: Sequence[float],
    slices: int = 6,
    seeds: Sequence[int] = (0,),
    positions_mm: Sequence[float] | None = None,
) -> Tensor:
    """Complete slices (len(seeds) * slices, M, H, W) in the prior range of a validation head, evenly through its brain.

    Each seed is another rendering of the head: contrast, lesions, pose and amyloid status are drawn anew.
    ``positions_mm``: where else its slices lie, upward from the head's centre.
    """
    head = load_head_labels(head_file)
    evenly = torch.linspace(-36, 54, slices, dtype=torch.float64).tolist()
    positions = tuple(evenly if positions_mm is None else positions_mm)
    grid = RenderGrid(tuple(matrix), tuple(spacing_mm[:2]), positions, spacing_mm[2])
    return torch.cat([to_prior_range(render(head, draw_parameters(seed), grid, stack), stack) for seed in seeds])
