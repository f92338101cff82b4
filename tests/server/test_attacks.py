"""A real server process and somebody who means harm: every attack that a stock MONAI Label falls to, and more.

The last tests look at everything that the module left behind: files, replies, the log.
"""

from __future__ import annotations

import itertools
import json
import select
import shutil
import socket
import time
from pathlib import Path

import attack_builders as evil
import pytest
from attack_builders import Watch, one_file, refused, sent_job
from server_builders import Server, study, wait_until

MIB = 2**20
LEAVING = ("../x", "..", ".", "/etc/passwd", "p01/../../x", "..\\x", "p01\0", "~root", "file:///etc/passwd", "x" * 300)


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    """A folder that is no business of the server's, with a file that it must never tell."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "subject").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model_file, phantom_files, outside):
    folder = tmp_path_factory.mktemp("attacked")
    studies = folder / "studies"
    for name in ("p01", "linked", "named", "odd"):
        (studies / name).mkdir(parents=True)
    for name in ("T1", "T2"):
        shutil.copy(phantom_files / f"{name}.nii.gz", studies / "p01")
    shutil.copy(phantom_files / "T1.nii.gz", outside / "secret.nii.gz")
    shutil.copy(phantom_files / "T1.nii.gz", outside / "subject" / "T1.nii.gz")
    (studies / "linked" / "T1.nii.gz").symlink_to(outside / "secret.nii.gz")
    (studies / "away").symlink_to(outside / "subject")
    t1 = {"T1": {"status": "available", "file": "../../../../../../etc/passwd"}}
    (studies / "named" / "study.json").write_text(json.dumps({"modalities": t1}))
    odd = 'T1 "ü\r\nX-Evil: 1.nii.gz'
    shutil.copy(phantom_files / "T1.nii.gz", studies / "odd" / odd)
    t1["T1"]["file"] = odd
    (studies / "odd" / "study.json").write_text(json.dumps({"modalities": t1}))
    saved = studies / "p01" / "any2all-first"
    saved.mkdir()
    (saved / "summary.json").write_text("{}")
    (saved / "CT.nii.gz").symlink_to(outside / "secret.nii.gz")
    (folder / "tmp").mkdir()
    conf = {"queue": 6, "upload_bytes": 8 * MIB, "unpacked_bytes": 16 * MIB, "voxels": 2 * MIB, "idle_seconds": 5}
    server = Server(folder, tiny_model_file, conf, {"TMPDIR": str(folder / "tmp")})
    server.watch = Watch(server, outside)
    yield server
    server.stop()


@pytest.fixture
def t1(phantom_files) -> bytes:
    return (phantom_files / "T1.nii.gz").read_bytes()


# -- the seven attacks of a stock server -------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [*LEAVING, "p01/T1", "away", "../outside"])
def test_no_inference_of_a_server_path(server, image, outside):
    for name in (image, str(outside / "secret.nii.gz"), str(server.studies / "p01")):
        body = {"params": json.dumps({"outputs": ["CT"]})}
        told = refused(server.http.post("/infer/any2all", params={"image": name}, data=body), 404)
        assert told["code"] == "unknown_subject"


@pytest.mark.parametrize(
    "key", "image model device save_label label_tag model_filename label session_id result_extension".split()
)
def test_params_override_nothing(server, key, t1, outside):
    body = {"params": json.dumps({"outputs": ["CT"], key: str(outside / "secret.nii.gz")})}
    for query, files in (({"image": "p01"}, {}), ({}, {"file": ("T1.nii.gz", t1)})):
        told = refused(server.http.post("/infer/any2all", params=query, data=body, files=files), 422)
        assert told["key"] == f"params.{key}" and told["message"] == "unknown key"
    refused(server.http.post("/batch/infer/any2all", json={key: "x"}), 422)
    refused(server.http.post("/train/any2all", json={key: "x"}), 422)
    if key != "session_id":
        refused(server.http.post("/infer/any2all", params={"session_id": "1" * 32, key: "x"}, data=body), 404, 422)


@pytest.mark.parametrize("name", ["../outside/secret.nii.gz", "/etc/passwd", "T1.nii.gz/..", "", "a\0b", "study.json"])
def test_params_and_studies_name_no_file_elsewhere(server, name, t1):
    params = json.dumps(one_file(name))
    for query, files in (({"image": "p01"}, {}), ({}, {"file": ("T1.nii.gz", t1)})):
        refused(server.http.post("/infer/any2all", params=query, data={"params": params}, files=files), 422)
    refused(server.http.post("/any2all/v1/jobs", data={"subject": "p01", "study": params}), 422)
    refused(sent_job(server, one_file(name), ("T1.nii.gz", t1)), 422)
    refused(sent_job(server, one_file(name)), 422)


@pytest.mark.parametrize("label", ["../../x", "..", "/tmp/x", "a/b", "a\\b", "", "x" * 65, "a\0b", "a\r\nX: y", "ü"])
def test_no_label_leaves_the_subject(server, label):
    form = {"subject": "p01", "save": label, "study": json.dumps({"outputs": ["CT"], "preset": "fast"})}
    refused(server.http.post("/any2all/v1/jobs", data=form), 422)
    params = {"params": json.dumps({"outputs": ["CT"], "save": label})}
    refused(server.http.post("/infer/any2all", params={"image": "p01"}, data=params), 422)
    refused(server.http.get("/datastore/label", params={"label": "p01", "tag": f"{label}/summary.json"}), 404, 422)
    refused(server.http.get("/datastore/label/info", params={"label": "p01", "tag": label}), 422)
    reply = server.http.post("/batch/infer/any2all", json={"save": label})
    if reply.status_code == 200:  # each subject refuses it
        told = wait_until(lambda: (s := server.http.get("/batch/infer").json())["status"] != "RUNNING" and s)
        assert set(told["subjects"].values()) == {"refused"}
    else:
        refused(reply, 422)


@pytest.mark.parametrize("route", ["image", "label", "image/info", "label/info", "", "updatelabelinfo", "download"])
def test_nothing_is_written_through_the_datastore(server, route, t1):
    for method, name in itertools.product(("PUT", "POST", "DELETE", "PATCH"), ("../x", "p01", "p01/T1")):
        query, files = {"image": name, "label": name, "tag": "../../x"}, {"file": ("T1.nii.gz", t1)}
        refused(server.http.request(method, f"/datastore/{route}", params=query, files=files), 404, 405)


@pytest.mark.parametrize("image", [*(f"{name}/T1" for name in LEAVING), "p01/../linked/T1", "away/T1", "linked/T1"])
def test_the_datastore_reads_nothing_elsewhere(server, image):
    refused(server.http.get("/datastore/image", params={"image": image}), 404, 422)
    refused(server.http.get("/datastore/image", params={"image": image[::-1]}), 404, 422)


ARCHIVES = {
    **{f"tar {name}": ("a.tar", evil.tar_of("file", name)) for name in
       ("../T1.nii.gz", "/tmp/T1.nii.gz", "a/../../T1.nii.gz", "..\\T1.nii.gz", "a/b/c/d/e/T1.nii.gz", "T2.nii.gz")},
    "tar.gz ..": ("a.tar.gz", evil.tar_of("file", "../T1.nii.gz", packed=True)),
    "tar link": ("a.tar", evil.tar_of("link", "T1.nii.gz", "/etc/passwd")),
    "tar link to its folder": ("a.tar", evil.tar_of("link", "T1.nii.gz", "T2.nii.gz")),
    "tar hard link": ("a.tar", evil.tar_of("hard", "T1.nii.gz", "/etc/passwd")),
    "tar fifo": ("a.tar", evil.tar_of("fifo", "T1.nii.gz")),
    "tar device": ("a.tar", evil.tar_of("device", "T1.nii.gz")),
    "zip ..": ("a.zip", evil.zip_of("../T1.nii.gz")),
    "zip /": ("a.zip", evil.zip_of("/tmp/T1.nii.gz")),
    "zip \\": ("a.zip", evil.zip_of("..\\T1.nii.gz")),
    "zip drive": ("a.zip", evil.zip_of("C:T1.nii.gz")),
    "zip zero": ("a.zip", evil.zip_of("T1.nii.gz\0/../../x")),
    "zip link": ("a.zip", evil.zip_of("T1.nii.gz", b"/etc/passwd", link=True)),
    "zip other file": ("a.zip", evil.zip_of("evil.py")),
    "zip bomb": ("a.zip", evil.zip_of("T1.nii", bytes(20 * MIB))),
    "tar.gz bomb": ("a.tar.gz", evil.zeros_gz(evil.tar_of("file", "T1.nii.gz")[:-10240], 60)),
    "no archive": ("a.zip", b"PK\x03\x04 and nothing more"),
    "other name": ("../a.zip", evil.zip_of("T1.nii.gz")),
}  # fmt: skip


@pytest.mark.parametrize("which", ARCHIVES)
def test_no_member_of_an_archive_escapes(server, which):
    reply = server.http.put("/session/", params={"uncompress": "true"}, files={"files": ARCHIVES[which]})
    refused(reply, 413, 422)
    assert not list((server.work / "sessions").iterdir())


def test_no_reply_names_a_file_to_load_as_a_model(server):
    for path in ("/model/any2all", "/model/..%2f..", "/infer/..%2f..%2fmodel", "/infer/other", "/train/other"):
        refused(server.http.put(path, params={"model_filename": "/etc/passwd"}), 404, 405)
        refused(server.http.post(path, params={"model_filename": "/etc/passwd"}, json={}), 404, 405, 422)
    assert "models" in server.http.get("/info/").json()


# -- the study store ---------------------------------------------------------------------------------------------------


def test_links_and_studies_that_lead_out_of_the_store_are_refused(server, t1):
    listed = {s["subject"]: s for s in server.http.get("/any2all/v1/subjects").json()["subjects"]}
    assert set(listed) == {"p01", "linked", "named", "odd"}, "a linked folder is no subject"
    assert "leaves the study's folder" in listed["linked"]["problem"] and listed["named"]["problem"]
    for subject in ("linked", "named"):
        refused(server.http.post("/any2all/v1/jobs", data={"subject": subject}), 422)
        refused(server.http.post("/infer/any2all", params={"image": subject}, data={"params": "{}"}), 422)
        refused(server.http.get("/datastore/image", params={"image": f"{subject}/T1"}), 422)
    refused(server.http.get("/datastore/label", params={"label": "p01", "tag": "first/CT.nii.gz"}), 404)
    assert server.http.get("/datastore/label", params={"label": "p01", "tag": "first/summary.json"}).text == "{}"
    odd = server.http.get("/datastore/image", params={"image": "odd/T1"})
    assert odd.content == t1 and "x-evil" not in odd.headers, "a name in the store may hold anything"


# -- files -------------------------------------------------------------------------------------------------------------


def peak_memory(server) -> int:
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("no /proc here: the server's memory cannot be seen")
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


@pytest.mark.parametrize(
    "head",
    [evil.nifti_head((8, 8, 8)), evil.nifti_head((30000, 30000, 1)), evil.nifti_head((8, 8, 8), 2.0**28)],
    ids=["more than it says", "many voxels", "a header extension"],
)
def test_a_gzip_bomb_is_refused_without_being_unpacked(server, head):
    bomb, before = evil.zeros_gz(head, 256), peak_memory(server)
    assert len(bomb) < 2 * MIB
    file = ("T1.nii.gz", bomb)
    refused(sent_job(server, one_file("T1.nii.gz"), file), 413, 422)
    refused(server.http.post("/infer/any2all", data={"params": "{}"}, files={"file": file}), 413, 422)
    session = server.http.put("/session/", files={"files": file}).json()["session_id"]
    refused(server.http.post("/infer/any2all", params={"session_id": session}, data={"params": "{}"}), 413, 422)
    server.http.delete(f"/session/{session}")
    assert peak_memory(server) - before < 100 * MIB


def test_pickles_links_and_other_files_behind_a_file(server, tmp_path, outside):
    marker, zeros = tmp_path / "marker", (bytes(4 * 512),)
    secret = str(outside / "secret.nii.gz")
    raw = {f"{kind}.h5": evil.h5_elsewhere(tmp_path, kind, outside / "secret.nii.gz") for kind in
           ("external", "soft", "raw", "virtual")}  # fmt: skip
    raw |= {"p.npy": evil.pickled_npy(marker), "p.npz": evil.npz_of({"kspace.npy": evil.pickled_npy(marker)})}
    raw |= {
        "code.npz": evil.npz_of({"../x.py": b"evil"}),
        "junk.npy": b"\x93NUMPY" + b"(" * 9000,
        "junk.h5": b"\x89HDF",
    }
    for name, content in raw.items():
        refused(sent_job(server, one_file(name, "kspace"), (name, content)), 422)
        maps = one_file(name, "kspace")
        maps["modalities"]["T1"] |= {"kspace": "k.npy", "coil_maps": name}
        refused(sent_job(server, maps, ("k.npy", raw["p.npy"]), (name, content)), 422)
    images = {
        "a.mha": evil.mha(secret), "b.mha": evil.mha("LIST"), "c.mha": evil.mha("LOCAL", "ElementDataFile = " + secret),
        "d.mha": evil.mha("LOCAL", "CompressedData = True", "CompressedDataSize = 99999999999"),
        "e.nrrd": evil.nrrd(f"data file: {secret}"), "f.nrrd": evil.nrrd("datafile: LIST"),
        "g.nrrd": evil.nrrd("byteskip: -1"), "h.nii": evil.nifti_head((8, 8, 8)).replace(b"n+1", b"ni1") + zeros[0],
        "i.nii": b"<xml/>", "j.nii": b"",
    }  # fmt: skip
    for name, content in images.items():
        refused(sent_job(server, one_file(name), (name, content)), 413, 422)
        named = {"file": (f"T1.{name.rpartition('.')[2]}", content)}
        refused(server.http.post("/infer/any2all", data={"params": "{}"}, files=named), 413, 422)
    assert not marker.exists()


def test_a_long_header_line_holds_up_nobody(server):
    """A pattern that backtracks needs 15 seconds for this line and answers nobody meanwhile."""
    files = [(f"{n}.mha", evil.mha("LOCAL", "x = a" + " " * 60_000 + "b", "HeaderSize = 1")) for n in "ab"]
    document = {"modalities": {m: {"status": "available", "file": f} for m, (f, _) in zip(("T1", "T2"), files)}}
    started = time.monotonic()
    refused(sent_job(server, document, *files), 422)
    assert time.monotonic() - started < 10


NAMES = ("../T1.nii.gz", "/T1.nii.gz", "T1\r\nX: y.nii.gz", "T1.nii.gz\0", ".T1.nii.gz", "T1.py", "ü.nii", "a/b.nii",
         "x" * 300 + ".nii", "T1.nii.gz ", '"T1".nii')  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_file_names_are_plain(server, name, t1):
    refused(sent_job(server, one_file(name), (name, t1)), 422)
    refused(server.http.put("/session/", files={"files": (name, t1)}), 422)
    refused(server.http.post("/infer/any2all", data={"params": "{}"}, files={"file": (name, t1)}), 422)


# -- documents ---------------------------------------------------------------------------------------------------------

BOMBS = {
    "deep": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "deep list": "[" * 100_000,
    "digits": '{"sampler": {"steps": ' + "9" * 50_000 + "}}",
    "twice": '{"version": 1, "version": 2}',
    "NaN": '{"sampler": {"eta": NaN}}',
    "infinite": '{"sampler": {"eta": 1e999}}',
    "minus infinity": '{"sampler": {"eta": -Infinity}}',
    "half a pair": '{"reference": "\\ud800"}',
    "long": '{"reference": "' + "x" * (MIB + 1) + '"}',
    "long word": '{"reference": "' + "x" * (MIB - 100) + '"}',
    "list": "[1]",
    "text": '"x"',
    "nothing": "null",
    "no JSON": "{'a': 1}",
    "zero": '{"a\\u0000": 1}',
    "many": '{"modalities": {' + ",".join(f'"{i}": {{"status": "missing"}}' for i in range(20_000)) + "}}",
}


@pytest.mark.parametrize("which", BOMBS)
def test_no_document_breaks_anything(server, which, t1):
    text = BOMBS[which]
    refused(sent_job(server, text, ("T1.nii.gz", t1)), 413, 422)
    told = server.http.post("/infer/any2all", params={"image": "p01"}, data={"params": text}, files={"x": ("x", b"")})
    refused(told, 413, 422)
    if which != "nothing":
        refused(server.http.post("/batch/infer/any2all", content=text), 413, 422)
        refused(server.http.post("/train/any2all", content=text), 413, 422)


@pytest.mark.parametrize("charset", ["undefined", "utf-16", "punycode", "idna", "hex", "x" * 999, "utf-7"])
def test_texts_are_utf_8(server, charset):
    body = b'--b\r\nContent-Disposition: form-data; name="study"\r\n\r\n{"a": "\xff"}\r\n--b--\r\n'
    kind = {"Content-Type": f"multipart/form-data; boundary=b; charset={charset}"}
    refused(server.http.post("/any2all/v1/jobs", content=body, headers=kind), 415)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(server.http.post("/any2all/v1/jobs", content=body, headers=kind), 422)


KINDS = ("application/json", "text/xml", "multipart/form-data", "multipart/mixed; boundary=b", "x",
         "multipart/form-data; boundary=" + "b" * 999, "multipart/form-datax; boundary=b")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_content_types_are_refused(server, kind):
    for method, path in (("POST", "/any2all/v1/jobs"), ("PUT", "/session/"), ("POST", "/infer/any2all")):
        refused(
            server.http.request(method, path, content=b"--b\r\n\r\n--b--", headers={"Content-Type": kind}), 415, 422
        )


def test_too_much_of_anything_is_refused(server, t1):
    def pieces():
        for _ in range(64):
            yield bytes(MIB)

    started = time.monotonic()
    for content in (pieces(), bytes(20 * MIB)):
        try:
            kind = {"Content-Type": "multipart/form-data; boundary=b"}
            refused(server.http.post("/any2all/v1/jobs", content=content, headers=kind), 413, 422)
        except OSError:  # the connection is closed while we still send
            pass
    assert time.monotonic() - started < 20
    many = [("files", (f"{i}.nii.gz", t1[:10])) for i in range(30)]
    refused(server.http.post("/any2all/v1/jobs", data={"study": "{}"}, files=many), 422)
    refused(server.http.put("/session/", files=many), 422)
    refused(server.http.post("/any2all/v1/jobs", data={f"f{i}": "x" for i in range(99)}), 422)
    refused(server.http.post("/any2all/v1/jobs", data={"study": "x" * (2 * MIB)}), 413, 422)
    refused(server.http.post("/any2all/v1/jobs", data={"study": ["{}", "{}"]}, files={"files": ("a.nii", b"")}), 422)
    refused(server.http.post("/any2all/v1/jobs", data={"file": "x", "study": "{}"}), 422)
    zipped = {"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=b"}
    refused(server.http.post("/any2all/v1/jobs", content=evil.zeros_gz(b"", 8), headers=zipped), 415)
    big = study(steps=1000, samples=999)
    refused(sent_job(server, big, *[(f"{m}.nii.gz", t1) for m in big["modalities"]]), 413)


def test_many_uploads_at_once_do_not_fill_the_disk(server, t1):
    """Each is as large as one may be and stays unfinished; together they are refused."""
    start = b"POST /any2all/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    start += b"Content-Length: %d\r\n\r\n" % (8.5 * MIB)
    start += b'--b\r\nContent-Disposition: form-data; name="files"; filename="T1.nii"\r\n\r\n'
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
    try:
        for client in clients:
            client.sendall(start + bytes(8 * MIB))
        answered, _, _ = select.select(clients, [], [], 4)
        assert answered and answered[0].recv(100).startswith(b"HTTP/1.1 429")
    finally:
        for client in clients:
            client.close()
    wait_until(lambda: sent_job(server, "{}", ("T1.nii.gz", t1)).status_code == 422)


def test_last_everything_is_as_it_was(server):
    server.watch.assert_nothing_was_left()
    server.watch.assert_no_reply_told_a_path()
    server.watch.assert_it_lives()
