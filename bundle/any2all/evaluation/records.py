"""The scores of one prediction: one record for each set of cases, task, target and method."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..scores.metrics import ssim

if TYPE_CHECKING:
    from .predictions import Prediction

FORMAT = 2
IN_HEAD = ("mse_head", "ssim_head", "mse_mean_head", "ssim_mean_head")


@dataclass(frozen=True)
class Record:
    """Scores of one target, in u clipped to [0, 1], slice by slice.

    Attributes:
        cases, task, target, method: what was tried.
        measured: the target's k-space was given; else it is synthetic.
        passes: network passes for one sample of one slice (a vector–Jacobian product counts as one); 0: no network.
        samples: how many were drawn.
        seconds: of one sample of one slice.
        slices: which slices of the cases.
        groups: the rendering or subject of each.
        mse, ssim: of ONE sample, averaged over the samples.
        mse_mean, ssim_mean: of the mean of the samples.
        variance: of the samples (n - 1), mean over pixels; 0 of a single one.
        mse_head, ssim_head, mse_mean_head, ssim_mean_head: as above over the pixels inside the head; NaN in a slice
            without any, empty where the head is not known.
    """

    cases: str
    task: str
    target: str
    method: str
    measured: bool
    passes: int
    samples: int
    seconds: float
    slices: list[int]
    groups: list[str]
    mse: list[float]
    ssim: list[float]
    mse_mean: list[float]
    ssim_mean: list[float]
    variance: list[float]
    mse_head: list[float] = field(default_factory=list)
    ssim_head: list[float] = field(default_factory=list)
    mse_mean_head: list[float] = field(default_factory=list)
    ssim_mean_head: list[float] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        target: str,
        truth: np.ndarray,
        groups: Sequence[str],
        measured: bool,
        inside: np.ndarray | None = None,
    ) -> Record:
        """Score one target against the truth (Z, H, W) in u of ALL slices of the cases.

        ``groups`` and ``inside``, the head (Z, H, W), are of all slices likewise.
        """
        chosen = list(prediction.slices)
        images, true = prediction.images[target].astype(np.float64), np.clip(truth[chosen], 0, 1).astype(np.float64)
        mean = images.mean(axis=0)
        variance = images.var(axis=0, ddof=1) if len(images) > 1 else np.zeros_like(mean)
        return cls(
            prediction.cases,
            prediction.task,
            target,
            prediction.method,
            measured,
            prediction.passes,
            len(images),
            prediction.seconds,
            chosen,
            [groups[z] for z in chosen],
            ((images - true) ** 2).mean(axis=(0, 2, 3)).tolist(),
            [float(np.mean([ssim(i[z : z + 1], true[z : z + 1]) for i in images])) for z in range(len(true))],
            ((mean - true) ** 2).mean(axis=(1, 2)).tolist(),
            [ssim(mean[z : z + 1], true[z : z + 1]) for z in range(len(true))],
            variance.mean(axis=(1, 2)).tolist(),
            *([] if inside is None else _in_head(images, mean, true, inside[chosen])),
        )

    def on(self, slices: Sequence[int]) -> Record | None:
        """The same on some of its slices; None when it does not have them all."""
        if not set(slices) <= set(self.slices):
            return None
        keep = [self.slices.index(z) for z in slices]
        per_slice = ["slices", "groups", "mse", "ssim", "mse_mean", "ssim_mean", "variance"]
        per_slice += [name for name in IN_HEAD if getattr(self, name)]
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
    def psnr_head(self) -> float | None:
        """PSNR in dB of one sample inside the head, every slice of the same weight; None where none is known."""
        return _head_decibel(self.mse_head)

    @property
    def psnr_mean_head(self) -> float | None:
        """PSNR in dB of the mean of the samples inside the head."""
        return _head_decibel(self.mse_mean_head)

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
            "cases": self.cases,
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
            "psnr_head_db": _rounded(self.psnr_head, 3),
            "ssim_head": _rounded(_known_mean(self.ssim_head), 4),
            "psnr_mean_head_db": _rounded(self.psnr_mean_head, 3),
            "ssim_mean_head": _rounded(_known_mean(self.ssim_mean_head), 4),
            "spread_ratio": None if ratio is None else round(ratio, 3),
            "seconds_per_slice": round(self.seconds, 4),
        }


def _decibel(mse: Sequence[float]) -> float:
    error = float(np.mean(mse))
    return float("inf") if error == 0 else -10 * math.log10(error)


def _in_head(images: np.ndarray, mean: np.ndarray, true: np.ndarray, inside: np.ndarray) -> list[list[float]]:
    """The four lists of `IN_HEAD`, of samples (K, Z, H, W), their mean and the truth (Z, H, W)."""
    each = [[_slice_in_head(image[z], true[z], inside[z]) for image in images] for z in range(len(true))]
    one = np.array(each).reshape(len(true), len(images), 2).mean(axis=1)
    of_mean = np.array([_slice_in_head(mean[z], true[z], inside[z]) for z in range(len(true))]).reshape(-1, 2)
    return [one[:, 0].tolist(), one[:, 1].tolist(), of_mean[:, 0].tolist(), of_mean[:, 1].tolist()]


def _slice_in_head(image: np.ndarray, true: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    if not inside.any():
        return math.nan, math.nan
    return float(((image - true)[inside] ** 2).mean()), ssim(image[None], true[None], mask=inside[None])


def _known_mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else None


def _head_decibel(mse: Sequence[float]) -> float | None:
    mean = _known_mean(mse)
    return None if mean is None else _decibel([mean])


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def fingerprint(*parts: Any) -> str:
    """A short checksum of JSON-able settings."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True).encode()).hexdigest()[:16]


def write_csv(records: Sequence[Record], file: Path) -> None:
    """One line for each record."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(records[0].summary()) if records else ["cases"])
        writer.writeheader()
        writer.writerows(record.summary() for record in records)
