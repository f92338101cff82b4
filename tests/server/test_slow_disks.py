"""Slow, full and busy disks hold up no poll and stop no queue. No device is involved."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import anyio
import pytest
from any2all.errors import Any2allError
from any2all.stack import load_stack
from any2all.studies import StudyFolder
from fastapi import FastAPI
from fastapi.testclient import TestClient
from lib.cohort import Batch, BatchParams
from lib.dispatch import Dispatcher
from lib.forms import aside
from lib.jobs import Job, JobBook
from lib.replies import install
from lib.routes import router
from lib.settings import Limits, ServerSettings
from lib.stock import _reply
from lib.stock import router as stock_router
from starlette.concurrency import run_in_threadpool

DONE = {"event": "done", "results": [], "warnings": [], "seconds": {}}


@pytest.fixture
def book(tmp_path):
    return JobBook(tmp_path / "jobs", Limits(kept_jobs=1))


def new_job(book, **fields):
    home = book.new_home()
    return book.submit(Job(home.name, home, {}, home / "study", **fields))


class Held:
    """A call that lasts until it is let go."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, *arguments, **keywords):
        self.begun.set()
        assert self.go_on.wait(20)


def assert_polls_are_answered(book, job, slow, held):
    """While ``slow()`` is held up, another thread hears of ``job``."""
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(slow)
        try:
            assert held.begun.wait(10)
            assert threads.submit(book.status, job).result(timeout=5)["job_id"] == job.id
        finally:
            held.go_on.set()
        waiting.result(timeout=10)


@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_removing_results_holds_up_no_poll(book, monkeypatch, how):
    old, other = new_job(book), new_job(book)
    for job in (old, other):
        book.end(job, "done")
    old.ended -= 10
    held = Held()
    monkeypatch.setattr("lib.jobs.shutil.rmtree", held)
    slow = (lambda: book.cancel(old.id)) if how == "cancel" else book.expire
    assert_polls_are_answered(book, other, slow, held)
    assert not (old.home / "job.json").exists(), "what is half removed is no job for the next server"
    with pytest.raises(Any2allError, match="no such job"):
        book.get(old.id)


def test_saving_results_beside_a_subject_holds_up_no_poll(book, tmp_path):
    held = Held()
    dispatcher = Dispatcher(ServerSettings(tmp_path), book, held)
    job = new_job(book, subject="p01", save="first")
    dispatcher._job = book.next()
    event = {**DONE, "job": job.id}
    assert_polls_are_answered(book, job, lambda: dispatcher._heard(None, event), held)
    assert job.state == "done" and dispatcher._job is None


def test_a_job_that_is_cancelled_behind_its_last_step_leaves_no_results(book, tmp_path):
    saved = []
    dispatcher = Dispatcher(ServerSettings(tmp_path), book, saved.append)
    job = new_job(book, subject="p01", save="first")
    dispatcher._job = book.next()
    job.output.mkdir()
    (job.output / "CT.nii.gz").write_bytes(b"of no use any more")
    book.cancel(job.id)
    dispatcher._heard(None, {**DONE, "job": job.id, "results": [{"name": "CT.nii.gz"}]})
    assert (job.state, job.results, saved, dispatcher._job) == ("cancelled", [], [], None)
    assert not job.output.exists()


def test_what_cannot_be_saved_waits_for_its_client_who_is_told(book, tmp_path):
    def save(job):
        raise Any2allError("no room", key="save", value=str(job.folder / "x.nii.gz"), code="storage")

    dispatcher = Dispatcher(ServerSettings(tmp_path), book, save)
    job = new_job(book, subject="p01", save="first")
    dispatcher._job = book.next()
    (job.output / "CT.nii.gz").parent.mkdir()
    (job.output / "CT.nii.gz").write_bytes(b"computed for minutes")
    dispatcher._heard(None, {**DONE, "job": job.id, "warnings": ["another"]})
    told = book.status(job)
    assert (told["state"], told["saved_as"], told["error"]) == ("done", None, None)
    assert told["warnings"][0] == "another" and told["warnings"][1].startswith("not saved: save: no room")
    assert str(tmp_path) not in str(told) and (job.output / "CT.nii.gz").is_file()


def test_a_full_disk_does_not_stop_the_queue(book, monkeypatch):
    def full(job):
        raise OSError(28, "No space left on device")

    first, second = new_job(book), new_job(book)
    monkeypatch.setattr(book, "_write", full)
    assert book.next() is first
    book.end(first, "done")
    assert first.state == "done" and book.next() is second
    with pytest.raises(OSError):
        new_job(book)


@pytest.mark.parametrize("stock", [False, True])
def test_where_no_job_is_taken_no_upload_is_read(tmp_path, stock):
    """Gigabytes would be sent to be told of a full queue, or of a prior that is away."""

    def check_open():
        raise Any2allError("the server cannot compute: no prior", code="unavailable")

    service = SimpleNamespace(
        settings=SimpleNamespace(limits=Limits()), check_open=check_open, studies=StudyFolder(tmp_path, load_stack())
    )
    app = FastAPI()
    app.include_router(stock_router(service, dict, None, None) if stock else router(service))
    install(app)
    path = "/infer/any2all" if stock else "/any2all/v1/jobs"
    reply = TestClient(app).post(path, content=b"no form at all", headers={"content-type": "text/plain"})
    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")


def test_many_uploads_leave_the_threads_of_the_polls_alone():
    held = Held()

    async def main():
        async with anyio.create_task_group() as uploads:
            for _ in range(60):
                uploads.start_soon(aside, held)
            try:
                with anyio.fail_after(10):
                    assert await run_in_threadpool(lambda: "polled") == "polled"
            finally:
                held.go_on.set()

    anyio.run(main)


def test_a_batch_waits_for_a_prior_that_is_away(book, monkeypatch):
    monkeypatch.setattr("lib.cohort.WAIT_SECONDS", 0.01)
    job, away = new_job(book, subject="p01"), [Any2allError("no prior", code="unavailable")] * 3
    book.end(job, "done")
    job.save = "batch"

    def submit_subject(name, changes, save):
        if away:
            raise away.pop()
        return job

    studies = SimpleNamespace(subjects=lambda: ["p01"], results=lambda name: [])
    batch = Batch(SimpleNamespace(studies=studies, book=book, submit_subject=submit_subject), "all", BatchParams())
    assert batch.work() and batch.subjects == {"p01": "done"} and not away


@pytest.mark.parametrize("output", ["image", "json"])
def test_a_stock_client_hears_that_its_results_were_not_saved(book, output):
    job = new_job(book, subject="p01")
    book.end(job, "done", warnings=["not saved: no room"])
    if output == "image":
        with pytest.raises(Any2allError, match="not saved: no room") as refused:
            _reply(SimpleNamespace(book=book), job, output, "night")
        assert refused.value.code == "storage"
    else:
        assert b"not saved: no room" in _reply(SimpleNamespace(book=book), job, output, "night").body


def test_a_full_disk_ends_no_batch_and_no_results_are_lost_without_a_word(book):
    full = new_job(book, subject="p02", save="night")
    book.end(full, "done", warnings=["not saved: no room"])
    full.save = None
    good = new_job(book, subject="p03", save="night")
    book.end(good, "done")
    jobs = {"p02": full, "p03": good}

    def submit_subject(name, changes, save):
        if name not in jobs:
            raise OSError(28, "No space left on device", str(book.folder / "secret"))
        return jobs[name]

    studies = SimpleNamespace(subjects=lambda: ["p01", "p02", "p03"], results=lambda name: [])
    batch = Batch(
        SimpleNamespace(studies=studies, book=book, submit_subject=submit_subject), "all", BatchParams(save="night")
    )
    assert not batch.work()
    assert batch.subjects == {"p01": "refused", "p02": "failed", "p03": "done"}
    assert batch.problems == {
        "p01": "the job could not be stored (No space left on device)",
        "p02": "not saved: no room",
    }
