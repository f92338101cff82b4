"""Random requests to every route of a real server, as its OpenAPI declares them: it answers each in words and lives.

``ANY2ALL_FUZZ_REQUESTS`` is the number of requests (default 400, always the same ones; a number that is set draws new
ones). Studies, images and forms are valid ones with a few things changed, so that they get far.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import random
import shutil
from collections import Counter
from typing import Any
from urllib.parse import quote, urlencode

import attack_builders as evil
import h5py
import numpy as np
import pytest
from attack_builders import Watch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from server_builders import Server, study, wait_until

REQUESTS = "ANY2ALL_FUZZ_REQUESTS"
KEPT_JOBS = 3
FORMS = {  # texts and file fields of the routes that take a form
    "/any2all/v1/jobs": (("study", "subject", "save"), "files"),
    "/session/": (("client_id",), "files"),
    "/infer/{model}": (("params",), "file"),
}
RAW = (".h5", ".npy", ".npz")
OFTEN_SUFFIX = (2, 2, 3, 9, 2, 1, 1, 1, 1)  # in the order of the alphabet; .nii.gz most
OFTEN = {path: 8 for path in FORMS}  # so much more often than other routes
KINDS = ("application/json", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded", "text/xml", "")
BATCH = {"preset": "fast", "outputs": ["CT"], "save": "batch", "sampler": {"steps": 2}, "client_id": "x"}

words = st.text(max_size=20) | st.sampled_from(["..", "../x", "/etc/passwd", "\0", "p01", "any2all", "T1", "a" * 3000])
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 1e308, 2**63, 10**30])
leaves = st.none() | st.booleans() | numbers | words
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=6)


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model_file, phantom_files):
    folder, outside = tmp_path_factory.mktemp("fuzzed"), tmp_path_factory.mktemp("outside")
    (folder / "studies" / "p01").mkdir(parents=True)
    (folder / "tmp").mkdir()
    shutil.copy(phantom_files / "T1.nii.gz", folder / "studies" / "p01")
    conf = {"queue": 4, "steps": 6, "samples": 2, "upload_bytes": 2**22, "unpacked_bytes": 2**23, "voxels": 2**18}
    server = Server(folder, tiny_model_file, conf, {"TMPDIR": str(folder / "tmp")})
    server.watch = Watch(server, outside)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def fuzz(server, phantom_files, tmp_path_factory):
    return Fuzz(server, whole_files(phantom_files, tmp_path_factory.mktemp("whole")))


def whole_files(phantom_files, folder) -> dict[str, bytes]:
    """A whole file of every format that a client may send, by its suffix."""
    image = (phantom_files / "T1.nii.gz").read_bytes()
    kspace, npy, npz = np.random.default_rng(0).normal(size=(12, 2, 16, 16)) + 0j, io.BytesIO(), io.BytesIO()
    np.save(npy, kspace)
    np.savez_compressed(npz, kspace=kspace)
    with h5py.File(folder / "k.h5", "w") as h5:
        h5.create_dataset("kspace", data=kspace, compression="gzip")
    raw = {".npy": npy.getvalue(), ".npz": npz.getvalue(), ".h5": (folder / "k.h5").read_bytes()}
    images = {".nii.gz": image, ".nii": gzip.decompress(image), ".mha": evil.mha("LOCAL"), ".nrrd": evil.nrrd()}
    return images | raw | {".zip": evil.zip_of("T1.nii.gz", image), ".tar": evil.tar_of("file", "T1.nii.gz")}


class Fuzz:
    """Draws requests and remembers what a client would know: jobs and sessions."""

    def __init__(self, server: Server, files: dict[str, bytes]) -> None:
        self.server, self.files = server, files
        self.jobs: list[str] = []
        self.sessions: list[str] = []
        self.statuses: Counter[int] = Counter()
        paths = server.http.get("/openapi.json").json()["paths"]
        self.routes = [
            (path, method, [p["name"] for p in about.get("parameters", []) if p["in"] == "query"])
            for path, methods in paths.items()
            for method, about in methods.items()
            for _ in range(OFTEN.get(path, 1) if method in ("post", "put") else 1)
        ]

    def request(self, draw: Any) -> dict[str, Any]:
        """Arguments of one request."""
        chance = random.Random(draw(st.binary(min_size=8, max_size=8)))
        path, method, names = chance.choice(self.routes)
        url = path
        for name, known in (("job_id", self.jobs), ("name", ["CT.nii.gz", "summary.json"]),
                            ("session_id", self.sessions), ("model", ["any2all"])):  # fmt: skip
            if f"{{{name}}}" in url:
                value = self._word(draw, chance, known)
                url = url.replace(f"{{{name}}}", quote(value.encode("utf-8", "surrogatepass"), safe=""))
        query = {name: self._word(draw, chance, self._known(name)) for name in names if chance.random() < 0.5}
        if chance.random() < 0.05:
            query[draw(words)] = draw(words)
        body = self._body(draw, chance, path) if method in ("post", "put") else {}
        if path == "/infer/{model}" and (source := chance.choice(("image", "session_id", "file", ""))):
            query = {name: text for name, text in query.items() if name in (source, "output")}
            body = {**body, "files": body.get("files", {}) if source == "file" else {}}
        return {"method": method.upper(), "url": f"{url}?{urlencode(query, errors='replace')}", **body}

    def send(self, request: dict[str, Any]) -> Any:
        """The reply, with the jobs and sessions that it tells."""
        reply = self.server.http.request(**request)
        self.statuses[reply.status_code] += 1
        if reply.status_code == 202:
            self.jobs.append(reply.json()["job_id"])
        if request["method"] == "PUT" and reply.status_code == 200:
            self.sessions.append(reply.json()["session_id"])
        while len(self.jobs) > KEPT_JOBS:
            self.forget_job(self.jobs.pop(0))
        while len(self.sessions) > KEPT_JOBS:
            self.server.http.delete(f"/session/{self.sessions.pop(0)}")
        return reply

    def forget_job(self, job: str) -> None:
        """Cancel and forget, whatever its state."""
        url = f"/any2all/v1/jobs/{job}"
        self.server.http.delete(url)
        if self.server.http.get(url).status_code == 200:
            wait_until(lambda: self.server.http.get(url).json().get("state") not in ("queued", "running"))
            self.server.http.delete(url)

    def _known(self, query: str) -> list[str]:
        known = {"image": ["p01", "p01/T1"], "label": ["p01"], "tag": ["batch", "batch/CT.nii.gz"], "lines": ["9"]}
        known |= {"session_id": self.sessions, "output": ["all", "image", "json"], "images": ["all"], "expiry": ["60"]}
        return known.get(query, ["true", "false"])

    def _word(self, draw: Any, chance: random.Random, known: list[str]) -> str:
        """Mostly one that the server knows."""
        return chance.choice(known) if known and chance.random() < 0.8 else draw(words)

    def _body(self, draw: Any, chance: random.Random, path: str) -> dict[str, Any]:
        if chance.random() < 0.1 and path != "/train/{model}":
            return {"content": draw(st.binary(max_size=300)), "headers": {"Content-Type": chance.choice(KINDS)}}
        if path in FORMS:
            return self._form(draw, chance, path)
        document = mutated({**BATCH}, draw, chance)
        if path == "/train/{model}":  # never one that it would take
            document = {"zzz": document} if chance.random() < 0.5 else [document]
        return {"content": as_json(document), "headers": {"Content-Type": "application/json"}}

    def _form(self, draw: Any, chance: random.Random, path: str) -> dict[str, Any]:
        """A form whose study names the files that come with it, more or less."""
        texts, field = FORMS[path]
        suffixes = chance.choices(sorted(self.files), OFTEN_SUFFIX, k=chance.choice((1, 1, 2, 3)))
        names = [modality + suffix for modality, suffix in zip(("T1", "T2", "T2FLAIR"), suffixes)]
        document = self._study(names)
        fields = {"study": document, "params": {k: v for k, v in document.items() if k not in ("version", "subject")}}
        data = {}
        for text in (*texts, *(["zzz"] if chance.random() < 0.05 else [])):
            if text in fields and chance.random() < 0.9:
                data[text] = as_json(mutated(fields[text], draw, chance))
            elif chance.random() < (0.9 if text in fields else 0.08):
                data[text] = self._word(draw, chance, ["p01", "x"]).encode("utf-8", "replace")
        parts = []
        for name, suffix in zip(names, suffixes):
            content = self._content(suffix, chance)
            if chance.random() < 0.05:
                name = draw(words)
            parts.append((field if chance.random() < 0.98 else "zzz", (name, content)))
        return {"data": data, "files": parts if chance.random() < 0.95 else {}}

    def _study(self, names: list[str]) -> dict[str, Any]:
        """Contract 1 for these files, with little to compute."""
        modalities = {}
        for name in names:
            raw = name.endswith(RAW)
            said = {"status": "undersampled", "kspace": name, "voxel_size_mm": [16, 16, 6]} if raw else {}
            modalities[name.partition(".")[0]] = said or {"status": "available", "file": name}
        return {**study(steps=5, registration="none", save_samples=False), "modalities": modalities}

    def _content(self, suffix: str, chance: random.Random) -> bytes:
        """A file with some bytes changed, many of them in its header; mostly under gzip where there is one."""
        content = self.files[suffix]
        if chance.random() < 0.4:
            return content
        if suffix == ".nii.gz" and chance.random() < 0.7:
            return gzip.compress(damaged(gzip.decompress(content), chance), 1)
        return damaged(content, chance)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """A few bytes of a file changed, or its end cut off, or a piece of it moved."""
    bytes_ = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        where = chance.randrange(min(len(bytes_), chance.choice((400, len(bytes_)))))
        bytes_[where] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    if chance.random() < 0.2:
        del bytes_[chance.randrange(len(bytes_)) :]
    elif chance.random() < 0.1:
        where = chance.randrange(len(bytes_))
        bytes_[where:where] = bytes_[: chance.randrange(64)]
    return bytes(bytes_)


def mutated(document: Any, draw: Any, chance: random.Random) -> Any:
    """JSON with up to three values replaced, removed or added anywhere."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
        node = document
        while node and (inner := [v for v in (node.values() if isinstance(node, dict) else node)
                                  if isinstance(v, (dict, list))]) and chance.random() < 0.7:  # fmt: skip
            node = chance.choice(inner)
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if isinstance(node, dict) and chance.random() < 0.2:
            node[draw(words)] = draw(values)
        elif keys and chance.random() < 0.2:
            del node[chance.choice(keys)]
        elif keys:
            node[chance.choice(keys)] = draw(values)
    return document


def as_json(document: Any) -> bytes:
    """With NaN and infinity as Python writes them, which is no JSON."""
    return json.dumps(document).encode()


@settings(
    max_examples=int(os.environ.get(REQUESTS, 400)),
    derandomize=REQUESTS not in os.environ,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # a server remembers: a request alone may not fail again
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_every_request_is_answered_in_words(fuzz, data):
    request = fuzz.request(data.draw)
    reply = fuzz.send(request)
    status = reply.status_code
    assert status < 500 or status == 503, (request, reply.text)
    if request["method"] != "HEAD" and reply.headers.get("content-type") == "application/json":
        reply.json(parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    if status >= 400 and request["method"] != "HEAD":
        assert evil.in_words(reply), (request, reply.text)


def test_last_the_server_lives_and_left_nothing(fuzz, server):
    """The last test of this module. Saved results in the study store are what clients may make."""
    print(f"answers: {dict(sorted(fuzz.statuses.items()))}")
    assert sum(fuzz.statuses[status] for status in (200, 202)) > sum(fuzz.statuses.values()) / 20
    for job in fuzz.jobs:
        fuzz.forget_job(job)
    for session in fuzz.sessions:
        server.http.delete(f"/session/{session}")
    server.http.delete("/batch/infer")
    wait_until(lambda: server.http.get("/batch/infer").json().get("status") != "RUNNING")
    assert server.http.get("/train/").json()["code"] == "not_found"
    for saved in server.studies.glob("p01/any2all-*"):
        shutil.rmtree(saved)
    server.watch.assert_nothing_was_left()
    server.watch.assert_no_reply_told_a_path()
    server.watch.assert_it_lives()
