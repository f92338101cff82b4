"""What a comparison measured: one record for each task, target and method, kept in a JSON file as it goes."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import Any2allError
from .metrics import ssim

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """Scores of one target, in u clipped to [0, 1], slice by slice.

    Attributes:
        task, target, method: what was tried.
        passes: network passes for one sample of one slice (a vector–Jacobian product counts as one); 0: no network.
        samples: how many were drawn.
        seconds: of one sample of one slice.
        slices: which slices of the set.
        mse, ssim: of ONE sample, averaged over the samples.
        mse_mean, ssim_mean: of the mean of the samples.
        variance: of the samples (n - 1), mean over pixels; 0 of a single one.
        fingerprint: of everything that the numbers depend on.
    """

    task: str
    target: str
    method: str
    passes: int
    samples: int
    seconds: float
    slices: list[int]
    mse: list[float]
    ssim: list[float]
    mse_mean: list[float]
    ssim_mean: list[float]
    variance: list[float]
    fingerprint: str

    @classmethod
    def of(
        cls, estimates: Tensor, truth: Tensor, slices: list[int], names: tuple[str, str, str], passes: int,
        seconds: float, fingerprint: str,
    ) -> Record:  # fmt: skip
        """Score samples (K, Z, H, W) against the truth (Z, H, W), both in u; names are task, target and method."""
        images, true = estimates.clamp(0, 1).double().numpy(), truth.clamp(0, 1).double().numpy()
        mean = images.mean(axis=0)
        variance = images.var(axis=0, ddof=1) if len(images) > 1 else np.zeros_like(mean)
        return cls(
            *names,
            passes,
            len(images),
            seconds,
            slices,
            ((images - true) ** 2).mean(axis=(0, 2, 3)).tolist(),
            [float(np.mean([ssim(i[z : z + 1], true[z : z + 1]) for i in images])) for z in range(len(true))],
            ((mean - true) ** 2).mean(axis=(1, 2)).tolist(),
            [ssim(mean[z : z + 1], true[z : z + 1]) for z in range(len(true))],
            variance.mean(axis=(1, 2)).tolist(),
            fingerprint,
        )

    def on(self, slices: Sequence[int]) -> Record | None:
        """The same on some of its slices; None when it does not have them all."""
        if not set(slices) <= set(self.slices):
            return None
        keep = [self.slices.index(z) for z in slices]
        per_slice = ("slices", "mse", "ssim", "mse_mean", "ssim_mean", "variance")
        return Record(**{**asdict(self), **{name: [getattr(self, name)[i] for i in keep] for name in per_slice}})

    @property
    def psnr(self) -> float:
        """PSNR in dB of one sample, data range 1 in u, over all pixels of the slices."""
        return _decibel(self.mse)

    @property
    def psnr_mean(self) -> float:
        """PSNR in dB of the mean of the samples."""
        return _decibel(self.mse_mean)

    @property
    def spread_ratio(self) -> float | None:
        """Std of the samples over the error of their mean (root mean squares).

        Samples of the exact posterior reach sqrt(K / (K + 1)), for the mean of K samples errs by (1 + 1/K) variances.
        """
        error = float(np.mean(self.mse_mean))
        return math.sqrt(float(np.mean(self.variance)) / error) if self.samples > 1 and error > 0 else None

    def summary(self) -> dict[str, Any]:
        """The numbers of the table, one line of the CSV."""
        ratio = self.spread_ratio
        return {
            "task": self.task,
            "target": self.target,
            "method": self.method,
            "passes": self.passes,
            "samples": self.samples,
            "slices": len(self.slices),
            "psnr_db": round(self.psnr, 3),
            "ssim": round(float(np.mean(self.ssim)), 4),
            "psnr_mean_db": round(self.psnr_mean, 3),
            "ssim_mean": round(float(np.mean(self.ssim_mean)), 4),
            "spread_ratio": None if ratio is None else round(ratio, 3),
            "seconds_per_slice": round(self.seconds, 4),
        }


def _decibel(mse: Sequence[float]) -> float:
    error = float(np.mean(mse))
    return float("inf") if error == 0 else -10 * math.log10(error)


def fingerprint(*parts: Any) -> str:
    """A short checksum of JSON-able settings."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True).encode()).hexdigest()[:16]


class RecordFile:
    """Records on disk, or in memory without a file: what is there with the same fingerprint is not measured again."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.records = self._read()

    def _read(self) -> list[Record]:
        if self.file is None or not self.file.is_file():
            return []
        try:
            document = json.loads(self.file.read_text(encoding="utf-8"))
            names = [f.name for f in fields(Record)]
            return [Record(**{name: entry[name] for name in names}) for entry in document["records"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Any2allError(
                "this is no file of earlier results", key="output_dir", value=str(self.file), hint="remove or move it"
            ) from error

    def find(self, task: str, target: str, method: str, mark: str) -> Record | None:
        """The record of this task, target and method if it was measured with the same settings."""
        same = (task, target, method, mark)
        return next((r for r in self.records if (r.task, r.target, r.method, r.fingerprint) == same), None)

    def add(self, records: Sequence[Record]) -> None:
        """Keep these, in place of older ones of the same names, and write the file."""
        names = {(r.task, r.target, r.method) for r in records}
        self.records = [r for r in self.records if (r.task, r.target, r.method) not in names] + list(records)
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps({"format": FORMAT, "records": [asdict(r) for r in self.records]}) + "\n")
        os.replace(partial, self.file)


def write_csv(records: Sequence[Record], file: Path) -> None:
    """One line for each record."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(records[0].summary()) if records else ["task"])
        writer.writeheader()
        writer.writerows(record.summary() for record in records)
