"""The shared head phantom as DICOM series, axial."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_builders import AXIAL, FLAIR, MPRAGE, classic, write_all

PROTOCOLS = {"T1": MPRAGE, "T2FLAIR": FLAIR}


def head_series(
    phantoms: Path, folder: Path, names: tuple[str, ...] = ("T1",), drop: dict[str, int] | None = None, **person: str
) -> None:
    """Write a patient's series of the phantom's files; ``drop``: modality → slice that is left out."""
    for number, name in enumerate(names, 1):
        image = np.asarray(nib.load(phantoms / f"{name}.nii.gz").dataobj)
        stored = np.rint(image[::-1, ::-1]).astype(np.uint16)  # from R, A, S to DICOM's L, P, S
        slices = classic("MR", stored, AXIAL, {**PROTOCOLS[name], "SeriesNumber": number}, **person)
        gone = (drop or {}).get(name)
        write_all([one for k, one in enumerate(slices) if k != gone], folder / name)
