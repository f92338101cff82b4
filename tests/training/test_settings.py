"""Settings of ``train.json`` that would end a run later are refused in words before anything is loaded."""

from __future__ import annotations

import json

import pytest
from any2all.errors import Any2allError
from any2all.stack import Stack, load_stack
from any2all.training.cohort import training_data
from any2all.training.noising import PrepareNoisyStack
from any2all.training.validation import tasks_of
from monai.bundle import ConfigWorkflow
from small_runs import CONFIGS, scalars, workflow


def stack_of(*names: str) -> Stack:
    stack = load_stack()
    return Stack(modalities=tuple(stack[name] for name in names))


@pytest.fixture
def refused(small_cohort, tmp_path, capsys, monkeypatch):
    """The one line that a run with these settings ends with; its images were not even looked at."""
    monkeypatch.setattr("any2all.training.cohort.validation_stacks", None)

    def line(*files: str, **settings) -> str:
        given = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path / "out"), "total_iterations": 1}
        with pytest.raises(SystemExit) as left:
            workflow("train.json", *files, **{**given, **settings}).run()
        lines = capsys.readouterr().err.strip().splitlines()
        assert left.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return line


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("noise_levels", "foo", "got 'foo'; allowed: shared, per_modality"),
        ("prediction", "x0", "got 'x0'; allowed: eps, v"),
        ("loss_weighting", "foo", "got 'foo'; allowed: plain, min_snr"),
        ("matrix", [81, 64], "got [81, 64]; allowed: [H, W], both multiples of 8"),
        ("matrix", [0, 64], "multiples of 8"),
        ("matrix", [80.0, 64], "multiples of 8"),
        ("matrix", 80, "multiples of 8"),
        ("spacing_mm", [2.8, 2.8], "got [2.8, 2.8]; allowed: [H, W, slice], each 0.05 to 50.0 mm"),
        ("spacing_mm", 3, "[H, W, slice]"),
        ("spacing_mm", [2.8, "a", 3.0], "[H, W, slice]"),
        ("spacing_mm", [2.8, 2.8, -3.0], "[H, W, slice]"),
        ("stack_file", "nowhere.json", "the stack cannot be read: No such file or directory; got 'nowhere.json'"),
        ("batch_size", 0, "got 0; allowed: a whole number from 1"),
        ("accumulation_steps", 0, "a whole number from 1"),
        ("epoch_length", 2.5, "a whole number from 1"),
        ("checkpoint_every", 0, "a whole number from 1"),
        ("workers", -1, "a whole number from 0"),
        ("real_fraction", 2, "got 2; allowed: from 0 to 1"),
        ("learning_rate", "fast", "got 'fast'; allowed: from 0"),
        ("validation_tasks", [["CT"], ["FLAIR"]], "got ['FLAIR']; allowed: lists of lists of modalities"),
        ("validation_tasks", ["CT", "PET"], "got 'CT'"),
        ("validation_tasks", "CT", "got 'CT'"),
        ("validation_tasks", [[]], "got []"),
        ("validation_tasks", [list(load_stack().names)], "not all at once"),
        ("device", "foo", "got 'foo'; allowed: cpu"),
        ("device", "cuda:99", "got 'cuda:99'; allowed: cpu"),
    ],
)
def test_a_setting_without_a_use_is_named(key, value, words, refused, tmp_path):
    line = refused(**{key: value})
    assert line.startswith(f"{key}: ") and words in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "the stack cannot be read: Expecting property name"),
        ("[]", "the stack cannot be read: Input should be"),
        ('{"modalities": [{"name": "T1"}]}', "the stack cannot be read: modalities.0.kind: Field required"),
        ("PATTERN", "modalities.0.patterns: Value error, '(t1' is no regular expression"),
    ],
)
def test_a_stack_that_is_none_is_refused_in_words(text, words, refused, tmp_path):
    file = tmp_path / "stack.json"
    wrong = stack_of("T1").model_dump(mode="json")
    wrong["modalities"][0]["patterns"] = ["(t1"]
    file.write_text(json.dumps(wrong) if text == "PATTERN" else text)
    line = refused(stack_file=str(file))
    assert line.startswith("stack_file: ") and words in line and f"got '{file}'" in line


@pytest.mark.parametrize("name", ["prepare.json", "dicom.json"])
def test_the_other_commands_name_a_stack_that_is_none(name, tmp_path, capsys):
    made = ConfigWorkflow(str(CONFIGS / name), workflow_type="train", source=str(tmp_path), stack_file="nowhere.json")
    made.initialize()
    with pytest.raises(SystemExit) as left:
        made.run()
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: stack_file: the stack cannot be read: No such file")


@pytest.mark.parametrize("text", ["{", "[]", '{"head_labels": {}}', '{"head_labels": {"train": 3}}'])
def test_splits_that_are_none_are_refused_in_words(text, tmp_path):
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(Any2allError, match='dataset_dir: splits.json cannot be read; .*allowed: {"[a-z_]+": {"train"'):
        training_data(tmp_path, None, load_stack())


def test_cdm_needs_a_matrix_for_its_patches_too(refused):
    networks = {"mrm": {"patch": 5}, "mdn": {}, "cunet": {"widths": [8, 16, 16]}}
    line = refused("train_cdm.json", matrix=[32, 40], networks=networks)
    assert line.startswith("matrix: ") and "multiples of 20" in line


def test_ranks_refuse_before_they_join(refused, monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert refused("multi_gpu_train.json", prediction="x0").startswith("prediction: ")


def test_a_folder_that_takes_no_file_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(output_dir=str(tmp_path / "file" / "out"))
    assert line.startswith("output_dir: nothing can be written here")


def test_a_data_folder_that_is_none_is_named(small_cohort, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        workflow("train.json", dataset_dir=str(tmp_path / "no"), output_dir=str(tmp_path), total_iterations=1).run()
    assert left.value.code == 2
    assert "error: dataset_dir: data folder not found; got" in capsys.readouterr().err


def test_a_recipe_is_made_of_known_words():
    for key, value in {"noise_levels": "foo", "prediction": "x0", "weighting": "foo"}.items():
        with pytest.raises(ValueError, match=f"{key}.*{value}.*allowed"):
            PrepareNoisyStack(**{key: value})


def test_the_tasks_are_those_that_a_stack_has():
    tasks = [["CT", "PET"], ["T2FLAIR"]]
    assert tasks_of(load_stack(), tasks) == tasks
    assert tasks_of(stack_of("T1", "T2", "CT"), tasks) == [["CT"]]
    assert tasks_of(stack_of("CT", "PET"), tasks) == [["PET"]]  # nothing is left to fill both in from
    assert tasks_of(stack_of("T1", "T2"), tasks) == [["T2"]]
    assert tasks_of(stack_of("T1"), tasks) == []


def test_another_stack_is_validated_on_what_it_has(small_cohort, tmp_path, capsys):
    file = tmp_path / "stack.json"
    file.write_text(json.dumps(stack_of("T1", "T2", "CT").model_dump(mode="json")))
    given = {"datalist_file": str(small_cohort), "stack_file": str(file), "output_dir": str(tmp_path / "out")}
    run = workflow("train.json", **given, total_iterations=1)
    run.run()
    assert "validation: CT from the other 2" in capsys.readouterr().out
    assert len(scalars(tmp_path / "out", "PSNR/CT from the other 2")) == 1
