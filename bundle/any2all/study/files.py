"""Which file of a subject's folder is which modality, told by its name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..geometry.reading import ITK_SUFFIXES, NIFTI_SUFFIXES
from ..stack import Stack

IMAGE_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES
RESULTS = "any2all"  # results of a subject lie beside its files, in folders any2all-<label>


def files_by_modality(
    folder: Path, stack: Stack, suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> tuple[dict[str, list[Path]], list[Path]]:
    """Files at any depth by the modality that the stack's name patterns find in their names.

    Hidden files and folders, folders of results and linked folders are not looked into.

    Returns:
        Modality → its files, sorted; every modality of the stack has an entry, in stack order. And the files that
        are no modality of the stack.
    """
    found: dict[str, list[Path]] = {name: [] for name in stack.names}
    others = []
    for file in sorted(_visible_files(folder)):
        if file.name.lower().endswith(tuple(suffixes)):
            found.get(stack.match(file.name) or "", others).append(file)
    return found, others


def several_files(folder: Path, files: Sequence[Path]) -> str:
    """The words for two files of one modality."""
    names = ", ".join(file.relative_to(folder).as_posix() for file in files)
    return f"{len(files)} files for one modality: {names}"


def _visible_files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", f"{RESULTS}-"))]
        yield from (Path(where, name) for name in names if not name.startswith("."))
