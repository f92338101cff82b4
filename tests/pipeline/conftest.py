"""A study folder that tests rewrite, and one call that runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from any2all.diffusion.prior import NetworkPrior
from any2all.output import Result
from any2all.pipeline import run_study
from any2all.run import Run

ONE_PASS = {"name": "mcs", "steps": 1, "samples": 1}
FIVE_PASSES = {"name": "mcs", "steps": 5, "samples": 1, "consistency": "calibrated"}


class Desk:
    """The small study on a desk: its folder, its document to edit, and ``run`` into the folder ``out``."""

    def __init__(self, folder: Path, prior: NetworkPrior) -> None:
        self.folder, self.prior, self.out = folder, prior, folder.parent / "out"
        self.document: dict[str, Any] = json.loads((folder / "study.json").read_text())
        self.document["sampler"] = dict(FIVE_PASSES)

    def only(self, sampler: dict[str, Any] | None = None, **modalities: dict[str, Any]) -> Desk:
        """Replace the modalities; outputs are then everything that is not available."""
        self.document["modalities"] = modalities
        self.document.pop("outputs", None)
        self.document["sampler"] = dict(sampler or FIVE_PASSES)
        return self

    def run(self, run: Run | None = None, overwrite: bool = False) -> Result:
        """`run_study` of the document as it stands."""
        (self.folder / "study.json").write_text(json.dumps(self.document))
        return run_study(self.folder / "study.json", self.prior, self.out, overwrite, run)

    def output(self, name: str) -> nib.Nifti1Image:
        return nib.load(self.out / f"{name}.nii.gz")

    def image(self, name: str) -> nib.Nifti1Image:
        return nib.load(self.folder / f"{name}.nii.gz")

    def rewrite(self, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Write an image anew with changed voxels; its geometry stays."""
        image = self.image(name)
        data = change(image.get_fdata()).astype(np.float32)
        nib.save(nib.Nifti1Image(data, image.affine), self.folder / f"{name}.nii.gz")

    @property
    def untouched(self) -> bool:
        """Nothing lies beside the study's folder."""
        return [p.name for p in self.folder.parent.iterdir()] == [self.folder.name]


@pytest.fixture
def desk(small_study: Path, tiny_prior: NetworkPrior) -> Desk:
    return Desk(small_study, tiny_prior)
