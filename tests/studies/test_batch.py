"""``batch.json`` as a user runs it: in one process, in two of torchrun, again after a stop, and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from any2all import pipeline
from any2all.batch import Outcome, _left
from any2all.kspace.simulate import simulate_kspace
from any2all.output import read_provenance
from monai.bundle import ConfigWorkflow

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "bundle" / "configs" / "batch.json"
AFFINE = np.diag([8.0, 8.0, 12.0, 1.0])
LONG = {"name": "mcs", "steps": 300, "samples": 1, "consistency": "calibrated"}


def ball(path: Path, seed: int = 0) -> None:
    """A noisy ball in air, 24 x 24 x 4 voxels: as small as a head can be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 24, 4)), indexing="ij")
    noise = np.random.default_rng(seed).normal(0, 5, x.shape)
    data = np.abs(np.where(x**2 + y**2 + (z / 1.8) ** 2 < 0.6, 800.0, 0.0) + noise)
    nib.save(nib.Nifti1Image(data.astype(np.float32), AFFINE), path)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """p1 (a study.json that asks for a long run) to p4; the image of p2 is garbage."""
    folder = tmp_path / "cohort"
    for seed, subject in enumerate(("p1", "p2", "p3", "p4")):
        ball(folder / subject / "T1.nii.gz", seed)
    (folder / "p2" / "T1.nii.gz").write_bytes(b"this is no image at all" * 50)
    document = {"modalities": {"T1": {"status": "available", "file": "T1.nii.gz"}}, "sampler": LONG}
    (folder / "p1" / "study.json").write_text(json.dumps(document))
    return folder


class Batch:
    """``batch.json`` in this process: `run` returns status and words."""

    def __init__(self, cohort: Path, model: Path, capsys: pytest.CaptureFixture) -> None:
        self.out, self.capsys = cohort.parent / "out", capsys
        self.settings = {"studies": str(cohort), "output_dir": str(self.out), "model_file": str(model)}
        self.settings |= {"preset": "fast", "outputs": ["CT"]}

    def run(self, **overrides: Any) -> tuple[int, str, str]:
        workflow = ConfigWorkflow(str(CONFIG), workflow_type="infer", **(self.settings | overrides))
        workflow.initialize()
        status = 0
        try:
            workflow.run()
        except SystemExit as left:
            status = left.code
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    def times(self) -> dict[str, int]:
        """When each finished subject was written."""
        return {path.parent.name: path.stat().st_mtime_ns for path in self.out.glob("*/summary.json")}

    def summary(self, subject: str) -> dict[str, Any]:
        return json.loads((self.out / subject / "summary.json").read_text())


@pytest.fixture
def batch(cohort: Path, tiny_model_file: Path, capsys: pytest.CaptureFixture) -> Batch:
    return Batch(cohort, tiny_model_file, capsys)


def test_two_processes_share_a_cohort_and_only_what_lacks_is_done_again(batch, cohort):
    """Rank 1 meets the broken subject and is done long before rank 0, which torchrun must not end for that."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str(CONFIG), "--outputs", "['CT']"]
    for key in ("studies", "output_dir", "model_file"):
        command += [f"--{key}", batch.settings[key]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stderr[-3000:]
    assert "rank 0 of 2: 2 filled, 0 kept, 0 failed." in done.stdout
    assert "rank 1 of 2: 1 filled, 0 kept, 1 failed." in done.stdout
    times = batch.times()
    assert sorted(times) == ["p1", "p3", "p4"]
    error = json.loads((batch.out / "failed" / "p2.json").read_text())
    assert error["code"] == "invalid_image" and error["key"] == "modalities.T1.file"
    assert set(error) == {"code", "message", "key", "value", "allowed", "hint"}
    assert batch.summary("p1")["provenance"]["sampler"]["steps"] == 300

    (batch.out / "p3" / "summary.json").unlink()
    (batch.out / "p3" / "CT.nii.gz").unlink()
    (batch.out / "p3" / "CT_std.nii.gz").unlink()
    (batch.out / "p3" / "report.png").unlink()
    ball(cohort / "p2" / "T1.nii.gz", 1)
    status, out, _ = batch.run(preset=None)
    assert status == 0 and "2 filled, 2 kept, 0 failed." in out and "p1: kept" in out
    again = batch.times()
    assert sorted(again) == ["p1", "p2", "p3", "p4"]
    assert {name for name in times if again[name] != times[name]} == {"p3"}
    assert not (batch.out / "failed" / "p2.json").exists()


def test_results_of_raw_data_that_crosses_the_slices_are_known_again(batch, cohort):
    """What such data makes of the consistency shows only once it is read."""
    for subject in ("p2", "p3", "p4"):
        shutil.rmtree(cohort / subject)
    z, y, x = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-0.5, 0.5, 16), np.linspace(-1, 1, 24), indexing="ij")
    head = np.where(x**2 + y**2 + z**2 < 0.6, 500.0, 0.0)
    made = simulate_kspace(head, acceleration=2, acs_lines=8, noise_std=1.0)
    np.savez(cohort / "p1" / "T2.npz", kspace=made.kspace, mask=made.mask, coil_maps=made.coil_maps, noise_std=1.0)
    raw = {"status": "undersampled", "kspace": "T2.npz", "voxel_size_mm": [24, 3, 8], "orientation": "LSP"}
    document = {"modalities": {"T1": {"status": "available", "file": "T1.nii.gz"}, "T2": raw}, "registration": "none"}
    (cohort / "p1" / "study.json").write_text(json.dumps(document))
    asked = {"preset": None, "sampler": {"steps": 6, "samples": 1, "consistency": "moment"}}
    assert "1 filled" in batch.run(**asked)[1]
    assert batch.summary("p1")["provenance"]["sampler"]["consistency"] == "calibrated"
    assert "1 kept" in batch.run(**asked)[1]
    status, _, err = batch.run(**(asked | {"sampler": {"steps": 6, "samples": 1, "consistency": "calibrated"}}))
    assert status == 1 and "differ in: sampler" in err


def test_a_cohort_in_one_process(batch, cohort):
    (cohort / "a+b").mkdir()
    (cohort / "failed").mkdir()
    status, out, err = batch.run()
    assert status == 1 and "3 filled, 0 kept, 2 failed." in out
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == ["failed", "p1", "p2", "p3", "p4"]
    assert lines[2].startswith("p2: failed: modalities.T1.file: the file is unreadable") and lines[-1].startswith(
        "Not a"
    )
    assert "left out, as misnamed or linked from elsewhere: a+b" in err
    assert "\n2 of 5: p1: filled in " in err and "\n5 of 5: p4: filled in " in err
    assert "name is taken" in json.loads((batch.out / "failed" / "failed.json").read_text())["message"]
    assert read_provenance(batch.out / "p3" / "CT.nii.gz")["subject"] == "p3"
    assert [p.name for p in (batch.out / "p3").iterdir() if p.suffix == ".gz"] == ["CT.nii.gz"]
    assert batch.summary("p1")["provenance"]["sampler"]["steps"] == 1  # the preset takes the sampler's place, too
    assert not list(batch.out.glob("**/.*"))


def test_results_of_anything_else_are_refused_one_by_one_and_replaced_on_request(batch, cohort):
    (cohort / "p2" / "T1.nii.gz").unlink()
    (cohort / "p2").rmdir()
    assert batch.run()[0] == 0
    first = batch.times()
    ball(cohort / "p3" / "T1.nii.gz", 99)
    (batch.out / "p4" / "CT.nii.gz").unlink()
    document = json.loads((cohort / "p1" / "study.json").read_text()) | {"registration": "none"}
    (cohort / "p1" / "study.json").write_text(json.dumps(document))
    status, out, _ = batch.run()
    assert status == 1 and "0 filled, 0 kept, 3 failed." in out and batch.times() == first
    for subject, reason in {"p1": "study", "p3": "input files", "p4": "files that are lost"}.items():
        assert f"{subject}: failed: output_dir: the results there differ in: {reason};" in out
    status, out, _ = batch.run(overwrite="true")
    assert status == 0 and "3 filled, 0 kept, 0 failed." in out and not list((batch.out / "failed").iterdir())
    second = batch.times()
    assert not set(first.values()) & set(second.values())
    assert "0 filled, 3 kept, 0 failed." in batch.run(overwrite="true")[1] and batch.times() == second
    for change, reason in (({"outputs": ["CT", "PET"]}, "outputs"), ({"sampler": {"seed": 5}}, "sampler")):
        assert batch.run(**change)[1].count(f"the results there differ in: {reason};") == 3
    assert batch.times() == second


def test_somebody_elses_files_stay(batch):
    (batch.out / "p3").mkdir(parents=True)
    (batch.out / "p3" / "summary.json").write_text('"mine"')
    status, out, _ = batch.run(overwrite=True)
    assert status == 1 and "2 filled, 0 kept, 2 failed." in out and "p3: failed: output_dir: the folder holds" in out
    assert (batch.out / "p3" / "summary.json").read_text() == '"mine"'


def test_what_concerns_all_subjects_is_refused_at_once(batch, cohort, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        "studies: no folder of studies": {"studies": None},
        "studies: there is no such folder": {"studies": str(tmp_path / "away")},
        "studies: no subject was found": {"studies": str(tmp_path / "empty")},
        "output_dir: no folder for the results": {"output_dir": None},
        "output_dir: the results must not lie": {"output_dir": str(cohort / "out")},
        "overwrite: this is a switch": {"overwrite": "perhaps"},
        "preset: this value cannot be used": {"preset": "quick"},
        "sampler.steps: this value cannot be used": {"sampler": {"steps": 0}},
        "outputs: this value cannot be used": {"outputs": "CT"},
        "outputs: unknown modality": {"outputs": ["MR"]},
        "batch_size: this number cannot be used": {"batch_size": 0},
        "rank: this number cannot be used": {"rank": 2, "world_size": 2},
    }
    for words, change in cases.items():
        status, out, err = batch.run(**change)
        assert status == 2 and out == "" and err.splitlines()[-1].startswith(f"error: {words}"), words
    assert not batch.out.exists()


def test_an_unforeseen_error_stops_no_other(batch, monkeypatch):
    fill = pipeline.fill_study

    def moody(spec, prior, run):
        if spec.subject == "p3":
            raise ZeroDivisionError("of its own")
        if spec.subject == "p2":
            torch.empty(10**15)
        return fill(spec, prior, run)

    monkeypatch.setattr(pipeline, "fill_study", moody)
    monkeypatch.setattr("traceback.print_exception", lambda error: None)
    status, out, _ = batch.run()
    assert status == 1 and "2 filled, 0 kept, 2 failed." in out
    error = json.loads((batch.out / "failed" / "p3.json").read_text())
    assert error["code"] == "failed" and error["message"].endswith("ZeroDivisionError: of its own")
    error = json.loads((batch.out / "failed" / "p2.json").read_text())
    assert error["code"] == "out_of_memory" and "fewer samples" in error["hint"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_nothing_half_written_and_goes_on(batch, monkeypatch, sent):
    report = pipeline.Run.report

    def stop(self: pipeline.Run, stage: str, done: int, total: int) -> None:
        if stage == "sampling" and len(batch.times()) == 1:
            os.kill(os.getpid(), sent)
        report(self, stage, done, total)

    # a shell that starts a job in the background has it ignore Ctrl-C, and so would this process
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Run, "report", stop)
        status, out, err = batch.run()
    signal.signal(signal.SIGINT, before)
    assert status == 130 and out == "" and "the same command goes on" in err
    assert sorted(path.name for path in batch.out.iterdir()) == ["failed", "p1"]
    (batch.out / ".p3.0123abcd.partial").mkdir()  # as a killed process leaves it
    status, out, _ = batch.run()
    assert "2 filled, 1 kept, 1 failed." in out and not list(batch.out.glob(".*"))


def test_the_time_that_is_left():
    done = [Outcome("a", "filled", "", 90.0), Outcome("b", "kept", "", 0.1), Outcome("c", "filled", "", 110.0)]
    assert _left(done, 9) == "; about 10.0 min left" and _left(done, 3) == "" and _left(done[1:2], 3) == ""


def test_cdm_fills_a_cohort_and_is_known_again_by_its_own_weights(cohort, tiny_model_file, tiny_cdm_file, capsys):
    for subject in ("p1", "p2", "p4"):
        shutil.rmtree(cohort / subject)
    batch = Batch(cohort, tiny_model_file, capsys)
    cdm = {"sampler": {"name": "cdm", "samples": 1}, "preset": None}
    status, _, _ = batch.run(**cdm, cdm_file=str(cohort / "away.pt"))
    failed = json.loads((batch.out / "failed" / "p3.json").read_text())
    assert status == 1 and (failed["key"], failed["code"]) == ("sampler.name", "cdm_unavailable")
    assert batch.run(**cdm, cdm_file=str(tiny_cdm_file))[0] == 0
    first = batch.times()
    assert (
        batch.summary("p3")["provenance"]["prior"]["name"] == "cdm" and not (batch.out / "failed" / "p3.json").exists()
    )
    status, said, _ = batch.run(**cdm, cdm_file=str(tiny_cdm_file))
    assert status == 0 and "1 kept" in said and batch.times() == first
    status, _, said = batch.run(sampler={"name": "mcs", "steps": 1}, preset=None)
    assert status == 1 and "prior, sampler" in json.loads((batch.out / "failed" / "p3.json").read_text())["message"]
