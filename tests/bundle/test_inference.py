"""``inference.json`` and ``generate.json`` as a user runs them: results, refusals, Ctrl-C, a copied bundle."""

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
from any2all.generate import Bank, draw_picture, draw_stacks, likenesses
from any2all.output import read_provenance
from any2all.stack import load_stack
from any2all.workflow import StageProgress
from monai.bundle import ConfigWorkflow

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "bundle" / "configs"


def run(config: str, **overrides: Any) -> None:
    workflow = ConfigWorkflow(str(CONFIGS / config), workflow_type="infer", **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def refusal(capsys: pytest.CaptureFixture, config: str, **overrides: Any) -> str:
    """The one line that a refused run ends with."""
    with pytest.raises(SystemExit) as left:
        run(config, **overrides)
    captured = capsys.readouterr()
    assert left.value.code == 2 and captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and captured.err.rstrip().endswith(errors[0]) and "Traceback" not in captured.err
    return errors[0]


def test_a_study_becomes_volumes_a_picture_and_a_table(small_study, tiny_model_file, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    run("inference.json", study=str(small_study / "study.json"), output_dir=str(out), model_file=str(tiny_model_file))
    names = ["CT.nii.gz", "CT_std.nii.gz", "T2FLAIR.nii.gz", "T2FLAIR_std.nii.gz", "report.png", "summary.json"]
    assert sorted(path.name for path in out.iterdir()) == names
    given = nib.load(small_study / "T1.nii.gz")
    for name in ("CT", "T2FLAIR"):
        image = nib.load(out / f"{name}.nii.gz")
        assert image.shape == given.shape and np.allclose(image.affine, given.affine, atol=1e-5)
    captured = capsys.readouterr()
    assert "| T2FLAIR | reconstructed" in captured.out and str(out / "report.png") in captured.out
    assert "warning: T2FLAIR: simulated" in captured.err
    assert "240/240 network passes" in captured.err  # 12 slices, 5 steps, 2 samples, and as much to refill CT


def test_cdm_fills_a_study_where_its_file_is_and_is_refused_where_not(
    small_study, tiny_model_file, tiny_cdm_file, tmp_path, capsys
):
    document = json.loads((small_study / "study.json").read_text())
    document["modalities"].pop("T2FLAIR")  # missing
    document["sampler"] = {"name": "cdm", "samples": 2}
    (small_study / "study.json").write_text(json.dumps(document))
    ready = {"study": str(small_study / "study.json"), "model_file": str(tiny_model_file)}
    ready["output_dir"] = str(tmp_path / "out")
    words = refusal(capsys, "inference.json", **ready, cdm_file=str(tmp_path / "away.pt"))
    assert words.startswith("error: sampler.name: there is no trained CDM here") and not (tmp_path / "out").exists()
    run("inference.json", **ready, cdm_file=str(tiny_cdm_file))
    assert read_provenance(tmp_path / "out" / "T2FLAIR.nii.gz")["prior"]["name"] == "cdm"
    captured = capsys.readouterr()
    assert "| T2FLAIR | synthetic" in captured.out and "cdm, 20 steps, 2 samples" in captured.out
    assert "24/24 network passes" in captured.err  # 12 slices, 2 samples
    assert "this is CDM and no prior" in refusal(
        capsys, "generate.json", output_dir=str(tmp_path / "drawn"), model_file=str(tiny_cdm_file)
    )


def test_the_batch_size_changes_nothing(small_study, tiny_model_file, tmp_path):
    common = {"study": str(small_study / "study.json"), "model_file": str(tiny_model_file)}
    for batch_size in (5, 24):
        run("inference.json", output_dir=str(tmp_path / str(batch_size)), batch_size=batch_size, **common)
    first, second = (nib.load(tmp_path / folder / "CT.nii.gz").get_fdata() for folder in ("5", "24"))
    assert np.abs(first - second).max() < 0.05  # HU of a range of 3000: floating-point order only


def test_refusals_are_one_line_and_write_nothing(small_study, tiny_model_file, tmp_path, capsys):
    study, out = str(small_study / "study.json"), tmp_path / "out"
    ready = {"study": study, "output_dir": str(out), "model_file": str(tiny_model_file)}
    cases = {
        "study: no study was given": {"study": None},
        "output_dir: no folder for the results": {"output_dir": None},
        "study: the study file does not exist": {"study": study + "x"},
        "prior: prior file not found": {"model_file": str(tmp_path / "away.pt")},
        "batch_size: this number cannot be used": {"batch_size": 0},
        "overwrite: this is a switch": {"overwrite": "perhaps"},
        "truth: this folder does not exist": {"truth": str(tmp_path / "away")},
    }
    for words, change in cases.items():
        assert refusal(capsys, "inference.json", **{**ready, **change}).startswith(f"error: {words}")
    document = json.loads((small_study / "study.json").read_text())
    document["modalities"]["CT"] = {"status": "undersampled", "kspace": "ct.npy"}
    (small_study / "study.json").write_text(json.dumps(document))
    assert "CT" in refusal(capsys, "inference.json", **ready)
    assert not out.exists()


def test_results_are_replaced_only_on_request(small_study, small_cohort, tiny_model_file, tmp_path, capsys):
    ready = {"study": str(small_study / "study.json"), "model_file": str(tiny_model_file)}
    ready["output_dir"] = str(tmp_path / "out")
    run("inference.json", **ready)
    capsys.readouterr()
    before = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "already holds results" in refusal(capsys, "inference.json", **ready)
    run("inference.json", overwrite="true", truth=str(small_cohort.parent / "p1"), **ready)
    after = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert before["outputs"]["CT"]["metrics"] is None and 0 < after["outputs"]["CT"]["metrics"]["psnr"] < 40


def test_ctrl_c_while_sampling_leaves_nothing(small_study, tiny_model_file, tmp_path, capsys, monkeypatch):
    def interrupt(self: pipeline.Run, stage: str, done: int, total: int) -> None:
        if stage == "sampling" and done > 40:
            os.kill(os.getpid(), signal.SIGINT)

    # a shell that starts a job in the background has it ignore Ctrl-C, and so would this process
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(pipeline.Run, "report", interrupt)
    out = tmp_path / "results" / "out"
    with pytest.raises(SystemExit) as left:
        run(
            "inference.json",
            study=str(small_study / "study.json"),
            output_dir=str(out),
            model_file=str(tiny_model_file),
        )
    signal.signal(signal.SIGINT, before)
    assert left.value.code == 130
    assert "cancelled: nothing was written" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob("**/*.partial"))


def test_the_bar_forecasts_from_the_sampling_alone(monkeypatch, capsys):
    clock = [1000.0]
    monkeypatch.setattr("any2all.workflow.time.time", lambda: clock[0])
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    progress = StageProgress()
    progress("reading", 0, 1)
    clock[0] += 500  # however long the reading takes
    progress("sampling", 0, 1)
    for done in range(10, 60, 10):
        clock[0] += 20  # two seconds a pass
        progress("sampling", done, 100)
    last = capsys.readouterr().err.split("\r")[-1]
    progress.close()
    assert "50/100 network passes, 01:40 gone, 01:40 left" in last


def test_the_bundle_runs_where_it_is_copied(small_study, tiny_model_file, tmp_path):
    copy = tmp_path / "copied here"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "demo", "models")
    shutil.copytree(REPOSITORY / "bundle", copy, ignore=ignore)
    shutil.copytree(tiny_model_file.parent, copy / "models")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--study", str(small_study / "study.json"), "--output_dir", "out"]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (copy / "out" / "T2FLAIR.nii.gz").is_file()
    assert "INFO" not in done.stdout + done.stderr  # MONAI's own log is quiet
    where = "import any2all; print(any2all.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=copy, env=environment, capture_output=True, text=True)
    assert Path(found.stdout.strip()).parent == copy / "any2all"


def test_generate_writes_marked_stacks_and_their_nearest_training_slice(
    small_cohort, tiny_model_file, tmp_path, capsys
):
    ready = {"model_file": str(tiny_model_file), "dataset_dir": None, "steps": 4, "slices": 3}
    run("generate.json", output_dir=str(tmp_path / "out"), datalist_file=str(small_cohort), **ready)
    names = load_stack().names
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == sorted([*(f"generated_{name}.nii.gz" for name in names), "generated.png", "summary.json"])
    for name in names:
        image = nib.load(tmp_path / "out" / f"generated_{name}.nii.gz")
        assert image.shape == (3, 32, 32) and nib.aff2axcodes(image.affine) == ("S", "P", "L")
        assert bytes(image.header["descrip"]).startswith(b"SYNTHETIC Any2all")
        assert "independent" in read_provenance(tmp_path / "out" / f"generated_{name}.nii.gz")["statistic"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    likeness = summary["nearest_training_slice"]
    assert likeness["training_slices"] == {"real": 24}  # all slices of p1 and p2, none of p3
    assert len(likeness["draws"]) == 3 and all(0.05 < draw["rms_u"] < 1 for draw in likeness["draws"])
    # the phantoms differ in noise only, so a held-out one lies close, and an untrained prior's noise does not
    assert likeness["median_held_out"] < 0.02 < likeness["median_draws"]
    assert "belong to no common head" in capsys.readouterr().out

    run("generate.json", output_dir=str(tmp_path / "alone"), **ready)
    alone = json.loads((tmp_path / "alone" / "summary.json").read_text())
    assert alone["nearest_training_slice"] is None and "ANY2ALL_DATA" in alone["nearest_training_slice_missing_because"]
    capsys.readouterr()
    assert "already holds results" in refusal(capsys, "generate.json", output_dir=str(tmp_path / "alone"), **ready)
    assert "steps" in refusal(capsys, "generate.json", output_dir=str(tmp_path / "n"), **{**ready, "steps": 1001})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dataset_dir": "HERE/wrong"}, "error: dataset_dir: data folder not found; got "),
        ({"datalist_file": "HERE/wrong.json"}, "error: datalist_file: the datalist cannot be read"),
        ({"datalist_file": "HERE/damaged.json"}, "error: HERE/gone.nii.gz: the file does not exist; got 'gone.nii.gz'"),
    ],
)
def test_what_draws_are_compared_with_is_read_before_they_are_drawn(
    settings, words, tiny_model_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("any2all.generate.draw_stacks", None)
    (tmp_path / "damaged.json").write_text('{"training": [{"T1": "gone.nii.gz"}]}')
    settings = {key: value.replace("HERE", str(tmp_path)) for key, value in settings.items()}
    given = {"model_file": str(tiny_model_file), "dataset_dir": None, "output_dir": str(tmp_path / "out")}
    found = refusal(capsys, "generate.json", **{**given, **settings})
    assert found.startswith(words.replace("HERE", str(tmp_path)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("config", ["inference.json", "generate.json", "batch.json"])
@pytest.mark.parametrize("device", ["foo", "cuda:99"])
def test_a_device_that_is_not_there_is_named(config, device, small_study, tiny_model_file, tmp_path, capsys):
    given = {"model_file": str(tiny_model_file), "output_dir": str(tmp_path / "out"), "device": device}
    study = {"inference.json": {"study": str(small_study / "study.json")}, "batch.json": {"studies": str(small_study)}}
    line = refusal(capsys, config, **given, **study.get(config, {}))
    assert line.startswith("error: device: this device cannot be used; got ") and "allowed: cpu" in line


def test_the_picture_of_many_draws_stays_a_picture():
    stack = load_stack()
    figure = draw_picture(torch.zeros(200, len(stack), 8, 8), stack.modalities, None)
    assert figure.get_size_inches()[0] * figure.dpi < 4000 and len(figure.axes) == 16 * len(stack)
    assert any("the first 16 of 200" in text.get_text() for text in figure.texts)


def test_draws_are_seeded_one_by_one(tiny_prior):
    three = draw_stacks(tiny_prior, slices=3, steps=3, seed=5, batch_size=3)
    two = draw_stacks(tiny_prior, slices=2, steps=3, seed=5, batch_size=1)
    other = draw_stacks(tiny_prior, slices=2, steps=3, seed=6, batch_size=2)
    assert torch.allclose(three[:2], two, atol=1e-5) and (two - other).abs().mean() > 0.05


def test_nearest_is_the_rms_over_what_both_have():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1
    present = torch.ones(4, 3, dtype=torch.bool)
    present[2, 1:] = False
    bank = Bank(images, present, ("a", "b", "c", "d"))
    (found,) = likenesses((images[1].flip(-1) + 0.1)[None], bank)  # mirrored, and 0.05 brighter in u
    assert (found.source, found.rms_u, found.channels) == ("b", 0.05, 3)
    absent_differs = images[2].clone()
    absent_differs[1:] += 0.7
    assert likenesses(absent_differs[None], bank)[0].rms_u == 0.0


def test_the_command_takes_the_place_of_the_studys_own_keys(small_study, tiny_model_file, tmp_path, capsys):
    given = {"study": str(small_study / "study.json"), "model_file": str(tiny_model_file)}
    sampler = {"steps": 6, "samples": 1, "consistency": "calibrated"}
    run("inference.json", output_dir=str(tmp_path / "a"), sampler=sampler, outputs=["PET"], **given)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert list(summary["outputs"]) == ["PET"] and summary["provenance"]["sampler"]["steps"] == 6
    assert summary["provenance"]["study"]["sampler"]["steps"] == 6
    run("inference.json", output_dir=str(tmp_path / "b"), preset="fast", outputs=("CT", "PET"), **given)
    summary = json.loads((tmp_path / "b" / "summary.json").read_text())
    assert list(summary["outputs"]) == ["CT", "PET"] and summary["provenance"]["study"]["preset"] == "fast"
    capsys.readouterr()
    for key, value in {"preset": "slow", "outputs": ["T9"], "sampler": {"stepps": 3}}.items():
        assert key in refusal(capsys, "inference.json", output_dir=str(tmp_path / "c"), **{key: value}, **given)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "truth: no image in this folder is that of an output"),
        ({"PET.nii.gz": "T1"}, "truth: no image in this folder is that of an output"),
        ({"CT.nii.gz": "T1", "CT_mask.nii.gz": "T1"}, "truth.CT: 2 files for one modality"),
        ({"CT.nii.gz": "OURS"}, "truth.CT: this is a result of Any2all"),
    ],
)
def test_a_truth_that_is_none_is_refused(small_study, tiny_model_file, tmp_path, capsys, files, words):
    truth = tmp_path / "truth"
    truth.mkdir()
    for name, source in files.items():
        image = nib.load(small_study / "T1.nii.gz")
        if source == "OURS":
            image.header["descrip"] = b"SYNTHETIC Any2all CT mean"
        nib.save(image, truth / name)
    given = {"study": str(small_study / "study.json"), "model_file": str(tiny_model_file)}
    out = str(tmp_path / "out")
    assert words in refusal(capsys, "inference.json", output_dir=out, outputs=["CT"], truth=str(truth), **given)


def test_other_files_beside_the_truth_do_no_harm(small_study, tiny_model_file, tmp_path):
    truth = tmp_path / "truth"
    (truth / "sub-01_CT").mkdir(parents=True)
    shutil.copy(small_study / "T1.nii.gz", truth / "CT.nii.gz")
    shutil.copy(small_study / "T1.nii.gz", truth / "sub-01_CT" / "CT.nii.gz")
    for name in ("CT.txt", "CT.png"):
        (truth / name).write_text("notes")
    given = {"study": str(small_study / "study.json"), "model_file": str(tiny_model_file), "outputs": ["CT"]}
    run("inference.json", output_dir=str(tmp_path / "out"), truth=str(truth), **given)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["outputs"]["CT"]["metrics"]


@pytest.mark.parametrize("said", [("--output_dir", "a#b"), ("--output_dir=./a#b",), ("--study", "case #1/study.json")])
def test_a_hash_that_monai_would_cut_or_rewrite_is_refused(
    small_study, tiny_model_file, tmp_path, capsys, monkeypatch, said
):
    """Results would lie in ``a`` or ``a::b``; references, expressions and other commands may hold one."""
    monkeypatch.chdir(tmp_path)
    before = ["/env/monai/bundle/__main__.py", "run", "--config_file", "a.json", "--train#x", "1", "--y", "@a#b"]
    monkeypatch.setattr(sys, "argv", [*before, *said])
    given = {"study": str(small_study / "study.json"), "model_file": str(tiny_model_file), "output_dir": "a"}
    key, value = said if len(said) == 2 else said[0].split("=")
    expected = f"error: {key.removeprefix('--')}: MONAI's command line cannot take a #; got {value!r}; allowed: "
    assert refusal(capsys, "inference.json", **given).startswith(expected)
    monkeypatch.setattr(sys, "argv", ["/any2all/checks.py", *said])
    assert "no path may hold either" in refusal(capsys, "inference.json", **{**given, "output_dir": "./a#b"})
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
    monkeypatch.setattr(sys, "argv", before)
    run("inference.json", **given, preset="fast", outputs=["CT"])
    assert (tmp_path / "a" / "CT.nii.gz").is_file()


@pytest.mark.parametrize(
    ("folder", "words"), [("afile/out", "Not a directory"), (20240512, "write it as a path: --output_dir ./NAME")]
)
def test_a_folder_that_cannot_be_is_refused_before_the_study_is_read(
    small_study, tiny_model_file, tmp_path, capsys, folder, words
):
    (tmp_path / "afile").write_text("notes")
    out = str(tmp_path / folder) if isinstance(folder, str) else folder
    study, model = str(small_study / "study.json"), str(tiny_model_file)
    with pytest.raises(SystemExit) as left:
        run("inference.json", study=study, model_file=model, output_dir=out)
    said = capsys.readouterr().err
    assert left.value.code == 2 and words in said and "reading" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["afile", "study"]


def test_memory_that_runs_out_is_one_line(small_study, tiny_model_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "fill_study", lambda *_, **__: torch.empty(10**15))
    where = {
        "study": str(small_study / "study.json"),
        "output_dir": str(tmp_path / "out"),
        "model_file": str(tiny_model_file),
    }
    assert "fewer samples" in refusal(capsys, "inference.json", **where)
    assert not (tmp_path / "out").exists()
