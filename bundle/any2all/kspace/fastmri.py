"""fastMRI's HDF5 files (Zbontar et al., 2018, arXiv 1811.08839): k-space on its encoded grid, the readout along H."""

from __future__ import annotations

import h5py

from ..errors import Any2allError
from .hdf5 import array_of, text_of
from .header import parse_header
from .raw import Contents


def read_fastmri(file: h5py.File, key: str) -> Contents:
    """``kspace`` (slices, coils, H, W), or (slices, H, W) of one coil; ``mask`` (W,) in files of undersampled data.

    Columns beyond the encoding limits are zero in these files. The header says how large a voxel is, not where it
    lies; readout oversampling is the ratio of the encoded to the reconstructed field of view.

    Raises:
        Any2allError: for a header that cannot be used, and for k-space of another size than it says.
    """
    kspace = array_of(file, "kspace", key)
    header = parse_header(text_of(file, "ismrmrd_header", key), key)
    if kspace.ndim == 3:
        kspace = kspace[:, None]
    if kspace.ndim != 4 or kspace.shape[-2:] != header.encoded_matrix[:2]:
        raise Any2allError(
            "k-space does not have the matrix that its header says",
            key=key,
            value=kspace.shape,
            allowed=f"(slices, coils, {header.encoded_matrix[0]}, {header.encoded_matrix[1]})",
        )
    arrays = {"kspace": kspace, "voxel_size_mm": list(header.spacing_mm)}
    mask = array_of(file, "mask", key)
    if mask is not None:
        arrays["mask"] = mask
    return Contents(arrays, ["read as fastMRI data"], header.kept_rows(kspace.shape[2]))
