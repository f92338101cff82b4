"""Two real processes of torchrun share one evaluation of the validation head."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import any2all
import monai.bundle

CONFIGS = Path(any2all.__file__).parents[1] / "configs"


def test_two_processes_share_an_evaluation(data_folder, tiny_model_file, tmp_path, monkeypatch):
    """Each predicts a part, the first reports on all, and one process alone finds everything there."""
    entry = {"split": "validation", "renderings": {"subject16": [5, 6]}, "positions_mm": [10.0], "block_mm": 0,
             "block_slices": 3, "real": [], "real_slices": 1}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps({"tiny": entry}))
    out = tmp_path / "out"
    files = [str(CONFIGS / "evaluate.json"), str(CONFIGS / "evaluate_reduced.json")]
    options = {"cases": "tiny", "manifest": str(tmp_path / "manifest.json"), "kinds": "rendered", "draws": 0,
               "tasks": "R4,T1", "methods": "SENSE,mcs-1,mcs-5,mps-1000", "model_file": str(tiny_model_file),
               "method_changes": {"mps-1000": {"steps": 5, "samples": 1}}, "output_dir": str(out),
               "unconditional#draws": 4}  # fmt: skip
    command = ["-m", "monai.bundle", "run", "--config_file", str(files)]
    command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "ANY2ALL_DATA": str(data_folder), "CUDA_VISIBLE_DEVICES": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command]
    done = subprocess.run(torchrun, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("# Evaluation\n") == 1
    rows = list(csv.DictReader((out / "numbers.csv").open()))
    cells = {(row["task"], row["target"], row["method"]) for row in rows}
    assert ("R4", "T2FLAIR", "mps-1000") in cells and ("T1", "PET", "mcs-1") in cells and len(cells) == len(rows) == 12
    parts = sorted(file.stem for file in (out / "unconditional").glob("*"))
    assert len(parts) == 6  # three samplers, three renderings: shared as well
    made = {file.name: file.stat().st_mtime_ns for file in (out / "predictions").glob("*.npz")}
    found = json.loads((out / "results.json").read_text())
    assert found["cases"][0]["groups"] == ["subject16/5", "subject16/6"]
    assert found["settings"]["seed"] == 0 and found["settings"]["simulation"]["seed"] == 0

    monkeypatch.setenv("ANY2ALL_DATA", str(data_folder))
    monai.bundle.run(config_file=files, **options)
    assert made == {file.name: file.stat().st_mtime_ns for file in (out / "predictions").glob("*.npz")}
    assert list(csv.DictReader((out / "numbers.csv").open())) == rows
