"""The shared head phantom as DICOM series, axial."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from dicom_builders import AXIAL, CT, FLAIR, MPRAGE, classic, write_all

PROTOCOLS = {"T1": ("MR", MPRAGE), "T2FLAIR": ("MR", FLAIR), "CT": ("CT", CT)}
LOWEST_HU = -1024


def head_series(
    phantoms: Path,
    folder: Path,
    names: tuple[str, ...] = ("T1",),
    drop: dict[str, int] | None = None,
    places: Mapping[str, np.ndarray] | None = None,
    **person: str,
) -> None:
    """Write a patient's series of the phantom's files.

    Args:
        phantoms: folder of ``<modality>.nii.gz``, R A S, 4 x 4 x 6 mm.
        folder: a folder for each modality is made in it.
        names: modalities that become series.
        drop: modality → slice that is left out.
        places: modality → LPS affine in place of `AXIAL`, of a head that lay elsewhere.
        person: DICOM attributes of the patient.
    """
    for number, name in enumerate(names, 1):
        kind, tags = PROTOCOLS[name]
        lowest = LOWEST_HU if kind == "CT" else 0
        image = np.asarray(nib.load(phantoms / f"{name}.nii.gz").dataobj)
        stored = np.rint(image[::-1, ::-1] - lowest).astype(np.uint16)  # from R, A, S to DICOM's L, P, S
        rescale = (lambda _: (1.0, LOWEST_HU)) if kind == "CT" else None
        place = (places or {}).get(name, AXIAL)
        slices = classic(kind, stored, place, {**tags, "SeriesNumber": number}, rescale, **person)
        gone = (drop or {}).get(name)
        write_all([one for k, one in enumerate(slices) if k != gone], folder / name)
