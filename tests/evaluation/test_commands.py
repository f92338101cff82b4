"""The commands around the pipeline: demo, checks on real data, the evaluation bundle."""

import json
from dataclasses import replace
from pathlib import Path

import any2all
import monai.bundle
import nibabel as nib
import numpy as np
import pytest
from any2all import checks, demo
from any2all.diffusion.prior import NetworkPrior
from any2all.errors import Any2allError
from any2all.evaluation.cases import MANIFEST, Manifest
from any2all.evaluation.front import TableEvaluator, load_ground
from any2all.geometry import Grid, Volume
from any2all.output import ModalityResult, Result
from any2all.pipeline import run_study
from any2all.stack import Stack

CONFIG = Path(any2all.__file__).parents[1] / "configs" / "evaluate.json"


def demo_result(**metrics):
    volume = Volume(np.zeros((14, 4, 4)), Grid((14, 4, 4), np.eye(4)))
    output = ModalityResult("T2FLAIR", "reconstructed", volume, "a.u.", metrics=metrics)
    return Result("subject16", volume, {}, [output, replace(output, name="CT", role="synthetic", metrics=None)])


def test_the_demonstration_ends_with_scores_beside_baselines_and_says_what_it_is():
    scores = {"psnr": 30.0, "ssim": 0.9, "psnr_head": 26.0, "psnr_SENSE": 25.0, "ssim_SENSE": 0.5,
              "psnr_zero_filled": 31.0, "ssim_zero_filled": 0.4}  # fmt: skip
    lines = demo.summary(demo_result(**scores), Path("out"), 60).splitlines()
    rows = {tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in lines if line.startswith("|")}
    assert ("T2FLAIR", "30.00", "0.900", "SENSE", "25.00", "0.500", "yes") in rows
    assert ("T2FLAIR", "30.00", "0.900", "zero filled", "31.00", "0.400", "NO") in rows
    assert "validation head" in lines[-2] and "no real CT or PET" in lines[-2] and "report.png" in lines[-1]


def test_the_demonstration_without_a_prior_ends_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        demo.main(["--model", str(tmp_path / "model.pt"), "--output", str(tmp_path / "out")])
    assert caught.value.code == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err.strip().startswith("error: prior: prior file not found")


def test_checks_are_skipped_aloud_without_data(tmp_path, capsys):
    checks.main(["--data", str(tmp_path)])
    assert capsys.readouterr().out.startswith("SKIPPED: no data folder")


def test_a_wrong_result_is_found(small_study, tiny_prior, tmp_path):
    out = tmp_path / "out"
    result = run_study(small_study / "study.json", tiny_prior, out)
    reference = nib.load(small_study / "T1.nii.gz")
    names = [o.name for o in result.outputs]
    assert checks.wrong_with(out, reference, names) == []
    image = nib.load(out / "CT.nii.gz")
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine + np.eye(4)), out / "CT.nii.gz")
    (out / "T2FLAIR_std.nii.gz").rename(out / "gone.nii.gz")
    with pytest.raises(FileNotFoundError):
        checks.wrong_with(out, reference, names)
    (out / "gone.nii.gz").rename(out / "T2FLAIR_std.nii.gz")
    assert checks.wrong_with(out, reference, names) == [
        "CT.nii.gz has another affine than the reference",
        "CT.nii.gz has a header that does not say what it is",
        "CT.nii.gz has no origin in its header",
    ]


def test_the_evaluation_bundle_runs_on_the_validation_head(data_folder, tiny_model_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ANY2ALL_DATA", str(data_folder))
    manifest = json.loads(MANIFEST.read_text())
    entry = {**manifest["validation"], "renderings": {"subject16": [5, 6]}, "positions_mm": [10.0], "block_slices": 3}
    (tmp_path / "manifest.json").write_text(json.dumps({"validation": {**entry, "real_slices": 2}}))
    options = {
        "tasks": "R4,R4+T1,T1+T2star+T2FLAIR,T1+T2",
        "methods": "SENSE,mcs-1,mcs-10-coherent,mcs-20",
        "manifest": str(tmp_path / "manifest.json"),
        "draws": 0,
        "unconditional#draws": 6,
    }
    monai.bundle.run(
        config_file=str(CONFIG), model_file=str(tiny_model_file), output_dir=str(tmp_path / "out"), **options
    )
    text = capsys.readouterr().out
    assert "subject16/5, subject16/6" in text and "T2FLAIR from R4" in text and "PET from T1+T2star+T2FLAIR" in text
    assert "## Flicker between" in text and "stroke_01 (real: 2 slices" in text
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "figures",
        "numbers.csv",
        "predictions",
        "report.html",
        "report.md",
        "results.json",
        "stroke_01.png",
        "unconditional",
        "validation.png",
    ]


def test_an_unknown_task_ends_in_one_line(data_folder, tiny_model_file, monkeypatch, capsys):
    monkeypatch.setenv("ANY2ALL_DATA", str(data_folder))
    with pytest.raises(SystemExit) as caught:
        monai.bundle.run(config_file=str(CONFIG), model_file=str(tiny_model_file), tasks="nothing", kinds=[])
    assert caught.value.code == 2 and "error: tasks: no such entry; got 'nothing'" in capsys.readouterr().err


def test_an_unknown_set_of_cases_ends_in_one_line(data_folder, tiny_model_file, monkeypatch, capsys):
    monkeypatch.setenv("ANY2ALL_DATA", str(data_folder))
    with pytest.raises(SystemExit) as caught:
        monai.bundle.run(config_file=str(CONFIG), model_file=str(tiny_model_file), cases="train")
    assert caught.value.code == 2 and "error: cases: no such set of cases; got 'train'" in capsys.readouterr().err


@pytest.fixture
def empty_data_folder(tmp_path, monkeypatch) -> Path:
    """A data folder that names heads and holds none."""
    names = {split: ["nobody"] for split in ("train", "validation", "test")}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "splits.json").write_text(json.dumps({"head_labels": names, "real_mr": names}))
    monkeypatch.setenv("ANY2ALL_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"manifest": "HERE/none.json"}, "error: manifest: the manifest cannot be read: No such file or directory"),
        ({"manifest": "HERE/list.json"}, "error: manifest: the manifest cannot be read: 'list' object"),
        ({"manifest": "HERE/entry.json"}, "error: manifest: the manifest cannot be read: 'split'; got"),
        (
            {"manifest": "HERE/entry.json", "cases": "block"},
            "error: manifest: the manifest cannot be read: block_heads",
        ),
        ({"manifest": "HERE/entry.json", "cases": "real", "kinds": "real"}, "error: manifest: no such subject in the"),
        (
            {"manifest": "HERE/entry.json", "cases": "split"},
            "error: manifest.split: splits.json has no such split; got",
        ),
        ({"output_dir": "HERE/list.json/out"}, "error: output_dir: nothing can be written here"),
        ({"report_dir": "HERE/list.json/out"}, "error: report_dir: nothing can be written here"),
        ({"device": "cuda:99"}, "error: device: this device cannot be used; got 'cuda:99'"),
        ({"kinds": "real,blocks"}, "error: kinds: no such kind of cases; got 'blocks'; allowed: rendered, block, real"),
        ({"simulation": {"acceleraton": 8}}, "error: simulation: unknown key; got ['acceleraton']; allowed: accel"),
        ({"draws": -1}, "error: draws: this number cannot be used; got -1"),
        ({"features": "inception"}, "error: features: settings by name are needed; got 'inception'; allowed: kind"),
        ({"features": {"kind": "any2all"}, "unconditional": {"draws": 4}}, "error: unconditional.method_list: no samp"),
        ({"features": {"kind": "any2all"}, "unconditional": {"draw": 4}}, "error: unconditional: unknown key; got"),
        (
            {"method_changes": {"mds-150": {"tasks": ["R5"]}}},
            "error: method_list.mds-150.tasks: no such task; got 'R5'",
        ),
    ],
)
def test_settings_of_an_evaluation_that_cannot_be_used(
    settings, words, empty_data_folder, tiny_model_file, tmp_path, capsys
):
    (tmp_path / "list.json").write_text("[1]")
    part = {"split": "test", "renderings": {}, "positions_mm": [0], "block_mm": 0, "block_slices": 3, "real": [],
            "real_slices": 2}  # fmt: skip
    entries = {"validation": {}, "block": {**part, "block_heads": ["a"]}, "real": {**part, "real": ["somebody"]},
               "split": {**part, "split": "tests"}}  # fmt: skip
    (tmp_path / "entry.json").write_text(json.dumps(entries))
    texts = {key: value.replace("HERE", str(tmp_path)) for key, value in settings.items() if isinstance(value, str)}
    settings = {**settings, **texts}
    given = {"output_dir": str(tmp_path / "out"), "kinds": [], "features": "$None", "unconditional": "$None"}
    with pytest.raises(SystemExit) as caught:
        monai.bundle.run(config_file=str(CONFIG), model_file=str(tiny_model_file), **{**given, **settings})
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert caught.value.code == 2 and line.startswith(words)


def test_every_set_of_cases_keeps_to_its_split(data_folder):
    splits = json.loads((data_folder / "splits.json").read_text())
    for name in json.loads(MANIFEST.read_text()):
        entry = Manifest.read(name)
        assert {head for head, _ in entry.renderings} <= set(splits["head_labels"][entry.split])
        assert set(entry.real) <= set(splits["real_mr"][entry.split])
    assert len(Manifest.read("test").renderings) == 12 and len(Manifest.read("test").positions_mm) == 6


def test_a_prior_of_fewer_modalities_is_asked_what_it_can_be_asked(empty_data_folder, tiny_prior, tmp_path):
    """Tasks that are not wanted need not suit its stack; without a choice the first that does not is named."""
    config = json.loads(CONFIG.read_text())
    card = replace(tiny_prior.card, stack=Stack(modalities=tiny_prior.stack.modalities[:3]))
    prior = NetworkPrior(tiny_prior.network, card)
    ground = load_ground(empty_data_folder, prior, kinds=[])
    evaluator = TableEvaluator(prior, ground, config["task_list"], config["method_list"], "T1+T2,T1+T2FLAIR", "mcs-20")
    evaluator.model_file = tmp_path / "model.pt"
    assert [task.name for task in evaluator.evaluation().tasks] == ["T1+T2", "T1+T2FLAIR"]
    with pytest.raises(Any2allError, match="task_list.R4.T1.T2star.given: unknown modality; got 'T2star'"):
        replace(evaluator, tasks=None).evaluation()


def test_an_evaluation_that_is_stopped_says_what_is_kept(
    empty_data_folder, tiny_model_file, tmp_path, capsys, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("any2all.evaluation.evaluate.Evaluation.run", stop)
    with pytest.raises(SystemExit) as caught:
        monai.bundle.run(config_file=str(CONFIG), model_file=str(tiny_model_file), kinds=[], features="$None",
                         unconditional="$None", output_dir=str(tmp_path / "out"))  # fmt: skip
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert caught.value.code == 130 and line == "stopped: what was predicted is kept, and the same command goes on"


def test_cases_may_be_real_subjects_alone(empty_data_folder, tiny_prior, tmp_path):
    entry = {"split": "test", "renderings": {}, "positions_mm": [0], "block_mm": 0, "block_slices": 3, "real": [],
             "real_slices": 2}  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps({"real": entry}))
    assert load_ground(empty_data_folder, tiny_prior, "real", manifest=tmp_path / "manifest.json").sets == ()
