"""ISMRMRD acquisitions along spokes and spirals: every readout carries its trajectory."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import sigpy

from ..errors import Any2allError
from .header import Header
from .mrd_readouts import Lines, records_of, samples_of
from .raw import check_size

NON_CARTESIAN = ("radial", "goldenangle", "spiral")
_SAME_POINT = 1e-3  # cycles per field of view
_PIXEL_UNITS = 0.5 + 1e-3


def samples_along_trajectory(
    data: h5py.Dataset, lines: Lines, header: Header, notes: list[str], key: str
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """``kspace`` (slices, coils, N), ``trajectory`` (N, 2) and ``matrix``, and the shape that the geometry goes by.

    The encoded matrix spans the encoded field of view. ISMRMRD does not fix the trajectory's unit: where no number is
    above 0.5 it is cycles per pixel, else cycles per field of view. All slices share one trajectory. A stack of stars
    (or of spirals: equal trajectories on every step of the second encoding) becomes slices by a Fourier transform.

    Raises:
        Any2allError: for readouts without a trajectory, 3-D trajectories, and slices that are not sampled alike.
    """
    rows, columns, partitions = header.encoded_matrix
    slices, z = lines.slices()
    steps = lines.partition(partitions)
    if partitions > 1:
        _check_slab(slices.size, steps, partitions, header.centres[1], key)
        place = steps - (partitions // 2 if header.centres[1] is None else header.centres[1]) + partitions // 2
    else:
        _check_single(steps[~lines.calibration], key)
        place = z
    kept = ~lines.calibration
    paths, samples = _by_slice(data, lines, kept, place, key)
    check_size(sum(part.size for parts in samples.values() for part in parts), key)
    path = _common_path(paths, max(partitions, slices.size), key)
    kspace = np.stack([np.concatenate(samples[n], axis=1) for n in sorted(samples)])
    if np.abs(path).max() <= _PIXEL_UNITS:
        path = path * np.array([rows, columns, 1][: path.shape[1]])
        notes.append("the trajectory was taken as cycles per pixel")
    if partitions > 1:
        kspace = sigpy.ifft(kspace, axes=(0,))
        notes.append("a stack, taken apart into slices along its second encoding")
    shape = (slices.size, kspace.shape[1], rows, columns, *((partitions,) if partitions > 1 else ()))
    return {"kspace": kspace, "trajectory": path, "matrix": [rows, columns]}, shape


def _by_slice(
    data: h5py.Dataset, lines: Lines, kept: np.ndarray, place: np.ndarray, key: str
) -> tuple[dict[int, list[np.ndarray]], dict[int, list[np.ndarray]]]:
    """Trajectories (N, D) and samples (coils, N) of every readout, by slice in the order of the scan."""
    coils = int(lines.heads["active_channels"][0])
    paths: dict[int, list[np.ndarray]] = {}
    samples: dict[int, list[np.ndarray]] = {}
    for i, record in records_of(data, lines.records, ("head", "data", "traj")):
        if not kept[i]:
            continue
        head, number = record["head"], int(lines.records[i])
        part, path = samples_of(record, coils, number, key), np.asarray(record["traj"])
        axes = int(head["trajectory_dimensions"])
        if axes not in (2, 3) or path.size != axes * part.shape[1]:
            raise Any2allError(
                "a readout has no trajectory that can be used",
                key=key,
                value=f"readout {number}: {path.size} numbers of {axes} dimensions",
                allowed=f"2 dimensions of {part.shape[1]} samples",
            )
        inside = slice(int(head["discard_pre"]), part.shape[1] - int(head["discard_post"]))
        paths.setdefault(int(place[i]), []).append(path.reshape(-1, axes)[inside].astype(np.float64))
        samples.setdefault(int(place[i]), []).append(part[:, inside])
    return paths, samples


def _common_path(paths: dict[int, list[np.ndarray]], slices: int, key: str) -> np.ndarray:
    """The one trajectory (N, D) of all slices."""
    joined = [np.concatenate(parts) for parts in paths.values() if len({part.shape[1] for part in parts}) == 1]
    alike = len(joined) == slices and all(
        path.shape == joined[0].shape and np.abs(path - joined[0]).max() <= _SAME_POINT for path in joined
    )
    if not alike or not joined[0].size or not np.isfinite(joined[0]).all():
        raise Any2allError(
            "the slices are not sampled along one trajectory",
            key=key,
            value=f"{len(joined)} of {slices} slices",
            allowed="the same readouts, in the same order, for every slice",
        )
    return joined[0]


def _check_single(steps: np.ndarray, key: str) -> None:
    """Refuse a stack whose header tells of one partition: its steps would count as one slice."""
    if np.ptp(steps) > 0:
        raise Any2allError(
            "lines lie outside of the encoded matrix: encoding step 2",
            key=key,
            value=f"{steps.min()} to {steps.max()}",
            allowed="1 step, as the header's matrix says",
        )


def _check_slab(slabs: int, steps: np.ndarray, partitions: int, centre: int | None, key: str) -> None:
    if slabs > 1:
        raise Any2allError("several slabs of 3-D data are not read", key=key, value=f"{slabs} slabs", allowed=1)
    first = (partitions // 2 if centre is None else centre) - partitions // 2
    if set(steps.tolist()) != set(range(first, first + partitions)):
        raise Any2allError(
            "a stack of trajectories has to be sampled on every step of its second encoding",
            key=key,
            value=f"{len(set(steps.tolist()))} of {partitions} steps",
        )
