"""Raw data of scanners at the door: ISMRMRD, fastMRI and BART, whole, damaged, and made to fill a computer."""

from __future__ import annotations

import dataclasses
import io
import json
import time
import tracemalloc
import zlib
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest
from any2all.errors import Any2allError
from any2all.kspace.formats import read_contents, read_kspace
from any2all.stack import load_stack
from any2all.study import parse_study
from any2all.study.spec import BART_HEADER, KSPACE_SUFFIXES
from hypothesis import given, settings
from hypothesis import strategies as st
from ismrmrd.hdf5 import acquisition_dtype, acquisition_header_dtype
from lib import intake
from lib.intake import check_study, check_used
from lib.settings import Limits
from lib.sizes import FORMATS, check_files, unpacked_bytes
from lib.study_file import StudyFile
from raw_files import REFERENCE_BYTES, all_alike, header_xml, mrd, readouts

LIMITS = Limits(unpacked_bytes=1_000_000, voxels=10_000)
STACK = load_stack()
NUMBERS = np.random.default_rng(7).standard_normal((2, 2, 3, 8, 6))
KSPACE = (NUMBERS[0] + 1j * NUMBERS[1]).astype(np.complex64)  # (slices, coils, H, W)
XML = header_xml((8, 6, 1))
RECORDS = readouts(KSPACE)
PLACES = acquisition_dtype.itemsize - 2 * 8 + 2 * REFERENCE_BYTES  # of a stored record
STORED = len(XML) + RECORDS.size * PLACES + 2 * KSPACE.nbytes
DIMENSIONS = (8, 6, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1)
CFL = np.ascontiguousarray(KSPACE.transpose(0, 1, 3, 2)).tobytes()


def hdr(*sizes: int) -> bytes:
    return b"# Dimensions\n" + " ".join(map(str, sizes)).encode() + b" \n# Command\nphantom \n"


def fastmri(kspace: np.ndarray = KSPACE, xml: object = XML, **options: object) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.create_dataset("kspace", data=kspace, **options)
        file["ismrmrd_header"] = xml
    return out.getvalue()


def measured(folder: Path, name: str, content: bytes, limits: Limits = LIMITS, header: bytes | None = None) -> int:
    (folder / name).write_bytes(content)
    if header is not None:
        (folder / name).with_suffix(".hdr").write_bytes(header)
    return unpacked_bytes(StudyFile(folder / name, "modalities.T1.kspace", limits, limits.unpacked_bytes))


GOOD = {
    "mrd": ("a.mrd", mrd(RECORDS, XML), STORED),
    "mrd h5": ("a.h5", mrd(RECORDS, XML), STORED),
    "mrd one by one": ("a.h5", mrd(RECORDS, XML, chunks=(1,)), STORED),
    "mrd large chunks": ("a.h5", mrd(RECORDS, XML, chunks=(5,)), STORED),
    "mrd user block": ("a.h5", mrd(RECORDS, XML, userblock=512), STORED),
    "mrd user block chunks": ("a.h5", mrd(RECORDS, XML, userblock=512, chunks=(5,)), STORED),
    "fastmri": ("a.h5", fastmri(), KSPACE.nbytes + len(XML)),
    "fastmri one coil": ("a.h5", fastmri(KSPACE[:, 0]), KSPACE[:, 0].nbytes + len(XML)),
    "fastmri fixed text": ("a.h5", fastmri(xml=np.bytes_(XML)), KSPACE.nbytes + len(XML)),
    "fastmri gzip": ("a.h5", fastmri(compression="gzip", chunks=(1, 3, 8, 6)), KSPACE.nbytes + len(XML)),
}


@pytest.mark.parametrize(("name", "content", "size"), GOOD.values(), ids=GOOD)
def test_good_files_pass_and_can_be_read(tmp_path, name, content, size):
    assert measured(tmp_path, name, content) == size
    found = read_contents(tmp_path / name, "kspace").arrays["kspace"]
    assert np.array_equal(found, KSPACE[:, : found.shape[1]])


def test_a_bart_pair_passes_and_can_be_read(tmp_path):
    assert measured(tmp_path, "a.cfl", CFL, header=hdr(*DIMENSIONS)) == KSPACE.nbytes
    assert np.array_equal(read_contents(tmp_path / "a.cfl", "kspace").arrays["kspace"], KSPACE)


def test_more_readouts_than_one_piece(tmp_path):
    """The lengths of records are read in pieces, which no record's end has to fit."""
    records = np.tile(RECORDS, 120)
    size = measured(tmp_path, "a.h5", mrd(records, XML, chunks=(7,)), Limits())
    assert size == len(XML) + records.size * PLACES + 121 * KSPACE.nbytes


def test_every_format_of_a_study_is_taken_and_measured():
    raw = {*KSPACE_SUFFIXES, BART_HEADER}
    assert raw <= set(intake.SUFFIXES) and raw <= set(FORMATS["kspace"]) and raw <= set(FORMATS["coil_maps"])


def with_head(**values: object) -> np.ndarray:
    records = RECORDS.copy()
    for name, value in values.items():
        records["head"][name] = value
    return records


def retyped(name: str, kind: object) -> bytes:
    """Readouts whose heads or samples are of another type."""
    parts = {n: acquisition_dtype[n] for n in acquisition_dtype.names}
    heads = {n: acquisition_header_dtype[n] for n in acquisition_header_dtype.names}
    (parts if name in parts else heads)[name] = kind
    parts["head"] = np.dtype(list(heads.items()))

    def fill(group: h5py.Group) -> None:
        del group["data"]
        group.create_dataset("data", (2,), np.dtype(list(parts.items())))

    return mrd(RECORDS, XML, fill)


def beside(**links: object):
    def fill(group: h5py.Group) -> None:
        for name, link in links.items():
            group.pop(name, None)
            group[name] = link

    return fill


def sparse(group: h5py.Group) -> None:
    """Readouts that were never written: HDF5 gives each the fill value."""
    del group["data"]
    group.create_dataset("data", (64,), acquisition_dtype, chunks=(1,), maxshape=(None,))


def rooted(fill) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        fill(file)
    return out.getvalue()


def linked_group(file: h5py.File) -> h5py.Group:
    group = file.create_group("x")
    group["data"] = h5py.SoftLink("/y")
    return group


ENTITIES = "<!DOCTYPE a [<!ENTITY b 'bbbb'>]>"
BAD = {
    "mrd cut": (mrd(RECORDS, XML)[:-1], "damaged or of another format"),
    "mrd soft": (mrd(RECORDS, XML, beside(data=h5py.SoftLink("/x"))), "refers to another place; got 'dataset/data'"),
    "mrd external": (mrd(RECORDS, XML, beside(xml=h5py.ExternalLink("/etc/x.h5", "/x"))), "refers to another place"),
    "mrd no text": (mrd(RECORDS, XML, beside(xml=[1, 2])), "header is no text"),
    "mrd two texts": (mrd(RECORDS, XML, beside(xml=["a", "b"])), "header is no text"),
    "mrd no xml": (mrd(RECORDS, "ISMRMRD"), "header is no XML"),
    "mrd entities": (mrd(RECORDS, ENTITIES + XML), "defines entities"),
    "mrd long xml": (mrd(RECORDS, XML + " " * 2**22), "header is too long; got 4194.* at most 4194304 bytes"),
    "mrd matrix": (mrd(RECORDS, header_xml((8, 0, 1))), "no encoded matrix"),
    "mrd axes": (mrd(RECORDS[None], XML), "no ISMRMRD readouts; got .*1, 12"),
    "mrd none": (mrd(RECORDS[:0], XML), "no ISMRMRD readouts"),
    "mrd numbers": (mrd(np.ones(4), XML), "no ISMRMRD readouts"),
    "mrd double": (retyped("data", h5py.vlen_dtype(np.float64)), "no ISMRMRD readouts"),
    "mrd more": (retyped("data", h5py.vlen_dtype(np.dtype("f4,f4"))), "no ISMRMRD readouts"),
    "mrd wide counter": (retyped("active_channels", "<u8"), "no ISMRMRD readouts"),
    "mrd real counter": (retyped("number_of_samples", "<f4"), "no ISMRMRD readouts"),
    "mrd long in head": (retyped("version", h5py.vlen_dtype(np.uint8)), "no ISMRMRD readouts"),
    "mrd wide head": (retyped("version", np.dtype(("u1", (4096,)))), "no ISMRMRD readouts"),
    "mrd gzip": (mrd(RECORDS, XML, chunks=(4,), compression="gzip"), "in a way that is not taken; .*h5repack"),
    "mrd unwritten": (mrd(RECORDS, XML, sparse), "were never written"),
    "mrd samples": (mrd(with_head(number_of_samples=9999), XML), "ends before its data do"),
    "mrd coils": (mrd(with_head(active_channels=9999), XML), "ends before its data do"),
    "h5 many groups": (rooted(lambda f: [f.create_group(f"g{i}") for i in range(1025)]), "too many things; got 1025"),
    "h5 long name": (
        rooted(lambda f: f.update({"\n" + "ä" * 9000: linked_group(f)})),
        r"another place; got '\\\\n\\\\xe4",
    ),
    "fastmri long text": (fastmri(xml=XML + " " * 2**22), "header is too long"),
    "fastmri long fixed text": (fastmri(xml=np.bytes_(XML + "x" * 2**22)), "header is too long"),
    "fastmri no text": (fastmri(xml=[1, 2]), "header is no text"),
}


@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_bad_files_are_refused(tmp_path, content, words):
    with pytest.raises(Any2allError, match=words) as caught:
        measured(tmp_path, "a.h5", content, Limits())
    check_words(caught.value, "invalid_image", tmp_path)


def check_words(error: Any2allError, code: str, folder: Path) -> None:
    assert (error.code, error.key) == (code, "modalities.T1.kspace")
    assert str(folder) not in error.sentence() and len(error.sentence()) < 400
    json.dumps(error.as_dict(), allow_nan=False).encode()


def aliased() -> bytes:
    """Many readouts that all refer to the samples of one."""
    records = np.concatenate([readouts(np.ones((1, 1, 4000, 1), np.complex64)), *[RECORDS] * 40])
    return all_alike(mrd(records, header_xml((4000, 1, 1))))


def small_chunk(sizes: tuple[int, ...], unpacked: int) -> bytes:
    """fastMRI's k-space of ``sizes`` in one chunk of a few bytes."""
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        dataset = file.create_dataset("kspace", sizes, "c8", chunks=sizes, compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(unpacked)))
        file["ismrmrd_header"] = header_xml((sizes[2], sizes[3], 1))
    return out.getvalue()


def many_slices() -> bytes:
    records = np.tile(RECORDS, 10)
    records["head"]["idx"]["slice"] = np.arange(records.size)
    return mrd(records, header_xml((64, 64, 1)))


def many_coils() -> bytes:
    """Heads of few samples from many coils, within what the file holds, and a matrix that fits one coil."""
    records = readouts(np.ones((1, 60, 1, 6), np.complex64))
    return mrd(records, header_xml((100, 100, 1)))


# bytes of a.h5, words, code
BOMBS = {
    "mrd matrix": (mrd(RECORDS, header_xml((16384, 16384, 16384))), "too many voxels in one coil", "too_large"),
    "mrd slices": (many_slices(), "too many voxels in one coil; got '120 x 64 x 64 x 1'", "too_large"),
    "mrd coils": (many_coils(), "too large when unpacked", "too_large"),
    "mrd one sample for all": (aliased(), "readouts are longer than the file", "invalid_image"),
    "mrd never compressed": (mrd(np.tile(RECORDS, 500), XML), "too large when unpacked", "too_large"),
    "fastmri chunk": (small_chunk((1, 1, 7, 8), 3_000_000), "unpacks to more", "invalid_image"),
    "fastmri voxels": (small_chunk((2, 1, 100, 100), 1), "kspace has too many voxels in one coil", "too_large"),
    "fastmri coils": (small_chunk((1, 60, 50, 50), 1), "too large when unpacked", "too_large"),
    "fastmri one coil": (fastmri(np.ones((300, 8, 6), "c8"), compression="gzip"), "too many voxels", "too_large"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "words", "code"), BOMBS.values(), ids=BOMBS)
def test_bombs_cost_neither_memory_nor_time(tmp_path, content, words, code):
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(Any2allError, match=words) as caught:
        measured(tmp_path, "a.h5", content)
    spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    check_words(caught.value, code, tmp_path)
    assert spent < 1 and peak < 8_000_000


@pytest.mark.parametrize(
    ("header", "content", "words"),
    [
        (None, CFL, "the .hdr file that belongs to the .cfl is missing; got 'a.hdr'"),
        (hdr(*DIMENSIONS), CFL[:-1], "does not have the size that its .hdr says; got '2303 bytes'"),
        (hdr(*DIMENSIONS), CFL + b"1", "does not have the size"),
        (b"", CFL, "holds no dimensions"),
        (b"# Dimensions\n8 6 -1", CFL, "holds no dimensions"),
        (b"# Dimensions\n" + b"9" * 5000, CFL, "holds no dimensions"),
        (hdr(*[1] * 17), CFL, "holds no dimensions"),
        (b" " * 2**20 + hdr(*DIMENSIONS), CFL, "holds no dimensions"),
        (hdr(*[999_999_999] * 16), CFL, "the array is too large"),
        (hdr(101, 100), CFL, "too many voxels in one coil; got '101 x 100'"),
        (hdr(100, 100, 1, 99), CFL, "too large when unpacked"),
        (hdr(1), bytes(1_000_001), "too large when unpacked"),
    ],
)
def test_bad_bart_pairs_are_refused(tmp_path, header, content, words):
    with pytest.raises(Any2allError, match=words) as caught:
        measured(tmp_path, "a.cfl", content, header=header)
    large = any(word in words for word in ("too many", "unpacked", "too large"))
    check_words(caught.value, "too_large" if large else "invalid_image", tmp_path)


def undersampled(name: str, folder: Path, **more: str):
    entry = {"status": "undersampled", "kspace": name, **more}
    return parse_study({"modalities": {"T2": entry}}, STACK, folder)


@pytest.mark.parametrize("named", ["k.cfl", "k.hdr"])
def test_either_of_a_pair_stands_for_both(tmp_path, named):
    (tmp_path / "k.cfl").write_bytes(CFL)
    (tmp_path / "k.hdr").write_bytes(hdr(*DIMENSIONS))
    document = {"modalities": {"T2": {"status": "undersampled", "kspace": named}}}
    assert check_used(document, ["k.hdr", "k.cfl"]) == ["k.hdr", "k.cfl"]
    with pytest.raises(Any2allError, match="does not mention these files; got 'm.hdr'"):
        check_used(document, ["k.cfl", "k.hdr", "m.hdr"])
    limits = dataclasses.replace(LIMITS, unpacked_bytes=len(CFL))
    check_study(undersampled(named, tmp_path), limits)
    with pytest.raises(Any2allError, match="modalities.T2.coil_maps: .* too large when unpacked"):
        check_study(undersampled(named, tmp_path, coil_maps=named), limits)
    check_files([tmp_path / "k.cfl", tmp_path / "k.hdr"], LIMITS)


def test_a_pair_does_not_leave_the_folder(tmp_path):
    inside = tmp_path / "study"
    inside.mkdir()
    (inside / "k.cfl").write_bytes(CFL)
    (tmp_path / "k.hdr").write_bytes(hdr(*DIMENSIONS))
    (inside / "k.hdr").symlink_to(tmp_path / "k.hdr")
    for named in ("k.cfl", "k.hdr"):
        with pytest.raises(Any2allError, match="modalities.T2.kspace"):
            undersampled(named, inside)


def test_an_ismrmrd_study_passes(tmp_path):
    """Written by the format's own library, named as it is uploaded."""
    with ismrmrd.Dataset(str(tmp_path / "k.mrd"), "dataset") as dataset:
        dataset.write_xml_header(XML.encode())
        for record in RECORDS:
            coils, samples = int(record["head"]["active_channels"]), int(record["head"]["number_of_samples"])
            acquisition = ismrmrd.Acquisition.from_array(record["data"].view(np.complex64).reshape(coils, samples))
            acquisition.center_sample = samples // 2
            acquisition.idx.slice = int(record["head"]["idx"]["slice"])
            acquisition.idx.kspace_encode_step_1 = int(record["head"]["idx"]["kspace_encode_step_1"])
            dataset.append_acquisition(acquisition)
    assert check_used({"modalities": {"T2": {"kspace": "k.mrd"}}}, ["k.mrd"]) == ["k.mrd"]
    spec = undersampled("k.mrd", tmp_path)
    check_study(spec, dataclasses.replace(LIMITS, unpacked_bytes=STORED))
    with pytest.raises(Any2allError, match="modalities.T2.kspace: .* too large when unpacked"):
        check_study(spec, dataclasses.replace(LIMITS, unpacked_bytes=STORED - 1))
    assert np.allclose(read_kspace(spec.modalities["T2"].kspace).kspace, KSPACE)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), kind=st.sampled_from([*GOOD, "bart"]))
def test_no_bytes_raise_anything_else(tmp_path_factory, data, kind):
    folder = tmp_path_factory.getbasetemp()
    name, content = GOOD[kind][:2] if kind in GOOD else ("a.hdr", hdr(*DIMENSIONS))
    content = bytearray(content)
    places = st.integers(0, min(len(content), 800) - 1) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=6)):
        content[place] = data.draw(st.sampled_from([0, 255, 10, 45, 57]) | st.integers(0, 255))
    content = bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    try:
        size = measured(folder, name, content) if kind in GOOD else measured(folder, "a.cfl", CFL, header=content)
    except Any2allError as error:
        assert error.code in ("too_large", "invalid_image") and error.key == "modalities.T1.kspace"
        json.dumps(error.as_dict(), allow_nan=False).encode()
    else:
        assert 0 <= size <= LIMITS.unpacked_bytes


def test_the_file_of_a_trajectory_is_measured_like_every_other(tmp_path):
    np.save(tmp_path / "a.npy", KSPACE)
    np.save(tmp_path / "path.npy", np.ones((48, 2)))
    raw = {"status": "undersampled", "kspace": "a.npy", "trajectory": "path.npy"}
    document = {"modalities": {"T1": raw}}
    assert check_used(document, ["a.npy", "path.npy"]) == ["a.npy", "path.npy"]
    spec = parse_study(document, STACK, tmp_path)
    check_study(spec, LIMITS)
    (tmp_path / "path.npy").write_bytes(b"no array")
    with pytest.raises(Any2allError) as caught:
        check_study(spec, LIMITS)
    assert caught.value.key == "modalities.T1.trajectory" and caught.value.code == "invalid_image"
