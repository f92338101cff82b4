"""One output as NIfTI: float32, the reference's geometry, and its origin in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..errors import Any2allError
from ..geometry import Grid, Volume
from ..geometry.reading import NIFTI_SUFFIXES
from .summary import plain

WORDS = {"synthetic": "SYNTHETIC Any2all", "reconstructed": "RECONSTRUCTED Any2all"}
_DESCRIP_BYTES = 79
_COMMENT = 6
_GEOMETRY_FIELDS = (
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
)


def save_volume(path: Path, volume: Volume, origin: dict[str, Any], reference_file: Path | None = None) -> None:
    """Write one volume.

    Args:
        path: ``.nii.gz``.
        volume: on the reference grid.
        origin: goes into the header extension as JSON; needs ``role``, ``modality`` and ``statistic``.
        reference_file: a NIfTI whose qform and sform are taken over bit by bit where they describe this grid.

    Raises:
        Any2allError: a volume with NaN or infinite values.
    """
    if not np.isfinite(volume.data).all():
        raise Any2allError(
            "the result holds NaN or infinite values",
            key=f"outputs.{origin['modality']}",
            hint="an extreme noise_std or sampler setting of the study does this",
            code="failed",
        )
    image = nib.Nifti1Image(volume.data, None, _header(volume.grid, reference_file))
    words = f"{WORDS[origin['role']]} {origin['modality']} {origin['statistic']}"
    image.header["descrip"] = words.encode("ascii", "replace")[:_DESCRIP_BYTES]
    content = json.dumps({"any2all": plain(origin)}, allow_nan=False).encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, content))
    nib.save(image, path)


def read_provenance(path: str | Path) -> dict[str, Any] | None:
    """The origin that a volume carries in its header, or None for a file that is not ours."""
    for extension in nib.load(path).header.extensions:
        content = extension.get_content()
        content = content if isinstance(content, bytes) else str(content).encode()
        try:
            return json.loads(content.rstrip(b"\0"))["any2all"]
        except (ValueError, KeyError, TypeError):
            continue
    return None


def is_result(file: Path) -> bool:
    """Whether a file is a NIfTI that Any2all made, as its header says; an unreadable one is not."""
    if not file.name.lower().endswith(NIFTI_SUFFIXES) or not file.is_file():
        return False
    try:
        words = bytes(nib.load(file).header["descrip"])
        return words.startswith(tuple(word.encode() for word in WORDS.values())) or read_provenance(file) is not None
    except Exception:  # nibabel raises a dozen kinds on a broken file; reading it later says what is wrong with it
        return False


def _header(grid: Grid, reference_file: Path | None) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_data_dtype(np.float32)
    header.set_qform(grid.affine, code=1)
    header.set_sform(grid.affine, code=1)
    header.set_xyzt_units("mm")
    source = _nifti_header(reference_file)
    if source is not None and Grid(grid.shape, source.get_best_affine()).same_as(grid):
        for name in _GEOMETRY_FIELDS:
            header[name] = source[name]
        header["pixdim"][:4] = source["pixdim"][:4]
    return header


def _nifti_header(path: Path | None) -> nib.Nifti1Header | None:
    if path is None or not path.name.lower().endswith(NIFTI_SUFFIXES):
        return None
    return nib.load(path).header
