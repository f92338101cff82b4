"""The readouts of an ISMRMRD file: which there are, and their samples, a block of the file at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np

from ..errors import Any2allError

_BLOCK = 64  # readouts in memory at once; a damaged file may give each of them the length of the file


@dataclass(frozen=True)
class Lines:
    """The readouts that make up k-space: heads of the file, and which record each is.

    ``calibration`` says of each whether it is a calibration line alone, which an imaging line wins over.
    """

    heads: np.ndarray
    records: np.ndarray
    calibration: np.ndarray

    def counter(self, name: str) -> np.ndarray:
        return self.heads["idx"][name].astype(np.int64)

    def slices(self) -> tuple[np.ndarray, np.ndarray]:
        """The first line of every slice, ordered along ``slice_dir`` (or as counted), and each line's slice ``z``.

        Counters may follow the interleaved order in which slices were acquired.
        """
        _, first, number = np.unique(self.counter("slice"), return_index=True, return_inverse=True)
        heads = self.heads[first]
        height = heads["position"].astype(np.float64) @ heads[0]["slice_dir"].astype(np.float64)
        order = np.argsort(height, kind="stable")
        return first[order], np.argsort(order)[number]

    def partition(self, partitions: int) -> np.ndarray:
        """The counter of the second encoding; of one partition, how far it strays from its slice's first."""
        steps = self.counter("kspace_encode_step_2")
        first, z = self.slices()
        return steps if partitions > 1 else steps - steps[first][z]


def records_of(data: h5py.Dataset, records: np.ndarray, fields: tuple[str, ...]) -> Iterator[tuple[int, np.void]]:
    """Number in ``records`` and the named fields of every readout, a block of the file at a time."""
    for start in range(0, data.size, _BLOCK):
        chosen = np.flatnonzero((records >= start) & (records < start + _BLOCK))
        if not chosen.size:
            continue
        block = data.fields(list(fields))[start : start + _BLOCK]
        for i in chosen:
            yield int(i), block[records[i] - start]


def samples_of(record: np.void, coils: int, number: int, key: str) -> np.ndarray:
    """The samples (coils, N) of a readout; ``number`` names it in errors."""
    numbers, length = np.asarray(record["data"]), int(record["head"]["number_of_samples"])
    if numbers.dtype != np.float32 or numbers.size != 2 * coils * length or length == 0:
        raise Any2allError(
            "a readout does not hold the samples that its head says",
            key=key,
            value=f"readout {number}: {numbers.size} numbers",
            allowed=f"2 x {coils} coils x {length} samples",
        )
    return numbers.view(np.complex64).reshape(coils, length)


def readouts(data: h5py.Dataset, records: np.ndarray, coils: int, key: str) -> Iterator[tuple[int, np.ndarray]]:
    """Number in ``records`` and samples (coils, N) of every readout; trajectories, of any length, are not read."""
    for i, record in records_of(data, records, ("head", "data")):
        yield i, samples_of(record, coils, int(records[i]), key)
