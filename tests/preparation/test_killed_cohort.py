"""Ten patients' DICOM series, prepared by two workers, killed, prepared to the end, and trained on: real commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from any2all.diffusion.prior import file_sha256, load_prior
from dicom_builders import AXIAL, affine_of, turned
from head_builders import head_series
from small_runs import BUNDLE, CONFIGS

SUBJECTS = tuple(f"p{number:02d}" for number in range(1, 11))
MOVERS = ("p02", "p09")
MOVED = affine_of(turned(5.0, -4.0), (4.0, 4.0, 6.0), (-126.0, -126.0, -33.0))
MOVED[:3, 3] += (AXIAL - MOVED)[:3, :3] @ (31.5, 31.5, 5.5) + (6.0, -4.0, 3.0)  # turned about the middle, then shifted
LONGEST_S = 120.0


@pytest.fixture(scope="module")
def cohort(phantom_files, tmp_path_factory) -> Path:
    """T1 and T2FLAIR of everybody, CT of every third, each with noise of their own; of two the head moved between."""
    folder = tmp_path_factory.mktemp("patients")
    for number, name in enumerate(SUBJECTS):
        modalities = ("T1", "T2FLAIR", "CT") if number % 3 == 0 else ("T1", "T2FLAIR")
        own = noisy_copies(phantom_files, folder / "phantoms" / name, modalities, number)
        places = {"T2FLAIR": MOVED} if name in MOVERS else {}
        person = {"PatientID": name, "PatientName": name}
        head_series(own, folder / "cohort" / name, modalities, places=places, **person)
    return folder / "cohort"


def noisy_copies(phantoms: Path, folder: Path, names: tuple[str, ...], seed: int) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        image = nib.load(phantoms / f"{name}.nii.gz")
        noise = np.random.default_rng(seed).normal(0, 5, image.shape)
        data = image.get_fdata() + noise
        nib.save(nib.Nifti1Image(data if name == "CT" else np.abs(data), image.affine), folder / f"{name}.nii.gz")
    return folder


def command(config: str, folder: Path, **settings: str | int | float) -> subprocess.Popen:
    """``python -m monai.bundle run`` in a process group of its own, without the data folder; its words in a file."""
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / config)]
    words += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(BUNDLE), "ANY2ALL_DATA": str(folder / "no_data")}
    with open(folder / "log.txt", "wb") as log:
        return subprocess.Popen(
            words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def finished(out: Path) -> set[str]:
    return {name for name in SUBJECTS if (out / name / "summary.json").is_file()}


def kill_in_the_middle(process: subprocess.Popen, out: Path, log: Path) -> None:
    """``kill -9`` of the command and of its workers once three subjects are finished."""
    deadline = time.monotonic() + LONGEST_S
    while len(finished(out)) < 3:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ended_well(process: subprocess.Popen, log: Path) -> str:
    assert process.wait(LONGEST_S) == 0, log.read_text()
    return log.read_text()


def times(out: Path, names: set[str]) -> dict[str, int]:
    files = [file for name in names for folder in (out / name, out / ".dicom" / name) for file in folder.iterdir()]
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_a_cohort_of_dicom_is_killed_goes_on_and_trains(cohort, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log.txt"
    settings = {"source": str(cohort), "output_dir": str(out), "workers": 2, "validation_fraction": 0.2}
    kill_in_the_middle(command("prepare.json", tmp_path, **settings), out, log)
    done = finished(out)
    before = times(out, done)
    assert 3 <= len(done) < len(SUBJECTS) and not (out / "datalist.json").exists()

    ended_well(command("prepare.json", tmp_path, **settings), log)
    report = json.loads((out / "report.json").read_text())
    assert {record["subject"] for record in report["subjects"] if record["resumed"]} == done
    assert times(out, done) == before and finished(out) == set(SUBJECTS)
    assert not list(out.glob(".*.partial")) and not list((out / ".dicom").glob(".*"))
    assert report["counts"]["refused"] == 0
    placed = {record["subject"]: record["modalities"]["T2FLAIR"] for record in report["subjects"]}
    assert {name for name, facts in placed.items() if facts["registered"]} == set(MOVERS)
    assert all(placed[name]["overlap"] > placed[name]["overlap_before"] for name in MOVERS)
    datalist = json.loads((out / "datalist.json").read_text())
    entries = datalist["training"] + datalist["validation"]
    assert sorted(len(entry) for entry in entries) == [2] * 6 + [3] * 4 and datalist["validation"]
    assert (out / "qc.html").read_text().count("data:image/png") == len(SUBJECTS)

    few = {"datalist_file": str(out / "datalist.json"), "total_iterations": 3}
    said = ended_well(command("train.json", tmp_path, **few), log)
    prior = load_prior(tmp_path / "runs" / "prior" / "model.pt")
    assert prior.card.training["stacks_seen"] == 3 * 16, said
    seen = {file_sha256(out / file) for entry in datalist["training"] for file in entry.values()}
    assert set(prior.card.training["file_sha256"]) == seen
