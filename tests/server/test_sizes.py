"""Files at the door: how large they really are, and every way to hide it. Good files of every format pass."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import json
import pickle
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from any2all.errors import Any2allError
from any2all.geometry.reading import read_volume
from any2all.kspace import formats
from any2all.stack import load_stack
from any2all.study import parse_study
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.intake import check_study
from lib.settings import Limits
from lib.sizes import unpacked_bytes
from lib.study_file import StudyFile
from raw_files import header_xml
from sized_files import (
    KSPACE,
    RAW,
    SHAPE,
    VOXELS,
    fastmri_like,
    h5,
    h5_array,
    mha,
    nifti,
    npy,
    npy_header,
    npz,
    nrrd,
    virtual,
    zip_of,
)

LIMITS = Limits(unpacked_bytes=1_000_000, voxels=10_000)


def measured(folder: Path, name: str, content: bytes, limits: Limits = LIMITS) -> int:
    (folder / name).write_bytes(content)
    images = name.endswith((".nii", ".gz", ".nrrd", ".mha"))
    key = "modalities.T1.file" if images else "modalities.T1.kspace"
    return unpacked_bytes(StudyFile(folder / name, key, limits, limits.unpacked_bytes))


FLOATS, COMPLEX = VOXELS.nbytes, KSPACE.nbytes
SHORTS = FLOATS // 2
GOOD = {
    "nifti": ("a.nii", nifti(), 352 + FLOATS),
    "nifti shorts": ("a.nii", nifti(kind=np.int16), 352 + SHORTS),
    "nifti-2": ("a.nii", nifti(nib.Nifti2Image), 544 + FLOATS),
    "nifti gz": ("a.nii.gz", gzip.compress(nifti()), 352 + FLOATS),
    "nifti two members": ("a.nii.gz", gzip.compress(nifti()[:500]) + gzip.compress(nifti()[500:]), 352 + FLOATS),
    "nifti gz padded": ("a.nii.gz", gzip.compress(nifti()) + bytes(512), 352 + FLOATS),
    "nrrd": ("a.nrrd", nrrd(), FLOATS),
    "nrrd gzip": ("a.nrrd", nrrd("gzip", data=gzip.compress(RAW)), FLOATS),
    "nrrd windows": ("a.nrrd", nrrd(data=b"").replace(b"\n", b"\r\n") + RAW, FLOATS),
    "nrrd words": ("a.nrrd", nrrd(extra="remark:=data file: y\n0008|0060:=MR\n"), FLOATS),
    "nrrd shorts": ("a.nrrd", nrrd(kind="unsigned short", data=VOXELS.astype("u2").tobytes()), SHORTS),
    "mha": ("a.mha", mha(), FLOATS),
    "mha zlib": ("a.mha", mha("True", data=zlib.compress(RAW)), FLOATS),
    "mha words": ("a.mha", mha(extra="0008|0060 = MR\nComment = a = b: c\n"), FLOATS),
    "npy": ("a.npy", npy(KSPACE), 128 + COMPLEX),
    "npz": ("a.npz", npz(kspace=KSPACE, mask=np.ones(8)), 128 + COMPLEX + 128 + 64),
    "npz packed": ("a.npz", npz(True, kspace=KSPACE, noise_std=np.float64(1)), 128 + COMPLEX + 128 + 8),
    "h5": ("a.h5", h5_array(), COMPLEX),
    "h5 fastmri": ("a.h5", h5(fastmri_like), COMPLEX + 8 + 24 + len(header_xml((7, 8, 1)))),
    "h5 chunks": ("a.h5", h5_array(chunks=(1, 1, 7, 5)), COMPLEX * 10 // 8),
    "h5 filters": ("a.h5", h5_array(compression="gzip", shuffle=True, fletcher32=True, chunks=(1, 2, 7, 8)), COMPLEX),
    "h5 user block": ("a.h5", h5(lambda f: f.create_dataset("kspace", data=KSPACE, compression="gzip"), 512), COMPLEX),
    "h5 unwritten": ("a.h5", h5(lambda f: f.create_dataset("kspace", (2, 7, 8), "c8", chunks=(1, 7, 8))), COMPLEX),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "size"), GOOD.values(), ids=GOOD)
def test_good_files_pass_and_can_be_read(tmp_path, name, content, size):
    assert measured(tmp_path, name, content) == size
    if name.endswith((".npy", ".npz", ".h5")):
        assert formats.read_contents(tmp_path / name, "kspace").arrays["kspace"].shape[-3:] == (2, 7, 8)
    else:
        assert read_volume(tmp_path / name, "file").data.shape == SHAPE


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii", "a.nii.gz"])
def test_what_itk_writes_passes(tmp_path, name, compressed):
    image = sitk.GetImageFromArray(VOXELS.astype(np.int16))
    image.SetMetaData("0008|103e", "t1: mprage = sag")
    sitk.WriteImage(image, str(tmp_path / name), compressed)
    assert measured(tmp_path, name, (tmp_path / name).read_bytes()) >= SHORTS


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) == 1
    return content.replace(old, new)


def header_of(image: type = nib.Nifti1Image, **fields: object) -> bytes:
    header = image(VOXELS, np.eye(4)).header
    header["vox_offset"] = len(header.binaryblock) + 4
    for key, value in fields.items():
        header[key] = value
    return header.binaryblock + b"\0\0\0\0" + RAW


class Runs:
    def __reduce__(self):
        return (print, ("a pickle was run",))


def deep(depth: int) -> str:
    return "(" * depth + ")" * depth


BAD_IMAGES = {
    "nifti cut": ("a.nii", nifti()[:-1], "ends before its data do"),
    "nifti header only": ("a.nii", nifti()[:348], "ends before its data do"),
    "nifti empty": ("a.nii", b"", "no NIfTI image"),
    "nifti noise": ("a.nii", bytes(range(256)) * 4, "no NIfTI image"),
    "nifti analyze": ("a.nii", header_of(magic=b""), "not in the file itself"),
    "nifti pair": ("a.nii", header_of(magic=b"ni1"), "not in the file itself"),
    "nifti cifti": ("a.nii", header_of(nib.Nifti2Image, intent_code=3001), "CIFTI-2"),
    "nifti type": ("a.nii", header_of(datatype=77), "damaged or of another format"),
    "nifti negative": ("a.nii", header_of(dim=[3, 6, -7, -8, 1, 1, 1, 1]), "holds no data; got '6 x -7 x -8'"),
    "nifti offset": ("a.nii", header_of(vox_offset=0.0), "impossible place"),
    "nifti far offset": ("a.nii", header_of(vox_offset=2.0**31), "impossible place"),
    "nifti nan offset": ("a.nii", header_of(vox_offset=np.nan), "damaged or of another format"),
    "gz no gzip": ("a.nii.gz", nifti(), "compressed data are damaged"),
    "gz cut": ("a.nii.gz", gzip.compress(nifti())[:-9], "compressed data end early"),
    "gz checksum": ("a.nii.gz", gzip.compress(nifti())[:-8] + bytes(8), "compressed data are damaged"),
    "gz second member": ("a.nii.gz", gzip.compress(nifti()) + b"more", "compressed data are damaged"),
    "gz empty members": ("a.nii.gz", gzip.compress(b"") * 30_000 + gzip.compress(nifti()), "say nothing"),
    "gz long name": ("a.nii.gz", b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 600_000, "say nothing"),
    "gz long padding": ("a.nii.gz", gzip.compress(nifti()) + bytes(600_000), "say nothing"),
    "nrrd cut": ("a.nrrd", nrrd()[:-1], "ends before its data do"),
    "nrrd gzip cut": ("a.nrrd", nrrd("gzip", data=gzip.compress(RAW[:-1])), "ends before its data do"),
    "nrrd no gzip": ("a.nrrd", nrrd("gzip"), "compressed data are damaged"),
    "nrrd bzip2": ("a.nrrd", nrrd("bzip2", data=bz2.compress(bytes(9))), "encoding of NRRD is not taken; got 'bzip2'"),
    "nrrd ascii": ("a.nrrd", nrrd("ascii"), "encoding of NRRD is not taken"),
    "nrrd other file": ("a.nrrd", nrrd(extra="data file: /etc/passwd\n"), "not in the file itself"),
    "nrrd datafile": ("a.nrrd", nrrd(extra="DataFile: x.raw\n"), "not in the file itself"),
    "nrrd list": ("a.nrrd", nrrd(extra="data file: LIST\n"), "not in the file itself"),
    "nrrd hidden line": ("a.nrrd", nrrd(extra="content: a\rdata file: x.raw\n"), "control characters"),
    "nrrd skip": ("a.nrrd", nrrd(extra="byte skip: -1\n"), "begin elsewhere"),
    "nrrd line skip": ("a.nrrd", nrrd(extra="line skip: 3\n"), "begin elsewhere"),
    "nrrd twice": ("a.nrrd", nrrd(extra="sizes: 1 1 1\n"), "cannot be understood"),
    "nrrd dimension": ("a.nrrd", nrrd(sizes="6 7"), "disagree"),
    "nrrd sizes": ("a.nrrd", nrrd(sizes="6 7 -8"), "not whole numbers"),
    "nrrd zero": ("a.nrrd", nrrd(sizes="6 7 0"), "holds no data"),
    "nrrd digits": ("a.nrrd", nrrd(sizes="6 7 " + "9" * 5000), "not whole numbers"),
    "nrrd block": ("a.nrrd", nrrd(kind="block"), "one real number per voxel"),
    "nrrd long header": ("a.nrrd", nrrd(extra="#" * 70_000 + "\n"), "header is too long"),
    "nrrd no header": ("a.nrrd", b"NRRD0009\n\n", "no NRRD image"),
    "nrrd empty": ("a.nrrd", b"NRRD0004\n\n", "not whole numbers"),
    "mha cut": ("a.mha", mha()[:-1], "ends before its data do"),
    "mha zlib cut": ("a.mha", mha("True", data=zlib.compress(RAW)[:-5]), "compressed data end early"),
    "mha other size": ("a.mha", mha("True", "CompressedDataSize = 99\n", data=zlib.compress(RAW)[:9]), "ends before"),
    "mha other file": ("a.mha", changed(mha(), b"LOCAL", b"/etc/passwd"), "not in the file itself"),
    "mha list": ("a.mha", changed(mha(), b"LOCAL", b"LIST"), "not in the file itself"),
    "mha two files": ("a.mha", mha(extra="ElementDataFile = /etc/passwd\n"), "not in the file itself"),
    "mha colon file": ("a.mha", mha(extra="ElementDataFile: /etc/passwd\n"), "not in the file itself"),
    "mha hidden line": ("a.mha", mha(extra="Comment = a\rHeaderSize = 9\n"), "control characters"),
    "mha short matrix": ("a.mha", mha(matrix="1 0 0 0 1 0 0 0"), "cannot be understood"),
    "mha nan matrix": ("a.mha", mha(matrix="1 0 0 0 1 0 0 0 nan"), "cannot be understood"),
    "mha dims": ("a.mha", mha(sizes="6 7"), "disagree"),
    "mha twice": ("a.mha", mha(extra="NDims = 2\n"), "cannot be understood"),
    "mha skip": ("a.mha", mha(extra="HeaderSize = 9\n"), "begin elsewhere"),
    "mha text": ("a.mha", changed(mha(), b"BinaryData = True", b"BinaryData = False"), "no binary image"),
    "mha vectors": ("a.mha", mha(extra="ElementNumberOfChannels = 3\n"), "one real number per voxel"),
    "mha type": ("a.mha", mha(kind="MET_STRING"), "one real number per voxel"),
    "mha flag": ("a.mha", mha("maybe"), "cannot be understood"),
    "mha tube": ("a.mha", changed(mha(), b"= Image", b"= Tube"), "no binary image"),
    "mha nothing": ("a.mha", b"ElementDataFile = LOCAL\n", "not whole numbers"),
}  # fmt: skip
BAD_ARRAYS = {
    "npy cut": ("a.npy", npy(KSPACE)[:-1], "ends before its data do"),
    "npy pickle": ("a.npy", npy(np.array([Runs()], object), True), "does not hold numbers"),
    "npy bare pickle": ("a.npy", pickle.dumps(Runs()), "no NPY header"),
    "npy is npz": ("a.npy", npz(kspace=KSPACE), "no NPY header"),
    "npy words": ("a.npy", npy(np.array(["a" * 99])), "does not hold numbers"),
    "npy records": ("a.npy", npy(np.zeros(9, "f4,f4")), "does not hold numbers"),
    "npy axes": ("a.npy", npy(KSPACE[0, 0]), "has 2 axes"),
    "npy negative": ("a.npy", npy_header("(-1, -1, 7, 8)"), "holds no data"),
    "npy zero": ("a.npy", npy(KSPACE[:, :, :0]), "holds no data"),
    "npy code": ("a.npy", npy_header("(__import__('os').getpid(), 2, 7, 8)"), "no NPY header"),
    "npy deep": ("a.npy", npy_header(deep(3000)), "no NPY header"),
    "npy long header": ("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<L", 2**32 - 1) + b" " * 20_000, "no NPY header"),
    "npy empty": ("a.npy", b"", "no NPY header"),
    "npz is npy": ("a.npz", npy(KSPACE), "no zip file"),
    "npz pickle": ("a.npz", zip_of(kspace__npy=npy(np.array([Runs()], object), True)), "does not hold numbers"),
    "npz raw": ("a.npz", zip_of(kspace=b"no array"), "something else than arrays"),
    "npz no array": ("a.npz", zip_of(kspace__npy=b"no array"), "the array kspace has no NPY header"),
    "npz cut": ("a.npz", npz(kspace=KSPACE)[:-9], "no zip file"),
    "npz short": ("a.npz", zip_of(kspace__npy=npy(KSPACE)[:-1]), "ends before its data do"),
    "npz many": ("a.npz", npz(**{f"a{i}": np.ones(1) for i in range(65)}), "too many arrays"),
    "npz checksum": ("a.npz", changed(npz(kspace=KSPACE), KSPACE.tobytes(), bytes(COMPLEX)), "damaged"),
    "h5 noise": ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(3000), "damaged or of another format"),
    "h5 empty": ("a.h5", b"", "damaged or of another format"),
    "h5 cut": ("a.h5", h5_array()[:-1], "damaged or of another format"),
    "h5 external": ("a.h5", h5(lambda f: f.update(kspace=h5py.ExternalLink("/etc/x.h5", "/k"))), "kspace is a link"),
    "h5 soft": ("a.h5", h5(lambda f: f.update(mask=h5py.SoftLink("/x"))), "the array mask is a link"),
    "h5 other file": (
        "a.h5",
        h5(lambda f: f.create_dataset("kspace", (2, 7, 8), "c8", external=[("/etc/passwd", 0, 896)])),
        "stored in other files",
    ),
    "h5 virtual": ("a.h5", h5(lambda f: f.create_virtual_dataset("kspace", virtual())), "stored in other files"),
    "h5 words": ("a.h5", h5_array(data="text"), "does not hold numbers"),
    "h5 reference": ("a.h5", h5(lambda f: f.create_dataset("kspace", data=f.ref)), "does not hold numbers"),
    "h5 null": ("a.h5", h5(lambda f: f.create_dataset("kspace", data=h5py.Empty("f4"))), "is empty"),
    "h5 lzf": ("a.h5", h5_array(compression="lzf"), "filters that are not taken; .*gzip.*h5repack"),
    "h5 scaled": ("a.h5", h5_array(data=np.ones((2, 7, 8), int), scaleoffset=0), "filters that are not taken"),
    "h5 tiny chunks": (
        "a.h5",
        h5(lambda f: f.create_dataset("mask", (1 << 19,), "u1", chunks=(1,))),
        "too many chunks",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), (BAD_IMAGES | BAD_ARRAYS).values(), ids=BAD_IMAGES | BAD_ARRAYS)
def test_bad_files_are_refused(tmp_path, capfd, name, content, words):
    with pytest.raises(Any2allError, match=words) as caught:
        measured(tmp_path, name, content)
    assert caught.value.code == "invalid_image" and caught.value.key.startswith("modalities.T1.")
    assert str(tmp_path) not in caught.value.sentence() and "pickle was run" not in capfd.readouterr().out
    json.dumps(caught.value.as_dict(), allow_nan=False).encode()


def h5_bomb(size: int) -> bytes:
    """A chunk of 448 bytes that unpacks to ``size``."""

    def fill(file: h5py.File) -> None:
        dataset = file.create_dataset("kspace", (1, 1, 7, 8), "c8", chunks=(1, 1, 7, 8), compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(size))[:4000])

    return h5(fill)


LARGE_SHAPES = {
    "nifti": ("a.nii", header_of(dim=[3, 100, 101, 1, 1, 1, 1, 1]), "too many voxels; got '100 x 101 x 1'"),
    "nifti axes": ("a.nii", header_of(dim=[99, 6, 7, 8, 1, 1, 1, 1]), "too many voxels"),
    "nrrd": ("a.nrrd", nrrd(sizes="100 101 1"), "too many voxels"),
    "mha": ("a.mha", mha(sizes="100 101 1"), "too many voxels"),
    "npy": ("a.npy", npy_header("(2, 999, 50, 101)"), "too many voxels in one coil; got '2 x 50 x 101'"),
    "npy huge": ("a.npy", npy_header("(1, 1, 10**9, 9)").replace(b"10**9", b"99999"), "too many voxels in one coil"),
    "h5": ("a.h5", h5(lambda f: f.create_dataset("coil_maps", (1, 101, 100), "c8")), "coil_maps has too many voxels"),
    "h5 many coils": ("a.h5", h5(lambda f: f.create_dataset("kspace", (1, 999, 100, 100), "c8")), "when unpacked"),
    "h5 mask": ("a.h5", h5(lambda f: f.create_dataset("mask", (1_000_001,), "u1")), "when unpacked"),
    "h5 wide chunk": (
        "a.h5",
        h5(lambda f: f.create_dataset("mask", (1,), "u1", chunks=(1_000_001,), maxshape=(None,))),
        "when unpacked",
    ),
    "npz mask": ("a.npz", npz(mask=np.zeros(1_000_000, np.uint8)), "when unpacked"),
    "raw tail": ("a.nii", nifti() + bytes(1_000_000), "when unpacked"),
}  # fmt: skip
BIG = bytes(100_000_000)
BOMBS = {
    "nifti": lambda: ("a.nii.gz", gzip.compress(nifti() + BIG)),
    "nifti members": lambda: ("a.nii.gz", gzip.compress(nifti()) + gzip.compress(BIG[:1_000_000]) * 100),
    "nrrd": lambda: ("a.nrrd", nrrd("gzip", data=gzip.compress(BIG))),
    "mha": lambda: ("a.mha", mha("True", data=zlib.compress(BIG))),
    "npz": lambda: ("a.npz", zip_of(mask__npy=npy(np.frombuffer(BIG, np.uint8)))),
}


@pytest.mark.parametrize(("name", "content", "words"), LARGE_SHAPES.values(), ids=LARGE_SHAPES)
def test_what_says_that_it_is_large_is_refused(tmp_path, name, content, words):
    with pytest.raises(Any2allError, match=words) as caught:
        measured(tmp_path, name, content)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_cost_neither_memory_nor_time(tmp_path, bomb):
    name, content = BOMBS[bomb]()
    assert len(content) < 300_000
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(Any2allError, match="too large when unpacked; .*at most 1000000 bytes") as caught:
        measured(tmp_path, name, content)
    spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == "too_large" and spent < 1 and peak < 4_000_000


@pytest.mark.parametrize(("size", "words"), [(3_000_000, "unpacks to more"), (100_000, "unpacks to more")])
def test_a_bomb_in_a_chunk(tmp_path, size, words):
    with pytest.raises(Any2allError, match=words):
        measured(tmp_path, "a.h5", h5_bomb(size))


def test_a_declared_size_that_lies(tmp_path):
    """An array that says 128 bytes less than it holds: zipfile's checksum finds it."""
    content = npz(True, kspace=KSPACE)
    size = struct.pack("<Q", 128 + COMPLEX)  # in the member's zip64 field
    lying = content.replace(size, struct.pack("<Q", 64)).replace(size[:4], struct.pack("<L", 64))
    assert lying != content
    with pytest.raises(Any2allError, match="damaged|ends before"):
        measured(tmp_path, "a.npz", lying)


STACK = load_stack()


def study(folder: Path, sampler: dict | None = None, preset: str = "balanced"):
    (folder / "T1.nii.gz").write_bytes(gzip.compress(nifti()))
    (folder / "k.h5").write_bytes(h5_array())
    modalities = {
        "T1": {"status": "available", "file": "T1.nii.gz"},
        "T2": {"status": "undersampled", "kspace": "k.h5", "coil_maps": "k.h5"},
    }
    return parse_study({"modalities": modalities, "preset": preset, "sampler": sampler or {}}, STACK, folder)


def test_all_files_of_a_study_together(tmp_path):
    whole = 352 + FLOATS + 2 * COMPLEX
    check_study(study(tmp_path), dataclasses.replace(LIMITS, unpacked_bytes=whole))
    with pytest.raises(Any2allError, match="modalities.T2.coil_maps: .* too large when unpacked") as caught:
        check_study(study(tmp_path), dataclasses.replace(LIMITS, unpacked_bytes=whole - 1))
    assert caught.value.code == "too_large"


def test_a_format_in_the_wrong_place(tmp_path):
    (tmp_path / "k.npy").write_bytes(npy(KSPACE))
    spec = parse_study({"modalities": {"T1": {"status": "available", "file": "k.npy"}}}, STACK, tmp_path)
    with pytest.raises(Any2allError, match="modalities.T1.file: unknown format; got 'k.npy'; allowed: .nii"):
        check_study(spec, LIMITS)


@pytest.mark.parametrize(
    ("sampler", "preset", "key", "value"),
    [
        ({"steps": 21}, "fast", "steps", 21),
        ({"name": "mps"}, "fast", "steps", 1000),
        ({"name": "mds", "samples": 1}, "fast", "steps", 150),
        ({"samples": 9}, "fast", "samples", 9),
        ({}, "best", "samples", 8),
    ],
)
def test_more_work_than_the_server_takes(tmp_path, sampler, preset, key, value):
    limits = dataclasses.replace(LIMITS, steps=20, samples=4)
    with pytest.raises(Any2allError, match=f"sampler.{key}: more {key} than this server takes; got {value};") as caught:
        check_study(study(tmp_path, sampler, preset), limits)
    assert caught.value.code == "too_large"
    check_study(study(tmp_path, {"steps": 20, "samples": 4}), limits)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(GOOD)))
def test_no_bytes_raise_anything_else(tmp_path_factory, data, kind):
    name, content = GOOD[kind][0], bytearray(GOOD[kind][1])
    places = st.integers(0, min(len(content), 800) - 1) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=6)):
        content[place] = data.draw(st.sampled_from([0, 255, 10, 45, 57]) | st.integers(0, 255))
    content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
    try:
        size = measured(tmp_path_factory.getbasetemp(), name, bytes(content))
    except Any2allError as error:
        json.dumps(error.as_dict(), allow_nan=False).encode()
    else:
        assert 0 <= size <= LIMITS.unpacked_bytes
