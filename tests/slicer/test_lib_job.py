"""A whole job against a small server of contract 3: its states, its failures, and cancel in each of them.

The job's clock runs 20 times faster than the wall's, so that half a second between polls is 25 ms.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lib_path  # noqa: F401
from Any2allLib.client import Client, Patience
from Any2allLib.exchange import Timeouts
from Any2allLib.job import JobRun
from lib_servers import ScriptedServer, Took, assert_never_waited, fake_server, job_status

SPEED = 20
VOLUMES = {"CT.nii.gz": b"ct" * 3000, "CT_std.nii.gz": b"std" * 2000, "T2.nii.gz": b"t2" * 3000}
STEPS = [job_status("running", stage="sampling", step=i, total=8, eta_s=8 - i) for i in range(1, 8)]


class Watch:
    """Ticks a job and remembers what a panel would have shown."""

    def __init__(self, job: JobRun) -> None:
        self.job, self.seen, self.took, self.began = job, [job.snapshot()], [], time.monotonic()

    def now(self) -> float:
        return (time.monotonic() - self.began) * SPEED

    def until(self, met, seconds: float = 8.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self.took.append(Took.by(lambda: self.job.tick(self.now())))
            self.seen.append(self.job.snapshot())
            if met(self.seen[-1]):
                return
            assert time.monotonic() < deadline, f"still {self.seen[-1]}"
            time.sleep(0.002)

    def until_over(self) -> None:
        self.until(lambda shown: self.job.is_over)

    def states(self) -> list[str]:
        names = [shown.state for shown in self.seen]
        return [n for n, before in zip(names, ["", *names]) if n != before]


@pytest.fixture
def server():
    with fake_server() as fake:
        fake.volumes = dict(VOLUMES)
        fake.plan = [
            job_status("queued", position=3),
            job_status("queued", position=1),
            *STEPS,
            job_status("done", step=8, total=8, warnings=["few slices"]),
        ]
        yield fake


@pytest.fixture
def make(server, tmp_path):
    """Builds a job of one 1 MB image, watched; results go to ``tmp_path / 'results'``."""
    (tmp_path / "t1").write_bytes(bytes(1_000_000))
    (tmp_path / "results").mkdir()

    def build(url: str | None = None, **options) -> Watch:
        client = Client(url or server.url, patience=Patience(Timeouts(0.5, 0.5), Timeouts(0.5, 5), Timeouts(0.5, 0.5)))
        study, files = {"version": 1}, {"T1.nii.gz": tmp_path / "t1"}
        return Watch(JobRun(client, tmp_path / "results", study, files, expected_s=30.0, **options))

    return build


def left(tmp_path: Path) -> list[str]:
    return sorted(f.name for f in (tmp_path / "results").iterdir())


def test_the_whole_way(server, make, tmp_path):
    watch = make()
    watch.until_over()
    job, last = watch.job, watch.seen[-1]
    assert watch.states() == ["uploading", "queued", "running", "downloading", "done"]
    assert [(r.name, r.modality, r.role) for r in job.results] == [
        ("CT.nii.gz", "CT", "mean"),
        ("CT_std.nii.gz", "CT", "std"),
        ("T2.nii.gz", "T2", "mean"),
    ]
    assert {r.name: r.file.read_bytes() for r in job.results} == VOLUMES
    assert left(tmp_path) == sorted(VOLUMES)
    fractions = [shown.fraction for shown in watch.seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and len(set(fractions)) >= 8
    titles = [shown.title for shown in watch.seen]
    for words in ("Sending the images", "Waiting for 2 other jobs", "Next in the queue", "Computing", "Done"):
        assert words in titles
    assert {shown.queue_position for shown in watch.seen} == {None, 3, 1}
    running = [shown for shown in watch.seen if shown.state == "running"]
    assert any(shown.detail == "sampling, step 5 of 8" for shown in running)
    told = [shown.remaining_s for shown in running if shown.remaining_s is not None]
    assert told and all(0 < seconds < 10 for seconds in told)
    assert last.warnings == ("few slices",) and last.error == "" and not last.can_cancel
    assert_never_waited(watch.took)


def test_a_subject_of_the_study_store(server, tmp_path):
    server.volumes["samples/CT_0.nii.gz"] = b"one"
    watch = Watch(JobRun(Client(server.url), tmp_path, {"preset": "fast"}, subject="p01"))
    watch.until_over()
    assert server.received == [{"subject": b"p01", "study": b'{"preset": "fast"}'}]
    assert [(r.role, r.file.name) for r in watch.job.results][-1] == ("sample", "samples_CT_0.nii.gz")
    assert watch.job.results[-1].file.read_bytes() == b"one"


def test_a_job_needs_something_to_work_on(server, tmp_path):
    for given in ({}, {"subject": "p01", "files": {"T1.nii.gz": tmp_path}}):
        with pytest.raises(ValueError, match="a study with files, or a subject"):
            JobRun(Client(server.url), tmp_path, **given)


def test_progress_never_runs_backwards(server, make):
    server.plan[5:5] = [job_status("running", step=1, total=80, eta_s=900.0)]
    watch = make()
    watch.until_over()
    fractions = [shown.fraction for shown in watch.seen]
    assert watch.job.state == "done" and fractions == sorted(fractions)


@pytest.mark.parametrize(
    "status",
    [
        job_status("queued", position=1),
        job_status("running", stage="registration"),
        job_status("running", stage="restoring", step=8, total=8, eta_s=0.0),
    ],
)
def test_before_and_after_sampling_nobody_knows_how_long_it_takes(server, make, status):
    server.plan = [status]
    watch = make()
    watch.until(lambda shown: shown.state == status["state"] and watch.job._status is not None)
    shown = watch.seen[-1]
    assert shown.remaining_s is None and (status["stage"] or "") in shown.detail
    watch.job.close()


def test_upload_shows_bytes(server, make):
    server.hold_upload.clear()
    watch = make()
    watch.until(lambda shown: shown.detail.startswith("1.0 of 1.0 MB"))
    assert 0.05 < watch.seen[-1].fraction <= 0.1
    server.hold_upload.set()
    watch.until_over()
    assert watch.job.state == "done"


# -- what ends a job ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, state, words",
    [
        (
            job_status("failed", error={"code": "x", "message": "out of memory", "hint": "use fast"}),
            "failed",
            "Use fast",
        ),
        (job_status("failed"), "failed", "does not say why"),
        (job_status("lost"), "lost", "restarted"),
        (job_status("cancelled"), "cancelled", "cancelled on the server"),
    ],
)
def test_ends_that_the_server_tells(server, make, tmp_path, status, state, words):
    server.plan = [STEPS[0], status]
    watch = make()
    watch.until_over()
    assert watch.job.state == state and words in watch.seen[-1].error
    assert watch.job.results == () and left(tmp_path) == []


def test_a_full_queue(server, make):
    document = {"code": "queue_full", "message": "the queue is full", "allowed": "2 waiting jobs"}
    server.refusals["POST", "/any2all/v1/jobs"] = (429, document)
    watch = make()
    watch.until_over()
    assert watch.states() == ["uploading", "failed"] and "queue is full (2 waiting jobs)" in watch.seen[-1].error


def test_a_wrong_token(server, make):
    server.refusals["POST", "/any2all/v1/jobs"] = (401, {"code": "unauthorized", "message": "no"})
    watch = make()
    watch.until_over()
    assert watch.job.state == "failed" and "token" in watch.seen[-1].error


def test_no_server(make):
    watch = make("http://127.0.0.1:9")
    watch.until_over()
    assert watch.job.state == "failed" and "cannot be reached" in watch.seen[-1].error


def test_a_job_that_the_server_has_forgotten(server, make):
    watch = make()
    watch.until(lambda shown: shown.state == "running")
    server.refusals["GET", "/any2all/v1/jobs/j1"] = (404, {"code": "unknown_job", "message": "there is no such job"})
    watch.until_over()
    assert watch.job.state == "lost" and "no longer knows this job" in watch.seen[-1].error


def test_results_that_have_expired(server, make, tmp_path):
    server.refusals["GET", "/any2all/v1/jobs/j1/results/T2"] = (404, {"code": "unknown_job", "message": "no"})
    watch = make()
    watch.until_over()
    assert watch.job.state == "lost" and watch.job.results == () and left(tmp_path) == []


def test_a_job_without_results(server, make):
    server.volumes.clear()
    watch = make()
    watch.until_over()
    assert watch.job.state == "failed" and "no volume" in watch.seen[-1].error


def test_a_damaged_volume_is_asked_for_again(server, make, tmp_path):
    server.damage = 2
    watch = make()
    watch.until_over()
    assert watch.job.state == "done" and left(tmp_path) == sorted(VOLUMES)
    assert sum("/results/CT.nii.gz" in line for line in server.log) == 3


def test_volumes_that_stay_damaged_are_not_kept(server, make, tmp_path):
    server.damage = 3
    watch = make()
    watch.until_over()
    assert watch.job.state == "failed" and "checksum" in watch.seen[-1].error
    assert watch.job.results == () and left(tmp_path) == []


def test_an_answer_that_is_not_understood(server, make):
    server.plan = [{"state": "meditating"}]
    watch = make()
    watch.until_over()
    assert watch.job.state == "failed" and "meditating" in watch.seen[-1].error


# -- a server that goes and comes back ---------------------------------------------------------------------------------


def test_server_restarts_in_the_middle(server, make):
    watch = make()
    watch.until(lambda shown: shown.state == "running")
    fraction = watch.seen[-1].fraction
    server.stop()
    watch.until(lambda shown: shown.reconnecting)
    shown = watch.seen[-1]
    assert shown.state == "running" and "trying again" in shown.title and "cannot be reached" in shown.error
    assert shown.fraction >= fraction and shown.can_cancel and shown.remaining_s is None
    server.start()
    watch.until_over()
    assert watch.job.state == "done" and watch.seen[-1].error == "" and len(watch.job.results) == 3


def test_server_restarts_and_says_that_the_job_is_lost(server, make):
    watch = make()
    watch.until(lambda shown: shown.state == "running")
    server.stop()
    watch.until(lambda shown: shown.reconnecting)
    server.plan = [job_status("lost", error={"code": "lost", "message": "the server was stopped", "hint": "again"})]
    server.start()
    watch.until_over()
    assert watch.job.state == "lost" and "The server was stopped." in watch.seen[-1].error


def test_server_dies_during_the_download(server, make, tmp_path):
    server.volumes["T2.nii.gz"] = bytes(100_000)
    server.slow_download.set()
    watch = make()
    watch.until(lambda shown: shown.detail.startswith("volume 3 of 3, "))
    server.stop()
    watch.until(lambda shown: shown.reconnecting)
    assert watch.seen[-1].state == "downloading" and watch.job.results == ()
    assert left(tmp_path) == ["CT.nii.gz", "CT_std.nii.gz"]
    server.slow_download.clear()
    server.start()
    watch.until_over()
    assert watch.job.state == "done" and left(tmp_path) == sorted(VOLUMES)
    assert {r.name: r.file.stat().st_size for r in watch.job.results}["T2.nii.gz"] == 100_000


def test_polls_back_off_and_the_job_is_given_up_but_can_be_resumed(server, make):
    watch = make(give_up_s=30.0)
    watch.until(lambda shown: shown.state == "running")
    server.refusals["GET", "/any2all/v1/jobs/j1"] = (503, {"code": "stopping", "message": "stopping"})
    asked = len(server.log)
    watch.until(lambda shown: shown.state == "disconnected")
    assert 5 <= len(server.log) - asked <= 12  # 0.5, 1, 2, 4, 5, 5, ... s
    shown = watch.seen[-1]
    assert shown.can_resume and shown.can_cancel and shown.job_id == "j1" and not watch.job.is_over
    watch.job.tick(watch.now())
    assert len(server.log) - asked <= 12
    server.refusals.clear()
    watch.job.resume(watch.now())
    watch.until_over()
    assert watch.job.state == "done" and len(watch.job.results) == 3


def test_silent_server_never_blocks_a_tick(make):
    with ScriptedServer(lambda connection: silent.silent(connection)) as silent:
        watch = make(silent.url)
        watch.job.client.patience = Patience(upload=Timeouts(0.3, 0.4))
        watch.until_over()
    assert watch.job.state == "failed" and "silent" in watch.seen[-1].error
    assert_never_waited(watch.took, least=10)


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_cancel_before_anything_is_sent(server, make):
    watch = make()
    watch.job.cancel()
    assert watch.job.state == "cancelled" and watch.job.snapshot().error == "" and server.log == []


def test_cancel_during_the_upload_breaks_it_off(make, tmp_path):
    (tmp_path / "t1").write_bytes(bytes(30_000_000))
    hung_up = threading.Event()

    def script(connection):
        connection.recv(1000)
        hold.released.wait(5)
        while connection.recv(1_000_000):
            pass
        hung_up.set()

    with ScriptedServer(script) as hold:
        watch = make(hold.url)
        watch.until(lambda shown: shown.fraction > 0)
        watch.job.cancel()
        assert watch.job.state == "cancelled" and watch.seen[-1].state == "uploading"
        hold.released.set()
        assert hung_up.wait(5)
    assert watch.job.snapshot().error == ""


def test_cancel_when_the_server_may_have_the_study(server, make):
    server.hold_upload.clear()
    watch = make()
    watch.until(lambda shown: shown.fraction >= 0.1)
    watch.job.cancel()
    watch.until(lambda shown: shown.title == "Cancelling")
    assert not watch.seen[-1].can_cancel
    server.hold_upload.set()
    watch.until_over()
    assert watch.job.state == "cancelled" and "DELETE /any2all/v1/jobs/j1" in server.log


@pytest.mark.parametrize("state", ["queued", "running"])
def test_cancel_on_the_server(server, make, tmp_path, state):
    watch = make()
    watch.until(lambda shown: shown.state == state)
    watch.job.cancel()
    watch.job.cancel()
    watch.until_over()
    assert watch.job.state == "cancelled" and watch.seen[-1].error == "" and watch.job.results == ()
    assert server.log.count("DELETE /any2all/v1/jobs/j1") == 1 and server.log[-1] == "GET /any2all/v1/jobs/j1"


def test_cancel_waits_until_the_server_has_stopped(server, make):
    watch = make()
    watch.until(lambda shown: shown.state == "running")
    server.refusals["DELETE", "/any2all"] = (202, job_status("running"))
    server.plan = [STEPS[3], STEPS[3], STEPS[3], job_status("cancelled")]
    watch.job.cancel()
    watch.until_over()
    assert watch.job.state == "cancelled" and server.plan == [job_status("cancelled")]


def test_cancel_of_a_job_that_was_just_done(server, make, tmp_path):
    watch = make()
    watch.until(lambda shown: shown.state == "running")
    server.refusals["DELETE", "/any2all"] = (202, job_status("done"))
    server.refusals["GET", "/any2all/v1/jobs/j1"] = (404, {"code": "unknown_job", "message": "no"})
    watch.job.cancel()
    watch.until_over()
    assert watch.job.state == "cancelled" and watch.seen[-1].error == "" and left(tmp_path) == []


def test_cancel_during_the_download_removes_what_has_come(server, make, tmp_path):
    server.volumes["T2.nii.gz"] = bytes(100_000)
    server.slow_download.set()
    watch = make()
    watch.until(lambda shown: shown.detail.startswith("volume 3 of 3, "))
    assert "CT.nii.gz" in left(tmp_path) and watch.job.results == ()
    watch.job.cancel()
    watch.until_over()
    assert watch.job.state == "cancelled" and watch.job.results == () and left(tmp_path) == []


def test_cancel_while_the_server_is_away(server, make):
    watch = make(cancel_wait_s=3.0)
    watch.until(lambda shown: shown.state == "running")
    server.stop()
    watch.until(lambda shown: shown.reconnecting)
    watch.job.cancel()
    watch.until_over()
    assert watch.job.state == "cancelled" and "could not be told" in watch.seen[-1].error
    server.start()


def test_cancel_of_a_job_that_was_given_up(server, make, tmp_path):
    watch = make(give_up_s=2.0)
    watch.until(lambda shown: shown.state == "running")
    server.refusals["GET", "/any2all"] = (503, {})
    watch.until(lambda shown: shown.state == "disconnected")
    watch.job.cancel()
    assert watch.job.state == "cancelled" and left(tmp_path) == []


def test_closing_the_panel_leaves_nothing_half_loaded(server, make, tmp_path):
    server.volumes["T2.nii.gz"] = bytes(100_000)
    server.slow_download.set()
    watch = make()
    watch.until(lambda shown: shown.detail.startswith("volume 3 of 3, "))
    watch.job.close()
    assert watch.job.state == "cancelled" and left(tmp_path) == []
