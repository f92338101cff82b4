"""HDF5 files told apart by what they hold; nothing is followed out of the file."""

from __future__ import annotations

from typing import Literal

import h5py
import numpy as np

from ..errors import Any2allError
from .header import MOST_HEADER_BYTES
from .raw import check_size

Kind = Literal["plain", "fastmri", "ismrmrd"]


def kind_of(file: h5py.File, key: str) -> tuple[Kind, str]:
    """The layout of a file, and the group that holds it ("" where that is the file itself).

    fastMRI has ``kspace`` beside ``ismrmrd_header``, ISMRMRD a group with ``data`` and ``xml`` (mostly ``dataset``);
    everything else is arrays by name.
    """
    if dataset_of(file, "kspace", key) is not None:
        return ("fastmri", "") if dataset_of(file, "ismrmrd_header", key) is not None else ("plain", "")
    for name in ("dataset", *file):
        if _is_hard(file, name) and isinstance(file[name], h5py.Group):
            if all(dataset_of(file, f"{name}/{part}", key) is not None for part in ("data", "xml")):
                return "ismrmrd", name
    return "plain", ""


def dataset_of(file: h5py.File, path: str, key: str) -> h5py.Dataset | None:
    """The dataset at ``path``, or None.

    Raises:
        Any2allError: where the path goes through a link, or the dataset is stored in another file.
    """
    here: h5py.Group | h5py.Dataset = file
    for name in path.split("/"):
        if not isinstance(here, h5py.Group) or not here.id.links.exists(name.encode()):
            return None
        if not _is_hard(here, name):
            raise Any2allError("the file refers to another place", key=key, value=path, allowed="data of its own")
        here = here[name]
    if not isinstance(here, h5py.Dataset):
        return None
    plan = here.id.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise Any2allError("the file keeps its data in another file", key=key, value=path, allowed="data of its own")
    return here


def array_of(file: h5py.File, path: str, key: str) -> np.ndarray | None:
    """The numbers of a dataset of bounded size, or None where there is no such dataset."""
    dataset = dataset_of(file, path, key)
    if dataset is None:
        return None
    check_size(dataset.size or 0, key)
    if dataset.dtype.kind == "V" and set(dataset.dtype.names or ()) == {"r", "i"}:
        raise ValueError("complex numbers are stored as a compound that h5py does not know")
    return np.asarray(dataset[()])


def text_of(file: h5py.File, path: str, key: str) -> bytes:
    """The bytes of a dataset of one text, as both fastMRI and ISMRMRD keep their header."""
    dataset = dataset_of(file, path, key)
    if dataset is None or dataset.size != 1 or dataset.dtype.itemsize > MOST_HEADER_BYTES:
        raise Any2allError("the file's header is no text", key=key, value=path, allowed="one text")
    value = np.asarray(dataset[()], dtype=object).ravel()[0]
    if not isinstance(value, (bytes, str)):
        raise Any2allError("the file's header is no text", key=key, value=path, allowed="one text")
    return value.encode() if isinstance(value, str) else value


def _is_hard(group: h5py.Group, name: str) -> bool:
    link = name.encode()
    return group.id.links.exists(link) and group.id.links.get_info(link).type == h5py.h5l.TYPE_HARD
