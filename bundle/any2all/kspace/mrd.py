"""ISMRMRD acquisitions (Inati et al., 2017, doi:10.1002/mrm.26089) sorted into Cartesian k-space.

One record of the file is one readout with its own header: counters say which line it is, flags what it is for.
"""

from __future__ import annotations

import os

import h5py
import numpy as np

from ..errors import Any2allError
from .hdf5 import dataset_of, text_of
from .header import Header, parse_header
from .mrd_readouts import Lines, readouts
from .mrd_samples import NON_CARTESIAN, samples_along_trajectory
from .raw import Contents, check_size, sample_covariance

# Bits of a readout's flags, counted from 1 as ISMRMRD does.
NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE = 19, 20, 21, 22
NOT_IMAGING = (23, 24, 26, 27, 28, 29, 30, 31)  # navigators, phase correction, feedback, dummies, stabilisation
FIRST_OF = ("contrast", "phase", "repetition", "set")
_MOST_READOUTS = 2**21
_MOST_EMPTY = 128  # times more k-space than data: no scan is so undersampled


def read_mrd(file: h5py.File, group: str, key: str) -> Contents:
    """(slices, coils, H, W) with the readout along H; 3-D data as (1, coils, H, W, z); along spokes and spirals see
    `mrd_samples`.

    Rules: noise scans give the noise covariance; navigators, phase-correction and dummy lines are dropped; of several
    contrasts, phases, repetitions and sets the first is taken, with its own calibration lines where it has some;
    averages of a line are averaged; calibration lines that fit into k-space fill the places that imaging leaves
    empty. The counters' centres and ``center_sample`` place a line, so what asymmetric echoes and partial Fourier leave
    out, or a file fills up with zeros, stays empty.

    Raises:
        Any2allError: for a trajectory that is not read (EPI), and for lines that do not fit together.
    """
    header = parse_header(text_of(file, f"{group}/xml", key), key)
    if header.trajectory not in ("cartesian", *NON_CARTESIAN):
        raise Any2allError(
            "the trajectory of this raw data is not read",
            key=key,
            value=header.trajectory,
            allowed=("cartesian", *NON_CARTESIAN),
        )
    data = dataset_of(file, f"{group}/data", key)
    if data.ndim != 1 or not 0 < data.size <= _MOST_READOUTS or {"head", "data"} - set(data.dtype.names or ()):
        raise Any2allError("the file holds no ISMRMRD readouts", key=key, value=data.shape)
    heads = data.fields("head")[:]
    named = 8 * int((heads["number_of_samples"].astype(np.int64) * heads["active_channels"]).sum())
    if named > os.path.getsize(file.filename):  # samples of variable length are never compressed
        raise Any2allError("the file is shorter than its readouts", key=key, allowed=f"at least {named} bytes")
    notes = ["read as ISMRMRD data"]
    lines, noise = _sorted_out(heads, notes, key)
    _check_slices(lines, header, key)
    if header.trajectory == "cartesian":
        arrays = _filled(data, lines, header, notes, key)
        shape, kept_rows = arrays["kspace"].shape, header.kept_rows(header.encoded_matrix[0])
    else:
        arrays, shape = samples_along_trajectory(data, lines, header, notes, key)
        kept_rows = None
    if noise.size:
        arrays["noise_covariance"] = _noise_covariance(data, heads, noise, lines, header, key)
        arrays["noise_covariance"] /= arrays.pop("averages", 1)
        notes.append(f"noise covariance from {noise.size} noise scans")
    arrays.pop("averages", None)
    affine = _affine(lines, header, shape, notes, key)
    if affine is None:
        x, y, z = header.spacing_mm
        arrays["voxel_size_mm"] = [x, y, z]
    else:
        arrays["affine"] = affine
    return Contents(arrays, notes, kept_rows, header.trajectory == "cartesian" and len(shape) == 5)


def _flagged(heads: np.ndarray, *bits: int) -> np.ndarray:
    return (heads["flags"] & np.uint64(sum(1 << (bit - 1) for bit in bits))) != 0


def _sorted_out(heads: np.ndarray, notes: list[str], key: str) -> tuple[Lines, np.ndarray]:
    """The lines of k-space, and the records of noise scans."""
    noise = _flagged(heads, NOISE)
    dropped = ~noise & (_flagged(heads, *NOT_IMAGING) | (heads["encoding_space_ref"] != 0))
    calibration = ~noise & ~dropped & _flagged(heads, CALIBRATION) & ~_flagged(heads, CALIBRATION_AND_IMAGING)
    imaging = ~noise & ~dropped & ~calibration
    if dropped.any():
        notes.append(f"{int(dropped.sum())} navigation, correction or other lines were dropped")
    for name in FIRST_OF:
        values = np.unique(heads["idx"][name][imaging])
        if values.size > 1:
            notes.append(f"the first of {values.size} {name}s was taken")
            chosen = heads["idx"][name] == values[0]
            imaging &= chosen
            if (calibration & chosen).any():
                calibration &= chosen
    if not imaging.any():
        raise Any2allError("the file holds no imaging lines", key=key, value=f"{heads.size} readouts")
    first = heads[imaging][0]
    alike = [heads[name] == first[name] for name in ("active_channels", "number_of_samples", "center_sample")]
    fitting = calibration & np.logical_and.reduce(alike)
    if fitting.any():
        notes.append(f"{int(fitting.sum())} calibration lines were used")
    if (calibration & ~fitting).any():
        notes.append(f"{int((calibration & ~fitting).sum())} calibration lines of another resolution were dropped")
    if (heads["active_channels"][imaging] != first["active_channels"]).any() or first["active_channels"] == 0:
        raise Any2allError("the number of coils changes from line to line", key=key)
    records = np.flatnonzero(imaging | fitting)
    return Lines(heads[records], records, fitting[records]), np.flatnonzero(noise)


def _check_slices(lines: Lines, header: Header, key: str) -> None:
    """Refuse lines that are counted as one slice and lie in several: they would be averaged."""
    first, z = lines.slices()
    normal = lines.heads["slice_dir"][first].astype(np.float64)[z]
    apart = lines.heads["position"].astype(np.float64) - lines.heads["position"][first].astype(np.float64)[z]
    farthest = float(np.abs((apart * normal).sum(axis=1)).max())
    if farthest > header.spacing_mm[2] / 2:
        raise Any2allError(
            "lines that are counted as one slice lie in several places",
            key=key,
            value=f"up to {farthest:.3g} mm apart",
            allowed="a slice counter (idx.slice) of its own for each slice",
        )


def _filled(data: h5py.Dataset, lines: Lines, header: Header, notes: list[str], key: str) -> dict[str, np.ndarray]:
    """``kspace`` and ``sampled`` with every line in its place, and the least number of ``averages`` of a line."""
    rows, columns, partitions = header.encoded_matrix
    coils = int(lines.heads["active_channels"][0])
    slices, z = lines.slices()
    size = slices.size * coils * rows * columns * partitions
    check_size(size, key)
    held = int(lines.heads["number_of_samples"].astype(np.int64).sum()) * coils
    if size > _MOST_EMPTY * max(held, 1):
        raise Any2allError(
            "the header's matrix is much larger than what was measured",
            key=key,
            value=header.encoded_matrix,
            allowed=f"at most {_MOST_EMPTY} times the samples of the file",
        )
    if partitions > 1 and slices.size > 1:
        raise Any2allError("several slabs of 3-D data are not read", key=key, value=f"{slices.size} slabs", allowed=1)
    w = _place(lines.counter("kspace_encode_step_1"), header.centres[0], columns, "encoding step 1", key)
    d = _place(lines.partition(partitions), header.centres[1], partitions, "encoding step 2", key)
    kspace = np.zeros((slices.size, coils, rows, columns, partitions), np.complex64)
    counts = np.zeros((slices.size, rows, columns, partitions), np.int32)
    imaged = np.zeros((slices.size, columns, partitions), bool)
    imaged[z[~lines.calibration], w[~lines.calibration], d[~lines.calibration]] = True
    for i, samples in readouts(data, lines.records, coils, key):
        if lines.calibration[i] and imaged[z[i], w[i], d[i]]:
            continue
        start, samples = _placed_readout(lines.heads[i], samples, rows, key)
        stop = start + samples.shape[1]
        kspace[z[i], :, start:stop, w[i], d[i]] += samples
        counts[z[i], start:stop, w[i], d[i]] += 1
    kspace /= np.maximum(counts, 1)[:, None]
    averages = counts[counts > 0]
    if averages.size and averages.max() > 1:
        notes.append(f"up to {int(averages.max())} averages of a line were averaged")
    filled = (kspace != 0).any(axis=(0, 1))
    empty = (counts.any(axis=0) & ~filled).sum() / max(counts.any(axis=0).sum(), 1)
    if empty:
        notes.append(f"{empty:.1%} of the samples hold zeros in all slices and coils and count as not measured")
    sampled, least = (counts > 0) & filled, int(averages.min()) if averages.size else 1
    if partitions == 1:
        kspace, sampled = kspace[..., 0], sampled[..., 0]
    return {"kspace": kspace, "sampled": sampled, "averages": least}


def _place(counter: np.ndarray, centre: int | None, size: int, what: str, key: str) -> np.ndarray:
    """Indices on a centred axis of ``size``: the counter's centre lies at ``size // 2``; a single step is any one."""
    centre = size // 2 if centre is None else centre
    index = counter - (counter.min() if size == 1 else centre) + size // 2
    if index.min() < 0 or index.max() >= size:
        raise Any2allError(
            f"lines lie outside of the encoded matrix: {what}",
            key=key,
            value=f"{counter.min()} to {counter.max()} about {centre}",
            allowed=f"{size} lines",
        )
    return index


def _placed_readout(head: np.void, samples: np.ndarray, rows: int, key: str) -> tuple[int, np.ndarray]:
    """First row and samples of a readout: its ``center_sample`` lies on row ``rows // 2``."""
    count, centre = samples.shape[1], int(head["center_sample"])
    first, last = int(head["discard_pre"]), count - int(head["discard_post"])
    if centre == 0 and count == rows:  # a writer that leaves it out
        centre = count // 2
    if int(head["flags"]) & 1 << (REVERSE - 1):
        samples, centre, first, last = samples[:, ::-1], count - 1 - centre, count - last, count - first
    start = rows // 2 - centre + first
    if not first < last or start < 0 or start + last - first > rows:
        raise Any2allError(
            "a readout does not fit into the encoded matrix",
            key=key,
            value=f"{count} samples about sample {centre}",
            allowed=f"{rows} samples about sample {rows // 2}",
        )
    return start, samples[:, first:last]


def _noise_covariance(
    data: h5py.Dataset, heads: np.ndarray, noise: np.ndarray, lines: Lines, header: Header, key: str
) -> np.ndarray:
    """E[n n^H] of one imaging sample: noise power goes with bandwidth, the inverse of the dwell time."""
    coils = int(lines.heads["active_channels"][0])
    samples = np.concatenate([s for _, s in readouts(data, noise, coils, key)], axis=1)
    scan_us, line_us = float(heads["sample_time_us"][noise[0]]), float(lines.heads["sample_time_us"][0])
    known = scan_us > 0 and line_us > 0 and header.noise_bandwidth > 0
    return sample_covariance(samples) * (scan_us / (line_us * header.noise_bandwidth) if known else 1.0)


def _affine(lines: Lines, header: Header, shape: tuple[int, ...], notes: list[str], key: str) -> np.ndarray | None:
    """RAS mm of the indices (slice, H, W), for 3-D data of (z, H, W); None where the heads say nothing.

    Heads hold LPS directions, and the position of the field of view's centre, which index N // 2 of each axis is.
    """
    slices, _ = lines.slices()
    heads = lines.heads[slices]
    names = ("slice_dir", "read_dir", "phase_dir")
    directions = np.stack([heads[0][name].astype(np.float64) for name in names], axis=1)
    positions = heads["position"].astype(np.float64)
    together = slices.size > 1 and np.ptp(positions, axis=0).max() < 1e-3
    if together or np.abs(directions.T @ directions - np.eye(3)).max() > 1e-2:
        notes.append("the readouts say nothing of where the slices lie")
        return None
    x, y, z = header.spacing_mm
    step, origin = directions[:, 0] * z, positions[0]
    partitions = shape[4] if len(shape) == 5 else 1
    if partitions > 1:
        origin = origin - step * (partitions // 2)
    elif slices.size > 1:
        step = (positions[-1] - positions[0]) / (slices.size - 1)
        expected = positions[0] + step * np.arange(slices.size)[:, None]
        if np.abs(positions - expected).max() > 0.05 * np.linalg.norm(step):
            raise Any2allError(
                "the slices do not lie at equal distances",
                key=key,
                value=f"{slices.size} slices",
                allowed="parallel slices, evenly spaced",
            )
    affine = np.eye(4)
    affine[:3, :3] = np.stack([step, directions[:, 1] * x, directions[:, 2] * y], axis=1)
    affine[:3, 3] = origin - affine[:3, 1] * (shape[2] // 2) - affine[:3, 2] * (shape[3] // 2)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
