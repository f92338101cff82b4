"""What a method made of a task on a set of cases, kept on disk so that any number of metrics can be taken from it."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import Any2allError
from .records import fingerprint

STEPS = 65535  # of u in [0, 1] in the file


@dataclass(frozen=True, eq=False)
class Prediction:
    """Samples of one method on one task.

    Attributes:
        cases, task, method: names.
        slices: which slices of the cases.
        passes: network passes for one sample of one slice (a vector–Jacobian product counts as one); 0: no network.
        seconds: of one sample of one slice.
        images: target → (K, Z, H, W) float32 in u, clipped to [0, 1].
        mark: fingerprint of everything that the images depend on.
    """

    cases: str
    task: str
    method: str
    slices: tuple[int, ...]
    passes: int
    seconds: float
    images: Mapping[str, np.ndarray]
    mark: str

    @property
    def samples(self) -> int:
        return len(next(iter(self.images.values())))


class PredictionFolder:
    """Predictions on disk, or in memory without a folder: what is there with the same mark is not made again."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._held: dict[tuple[str, str, str], Prediction] = {}

    def find(self, cases: str, task: str, method: str, mark: str) -> Prediction | None:
        """The prediction of these names, if it was made with the same settings."""
        held = self._held.get((cases, task, method))
        if held is None and self.folder is not None:
            held = self._read(self._file(cases, task, method))
        return held if held is not None and held.mark == mark else None

    def add(self, prediction: Prediction) -> None:
        """Keep this one in place of an older one of the same names.

        Raises Any2allError (code ``storage``) where the folder takes no file.
        """
        names = (prediction.cases, prediction.task, prediction.method)
        if self.folder is None:
            self._held[names] = prediction
            return
        file = self._file(*names)
        facts = {
            "cases": names[0],
            "task": names[1],
            "method": names[2],
            "slices": list(prediction.slices),
            "passes": prediction.passes,
            "seconds": prediction.seconds,
            "mark": prediction.mark,
        }
        packed = {f"u_{name}": np.rint(image * STEPS).astype(np.uint16) for name, image in prediction.images.items()}
        partial = file.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                np.savez_compressed(stream, facts=np.array(json.dumps(facts)), **packed)
            os.replace(partial, file)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            message = f"results cannot be kept: {error.strerror or error}"
            raise Any2allError(message, key="output_dir", value=str(self.folder), code="storage") from error

    def _file(self, cases: str, task: str, method: str) -> Path:
        return self.folder / f"{fingerprint(cases, task, method)}.npz"

    def _read(self, file: Path) -> Prediction | None:
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                images = {k[2:]: stored[k].astype(np.float32) / STEPS for k in stored.files if k.startswith("u_")}
            return Prediction(**{**facts, "slices": tuple(facts["slices"])}, images=images)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise Any2allError(
                "this is no file of earlier results", key="output_dir", value=str(file), hint="remove or move it"
            ) from error
