"""Archives: plain files come out, everything else is refused whole."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from any2all.errors import Any2allError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lib.archive import unpack
from lib.settings import Limits

LIMITS = Limits(files=4, unpacked_bytes=100_000)
LARGE = os.urandom(60_000)
PLAIN = {"T1.nii.gz": b"one", "a/b/c/T2.nrrd": LARGE, "./k.h5": b""}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def zip_of(info: zipfile.ZipInfo, data: bytes = b"data") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, data)
    return out.getvalue()


def tarred(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT, mtime: float = 1.5) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tar_of(kind: bytes, name: str = "a.nii", link: str = "", pax: dict[str, str] | None = None, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers, info.size = kind, link, pax or {}, size
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def unpacked(folder: Path, name: str, content: bytes, limits: Limits = LIMITS) -> dict[str, bytes]:
    (folder / "out").mkdir()
    (folder / name).write_bytes(content)
    return {path.name: path.read_bytes() for path in unpack(folder / name, folder / "out", limits)}


EXPECTED = {"T1.nii.gz": b"one", "T2.nrrd": LARGE, "k.h5": b""}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped(PLAIN)),
        ("A.ZIP", zipped({"a/": b"", **PLAIN}, zipfile.ZIP_STORED)),
        ("a.tar", tarred(PLAIN)),
        ("gnu.tar", tarred(PLAIN, tarfile.GNU_FORMAT)),
        ("old.tar", tarred(PLAIN, tarfile.USTAR_FORMAT, mtime=1)),
        ("a.tar.gz", gzip.compress(tarred(PLAIN))),
        ("two.tar.gz", gzip.compress(tarred(PLAIN)[:900]) + gzip.compress(tarred(PLAIN)[900:]) + bytes(100)),
    ],
)
def test_plain_files_come_out(tmp_path, name, content):
    assert unpacked(tmp_path, name, content) == EXPECTED
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o600}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_paths_and_folders_of_a_tar(tmp_path, form):
    path = "/".join(["d" * 60] * 3)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        folder = tarfile.TarInfo(path)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    body = out.getvalue().rstrip(b"\0")
    body += bytes(-len(body) % 512) + tarred({f"{path}/T1.nii": b"1", "T2.nii": b"2"}, form)
    assert unpacked(tmp_path, "a.tar", body) == {"T1.nii": b"1", "T2.nii": b"2"}


BAD_NAMES = {
    "/T1.nii": "leaves it",
    "../T1.nii": "leaves it",
    "a/../../T1.nii": "leaves it",
    "a/../T1.nii": "leaves it",
    "..\\T1.nii": "leaves it",
    "C:/T1.nii": "leaves it",
    "a/b/c/d/T1.nii": "lies too deep; .*allowed: at most 3 folders",
    "study.json": "file name is not taken",
    "T1.exe": "file name is not taken",
    ".T1.nii": "file name is not taken",
    "inner.zip": "file name is not taken",
    "T1.nii\n": "leaves it",
}


@pytest.mark.parametrize(("name", "words"), BAD_NAMES.items())
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_names_that_are_refused(tmp_path, suffix, name, words):
    members = {"T2.nii": b"first", name: b"bad"}
    content = zipped(members) if suffix == ".zip" else tarred(members)
    with pytest.raises(Any2allError, match=words) as caught:
        unpacked(tmp_path, "a" + suffix, gzip.compress(content) if suffix == ".tar.gz" else content)
    assert caught.value.code == "invalid_upload"
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "T1.nii").exists()


def with_mode(mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a.nii")
    info.create_system, info.external_attr = 3, mode << 16
    return info


def lying_zip(said: int) -> bytes:
    """A zip whose headers both say another size than its data have."""
    content = zipped({"a.nii": bytes(500)})
    return content.replace(struct.pack("<L", 500), struct.pack("<L", said))


def encrypted_zip() -> bytes:
    content = bytearray(zipped({"a.nii": b"data"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def zero_in_name() -> bytes:
    return zipped({"a.nii_.exe": b"data"}).replace(b"a.nii_.exe", b"a.nii\0.exe")


ATTACKS = {
    "zip symlink": ("a.zip", zip_of(with_mode(stat.S_IFLNK | 0o777), b"/etc/passwd"), "no plain file"),
    "zip device": ("a.zip", zip_of(with_mode(stat.S_IFCHR | 0o666)), "no plain file"),
    "zip fifo": ("a.zip", zip_of(with_mode(stat.S_IFIFO | 0o666)), "no plain file"),
    "zip encrypted": ("a.zip", encrypted_zip(), "it is encrypted"),
    "zip bzip2": ("a.zip", zipped({"a.nii": b"1"}, zipfile.ZIP_BZIP2), "compression is neither"),
    "zip lzma": ("a.zip", zipped({"a.nii": b"1"}, zipfile.ZIP_LZMA), "compression is neither"),
    "zip twice": ("a.zip", zipped({"a/T1.nii": b"1", "b/T1.nii": b"2"}), "two files have the same name"),
    "zip twice by case": ("a.zip", zipped({"t1.nii": b"1", "T1.NII": b"2"}), "two files have the same name"),
    "zip many": ("a.zip", zipped({f"{i}.nii": b"1" for i in range(5)}), "too many files; allowed: at most 4"),
    "zip many folders": ("a.zip", zipped({f"{i}/": b"" for i in range(40)}), "too many members"),
    "zip says less": ("a.zip", lying_zip(20), "damaged"),
    "zip says more": ("a.zip", lying_zip(501), "damaged|not as long as it says"),
    "zip says nothing": ("a.zip", lying_zip(0), "damaged"),
    "zip large": ("a.zip", zipped({"a.nii": bytes(100_001)}), "too large"),
    "zip large together": ("a.zip", zipped({f"{i}.nii": bytes(30_000) for i in range(4)}), "too large"),
    "zip zero in name": ("a.zip", zero_in_name(), "leaves it"),
    "zip comment": ("a.zip", zipped({})[:-2] + b"\x01\0!", "no zip file, or it ends in a comment"),
    "zip cut": ("a.zip", zipped(PLAIN)[:-30], "no zip file"),
    "zip directory": (
        "a.zip",
        zipped(PLAIN)[:-10] + struct.pack("<LLH", 1 << 31, 0, 0),
        "it holds too many members",
    ),
    "zip empty": ("a.zip", b"", "no zip file"),
    "tar symlink": ("a.tar", tar_of(tarfile.SYMTYPE, link="/etc/passwd"), "no plain file"),
    "tar hard link": ("a.tar", tar_of(tarfile.LNKTYPE, link="../x"), "no plain file"),
    "tar device": ("a.tar", tar_of(tarfile.CHRTYPE), "no plain file"),
    "tar fifo": ("a.tar", tar_of(tarfile.FIFOTYPE), "no plain file"),
    "tar sparse": ("a.tar", tar_of(tarfile.GNUTYPE_SPARSE), "no plain file"),
    "tar pax size": ("a.tar", tar_of(tarfile.REGTYPE, pax={"size": "99"}), "changes what its members are"),
    "tar pax sparse": ("a.tar", tar_of(tarfile.REGTYPE, pax={"GNU.sparse.size": "9"}), "changes what its members"),
    "tar pax path": ("a.tar", tar_of(tarfile.REGTYPE, pax={"path": "../../ü.nii"}), "leaves it"),
    "tar pax long": ("a.tar", tar_of(tarfile.REGTYPE, pax={"x": "y" * 70_000}), "header in it is too long"),
    "tar global path": ("a.tar", tarfile.TarInfo.create_pax_global_header({"path": "b.nii"}), "all its members alike"),
    "tar large": ("a.tar", tar_of(tarfile.REGTYPE, size=100_001), "too large"),
    "tar cut": ("a.tar", tarred(PLAIN)[:30_000], "ends early"),
    "tar no end": ("a.tar", tarred({"a.nii": b"1"})[:1024], "ends early"),
    "tar many": ("a.tar", tarred({f"{i}.nii": b"1" for i in range(5)}), "too many files"),
    "tar many folders": ("a.tar", tar_of(tarfile.DIRTYPE, "d")[:512] * 40, "too many members"),
    "tar twice": ("a.tar", tarred({"a/T1.nii": b"1", "b/t1.nii": b"2"}), "two files have the same name"),
    "tar nothing": ("a.tar", bytes(10_240), "ends early"),
    "tar noise": ("a.tar", LARGE, "damaged"),
    "gz no gzip": ("a.tar.gz", tarred(PLAIN), "compressed data are damaged"),
    "gz cut": ("a.tar.gz", gzip.compress(tarred(PLAIN))[:-9], "compressed data end early"),
    "gz checksum": ("a.tar.gz", gzip.compress(tarred(PLAIN))[:-8] + bytes(8), "compressed data are damaged"),
    "gz bomb behind": ("a.tar.gz", gzip.compress(tarred(PLAIN) + bytes(5_000_000)), "too large"),
    "rar": ("a.rar", b"Rar!", "unknown archive format"),
    "7z": ("a.7z", b"7z", "unknown archive format"),
    "bz2": ("a.tar.bz2", b"BZ", "unknown archive format"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), ATTACKS.values(), ids=ATTACKS)
def test_attacks_are_refused_whole(tmp_path, name, content, words):
    with pytest.raises(Any2allError, match=words) as caught:
        unpacked(tmp_path, name, content)
    assert caught.value.code == ("too_large" if "too large" in words else "invalid_upload")
    assert not list((tmp_path / "out").iterdir())
    assert str(tmp_path) not in caught.value.sentence()


@pytest.mark.parametrize("packed", [zipped, lambda members: gzip.compress(tarred(members))], ids=["zip", "tar.gz"])
def test_a_bomb_costs_little(tmp_path, packed):
    content = packed({"T1.nii": bytes(80_000_000)})
    assert len(content) < 100_000
    began = time.process_time()
    with pytest.raises(Any2allError, match="too large"):
        unpacked(tmp_path, "a.zip" if content[:2] == b"PK" else "a.tar.gz", content)
    assert time.process_time() - began < 1


VALID = {"a.zip": zipped(PLAIN), "a.tar": tarred(PLAIN), "a.tar.gz": gzip.compress(tarred(PLAIN))}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(sorted(VALID)))
def test_no_bytes_raise_anything_else(tmp_path_factory, data, name):
    content = bytearray(VALID[name])
    ends = st.integers(0, 600) | st.integers(len(content) - 600, len(content) - 1)  # where the headers are
    for place in data.draw(st.lists(ends, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
    folder = tmp_path_factory.mktemp("archive")
    try:
        unpacked(folder, name, bytes(content))
    except Any2allError as error:
        assert not list((folder / "out").iterdir())
        error.sentence().encode()
    assert sorted(path.name for path in folder.iterdir()) == [name, "out"]
