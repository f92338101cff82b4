"""The worker process and the thread that feeds it, with the tiny prior."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from any2all.cdm.source import CDMSource
from any2all.errors import Any2allError
from lib import dispatch, worker
from lib.dispatch import APP, Dispatcher
from lib.jobs import Job, JobBook
from lib.service import Service
from lib.settings import Limits, ServerSettings
from server_builders import study, wait_until

SLICES = 12
IDLE = """import sys
print('{"event": "ready", "device": "cpu", "seconds_per_slice": {}}', flush=True)
sys.stdin.read()"""  # in a worker's place where none has to compute: it starts at once


class Bench:
    """A dispatcher with its book; every event that it logs."""

    def __init__(self, folder, model_file, **settings):
        self.settings = ServerSettings(work_dir=folder, model_file=model_file, **settings)
        self.book = JobBook(folder / "jobs", self.settings.limits)
        self.logged = []
        self.saved = []
        self.dispatcher = Dispatcher(
            self.settings, self.book, self.saved.append, lambda event, **fields: self.logged.append((event, fields))
        )
        self.dispatcher.start()

    def submit(self, files, document):
        home = self.book.new_home()
        for name in ("T1", "T2", "T2FLAIR"):
            shutil.copy(files / f"{name}.nii.gz", home / "study")
        return self.book.submit(Job(home.name, home, document, home / "study"))

    def run(self, files, document):
        job = self.submit(files, document)
        wait_until(lambda: job.is_over)
        return job


def started(program, monkeypatch):
    """Workers are this program instead of `lib.worker`."""
    start = subprocess.Popen
    monkeypatch.setattr(
        "lib.dispatch.subprocess.Popen", lambda command, **more: start([command[0], "-c", program], **more)
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory, tiny_model_file):
    bench = Bench(tmp_path_factory.mktemp("work"), tiny_model_file, batch_size=1, limits=Limits(queue=50))
    yield bench
    bench.dispatcher.stop()
    assert bench.dispatcher.worker_pid is None or not os.path.exists(f"/proc/{bench.dispatcher.worker_pid}")


def test_a_study_is_filled_with_progress_by_network_passes(bench, phantom_files):
    job = bench.submit(phantom_files, study(steps=5, samples=2, outputs=("CT", "PET")))
    seen = set()
    wait_until(lambda: seen.add((job.stage, job.step, job.total)) or job.is_over)
    assert job.state == "done", job.error
    counted = sorted(step for stage, step, total in seen if stage == "sampling" and total == 5 * 2 * SLICES)
    assert len(set(counted)) >= 5 and job.step == 5 * 2 * SLICES
    assert {r["name"] for r in job.results} == {"CT.nii.gz", "CT_std.nii.gz", "PET.nii.gz", "PET_std.nii.gz"}
    given, made = nib.load(phantom_files / "T1.nii.gz"), nib.load(job.output / "CT.nii.gz")
    assert made.shape == given.shape and np.array_equal(made.affine, given.affine)
    assert bench.dispatcher.health == "ok" and set(bench.dispatcher.seconds_per_slice) == {"fast", "balanced", "best"}


def test_cancel_is_honoured_within_one_sampler_step(bench, phantom_files):
    """With one slice at a time a step is 12 batches; not even one of them may be begun after the order has arrived."""
    job = bench.submit(phantom_files, study(steps=400))
    wait_until(lambda: job.step >= 2 * SLICES)
    at = job.step
    bench.book.cancel(job.id)
    wait_until(lambda: job.is_over)
    assert job.state == "cancelled"
    # progress is told ten times a second, so what is known at the end may lie some passes behind, but not ahead
    assert job.step - at <= SLICES
    wait_until(lambda: sorted(p.name for p in job.home.iterdir()) == ["job.json"])  # swept right after the state


def test_a_bad_file_is_a_failure_in_words_and_the_next_job_runs(bench, phantom_files, tmp_path):
    files = tmp_path / "files"
    shutil.copytree(phantom_files, files)
    image = nib.load(files / "T2.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine), files / "T2.nii.gz")
    job = bench.run(files, study())
    assert job.state == "failed" and job.error["key"] == "modalities.T2.file" and "constant" in job.error["message"]
    assert bench.run(phantom_files, study(steps=1)).state == "done"


def test_a_worker_that_is_killed_is_replaced_and_says_what_became_of_its_job(bench, phantom_files):
    job = bench.submit(phantom_files, study(steps=400))
    wait_until(lambda: job.step)
    os.kill(bench.dispatcher.worker_pid, signal.SIGKILL)
    wait_until(lambda: job.is_over)
    assert job.state == "failed" and job.error["code"] == "worker_died"
    wait_until(lambda: sorted(p.name for p in job.home.iterdir()) == ["job.json"])  # swept right after the state
    assert bench.run(phantom_files, study(steps=1)).state == "done"
    assert any(event == "worker fell" for event, _ in bench.logged)


def test_presets_are_timed_again_in_quiet(bench, phantom_files, monkeypatch):
    """A start on a busy machine must not leave its numbers for ever."""
    monkeypatch.setattr("lib.dispatch.TIME_AGAIN_SECONDS", 0.2)
    bench.run(phantom_files, study(steps=1))
    bench.dispatcher.seconds_per_slice = {}
    wait_until(lambda: set(bench.dispatcher.seconds_per_slice) == {"fast", "balanced", "best"})
    assert bench.run(phantom_files, study(steps=1)).state == "done"


def test_stopping_cancels_what_takes_too_long_and_keeps_what_waits(tmp_path, tiny_model_file, phantom_files):
    bench = Bench(tmp_path / "work", tiny_model_file, batch_size=1, limits=Limits(shutdown_seconds=1))
    running, waiting = (bench.submit(phantom_files, study(steps=400)) for _ in range(2))
    wait_until(lambda: running.step)
    pid = bench.dispatcher.worker_pid
    bench.dispatcher.stop()
    assert running.state == "cancelled" and waiting.state == "queued"
    assert not os.path.exists(f"/proc/{pid}")
    assert JobBook(tmp_path / "work" / "jobs", bench.settings.limits).next().id == waiting.id


def test_a_prior_that_cannot_be_used_is_said_and_tried_again(tmp_path, tiny_model_file, phantom_files, monkeypatch):
    monkeypatch.setattr("lib.dispatch.BROKEN_REST_SECONDS", 0.2)
    model = tmp_path / "model.pt"
    shutil.copy(tiny_model_file.with_name("prior.json"), tmp_path / "prior.json")
    model.write_bytes(b"no weights")
    bench = Bench(tmp_path / "work", model)
    wait_until(lambda: bench.dispatcher.broken)
    assert bench.dispatcher.health == "failing" and bench.dispatcher.broken["code"] == "prior_unavailable"
    with pytest.raises(Any2allError, match="the server cannot compute") as refused:
        bench.dispatcher.check_able()
    assert refused.value.code == "unavailable"

    shutil.copy(tiny_model_file, tmp_path / "copy.pt")
    (tmp_path / "copy.pt").rename(model)
    assert bench.run(phantom_files, study(steps=1)).state == "done"
    assert bench.dispatcher.health == "ok" and bench.dispatcher.broken is None
    bench.dispatcher.check_able()
    bench.dispatcher.stop()


@pytest.mark.parametrize(
    "end, words",
    [
        ("raise SystemExit(3)", "ended with exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "was killed (perhaps the machine is short of memory)"),
    ],
)
def test_a_worker_that_falls_again_and_again_is_said_with_how_it_fell(
    tmp_path, tiny_model_file, monkeypatch, end, words
):
    monkeypatch.setattr("lib.dispatch.REST_SECONDS", (0.05, 0.05, 0.05))
    started(end, monkeypatch)
    bench = Bench(tmp_path / "work", tiny_model_file)
    wait_until(lambda: bench.dispatcher.health == "failing")
    assert bench.dispatcher.broken is None
    assert f"times in turn the computing process {words} before it could work" in bench.dispatcher.reason
    with pytest.raises(Any2allError, match="the server cannot compute") as refused:
        bench.dispatcher.check_able()
    assert refused.value.code == "unavailable" and words in refused.value.message
    bench.dispatcher.stop()


def test_sessions_that_have_expired_leave_the_disk_by_themselves(tmp_path, tiny_model_file, monkeypatch):
    """They hold a patient's images, and perhaps no other client ever comes."""
    monkeypatch.setattr("lib.dispatch.EXPIRE_SECONDS", 0.0)
    started(IDLE, monkeypatch)
    service = Service(ServerSettings(tmp_path / "work", tiny_model_file), tmp_path)
    old, fresh = (service.sessions.add([("T1.nii.gz", io.BytesIO(b"voxels"))], expiry=60) for _ in range(2))
    service.start()
    wait_until(lambda: service.dispatcher.health == "ok")
    assert old.folder.exists()
    old.used -= 61
    wait_until(lambda: not old.folder.exists())
    assert fresh.folder.exists()
    service.stop()


def test_a_job_whose_folder_was_swept_away_stops_no_other(bench, phantom_files):
    running, swept, after = (bench.submit(phantom_files, study(steps=n)) for n in (30, 1, 1))
    shutil.rmtree(swept.home)
    wait_until(lambda: after.is_over)
    assert (running.state, swept.state, after.state) == ("done", "failed", "done")


def test_an_event_that_cannot_be_taken_in_stops_no_queue(bench, phantom_files, monkeypatch):
    take, met = bench.dispatcher._of_job, []

    def stumble(job, event):
        if not met:
            met.append(event)
            raise ValueError("unforeseen")
        take(job, event)

    monkeypatch.setattr(bench.dispatcher, "_of_job", stumble)
    lost, after = (bench.submit(phantom_files, study(steps=1)) for _ in range(2))
    wait_until(lambda: after.is_over)
    assert met and lost.error["code"] == "worker_died" and after.state == "done"


def test_no_job_is_given_to_a_worker_that_has_just_fallen(tmp_path, tiny_model_file):
    book = JobBook(tmp_path / "jobs", Limits())
    dispatcher = Dispatcher(ServerSettings(tmp_path, tiny_model_file), book, lambda job: None)
    home = book.new_home()
    job = book.submit(Job(home.name, home, {}, home / "study"))

    class Falling:
        @property
        def ready(self):
            dispatcher._worker = None  # between the look at it and the lock
            return True

    dispatcher._worker = Falling()
    dispatcher._begin_job()
    assert job.state == "queued" and dispatcher._job is None


def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path, tiny_model_file, monkeypatch):
    monkeypatch.setattr("lib.dispatch.REST_SECONDS", (0.1, 0.1, 0.1))
    started(IDLE, monkeypatch)
    start, refusals = dispatch.subprocess.Popen, [BlockingIOError(11, "Resource temporarily unavailable")] * 2

    def short_of_processes(*arguments, **keywords):
        if refusals:
            raise refusals.pop()
        return start(*arguments, **keywords)

    monkeypatch.setattr("lib.dispatch.subprocess.Popen", short_of_processes)
    bench = Bench(tmp_path / "work", tiny_model_file)
    wait_until(lambda: bench.dispatcher.health == "ok")
    assert not refusals
    bench.dispatcher.stop()


def test_no_worker_outlives_its_server(tmp_path, tiny_model_file, monkeypatch):
    """Not even one that is held by a step that cannot be interrupted."""
    started(IDLE, monkeypatch)
    bench = Bench(tmp_path / "work", tiny_model_file, limits=Limits(shutdown_seconds=0.1))
    wait_until(lambda: bench.dispatcher.health == "ok")
    pid = bench.dispatcher.worker_pid
    monkeypatch.setattr(bench.dispatcher._thread, "join", lambda seconds: None)  # which is held up as well
    monkeypatch.setattr(bench.dispatcher, "_begin_job", lambda: time.sleep(30))
    os.kill(pid, signal.SIGSTOP)
    bench.dispatcher.stop()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_worker_that_is_held_leaves_when_its_server_is_gone(tmp_path, tiny_model_file):
    held = (
        "import time; from lib import worker; worker.LAST_SECONDS = 0.5; "
        "worker.preset_seconds = lambda prior: time.sleep(60); worker.main()"
    )
    command = [sys.executable, "-c", held, "--model-file", str(tiny_model_file)]
    paths = {"PYTHONPATH": os.pathsep.join([str(APP), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **paths})
    process.stdin.close()
    assert process.wait(40) == 1
    process.stdout.close()


class Ears:
    """Orders without a server, events into a list."""

    cancelled: set[str] = set()

    def __init__(self):
        self.heard = []

    def unwanted(self, job):
        return False

    def say(self, event, **fields):
        self.heard.append((event, fields))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out"), MemoryError(), RuntimeError("can't allocate memory")])
def test_short_of_memory_the_study_is_filled_with_fewer_slices_at_once(
    monkeypatch, tiny_prior, tmp_path, phantom_files, error
):
    tried, fill = [], worker.pipeline.run_study

    def short(spec, prior, output, run):
        tried.append(run.batch_size)
        if run.batch_size > 3:
            raise error
        return fill(spec, prior, output, run=run)

    monkeypatch.setattr(worker.pipeline, "run_study", short)
    ears = Ears()
    order = {"job": "j", "document": study(steps=1), "folder": str(phantom_files), "output": str(tmp_path / "out")}
    worker.fill({**order, "batch_size": 12}, tiny_prior, CDMSource(), ears, ears)
    assert tried == [12, 6, 3] and ears.heard[-1][0] == "done"
    assert [fields["batch_size"] for event, fields in ears.heard if event == "retry"] == [6, 3]

    monkeypatch.setattr(worker.pipeline, "run_study", lambda *a, **k: (_ for _ in ()).throw(error))
    worker.fill({**order, "batch_size": 2, "output": str(tmp_path / "no")}, tiny_prior, CDMSource(), ears, ears)
    event, fields = ears.heard[-1]
    assert (
        event == "failed" and fields["error"]["code"] == "out_of_memory" and "one slice" in fields["error"]["message"]
    )


def test_an_unexpected_error_is_told_by_its_kind_only(monkeypatch, tiny_prior, tmp_path, capsys):
    monkeypatch.setattr(worker.pipeline, "run_study", lambda *a, **k: 1 / 0)
    monkeypatch.setattr(worker, "parse_study", lambda *a: None)
    ears = Ears()
    worker.fill(
        {"job": "j", "document": {}, "folder": "", "output": "", "batch_size": 1}, tiny_prior, CDMSource(), ears, ears
    )
    ((event, fields),) = ears.heard
    assert event == "failed" and fields["error"]["code"] == "failed"
    assert "ZeroDivisionError" in fields["error"]["message"] and "division by zero" not in str(fields)
    said = capsys.readouterr().err
    assert "ZeroDivisionError in worker.py" in said and "division by zero" not in said


def test_cdm_is_loaded_by_the_first_study_that_asks_for_it_and_its_passes_are_counted(
    tiny_prior, tiny_cdm_file, tmp_path, phantom_files
):
    cdm, ears = CDMSource(tiny_cdm_file, autocast=False), Ears()
    document = {**study(outputs=("CT",)), "sampler": {"name": "cdm", "samples": 2}}
    order = {"job": "j", "folder": str(phantom_files), "batch_size": 24}
    for name, asked in (("one", study(steps=1)), ("two", document)):
        worker.fill({**order, "document": asked, "output": str(tmp_path / name)}, tiny_prior, cdm, ears, ears)
        assert ears.heard[-1][0] == "done" and (cdm._loaded is not None) == (name == "two")
    counted = [fields for event, fields in ears.heard if event == "progress" and "step" in fields]
    assert (counted[-1]["step"], counted[-1]["total"]) == (2 * SLICES, 2 * SLICES)
    assert {r["name"] for r in ears.heard[-1][1]["results"]} == {"CT.nii.gz", "CT_std.nii.gz"}
    assert worker.cdm_seconds(cdm, tiny_prior) > 0 and worker.cdm_seconds(CDMSource(), tiny_prior) is None
