"""How large an image file really is: NIfTI, NRRD and MHA by their headers and their real decompressed bytes.

The readers of NRRD and MHA follow a header to any file of the machine and understand headers more loosely than their
formats say. So a header that could be understood in two ways is refused here.
"""

from __future__ import annotations

import math
import os
import re

import nibabel as nib

from .inflate import Pieces, inflated_length
from .study_file import StudyFile

HEADER_BYTES = 1 << 16
_NIFTI_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_CIFTI_INTENTS = range(3000, 3100)  # nibabel reads these as CIFTI-2, which holds XML and no image
_NRRD_BYTES = {
    "char": 1, "int8": 1, "short": 2, "shortint": 2, "int16": 2, "int": 4, "int32": 4,
    "longlong": 8, "longlongint": 8, "int64": 8, "float": 4, "double": 8,
}  # fmt: skip
_MHA_BYTES = {
    "CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
    "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
_MHA_VECTORS = ("offset", "position", "origin", "centerofrotation", "elementspacing", "elementsize")
_MHA_MATRICES = ("transformmatrix", "rotation", "orientation")


def nifti_bytes(file: StudyFile) -> int:
    """Bytes of a ``.nii`` or ``.nii.gz`` when unpacked. Raises what `sizes.unpacked_bytes` says."""
    with file.path.open("rb") as stream:
        if not file.path.name.lower().endswith(".gz"):
            needed = _nifti_needs(file, stream.read(540))
            return file.check_long_enough(file.check_bytes(os.fstat(stream.fileno()).st_size), needed)
        unpacked = Pieces(stream, "gzip", file.room)
        needed = _nifti_needs(file, unpacked.read(540))
        return file.check_long_enough(unpacked.length(), needed)


def _nifti_needs(file: StudyFile, head: bytes) -> int:
    """Bytes that the header asks for; what can be refused by it is refused before anything is unpacked."""
    size = next(
        (s for s in _NIFTI_HEADERS if s.to_bytes(4, "little") == head[:4] or s.to_bytes(4, "big") == head[:4]), 0
    )
    if not size or len(head) < size:
        raise file.refused("the file is no NIfTI image", file.path.name)
    header = _NIFTI_HEADERS[size](head[:size], check=False)
    if bytes(header["magic"])[:2] != b"n+":
        raise file.refused("the image's data are not in the file itself", file.path.name, "one file that holds all")
    if int(header["intent_code"]) in _CIFTI_INTENTS:
        raise file.refused("the file is no image but CIFTI-2", file.path.name)
    shape, start = header.get_data_shape(), header.get_data_offset()
    file.check_shape(shape)
    if not size <= start <= size + (1 << 24):
        raise file.refused("the image's data begin at an impossible place", start)
    return file.check_bytes(start + math.prod(shape) * header.get_data_dtype().itemsize)


def nrrd_bytes(file: StudyFile) -> int:
    """Bytes of a ``.nrrd`` when unpacked. Raises what `sizes.unpacked_bytes` says."""
    with file.path.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
        end = re.search(rb"\r?\n\r?\n", head)
        if not re.match(rb"NRRD000[1-5]\r?\n", head) or not end:
            raise file.refused("the file is no NRRD image, or its header is too long", file.path.name)
        fields = _nrrd_fields(file, _lines(file, head[: end.start()])[1:])
        shape, itemsize = _nrrd_shape(file, fields)
        needed = file.check_bytes(math.prod(shape) * itemsize)
        stream.seek(end.end())
        encoding = fields.get("encoding", "")
        if encoding not in ("raw", "gzip", "gz"):
            raise file.refused("this encoding of NRRD is not taken", encoding[:40], allowed=("raw", "gzip"))
        length = (
            file.check_bytes(os.fstat(stream.fileno()).st_size) - end.end()
            if encoding == "raw"
            else inflated_length(stream, "gzip", file.room)
        )
        return file.check_long_enough(length, needed)


def _lines(file: StudyFile, header: bytes) -> list[str]:
    """The header's lines; ITK ends a line at a lone carriage return as well, which would hide a field from us."""
    text = header.replace(b"\r\n", b"\n")
    if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", text):
        raise file.refused("the image's header holds control characters", file.path.name)
    return text.decode("latin-1").split("\n")


def _nrrd_fields(file: StudyFile, lines: list[str]) -> dict[str, str]:
    """Fields by name, in lower case and without blanks; comments and ``key:=value`` pairs are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if line.startswith("#") or (colon and value.startswith("=")):
            continue
        name = re.sub(r"\s", "", name.lower())
        if not colon or name in fields:
            raise file.refused("a line of the image's header cannot be understood", line[:60])
        fields[name] = value.strip().lower()
    if "datafile" in fields:
        raise file.refused("the image's data are not in the file itself", file.path.name, "one file that holds all")
    for skip in ("lineskip", "byteskip"):
        if fields.get(skip, "0") != "0":
            raise file.refused("data that begin elsewhere than behind the header are not taken", skip)
    return fields


def _nrrd_shape(file: StudyFile, fields: dict[str, str]) -> tuple[list[int], int]:
    """Sizes along all axes, and bytes of one number."""
    shape = _whole_numbers(file, "sizes", fields.get("sizes", ""))
    if fields.get("dimension") != str(len(shape)):
        raise file.refused("the header's dimension and sizes disagree", fields.get("sizes", "")[:60])
    file.check_shape(shape)
    kind = re.sub(r"unsigned|signed|\s|_t$", "", fields.get("type", "")).removeprefix("u")
    if kind not in _NRRD_BYTES:
        raise file.refused("the image does not hold one real number per voxel", fields.get("type", "")[:40])
    return shape, _NRRD_BYTES[kind]


def _whole_numbers(file: StudyFile, name: str, text: str) -> list[int]:
    words = text.split()
    if not 1 <= len(words) <= 16 or not all(re.fullmatch(r"[0-9]{1,12}", word) for word in words):
        raise file.refused(f"the header's {name} are not whole numbers", text[:60])
    return [int(word) for word in words]


def mha_bytes(file: StudyFile) -> int:
    """Bytes of a ``.mha`` when unpacked. Raises what `sizes.unpacked_bytes` says."""
    with file.path.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
        end = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*LOCAL[ \t]*\r?\n", head, re.IGNORECASE | re.MULTILINE)
        if not end or head[: end.end()].lower().count(b"elementdatafile") != 1:
            raise file.refused(
                "the image's data are not in the file itself",
                file.path.name,
                allowed="a header that ends in one line: ElementDataFile = LOCAL",
            )
        fields = _mha_fields(file, _lines(file, head[: end.start()]))
        shape, itemsize = _mha_shape(file, fields)
        needed = file.check_bytes(math.prod(shape) * itemsize)
        stored = file.check_bytes(os.fstat(stream.fileno()).st_size) - end.end()
        if not _mha_flag(file, fields, "compresseddata"):
            return file.check_long_enough(stored, needed)
        said = _whole_numbers(file, "CompressedDataSize", fields.get("compresseddatasize", "0"))
        file.check_long_enough(stored, said[0])
        stream.seek(end.end())
        return file.check_long_enough(inflated_length(stream, "zlib", file.room), needed)


def _mha_fields(file: StudyFile, lines: list[str]) -> dict[str, str]:
    """Fields by name in lower case; each once, and vectors as long as ``NDims`` says: ITK would read on."""
    fields: dict[str, str] = {}
    for line in filter(None, lines):
        name, equals, value = line.partition("=")  # no pattern: one that backtracks takes seconds for a long line
        name = name.strip(" \t").lower()
        if not equals or not name or ":" in name or name != name.strip() or name in fields:
            raise file.refused("a line of the image's header cannot be understood", line[:60])
        fields[name] = value.strip(" \t")
    dimension = _whole_numbers(file, "NDims", fields.get("ndims", ""))[0]
    lengths = dict.fromkeys(_MHA_VECTORS, dimension) | dict.fromkeys(_MHA_MATRICES, dimension**2)
    for name, length in lengths.items():
        words = fields.get(name, "0 " * length).split()
        if len(words) != length or not all(re.fullmatch(r"[-+0-9.eE]{1,40}", word) for word in words):
            raise file.refused("a line of the image's header cannot be understood", f"{name} = {fields[name][:60]}")
    if len(_whole_numbers(file, "DimSize", fields.get("dimsize", ""))) != dimension:
        raise file.refused("the header's NDims and DimSize disagree", fields["dimsize"][:60])
    return fields


def _mha_shape(file: StudyFile, fields: dict[str, str]) -> tuple[list[int], int]:
    """Sizes along all axes, and bytes of one voxel."""
    if fields.get("headersize", "0") != "0":
        raise file.refused("data that begin elsewhere than behind the header are not taken", "HeaderSize")
    if fields.get("objecttype", "Image") != "Image" or not _mha_flag(file, fields, "binarydata"):
        raise file.refused("the file is no binary image", file.path.name)
    kind = fields.get("elementtype", "").removeprefix("MET_")
    channels = _whole_numbers(file, "ElementNumberOfChannels", fields.get("elementnumberofchannels", "1"))
    if kind not in _MHA_BYTES or channels != [1]:
        raise file.refused("the image does not hold one real number per voxel", fields.get("elementtype", "")[:40])
    shape = _whole_numbers(file, "DimSize", fields["dimsize"])
    file.check_shape(shape)
    return shape, _MHA_BYTES[kind]


def _mha_flag(file: StudyFile, fields: dict[str, str], name: str) -> bool:
    value = fields.get(name, "False").lower()
    if value not in ("true", "false"):
        raise file.refused("a line of the image's header cannot be understood", f"{name} = {value[:40]}")
    return value == "true"
