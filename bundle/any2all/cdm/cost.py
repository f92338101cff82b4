"""How long CDM takes on this device: one small batch timed."""

from __future__ import annotations

import time
from collections.abc import Collection

import torch

from .predictor import CDM

MOST_ROWS = 4  # that are timed


def expected_seconds(cdm: CDM, matrix: tuple[int, int], available: Collection[int], rows: int, times: int = 1) -> float:
    """Seconds that ``rows`` (slice of a sample) should take.

    The given images of a slice are encoded once for all its samples; here every row is charged for that, so several
    samples end a little earlier.

    Args:
        cdm: what will run.
        matrix: (H, W) of the slices.
        available: channels that are given as images.
        rows: slices times samples.
        times: batches that are timed; the fastest counts.
    """
    images = torch.full((min(rows, MOST_ROWS), len(cdm.stack), *matrix), -1.0)
    cdm.predict(images, available)  # sets up kernels
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        cdm.predict(images, available)  # its result is on the CPU: a GPU has finished
        spent.append(time.perf_counter() - started)
    return min(spent) / len(images) * rows


def seconds_per_slice(cdm: CDM) -> float:
    """Seconds of one sample of a slice of the training grid from the first image of the stack, all others missing."""
    return expected_seconds(cdm, cdm.card.matrix, (0,), MOST_ROWS, times=3) / MOST_ROWS
