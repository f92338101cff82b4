"""The book of jobs: states, queue, what is kept and what a restart finds. No device is involved."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from any2all.errors import Any2allError
from lib.jobs import Job, JobBook
from lib.settings import Limits

LIMITS = Limits(queue=3)


@pytest.fixture
def book(tmp_path):
    return JobBook(tmp_path / "jobs", LIMITS)


def new_job(book, **fields):
    home = book.new_home()
    (home / "study" / "T1.nii.gz").write_bytes(b"voxels")
    return book.submit(Job(home.name, home, {"modalities": {}}, home / "study", **fields))


def finish(book, job, state="done", **fields):
    if state == "done":
        job.output.mkdir()
        (job.output / "CT.nii.gz").write_bytes(b"result" * 10)
    book.end(job, state, **fields)


def files(job):
    return sorted(p.relative_to(job.home).as_posix() for p in job.home.rglob("*") if p.is_file())


def test_jobs_run_in_the_order_in_which_they_came(book):
    first, second = new_job(book), new_job(book)
    assert [book.status(j)["position"] for j in (first, second)] == [1, 2]
    assert book.next() is first and book.running() is first
    assert book.status(first)["state"] == "running" and book.status(first)["position"] is None
    assert book.status(second)["position"] == 1


def test_a_full_queue_refuses_and_the_running_job_does_not_count(book):
    for _ in range(LIMITS.queue):
        new_job(book)
    with pytest.raises(Any2allError) as refused:
        new_job(book)
    assert refused.value.code == "queue_full" and "3 waiting" in refused.value.allowed
    book.next()
    new_job(book)


def test_cancelling_a_waiting_job_ends_it_at_once_and_removes_its_upload(book):
    job = new_job(book)
    book.cancel(job.id)
    assert job.state == "cancelled" and files(job) == ["job.json"]
    assert book.next() is None


def test_cancelling_a_running_job_asks_for_it_and_cancelling_an_ended_one_forgets_it(book):
    job = new_job(book)
    book.next()
    book.cancel(job.id)
    assert job.state == "running" and not job.wanted
    book.end(job, "cancelled")
    book.cancel(job.id)
    assert not job.home.exists()
    with pytest.raises(Any2allError) as unknown:
        book.get(job.id)
    assert unknown.value.code == "unknown_job"


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_what_was_uploaded_goes_when_a_job_ends_and_results_stay_only_of_a_finished_one(book, state):
    job = new_job(book)
    book.next()
    (job.home / ".results.1234.partial").mkdir()
    (job.home / ".results.1234.partial" / "CT.nii.gz").write_bytes(b"half")
    finish(book, job, state)
    assert files(job) == (["job.json", "results/CT.nii.gz"] if state == "done" else ["job.json"])
    book.end(job, "failed")
    assert job.state == state, "a job ends once"


def test_the_count_of_passes_never_runs_backwards_and_is_whole_at_the_end(book):
    job = new_job(book)
    book.next()
    seen = []
    for stage, step, total in [
        ("reading", None, None),
        ("sampling", 0, 100),
        ("sampling", 40, 100),
        ("sampling", 20, 100),
    ]:
        job.progress(stage, step, total)
        seen.append((book.status(job)["step"], book.status(job)["total"]))
    assert seen == [(0, None), (0, 100), (40, 100), (40, 100)]
    job.begin_again()
    job.progress("sampling", 0, 100)
    assert job.step == 40
    finish(book, job)
    assert book.status(job)["step"] == 100


def test_remaining_time_goes_from_the_forecast_to_what_was_measured(book, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    job = new_job(book)
    job.forecast_s = 10.0
    job.progress("sampling", 0, 100)
    assert job.eta_s() == pytest.approx(10.0)
    clock[0] += 20  # the machine is busy: 50 passes take 20 s
    job.progress("sampling", 50, 100)
    assert job.eta_s() == pytest.approx(20.0)
    clock[0] += 5
    assert job.eta_s() == pytest.approx(15.0)


def test_results_expire_by_age_by_number_and_by_size(tmp_path):
    def ended(limits, count):
        book = JobBook(tmp_path / f"jobs{count}{limits.kept_bytes}{limits.result_seconds}", replace(limits, queue=9))
        jobs = [new_job(book) for _ in range(count)]
        for job in jobs:
            book.next()
            finish(book, job)
            job.ended = 1000.0 + jobs.index(job) if limits.result_seconds == 1 else time.time() + jobs.index(job)
        return book, jobs

    book, jobs = ended(Limits(result_seconds=1), 1)
    assert book.expire() == 1 and not jobs[0].home.exists()
    book, jobs = ended(Limits(kept_jobs=2), 4)
    assert book.expire() == 2 and [j.home.exists() for j in jobs] == [False, False, True, True]
    book, jobs = ended(Limits(kept_bytes=130), 3)
    assert book.expire() == 1 and [j.home.exists() for j in jobs] == [False, True, True]


def test_a_restart_finds_a_running_job_lost_and_waiting_ones_waiting(book, tmp_path):
    running, waiting, done = new_job(book), new_job(book, subject=None), new_job(book)
    for job in (done, waiting):
        job.created += 1
    assert book.next() is running
    (running.home / "results").mkdir()
    (running.home / "results" / "CT.nii.gz").write_bytes(b"half")
    finish(book, done, results=[{"name": "CT.nii.gz", "modality": "CT", "role": "mean", "sha256": "0"}])
    torn = book.new_home()  # an upload that the server did not see to its end
    (torn / "study" / "T1.nii.gz").write_bytes(b"half an upload")
    (tmp_path / "jobs" / "stray").write_text("?")

    again = JobBook(tmp_path / "jobs", LIMITS)
    lost = again.get(running.id)
    assert lost.state == "lost" and again.status(lost)["error"]["code"] == "lost"
    assert files(lost) == ["job.json"], "nothing of a lost job stays"
    assert not torn.exists() and not (tmp_path / "jobs" / "stray").exists()
    assert again.get(done.id).results[0]["name"] == "CT.nii.gz" and "results/CT.nii.gz" in files(done)
    assert again.next().id == waiting.id and again.get(waiting.id).document == {"modalities": {}}
    assert json.loads((lost.home / "job.json").read_text())["state"] == "lost", "and the next restart knows it too"


def test_a_closed_book_takes_no_job_and_starts_none(book):
    new_job(book)
    book.close()
    assert book.next() is None
    with pytest.raises(Any2allError) as refused:
        new_job(book)
    assert refused.value.code == "stopping"


def test_two_jobs_never_save_under_one_label(book):
    """Both may have been checked before either is in the queue."""
    new_job(book, subject="p01", save="first")
    for subject, save in (("p01", "second"), ("p02", "first")):
        new_job(book, subject=subject, save=save)
    ended = book.next()
    with pytest.raises(Any2allError, match="another job will save") as refused:
        new_job(book, subject="p01", save="first")
    assert (refused.value.code, refused.value.key) == ("exists", "save")
    finish(book, ended)
    new_job(book, subject="p01", save="first")


def test_a_client_that_waits_hears_that_the_server_stops(book):
    """It knows no id to ask the next server with: its job would run there for nobody."""

    async def there():
        return False

    running, waiting = new_job(book), new_job(book)
    assert book.next() is running
    book.close()
    with pytest.raises(Any2allError, match="being stopped"):
        asyncio.run(asyncio.wait_for(book.over(waiting, there), 10))
    assert waiting.state == "cancelled" and running.state == "running"
