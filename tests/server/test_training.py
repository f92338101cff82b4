"""``/train``: the bundle's own preparation and training on a study store, started, watched and stopped."""

from __future__ import annotations

import shutil
import time
from types import SimpleNamespace

import psutil
import pytest
from any2all.errors import Any2allError
from lib.door import stop
from lib.settings import Limits
from lib.training import Training, Trainings, TrainParams
from server_builders import wait_until


@pytest.fixture
def studies(small_cohort, tmp_path):
    folder = tmp_path / "studies"
    for subject in ("p1", "p2", "p3"):
        shutil.copytree(small_cohort.parent / subject, folder / subject)
    return folder


def test_a_study_store_is_prepared_and_trained_on_until_it_is_stopped(studies, tmp_path):
    trainings = Trainings(studies, tmp_path / "training", Limits())
    with pytest.raises(Any2allError) as none:
        trainings.status()
    assert none.value.code == "not_found"
    told = trainings.start(TrainParams(minutes=5, workers=0))
    assert told["status"] == "RUNNING"
    with pytest.raises(Any2allError) as busy:
        trainings.start(TrainParams())
    assert busy.value.code == "conflict"
    folder = tmp_path / "training" / "prior"
    wait_until(lambda: list(folder.glob("events.out.*")) or not trainings.status()["status"] == "RUNNING", 120)
    process = psutil.Process(trainings._tasks[-1]._process.pid)
    assert (folder / "cohort" / "datalist.json").is_file()
    trainings.stop()
    told = wait_until(lambda: (s := trainings.status())["status"] != "RUNNING" and s)
    assert told["status"] == "CANCELED", told["details"]
    assert not process.is_running()
    assert str(tmp_path) not in "\n".join(told["details"]), "no path of this machine is told"
    assert sorted(p.name for p in studies.iterdir()) == ["p1", "p2", "p3"], "the study store is only read"
    with pytest.raises(Any2allError):
        trainings.status(running=True)


def test_a_store_that_cannot_be_trained_on_ends_with_the_reason(tmp_path):
    (tmp_path / "studies" / "p1").mkdir(parents=True)
    (tmp_path / "studies" / "p1" / "T1.nii.gz").write_bytes(b"no image")
    trainings = Trainings(tmp_path / "studies", tmp_path / "training", Limits())
    trainings.start(TrainParams(minutes=1, workers=0))
    told = wait_until(lambda: (s := trainings.status())["status"] != "RUNNING" and s)
    assert told["status"] == "ERROR" and any("error" in line for line in told["details"]), told["details"]


def test_a_training_is_bounded_by_what_the_administrator_gives(tmp_path):
    trainings = Trainings(tmp_path, tmp_path / "training", Limits(train_minutes=60, train_workers=2))
    for params, key in ((TrainParams(minutes=61), "minutes"), (TrainParams(workers=3), "workers")):
        with pytest.raises(Any2allError) as refused:
            trainings.start(params)
        assert refused.value.key == f"body.{key}" and not (tmp_path / "training").exists()


def test_a_server_that_stops_waits_for_the_checkpoint_and_not_for_ever(tmp_path, monkeypatch):
    """Where a service manager or a container ends with it, what is left is killed at once."""
    ended = []

    class Slow(Training):
        def work(self):
            self.stopped.wait(20)
            time.sleep(0.3)
            ended.append("checkpoint")
            return True

    monkeypatch.setattr("lib.training.Training", Slow)
    for seconds, expected in ((20, ["checkpoint"]), (0, [])):
        ended.clear()
        trainings = Trainings(tmp_path, tmp_path / "training", Limits())
        trainings.start(TrainParams())
        limits = SimpleNamespace(shutdown_seconds=seconds)
        service = SimpleNamespace(settings=SimpleNamespace(limits=limits), stop=lambda: None)
        stop(SimpleNamespace(trainings=trainings, service=service))
        assert ended == expected
        wait_until(lambda: ended)
