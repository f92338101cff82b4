"""A server's results as files, and a job's surroundings, for the tests of the scene side."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import lib_path  # noqa: F401  (makes Any2allLib importable)
import numpy as np
from Any2allLib.protocol import ResultInfo, ServerInfo
from lib_servers import info_document
from tiny_module import oblique

STACK = ServerInfo.parse(info_document()).stack
SHAPE = (60, 60, 40)  # (I, J, K) of tiny_module.ball_volume


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """A float32 NIfTI-1 with an sform only, from (K, J, I): written here independently of the module's own code."""
    head = struct.pack("<i36x8h", 348, 3, *array.shape[::-1], 1, 1, 1, 1).ljust(70, b"\0")
    head += struct.pack("<hhh8f3f", 16, 32, 0, 1.0, 1, 1, 1, 0, 0, 0, 0, 352.0, 1.0, 0.0)
    head = head.ljust(254, b"\0") + struct.pack("<h24x12f", 1, *affine[:3].ravel())
    head = head.ljust(344, b"\0") + b"n+1\0\0\0\0\0"
    path.write_bytes(gzip.compress(head + array.astype("<f4").tobytes()))
    return path


def ball(centre_ras: tuple[float, float, float], inside: float, outside: float, affine: np.ndarray | None = None):
    """(K, J, I) on that grid: one value in a ball of 8 mm around a point of the patient, another elsewhere."""
    affine = oblique() if affine is None else affine
    k, j, i = np.meshgrid(*(np.arange(n) for n in SHAPE[::-1]), indexing="ij")
    ras = np.stack([i, j, k, np.ones_like(i)], -1) @ affine.T
    distance = np.linalg.norm(ras[..., :3] - np.array(centre_ras), axis=-1)
    return np.where(distance < 8, inside, outside).astype(np.float32)


def result(folder: Path, name: str, modality: str, role: str, array: np.ndarray, affine: np.ndarray | None = None):
    """Write one result as the client leaves it, and say what the server says of it."""
    file = write_nifti(folder / name.replace("/", "_"), array, oblique() if affine is None else affine)
    return ResultInfo(name, modality, role, hashlib.sha256(file.read_bytes()).hexdigest())


def sent(folder: Path, node) -> Path:
    """The file of a volume, as it is sent."""
    from Any2allLib.upload import write_volume

    write_volume(node, folder / "sent.nii.gz")
    return folder / "sent.nii.gz"


def facts(**changed):
    """How an imaginary run was made."""
    from Any2allLib.results import RunFacts

    known = {
        "sampler": "mcs",
        "steps": 10,
        "samples": 4,
        "seed": 7,
        "preset": "balanced",
        "prior_sha256": "ab" * 32,
        "prior_version": "0.2.0",
        "server": "http://127.0.0.1:8000",
        "inputs": {"T1": "MRBrainT1"},
        "software": "Any2all 0.2.0",
    }
    return RunFacts(**{**known, **changed})


def ct_run(folder: Path, centre: tuple[float, float, float] = (-20, 0, 0)) -> list[ResultInfo]:
    """CT with std and two samples: 80 ± 12 HU in the ball, -1000 ± 0 HU around it."""
    image, std = ball(centre, 80, -1000), ball(centre, 12, 0)
    return [
        result(folder, "CT.nii.gz", "CT", "mean", image),
        result(folder, "CT_std.nii.gz", "CT", "std", std),
        result(folder, "samples/CT_0.nii.gz", "CT", "sample", image + 1),
        result(folder, "samples/CT_1.nii.gz", "CT", "sample", image - 1),
    ]
