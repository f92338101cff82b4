"""BART's pairs of files (Uecker et al., ISMRM 2015): ``.hdr`` holds dimensions, ``.cfl`` complex64 in column order."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..errors import Any2allError
from .raw import check_size

READ, PHS1, PHS2, COIL, MAPS, SLICE = 0, 1, 2, 3, 4, 13
DIMENSIONS = 16
_MOST_HEADER_BYTES = 2**20


def read_cfl(path: Path, key: str) -> np.ndarray:
    """The array of a pair, complex64, as (slices, coils, H, W), or (1, coils, H, W, z) where it is 3-D.

    Args:
        path: the ``.cfl`` or the ``.hdr``; both lie together.
        key: the study key to name in errors.

    Returns:
        READ is H and PHS1 is W; where READ is 1 (a slice whose readout was transformed), PHS1 is H and PHS2 is W, or
        they are the samples and spokes of data that is not Cartesian.
        Of several sets of ESPIRiT maps the first is taken. A 3-D array (PHS2 above 1) is (1, coils, H, W, z).

    Raises:
        Any2allError: a part of the pair is missing, the sizes disagree, or dimensions are used that have no meaning
            here (echoes, times, averages, …).
    """
    sizes, array = _loaded(path, key)
    used = {READ, PHS1, PHS2, COIL, MAPS, SLICE}
    others = [f"dimension {i} is {n}" for i, n in enumerate(sizes) if n > 1 and i not in used]
    if others or sizes[READ] > 1 and sizes[PHS2] > 1 and sizes[SLICE] > 1:
        raise Any2allError(
            "this BART array has dimensions that are not used here",
            key=key,
            value=", ".join(others) or "both PHS2 and SLICE",
            allowed="READ, PHS1, COIL, and either PHS2 or SLICE",
        )
    array = array.transpose(SLICE, COIL, READ, PHS1, PHS2, MAPS, *(i for i in range(DIMENSIONS) if i not in used))
    array = array.reshape(array.shape[:6])[..., 0]  # (slice, coil, read, phs1, phs2)
    if array.shape[4] == 1:
        return array[..., 0]
    return array[:, :, 0] if array.shape[2] == 1 else array


def read_cfl_trajectory(path: Path, key: str) -> np.ndarray:
    """A trajectory as BART's ``traj`` writes it (kx, ky, kz; samples; spokes): float64 (spokes, samples, 3).

    BART's unit is cycles per field of view, and kx and ky belong to READ and PHS1 of the image, H and W here.
    """
    sizes, array = _loaded(path, key)
    if sizes[READ] != 3 or any(n > 1 for i, n in enumerate(sizes) if i not in (READ, PHS1, PHS2)) or array.imag.any():
        raise Any2allError(
            "this BART array is no trajectory",
            key=key,
            value=" x ".join(map(str, sizes)).removesuffix(" x 1" * 13),
            allowed="real 3 x samples x spokes, one trajectory for all slices",
        )
    return array.reshape(sizes[:3], order="F").real.transpose(2, 1, 0).astype(np.float64)


def _loaded(path: Path, key: str) -> tuple[tuple[int, ...], np.ndarray]:
    """The 16 sizes of a pair and its array."""
    sizes = dimensions(path.with_suffix(".hdr"), key)
    data = path.with_suffix(".cfl")
    if not data.is_file():
        raise Any2allError("the .cfl file that belongs to the .hdr is missing", key=key, value=data.name)
    count, held = math.prod(sizes), data.stat().st_size
    if held != 8 * count:
        raise Any2allError(
            "the .cfl file does not have the size that its .hdr says",
            key=key,
            value=f"{held} bytes",
            allowed=f"8 bytes for each of {' x '.join(map(str, sizes))} numbers",
        )
    return sizes, np.fromfile(data, "<c8", count).reshape(sizes, order="F")


def dimensions(path: Path, key: str) -> tuple[int, ...]:
    """The 16 sizes of a ``.hdr``: the line after ``# Dimensions``."""
    if not path.is_file():
        raise Any2allError("the .hdr file that belongs to the .cfl is missing", key=key, value=path.name)
    with path.open("rb") as stream:
        lines = stream.read(_MOST_HEADER_BYTES).decode("ascii", "replace").splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip().lower() == "# dimensions"), len(lines))
    words = lines[start + 1].split() if start + 1 < len(lines) else []
    plain = words and all(word.isascii() and word.isdigit() and len(word) < 10 for word in words)
    sizes = [int(word) for word in words] if plain else []
    if not sizes or min(sizes) < 1 or len(sizes) > DIMENSIONS:
        raise Any2allError(
            "the .hdr file holds no dimensions",
            key=key,
            value=path.name,
            allowed=f"a line '# Dimensions' and at most {DIMENSIONS} positive numbers below it",
        )
    check_size(math.prod(sizes), key)
    return (*sizes, *[1] * (DIMENSIONS - len(sizes)))
