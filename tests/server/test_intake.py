"""Uploads: names, storing, the study's text. Every attack is refused in words and leaves nothing behind."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from any2all.errors import Any2allError
from hypothesis import given, settings
from hypothesis import strategies as st
from lib import intake
from lib.intake import check_used, file_name, store_files, study_document
from lib.settings import Limits

SMALL = Limits(files=3, upload_bytes=1000, study_bytes=10_000)


@pytest.mark.parametrize(
    "name", ["T1.nii.gz", "a.nii", "brain 2+3.nrrd", "X.MHA", "k_space-1.h5", "9.npz", "m.npy", "a..b.nii"]
)
def test_plain_names_are_taken_as_they_are(name):
    assert file_name(name, "files") == name


@pytest.mark.parametrize(
    "name",
    ["../T1.nii", "/etc/T1.nii", "a/T1.nii", "a\\T1.nii", "C:T1.nii", "..", ".", ".nii", ".hidden.nii", "~T1.nii"]
    + [
        "T1.nii\0.png",
        "T1.nii\n",
        "T1.nii ",
        "T1.nii.",
        " T1.nii",
        "-rf.nii",
        "a" * 125 + ".nii",
        "ü.nii",
        "T1.nii\udcff",
    ]
    + ["T1", "T1.gz", "T1.exe", "study.json", "T1.nii.gz.pkl", "model.pt", "T1.zip", "%2e%2e%2fT1.nii?"],
)
def test_other_names_are_refused(name):
    with pytest.raises(Any2allError, match="this file name is not taken") as caught:
        file_name(name, "files")
    assert (caught.value.code, caught.value.key) == ("invalid_upload", "files")
    json.dumps(caught.value.as_dict()).encode()


@pytest.mark.parametrize("name", [None, "", 7])
def test_a_file_needs_a_name(name):
    with pytest.raises(Any2allError, match="without its name"):
        file_name(name, "files")


@given(st.text(max_size=40) | st.text("./\\ .a:~\0-", max_size=12).map(lambda text: text + ".nii"))
def test_no_name_leaves_the_folder(name):
    try:
        taken = file_name(name, "files")
    except Any2allError as error:
        error.sentence().encode()
    else:
        assert os.path.normpath(os.path.join("/home", taken)) == f"/home/{name}"
        assert os.path.dirname(os.path.normpath(f"/home/{taken}")) == "/home"


def files(**contents: bytes) -> list[tuple[str, io.BytesIO]]:
    return [(name + ".nii", io.BytesIO(content)) for name, content in contents.items()]


def test_files_are_stored_whole_and_private(tmp_path):
    large = os.urandom(700_000)
    stored = store_files(files(a=b"1", b=large, c=b""), tmp_path, Limits())
    assert [path.name for path in stored] == ["a.nii", "b.nii", "c.nii"]
    assert [path.read_bytes() for path in stored] == [b"1", large, b""]
    assert {path.stat().st_mode & 0o777 for path in stored} == {0o600}


@pytest.mark.parametrize(
    ("sent", "words", "code"),
    [
        ([("a.nii", b"1"), ("../b.nii", b"2")], "this file name is not taken", "invalid_upload"),
        ([("a.nii", b"1"), (None, b"2")], "without its name", "invalid_upload"),
        ([("a.nii", b"1"), ("a.nii", b"2")], "same name", "invalid_upload"),
        ([("a.nii", b"1"), ("A.NII", b"2")], "same name", "invalid_upload"),
        ([(f"{i}.nii", b"1") for i in range(4)], "too many files; allowed: at most 3", "invalid_upload"),
        ([("a.nii", bytes(600)), ("b.nii", bytes(401))], "too large; allowed: at most 1000 bytes", "too_large"),
        ([("a.nii", b"1"), ("there.nii", b"2")], "already there", "invalid_upload"),
        ([("a.nii", b"1"), ("link.nii", b"2")], "already there", "invalid_upload"),
        ([("a.nii", b"1"), ("b.zip", b"2")], "this file name is not taken", "invalid_upload"),
    ],
)
def test_all_files_or_none(tmp_path, sent, words, code):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    (folder / "there.nii").write_bytes(b"old")
    (folder / "link.nii").symlink_to(outside)
    with pytest.raises(Any2allError, match=words) as caught:
        store_files([(name, io.BytesIO(content)) for name, content in sent], folder, SMALL)
    assert caught.value.code == code
    assert sorted(path.name for path in folder.iterdir()) == ["link.nii", "there.nii"]
    assert (folder / "there.nii").read_bytes() == b"old" and not outside.exists()


def test_archives_are_taken_only_when_asked_for(tmp_path):
    [stored] = store_files([("a.tar.gz", io.BytesIO(b"1"))], tmp_path, SMALL, archives=True)
    assert stored.name == "a.tar.gz"
    with pytest.raises(Any2allError, match="not taken"):
        store_files(files(a=b"1"), tmp_path, SMALL, archives=True)


def test_a_disk_that_is_full_before(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=intake.LEAST_FREE_BYTES - 1))
    with pytest.raises(Any2allError, match="disk is full") as caught:
        store_files(files(a=b"1"), tmp_path, SMALL)
    assert caught.value.code == "storage" and not list(tmp_path.iterdir())


class Broken(io.BytesIO):
    """A stream that fails in its second piece."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.pieces, self.error = [b"1"], error

    def read(self, size=-1):
        if not self.pieces:
            raise self.error
        return self.pieces.pop()


def test_a_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    def full(stream, piece):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    monkeypatch.setattr(intake, "_write_all", full)
    with pytest.raises(Any2allError, match="No space left") as caught:
        store_files(files(a=b"1"), tmp_path, SMALL)
    assert caught.value.code == "storage" and str(tmp_path) not in caught.value.sentence()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(errno.EIO, "broken"), Any2allError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_an_upload_that_breaks_off_leaves_nothing(tmp_path, error, raised):
    with pytest.raises(raised):
        store_files([*files(a=b"1"), ("b.nii", Broken(error))], tmp_path, SMALL)
    assert not list(tmp_path.iterdir())


def test_a_study_is_read():
    study = {"version": 1, "modalities": {"T1": {"status": "available", "file": "T1.nii.gz"}}, "sampler": {"eta": 0.5}}
    for text in (json.dumps(study), json.dumps(study).encode()):
        assert study_document(text, Limits()) == study


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("{}}", "not JSON"),
        ("[]", "a study is a JSON object; got 'list'"),
        ("null", "a study is a JSON object"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ('{"subject": "\udcff"}', "not UTF-8"),
        (r'{"subject": "\ud800"}', "not Unicode text"),
        (r'{"\udfff": 1}', "not Unicode text"),
        ('{"a": NaN}', "not finite; got 'NaN'"),
        ('{"a": -Infinity}', "not finite; got '-Infinity'"),
        ('{"a": 1e999}', "not finite; got '1e999'"),
        ('{"a": 1, "a": 2}', "a: the study names this key twice"),
        ('{"b": {"a": 1, "a": 1}}', "a: the study names this key twice"),
        ('{"a": ' + "9" * 9_000 + "}", "a number of the study is too long"),
        ('{"a": 0.' + "9" * 9_000 + "}", "a number of the study is too long"),
        ("[" * 33 + "]" * 33, "nested too deeply; allowed: at most 32 levels"),
        ('{"a":' * 1_500 + "1" + "}" * 1_500, "nested too deeply"),
        ("[" * 10_000, "nested too deeply"),
        ('{"a": "' + "x" * 10_000 + '"}', "text is too long"),
    ],
)
def test_other_texts_are_refused(text, words):
    with pytest.raises(Any2allError, match=words) as caught:
        study_document(text, SMALL)
    json.dumps(caught.value.as_dict(), allow_nan=False).encode()
    assert len(caught.value.sentence()) < 300


@pytest.mark.parametrize(
    "text",
    [
        '{"a": ' + "9" * 1_000_000 + "}",
        "[" * 1_000_000,
        "{" + ",".join(f'"{i}": 0' for i in range(70_000)) + "}",
    ],
    ids=["digits", "brackets", "keys"],
)
def test_a_long_text_takes_no_time(text):
    began = time.process_time()
    try:
        study_document(text, Limits())
    except Any2allError:
        pass
    assert time.process_time() - began < 2


@given(st.text(max_size=60) | st.binary(max_size=60) | st.text('{}[]",:\\ue1-.0aN', max_size=60))
def test_no_text_raises_anything_else(text):
    try:
        assert isinstance(study_document(text, SMALL), dict)
    except Any2allError as error:
        error.sentence().encode()


def test_files_that_the_study_does_not_mention():
    study = {"modalities": {"T1": {"file": "a.nii"}, "T2": {"kspace": "k.h5", "coil_maps": "m.npy"}, "CT": 7}}
    assert check_used(study, ["m.npy", "a.nii"]) == ["m.npy", "a.nii"]
    with pytest.raises(
        Any2allError, match="files: the study does not mention these files; got 'b.nii, A.nii'"
    ) as caught:
        check_used(study, ["a.nii", "b.nii", "A.nii"])
    assert caught.value.allowed == ["a.nii", "k.h5", "m.npy"] and caught.value.code == "invalid_upload"


@settings(max_examples=50)
@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda s: st.dictionaries(st.text(), s) | st.lists(s))
)
def test_a_study_may_still_be_anything(value):
    with pytest.raises(Any2allError):
        check_used({"modalities": value}, ["a.nii"])


def test_the_folder_has_to_be_there(tmp_path: Path):
    with pytest.raises(Any2allError) as caught:
        store_files(files(a=b"1"), tmp_path / "gone", SMALL)
    assert caught.value.code == "storage" and "gone" not in caught.value.sentence()
