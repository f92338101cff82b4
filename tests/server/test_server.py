"""A real server process, as the README starts it, and its clients over HTTP."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import time
import zipfile

import nibabel as nib
import numpy as np
import pytest
from monailabel.client import MONAILabelClient
from server_builders import Server, study, tree, wait_until

GIVEN = ("T1", "T2", "T2FLAIR")


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model_file, tiny_cdm_file, phantom_files):
    folder = tmp_path_factory.mktemp("server")
    subject = folder / "studies" / "p01"
    subject.mkdir(parents=True)
    for name in GIVEN:
        shutil.copy(phantom_files / f"{name}.nii.gz", subject)
    conf = {"queue": 30, "batch_size": 4, "cdm_file": tiny_cdm_file, "shutdown_seconds": 1}
    server = Server(folder, tiny_model_file, conf)
    yield server
    server.stop()


def volume(content: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def assert_on_grid_of(image, file):
    given = nib.load(file)
    assert image.shape == given.shape and np.array_equal(image.affine, given.affine)
    assert np.isfinite(image.get_fdata()).all()


def test_info_says_what_a_client_needs(server):
    info = server.http.get("/any2all/v1/info").json()
    assert info["protocol"] == 1 and (info["state"], info["reason"]) == ("ok", None) and info["device"] == "cpu"
    assert [m["name"] for m in info["stack"]] == ["T1", "T2", "T2FLAIR", "T2star", "CT", "PET"]
    assert set(info["presets"]) == {"fast", "balanced", "best"}
    assert all(s > 0 for p in info["presets"].values() for s in p["seconds_per_slice"].values())
    assert info["prior"]["sha256"] and info["samplers"]["mcs"]["steps"] == 10 and info["limits"]["queue"] == 30
    cdm = info["samplers"]["cdm"]
    assert (cdm["steps"], cdm["samples"], cdm["takes"]) == (20, 4, ["available"]) and len(
        cdm["weights"]["sha256"]
    ) == 64
    assert {"available", "undersampled"} < set(info["samplers"]["mcs"]["takes"])
    text = json.dumps(info)
    assert str(server.folder) not in text and "token" not in text.lower()


def test_cdm_fills_a_study_and_refuses_what_it_cannot_translate(server, phantom_files):
    cdm = {"sampler": {"name": "cdm", "samples": 2}}
    reply = server.submit(phantom_files, study(outputs=("CT",), **cdm))
    job = server.wait(reply.json()["job_id"])
    assert (
        job["state"] == "done"
        and job["step"] == job["total"]
        and {r["role"] for r in job["results"]} == {"mean", "std"}
    )
    got = server.http.get(f"/any2all/v1/jobs/{reply.json()['job_id']}/results/summary.json").json()
    assert got["provenance"]["prior"]["name"] == "cdm"
    assert server.http.delete(f"/any2all/v1/jobs/{reply.json()['job_id']}").status_code == 200
    refused = server.submit(phantom_files, study(raw=True, **cdm))
    error = refused.json()
    assert refused.status_code == 422 and error["key"] == "modalities.T2FLAIR.status"
    assert error["allowed"] == ["available", "missing"] and error["hint"].startswith("mcs and mds")
    params = {"params": json.dumps({"outputs": ["CT"], "sampler": {"name": "cdm", "samples": 1}})}
    stock = server.http.post("/infer/any2all?image=p01&output=image", data=params)
    assert stock.status_code == 200 and b"SYNTHETIC" in bytes(volume(stock.content).header["descrip"])


def test_a_study_of_three_files_comes_back_on_its_own_grid(server, phantom_files):
    before = tree(server.folder)
    reply = server.submit(phantom_files, study(steps=12, samples=2, outputs=("T2FLAIR", "CT"), raw=True))
    assert reply.status_code == 202 and reply.json()["position"] in (1, None)
    job = reply.json()["job_id"]
    seen = []
    wait_until(lambda: seen.append(server.status(job)) or seen[-1]["state"] not in ("queued", "running"))
    last = seen[-1]
    assert last["state"] == "done", last["error"]
    steps = [s["step"] for s in seen]
    assert len(set(steps)) >= 5 and steps == sorted(steps) and last["step"] == last["total"]
    assert any(s["eta_s"] is not None and s["stage"] == "sampling" for s in seen)
    assert {(r["modality"], r["role"]) for r in last["results"]} == {
        (m, r) for m in ("T2FLAIR", "CT") for r in ("mean", "std")
    }
    for result in last["results"]:
        got = server.http.get(f"/any2all/v1/jobs/{job}/results/{result['name']}")
        assert got.status_code == 200 and hashlib.sha256(got.content).hexdigest() == result["sha256"]
        assert_on_grid_of(volume(got.content), phantom_files / "T1.nii.gz")
        words = bytes(volume(got.content).header["descrip"])
        assert words.startswith(b"RECONSTRUCTED" if result["modality"] == "T2FLAIR" else b"SYNTHETIC")
    assert server.http.get(f"/any2all/v1/jobs/{job}/results/report.png").content.startswith(b"\x89PNG")
    assert server.http.get(f"/any2all/v1/jobs/{job}/results/../job.json").status_code == 404
    assert server.http.get(f"/any2all/v1/jobs/{job}/results/nothing.nii.gz").json()["code"] == "not_found"
    assert server.http.delete(f"/any2all/v1/jobs/{job}").status_code == 200
    assert server.http.get(f"/any2all/v1/jobs/{job}").json()["code"] == "unknown_job"
    assert {p for p in tree(server.folder) - before if not p.startswith("server.log")} == set()


def test_a_subject_of_the_study_store_and_results_beside_it(server):
    (listed,) = server.http.get("/any2all/v1/subjects").json()["subjects"]
    assert listed["subject"] == "p01" and listed["modalities"]["T1"] == "available" and listed["problem"] is None
    form = {"subject": "p01", "save": "first", "study": json.dumps({"outputs": ["CT"], "preset": "fast"})}
    job = server.http.post("/any2all/v1/jobs", data=form, files={}).json()["job_id"]
    assert server.wait(job)["saved_as"] == "first"
    server.http.delete(f"/any2all/v1/jobs/{job}")
    saved = server.studies / "p01" / "any2all-first"
    assert {"CT.nii.gz", "summary.json", "report.png"} <= {p.name for p in saved.iterdir()}
    assert server.http.get("/any2all/v1/subjects").json()["subjects"][0]["results"] == ["first"]
    again = server.http.post("/any2all/v1/jobs", data=form)
    assert again.status_code == 409 and again.json()["key"] == "save"
    got = server.http.get("/datastore/label", params={"label": "p01", "tag": "first/CT.nii.gz"})
    assert got.content == (saved / "CT.nii.gz").read_bytes()
    listing = server.http.get("/datastore/", params={"output": "all"}).json()
    assert "first" in listing["objects"]["p01"]["labels"]
    image = server.http.get("/datastore/image", params={"image": "p01/T1"})
    assert image.content == (server.studies / "p01" / "T1.nii.gz").read_bytes()
    shutil.rmtree(saved)


def test_the_stock_client_gets_its_volume(server, phantom_files, tmp_path):
    client = MONAILabelClient(str(server.http.base_url), tmpdir=str(tmp_path))
    assert client.info()["models"]["any2all"]["type"] == "others"
    session = client.create_session(str(phantom_files / "T1.nii.gz"))
    assert str(server.folder) not in json.dumps(session)
    params = {"outputs": ["CT"], "preset": "fast"}
    file, told = client.infer("any2all", "", params, session_id=session["session_id"])
    assert file.endswith("CT.nii.gz") and told["results"][0]["modality"] == "CT"
    assert_on_grid_of(nib.load(file), phantom_files / "T1.nii.gz")
    file, _ = client.infer("any2all", "p01", {"outputs": ["CT", "PET"], "preset": "fast"})
    assert {"CT.nii.gz", "PET.nii.gz", "summary.json"} <= set(zipfile.ZipFile(file).namelist())
    client.remove_session(session["session_id"])
    assert not list((server.work / "sessions").iterdir())


def test_a_session_takes_several_files_and_one_image_can_come_with_the_request(server, phantom_files):
    files = [("files", (f"{n}.nii.gz", (phantom_files / f"{n}.nii.gz").read_bytes())) for n in GIVEN]
    session = server.http.put("/session/", files=files).json()
    assert session["session_info"]["files"] == sorted(f"{n}.nii.gz" for n in GIVEN)
    params = {"params": json.dumps({"outputs": ["PET"], "preset": "fast"})}
    query = {"session_id": session["session_id"], "output": "image"}
    reply = server.http.post("/infer/any2all", params=query, data=params, files={})
    assert_on_grid_of(volume(reply.content), phantom_files / "T1.nii.gz")
    upload = {"file": ("T1.nii.gz", (phantom_files / "T1.nii.gz").read_bytes())}
    reply = server.http.post("/infer/any2all", params={"output": "json"}, data=params, files=upload)
    assert [r["modality"] for r in reply.json()["results"]] == ["PET"]
    assert not list((server.work / "jobs").iterdir()), "the replies held everything"
    refused = server.http.post("/infer/any2all", data={"params": '{"outputs": ["T1"]}'}, files=upload)
    assert refused.status_code == 422 and refused.json()["key"] == "outputs.0"


def test_a_stock_inference_blocks_nobody_and_is_cancelled_when_its_client_leaves(server, phantom_files):
    with pytest.raises(Exception, match="timed out"):
        body = {"params": json.dumps({"outputs": ["CT"], "sampler": {"steps": 900, "samples": 8}})}
        server.http.post("/infer/any2all", params={"image": "p01"}, data=body, files={}, timeout=3.0)
    started = time.monotonic()
    assert server.http.get("/any2all/v1/info").status_code == 200
    assert time.monotonic() - started < 20, "answered when the inference was done, which takes minutes"
    wait_until(lambda: not list((server.work / "jobs").iterdir()))


def test_two_jobs_do_not_save_under_one_name(server):
    asked = {"outputs": ["CT"], "sampler": {"steps": 60, "samples": 1}, "subject": "somebody-else"}
    form = {"subject": "p01", "save": "twice", "study": json.dumps(asked)}
    first = server.http.post("/any2all/v1/jobs", data=form, files={})
    assert first.status_code == 202, first.text
    second = server.http.post("/any2all/v1/jobs", data=form, files={})
    assert (second.status_code, second.json()["key"]) == (409, "save")
    assert "another job will save" in second.json()["message"]
    job = first.json()["job_id"]
    assert server.wait(job)["saved_as"] == "twice"
    server.http.delete(f"/any2all/v1/jobs/{job}")
    saved = server.studies / "p01" / "any2all-twice"
    assert json.loads((saved / "summary.json").read_text())["subject"] == "p01"
    shutil.rmtree(saved)


def test_a_batch_fills_every_subject(server, phantom_files):
    broken = server.studies / "p02"
    broken.mkdir()
    (broken / "T1.nii.gz").write_bytes(b"no image")
    reply = server.http.post("/batch/infer/any2all", json={"preset": "fast", "outputs": ["CT"], "save": "all"})
    assert reply.json()["status"] == "RUNNING" and reply.json()["total"] == 2
    assert server.http.post("/batch/infer/any2all", json={}).status_code == 409
    told = wait_until(lambda: (s := server.http.get("/batch/infer").json())["status"] != "RUNNING" and s)
    assert told["status"] == "ERROR" and told["subjects"] == {"p01": "done", "p02": "refused"}
    assert "modalities.T1.file" in told["problems"]["p02"]
    assert (server.studies / "p01" / "any2all-all" / "CT.nii.gz").is_file()
    shutil.rmtree(broken)
    told = server.http.post("/batch/infer/any2all", json={"preset": "fast", "outputs": ["CT"], "save": "all"}).json()
    told = wait_until(lambda: (s := server.http.get("/batch/infer").json())["status"] != "RUNNING" and s)
    assert told["status"] == "DONE" and told["subjects"] == {"p01": "kept"}
    shutil.rmtree(server.studies / "p01" / "any2all-all")


def test_metrics_and_logs_tell_of_jobs_but_of_no_patient(server):
    text = server.http.get("/any2all/v1/metrics").text
    assert 'any2all_jobs_total{state="done"}' in text and "any2all_queue_length 0.0" in text
    assert 'any2all_stage_seconds_count{stage="sampling"}' in text
    lines = [json.loads(line) for line in server.http.get("/logs/").text.splitlines()]
    ended = [line for line in lines if line["event"] == "job ended"]
    assert ended and all(line["job"] for line in ended)
    everything = server.log() + server.http.get("/logs/").text
    for word in ("p01", "T1.nii.gz", "p02"):
        assert word not in everything


def test_twenty_jobs_ten_cancelled_one_kill_and_a_restart(server, phantom_files):
    """Nothing ends in a wrong state, nothing is left behind."""
    draw = random.Random(0)
    jobs = [server.submit(phantom_files, study(steps=6)).json()["job_id"] for _ in range(20)]
    cancelled = draw.sample(jobs, 10)
    for job in cancelled:
        assert server.http.delete(f"/any2all/v1/jobs/{job}").status_code == 200
    wait_until(lambda: sum(server.status(j).get("state") == "done" for j in jobs) >= 2)
    long = server.submit(phantom_files, study(steps=900)).json()["job_id"]
    wait_until(lambda: sum(server.status(j).get("state") in ("queued", "running") for j in jobs) <= 4)
    before = {job: server.status(job) for job in [*jobs, long]}
    server.kill()
    server.start()
    wait_until(lambda: server.status(long)["state"] == "running")
    server.http.delete(f"/any2all/v1/jobs/{long}")
    after = {job: server.wait(job) for job in jobs}
    for job, told in after.items():
        was = before[job].get("state")
        if job in cancelled and was is not None:
            assert told["state"] in ("cancelled", "done") and told["state"] == was
        elif was == "done":
            assert told["state"] == "done" and len(told["results"]) == 1
        else:
            assert told["state"] in ("done", "lost") and (told["state"] == "lost") <= (was == "running")
    assert sum(told["state"] == "lost" for told in after.values()) <= 1
    kept = {home.name: {p.name for p in home.iterdir()} for home in (server.work / "jobs").iterdir()}
    for job, told in after.items():
        if job in kept:
            assert kept[job] == ({"job.json", "results"} if told["state"] == "done" else {"job.json"})
    assert set(kept) <= {*jobs, long}
    for job in [*jobs, long]:
        server.wait(job) if server.status(job).get("state") else None
        server.http.delete(f"/any2all/v1/jobs/{job}")
    assert not list((server.work / "jobs").iterdir())


def test_a_second_server_does_not_take_over_the_first_ones_jobs(server, tmp_path):
    other = Server.__new__(Server)
    other.__dict__.update(server.__dict__)
    other.folder, other.port = tmp_path, server.port + 1
    other.launch()
    assert other.process.wait(120) != 0
    assert "another server works in this folder" in other.log()
    assert server.health() == "ok"


def test_ten_tiny_jobs_leave_nothing(server, phantom_files):
    for number in range(10):
        job = server.submit(phantom_files, study(steps=1, outputs=("CT",))).json()["job_id"]
        assert server.wait(job)["state"] == "done", number
        server.http.delete(f"/any2all/v1/jobs/{job}")
    assert not list((server.work / "jobs").iterdir()) and not list((server.work / "sessions").iterdir())


def test_it_ends_in_order_when_asked(server, phantom_files):
    """The last test of this module: SIGTERM with a job running; it has its seconds, then it is cancelled."""
    job = server.submit(phantom_files, study(steps=900)).json()["job_id"]
    wait_until(lambda: server.status(job)["step"] > 0)
    server.process.terminate()
    server.process.wait(60)
    record = json.loads((server.work / "jobs" / job / "job.json").read_text())
    assert record["state"] == "cancelled"
    assert [p.name for p in (server.work / "jobs" / job).iterdir()] == ["job.json"]
    assert "Traceback" not in server.log(), server.log()[-3000:]
