"""NIfTI-1 with nothing in it but voxels and geometry: what leaves Slicer, and what comes back.

Own code, because Slicer's writer puts a description and more into the header, and its reader straightens a grid that
is a little sheared. Layout: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h.
"""

from __future__ import annotations

import functools
import gzip
import json
import struct
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

HEADER_BYTES = 348
DESCRIP = 148  # where the header describes its image in 80 bytes
RESULTS = (b"SYNTHETIC Any2all", b"RECONSTRUCTED Any2all")
VOX_OFFSET = 352  # header, and four zero bytes: no extension
MILLIMETRES = 2
SCANNER = 1  # form code: coordinates of the scanner
CODES = {
    "uint8": 2,
    "int16": 4,
    "int32": 8,
    "float32": 16,
    "float64": 64,
    "int8": 256,
    "uint16": 512,
    "uint32": 768,
    "int64": 1024,
    "uint64": 1280,
}
NAMES = {code: name for name, code in CODES.items()}
MOST_VOXELS = 2**31
PIECE = 2**22  # bytes read at once: some 20 ms


def written(path: Path, array: np.ndarray, affine: np.ndarray) -> Iterator[float]:
    """Write ``.nii.gz`` slice by slice; yields the fraction that is done, and 1 once the file is whole.

    Given up or failed before that, it leaves no file.

    Args:
        path: the file; an existing one is replaced.
        array: (K, J, I), as Slicer holds it; types that NIfTI does not have become float32.
        affine: (4, 4), IJK to RAS in mm.
    """
    kind = np.dtype(array.dtype.name if array.dtype.name in CODES else "float32").newbyteorder("<")
    whole = False
    try:
        # an empty name and time 0: the gzip header tells neither
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as stream:
            stream.write(header(array.shape[::-1], kind, affine))
            for done, layer in enumerate(array):
                yield done / len(array)
                stream.write(np.ascontiguousarray(layer, kind).tobytes())
        whole = True
    finally:
        if not whole:
            path.unlink(missing_ok=True)
    yield 1.0


def header(shape: tuple[int, ...], kind: np.dtype, affine: np.ndarray) -> bytes:
    """352 bytes: a header for (I, J, K) voxels of that type, and no extension.

    The sform is ``affine``; the qform is its nearest rotation, for programs that read nothing else.
    """
    quaternion, zooms, handedness = decompose(affine)
    head = bytearray(VOX_OFFSET)
    struct.pack_into("<i", head, 0, HEADER_BYTES)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, CODES[kind.name], 8 * kind.itemsize)
    struct.pack_into("<8f", head, 76, handedness, *zooms, 0, 0, 0, 0)
    struct.pack_into("<ff", head, 108, VOX_OFFSET, 1.0)  # where voxels begin, and their slope
    struct.pack_into("<B", head, 123, MILLIMETRES)
    struct.pack_into("<hh", head, 252, SCANNER, SCANNER)
    struct.pack_into("<6f", head, 256, *quaternion, *affine[:3, 3])
    struct.pack_into("<12f", head, 280, *affine[:3].ravel())
    head[344:348] = b"n+1\0"
    return bytes(head)


def decompose(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(b, c, d) of the unit quaternion, voxel size in mm, and -1 for a left-handed grid, else 1."""
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / zooms
    handedness = 1.0 if np.linalg.det(directions) > 0 else -1.0
    left, _, right = np.linalg.svd(directions * [1, 1, handedness])
    rotation = left @ right
    # the eigenvector of this symmetric matrix (Bar-Itzhack 2000) is the quaternion, at every angle
    xx, xy, xz, yx, yy, yz, zx, zy, zz = rotation.ravel()
    symmetric = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    b, c, d, a = np.linalg.eigh(symmetric)[1][:, -1]
    return np.array([b, c, d]) * (1.0 if a >= 0 else -1.0), zooms, handedness


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The volume of a ``.nii`` or ``.nii.gz`` as (K, J, I), and IJK to RAS in mm, (4, 4).

    Raises:
        ValueError: in words; the file is broken, is no NIfTI-1, or holds no single volume with a position in space.
    """
    return exhaust(reading(path))


def reading(path: Path) -> Generator[None, None, tuple[np.ndarray, np.ndarray]]:
    """As `read`, in pieces; returns what `read` returns."""
    try:
        with _opened(path) as stream:
            head = stream.read(HEADER_BYTES)
            shape, kind, offset, slope, intercept, affine = _parse(head, path.name)
            stream.read(offset - HEADER_BYTES)
            content, size = bytearray(), int(np.prod(shape, dtype=float)) * kind.itemsize
            while True:
                piece = stream.read(PIECE)
                content += piece
                if not piece or len(content) > size:
                    break
                yield
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"the file '{path.name}' cannot be read ({error})") from None
    if len(content) != size:
        raise ValueError(f"the file '{path.name}' does not hold as many voxels as it says")
    array = np.frombuffer(content, kind).reshape(shape[::-1])
    array = array.astype(kind.newbyteorder("="), copy=False)
    return (array if (slope, intercept) == (1.0, 0.0) else (array * slope + intercept).astype("float32")), affine


def grid_of(path: Path) -> tuple[np.ndarray, tuple[int, ...]]:
    """IJK to RAS in mm (4, 4), and shape (I, J, K), of a ``.nii.gz``, from its header alone. Raises as `read` does."""
    try:
        with gzip.open(path, "rb") as stream:
            head = stream.read(HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"the file '{path.name}' cannot be read ({error})") from None
    shape, *_, affine = _parse(head, path.name)
    return affine, shape


def origin_of(path: Path) -> dict[str, Any]:
    """What a result says of its origin: the server writes it as JSON behind the header. Empty where nothing is said.

    Raises as `read` does.
    """
    try:
        with _opened(path) as stream:
            offset = _parse(stream.read(HEADER_BYTES), path.name)[2]
            behind = stream.read(offset - HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"the file '{path.name}' cannot be read ({error})") from None
    place = 4  # the first four bytes only say that there are extensions: length, code, content
    while place + 8 <= len(behind):
        size = struct.unpack_from("<i", behind, place)[0]
        if size < 8:
            break
        try:
            return dict(json.loads(behind[place + 8 : place + size].rstrip(b"\0"))["any2all"])
        except (ValueError, KeyError, TypeError, RecursionError):
            place += size
    return {}


def is_result(path: Path) -> bool:
    """Whether a NIfTI's header says that Any2all made it; a file that is none, or cannot be read, does not say so."""
    try:
        seen = path.stat()
        return path.name.lower().endswith((".nii", ".nii.gz")) and _says_any2all(path, seen.st_size, seen.st_mtime_ns)
    except (OSError, EOFError, zlib.error):
        return False


@functools.lru_cache(maxsize=256)
def _says_any2all(path: Path, size: int, mtime_ns: int) -> bool:
    """Of the file as it was at that time: its header is opened once."""
    with _opened(path) as stream:
        return stream.read(HEADER_BYTES)[DESCRIP : DESCRIP + 80].startswith(RESULTS)


def _opened(path: Path) -> IO[bytes]:
    return (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb")


def exhaust(pieces: Generator[Any, None, Any]) -> Any:
    """What a generator returns, when nobody waits for its pieces."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def _parse(head: bytes, name: str) -> tuple[tuple[int, ...], np.dtype, int, float, float, np.ndarray]:
    """Shape (I, J, K), type, offset, slope, intercept, affine."""
    order = next((o for o in "<>" if head[:4] == struct.pack(f"{o}i", HEADER_BYTES)), None)
    if order is None or len(head) < HEADER_BYTES or head[344:348] != b"n+1\0":
        raise ValueError(f"the file '{name}' is no NIfTI-1 volume")
    count, *sizes = struct.unpack_from(f"{order}8h", head, 40)
    shape = tuple(sizes[:3])
    one = 3 <= count <= 7 and all(n == 1 for n in sizes[3:count])
    if not one or min(shape) < 1 or np.prod(shape, dtype=float) > MOST_VOXELS:
        raise ValueError(f"the file '{name}' is not a single volume")
    code = struct.unpack_from(f"{order}h", head, 70)[0]
    offset, slope, intercept = struct.unpack_from(f"{order}3f", head, 108)
    if code not in NAMES or not HEADER_BYTES <= offset < 2**24:
        raise ValueError(f"the file '{name}' holds voxels of a type that is not known")
    slope, intercept = (slope, intercept) if slope else (1.0, 0.0)
    return shape, np.dtype(NAMES[code]).newbyteorder(order), int(offset), slope, intercept, _affine(head, order, name)


def _affine(head: bytes, order: str, name: str) -> np.ndarray:
    """The sform, else the qform."""
    affine = np.eye(4)
    qform, sform = struct.unpack_from(f"{order}hh", head, 252)
    if sform > 0:
        affine[:3] = np.reshape(struct.unpack_from(f"{order}12f", head, 280), (3, 4))
    elif qform > 0:
        handedness, *zooms = struct.unpack_from(f"{order}4f", head, 76)
        *quaternion, x, y, z = struct.unpack_from(f"{order}6f", head, 256)
        affine[:3, :3] = rotation_of(*quaternion) * zooms * [1, 1, -1 if handedness < 0 else 1]
        affine[:3, 3] = x, y, z
    if not (sform > 0 or qform > 0) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise ValueError(f"the file '{name}' does not say where its volume lies")
    return affine


def rotation_of(b: float, c: float, d: float) -> np.ndarray:
    """The rotation (3, 3) of the unit quaternion whose first part is what the other three leave."""
    a = max(0.0, 1 - b * b - c * c - d * d) ** 0.5
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
