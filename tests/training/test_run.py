"""``train.json`` as a user runs it, on small phantoms: it ends, resumes, draws curves, spreads over ranks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from any2all.diffusion.prior import build_network, load_card, load_prior
from any2all.stack import load_stack
from any2all.training import finish
from any2all.training.cohort import training_data, validation_stacks
from any2all.training.finish import mean_image_file
from any2all.training.noising import NoisedChannelLoss, PrepareNoisyStack
from ignite.engine import Events
from monai.bundle import ConfigParser
from small_runs import BUNDLE, CONFIGS, SMALL, averaged, checkpoint, events, scalars, steps, workflow


@pytest.fixture(scope="module")
def first_run(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 40 iterations on the cohort, no rendered heads, validated twice."""
    folder = tmp_path_factory.mktemp("runs") / "prior"
    run = workflow(
        "train.json",
        datalist_file=str(small_cohort),
        output_dir=str(folder),
        total_iterations=40,
        warmup=1,
        learning_rate=2e-3,
    )
    assert run.check_properties() == []
    run.run()
    return folder


def test_it_ends_after_the_iterations_and_leaves_a_prior(first_run):
    state = checkpoint(first_run)
    assert state["clock"]["iterations"] == 40 and averaged(state) == 40 and steps(state) == {40}
    prior = load_prior(first_run / "model.pt")
    assert prior.card.training["stacks_seen"] == 80 and prior.card.matrix == (32, 32)
    ema = {k.removeprefix("module."): v for k, v in state["ema"].items() if k != "n_averaged"}
    for name, weight in prior.network.state_dict().items():
        assert torch.allclose(weight, ema[name], atol=2e-3), name  # half precision


def test_weights_are_stored_in_eight_bits_when_that_is_asked_for(small_cohort, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(finish, "measure_calibration", partial(finish.measure_calibration, levels=(1, 500, 1000)))
    run = workflow(
        "train.json", datalist_file=str(small_cohort), output_dir=str(tmp_path), total_iterations=1, weight_bits=8
    )
    run.run()
    stored = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {value.dtype for value in stored.values() if value.dim() > 1} == {torch.int8}
    before = (tmp_path / "model.pt").read_bytes()
    run.finalize()  # the last step measures these very weights and writes the card alone
    assert "finishing: its errors of tissue contrast" in capsys.readouterr().out  # minutes, for a whole network
    assert (tmp_path / "model.pt").read_bytes() == before
    finished = load_prior(tmp_path / "model.pt").card
    assert finished.calibration is not None and tuple(finished.contrast.covariance) == finished.stack.names


def test_the_network_has_learned(first_run, small_cohort):
    assert [event.step for event in scalars(first_run, "loss")] == [20, 40]
    stack, settings = load_stack(), SMALL["network"]
    data = training_data(None, small_cohort, stack)
    image = validation_stacks(data, stack, SMALL["matrix"], SMALL["spacing_mm"], slices=6).repeat(4, 1, 1, 1)
    torch.manual_seed(0)
    x_k, target, (levels,), _ = PrepareNoisyStack()({"image": image, "present": torch.ones(24, 6, dtype=torch.bool)})
    untrained, trained = build_network(stack, settings), build_network(stack, settings)
    trained.load_state_dict(checkpoint(first_run)["network"])
    with torch.no_grad():
        before, after = (float(NoisedChannelLoss()(network(x_k, levels), target)) for network in (untrained, trained))
    assert after < 0.85 * before


def test_tensorboard_holds_scores_and_pictures(first_run):
    for name, others in (("CT", 4), ("PET", 4), ("T2FLAIR", 5)):
        scores = scalars(first_run, f"PSNR/{name} from the other {others}")
        assert [event.step for event in scores] == [20, 40]
        assert all(3 < event.value < 40 for event in scores)
    picture = events(first_run).Images("CT from the other 4")[-1]
    assert (picture.height, picture.width) == (2 * 32, 4 * 32)  # truth over estimate, four slices
    assert len(list(first_run.glob("events*"))) == 1


def test_the_last_step_measures_what_inference_needs(small_cohort, tmp_path):
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "total_iterations": 2}
    run = workflow("train.json", validation_slices=None, **overrides)
    run.run()
    run.finalize()
    card = load_prior(tmp_path / "model.pt").card
    assert len(card.training["file_sha256"]) == 8  # every training image of p1 and p2, none of p3
    mean = np.load(mean_image_file(tmp_path / "model.pt"))
    assert mean.shape == (6, 32, 32) and 0.05 < mean[:, 16, 16].min() and mean[:, 0, 0].max() < 0.05


def test_killed_in_the_middle_it_goes_on(small_cohort, tmp_path):
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "validation_slices": None}
    run = workflow("train.json", total_iterations=30, **overrides)
    trainer = run.trainer
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=7), lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as left:
        run.run()
    assert left.value.code == 130
    before = checkpoint(tmp_path)
    assert before["clock"]["iterations"] == averaged(before) == 7 and steps(before) == {7}

    again = workflow("train.json", total_iterations=12, **overrides)
    assert again.parser.get_parsed_content("first_iteration") == 7
    started = {}
    again.trainer.add_event_handler(
        Events.ITERATION_STARTED(once=1),
        lambda _: started.update({k: v.clone() for k, v in again.network_def.state_dict().items()}),
    )
    again.run()
    assert all(torch.equal(started[name], weight) for name, weight in before["network"].items())
    after = checkpoint(tmp_path)
    assert after["clock"]["iterations"] == averaged(after) == 12 and steps(after) == {12}
    assert after["clock"]["seconds"] > before["clock"]["seconds"]


def test_a_checkpoint_of_another_network_is_refused_in_words(first_run, small_cohort, tmp_path, capsys):
    (tmp_path / "checkpoint.pt").write_bytes((first_run / "checkpoint.pt").read_bytes())
    wider = {**SMALL["network"], "channels": [16, 32, 32, 32]}
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "validation_slices": None}
    run = workflow("train.json", total_iterations=60, **{**overrides, "network": wider})
    with pytest.raises(SystemExit) as left:
        run.run()
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: output_dir: the checkpoint is of another network") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("noise_levels", "shared"),
        ("prediction", "eps"),
        ("spacing_mm", [6.0, 6.0, 6.0]),
        ("matrix", [40, 32]),
        ("stack", "REVERSED"),
    ],
)
def test_weights_are_not_released_as_what_they_are_not(key, value, first_run, small_cohort, tmp_path, capsys):
    """A finished run's folder and another recipe, grid or stack: the old weights would lie under the new card."""
    (tmp_path / "checkpoint.pt").write_bytes((first_run / "checkpoint.pt").read_bytes())
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "validation_slices": None}
    if key == "stack":
        modalities = [m.model_dump(mode="json") for m in load_stack().modalities]
        (tmp_path / "stack.json").write_text(json.dumps({"modalities": modalities[::-1]}))
        key, value = "stack_file", str(tmp_path / "stack.json")
    run = workflow("train.json", total_iterations=40, **{**overrides, key: value})
    with pytest.raises(SystemExit) as left:
        run.run()
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.count("\n") == 1
    named = "stack" if key == "stack_file" else key
    assert error.startswith(f"error: output_dir: the checkpoint is of another network or configuration: {named}")
    assert not (tmp_path / "model.pt").exists()


def test_a_run_does_not_go_on_with_other_data(first_run, small_cohort, tmp_path, capsys):
    """The card would list the new images alone, although the weights had learnt from the others."""
    (tmp_path / "checkpoint.pt").write_bytes((first_run / "checkpoint.pt").read_bytes())
    datalist = json.loads(small_cohort.read_text())
    shutil.copytree(small_cohort.parent, tmp_path / "cohort")
    (tmp_path / "cohort" / small_cohort.name).write_text(
        json.dumps({**datalist, "training": datalist["training"][:-1]})
    )
    overrides = {"output_dir": str(tmp_path), "validation_slices": None, "total_iterations": 40}
    run = workflow("train.json", datalist_file=str(tmp_path / "cohort" / small_cohort.name), **overrides)
    with pytest.raises(SystemExit):
        run.run()
    assert "the checkpoint is of another network or configuration: data; got" in capsys.readouterr().err


def test_a_run_starts_afresh_as_the_hint_says_and_tells_when_it_does_not(first_run, small_cohort, tmp_path, capsys):
    (tmp_path / "checkpoint.pt").write_bytes((first_run / "checkpoint.pt").read_bytes())
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "validation_slices": None}
    workflow("train.json", total_iterations=40, **overrides).run()
    assert f"going on after iteration 40 of {tmp_path / 'checkpoint.pt'}" in capsys.readouterr().out
    workflow("train.json", total_iterations=1, warmup=0, resume="false", **overrides).run()
    assert checkpoint(tmp_path)["clock"]["iterations"] == 1 and "going on" not in capsys.readouterr().out


def test_a_damaged_checkpoint_is_refused_in_words(small_cohort, tmp_path, capsys):
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "validation_slices": None}
    for content in (b"", b"no checkpoint"):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(SystemExit) as left:
            workflow("train.json", total_iterations=1, **overrides).run()
        error = capsys.readouterr().err
        assert left.value.code == 2 and error.count("\n") == 1
        assert error.startswith("error: output_dir: checkpoint.pt is no checkpoint, or damaged; got")


def test_without_data_nothing_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ANY2ALL_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as left:
        workflow("train.json", output_dir=str(tmp_path), total_iterations=1).run()
    assert left.value.code == 2
    assert "error: ANY2ALL_DATA: data folder not found" in capsys.readouterr().err


def test_validation_stacks_are_complete_and_fit_the_grid(small_cohort):
    stack = load_stack()
    data = training_data(None, small_cohort, stack)
    assert [len(entry) for entry in data.entries] == [6, 2] and data.validation_head is None
    slices = validation_stacks(data, stack, (16, 24), (8.0, 8.0, 6.0), slices=4)  # a grid smaller than the head
    assert slices.shape == (4, 6, 16, 24) and slices.min() >= -1 and slices.max() <= 1
    incomplete = replace(data, validation_entries=data.entries[1:])
    assert validation_stacks(incomplete, stack, (16, 24), (8.0, 8.0, 6.0)) is None


def test_the_papers_recipe(small_cohort, tmp_path):
    files = ("train.json", "train_paper.json")
    parser = workflow(*files, **{"dataset_dir": None, "output_dir": str(tmp_path)}).parser
    assert parser["total_iterations"] == 1_500_000 and parser["learning_rate"] == 1e-4

    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "validation_slices": None}
    run = workflow(*files, total_iterations=5, **overrides)
    assert run.parser["noise_levels"] == "shared" and run.parser["prediction"] == "eps"
    optimizer = run.parser.get_parsed_content("optimizer")
    assert type(optimizer) is torch.optim.Adam
    assert len(run.parser.get_parsed_content("data").entries) == 1  # the incomplete subject is left out
    run.run()
    assert optimizer.param_groups[0]["lr"] == 1e-4  # constant to the end
    card = load_prior(tmp_path / "model.pt").card
    assert (card.noise_levels, card.prediction) == ("shared", "eps")


def test_the_shared_recipe_for_comparison_differs_from_ours_in_recipe_optimizer_and_length_alone():
    ours, shared = ConfigParser(), ConfigParser()
    ours.read_config(CONFIGS / "train.json")
    shared.read_config([CONFIGS / "train.json", CONFIGS / "train_shared.json"])
    changed = {key for key in shared.config if shared[key] != ours[key]}
    optimizer = {"optimizer", "weight_decay", "warmup"}
    assert changed == {"name", "noise_levels", "prediction", "network", "minutes", "total_iterations"} | optimizer
    assert {key for key, value in shared["network"].items() if value != ours["network"].get(key)} == {"scale_input"}
    card = load_card(BUNDLE / "models" / "shared.pt")
    assert shared["total_iterations"] * shared["batch_size"] == card.training["stacks_seen"]


def test_a_run_starts_from_a_released_prior(first_run, small_cohort, tmp_path, capsys):
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "validation_slices": None}
    overrides |= {"start_from": str(first_run / "model.pt"), "total_iterations": 1, "learning_rate": 0.0}
    workflow("train.json", **overrides).run()
    released, tuned = load_prior(first_run / "model.pt"), load_prior(tmp_path / "model.pt")
    for name, value in released.network.state_dict().items():
        assert torch.allclose(value, tuned.network.state_dict()[name], atol=1e-3), name
    assert tuned.card.training["started_from"] == released.card.sha256

    wider = {**SMALL["network"], "channels": [16, 32, 32, 32]}
    with pytest.raises(SystemExit) as left:
        workflow("train.json", **overrides, network=wider).run()
    assert left.value.code == 2
    assert "error: network: the prior to start from was trained with another one" in capsys.readouterr().err


def test_the_released_regression_is_what_the_released_prior_began_as_but_for_the_noise():
    """The same optimiser, network and heads. The prior has gone on since, which the evaluation says of every claim."""
    ours, regression = ConfigParser(), ConfigParser()
    ours.read_config(CONFIGS / "train.json")
    regression.read_config([CONFIGS / "train.json", CONFIGS / "train_regression.json"])
    changed = {key for key in regression.config if regression[key] != ours[key]}
    assert changed == {"name", "mixture", "minutes", "total_iterations", "validation_steps", "card", "finalize"}
    prior, rival = (load_card(BUNDLE / "models" / f"{name}.pt") for name in ("model", "regression"))
    assert regression["total_iterations"] * regression["batch_size"] == rival.training["stacks_seen"]
    assert prior.training["stages"][0].startswith(f"{rival.training['iterations']:,} iterations")
    assert rival.training["stacks_seen"] <= prior.training["stacks_seen"]
    for key in ("optimizer", "batch_size", "seed", "file_sha256"):
        assert prior.training[key] == rival.training[key], key
    assert prior.mean_network["sha256"] == rival.sha256
    assert prior.network == rival.network


def test_the_regression_baseline_says_what_it_is(small_cohort, tmp_path):
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "total_iterations": 2}
    run = workflow("train.json", "train_regression.json", **overrides)
    run.run()
    run.finalize()
    assert len(scalars(tmp_path, "PSNR/CT from the other 4")) == 1
    card = load_prior(tmp_path / "model.pt").card
    assert card.training["objective"] == "masked regression" and card.training["mixture"]["pure_noise"] == 1.0
    assert card.calibration is None  # it knows level 1000 only
    assert mean_image_file(tmp_path / "model.pt").is_file()


def test_a_finished_run_ends_at_once(first_run, small_cohort, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes((first_run / "checkpoint.pt").read_bytes())
    overrides = {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "validation_slices": None}
    run = workflow("train.json", total_iterations=40, **overrides)
    run.run()
    assert run.trainer.state.iteration == 0 and checkpoint(tmp_path)["clock"]["iterations"] == 40
    assert load_prior(tmp_path / "model.pt").card.training["iterations"] == 40


def test_ranks_see_other_data_and_only_the_first_writes(small_cohort, tmp_path, monkeypatch):
    seeds, handlers = [], []
    for rank in (0, 1):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))
        overrides = {"datalist_file": str(small_cohort), "validation_slices": None, "total_iterations": 5}
        parser = workflow(
            "train.json", "multi_gpu_train.json", output_dir=str(tmp_path / str(rank)), **overrides
        ).parser
        seeds.append(parser.get_parsed_content("data_seed"))
        groups = parser.get_parsed_content("train#handlers")
        handlers.append([[type(handler).__name__ for handler in group.handlers] for group in groups])
    assert seeds[0] == 0 and seeds[1] != 0
    assert handlers[1] == [["Resume", "Clock", "SeedNoise", "LearningRate", "EMA", "WholeSteps"]]
    assert handlers[0] == [*handlers[1], ["Throughput", "Curves", "ReleasePrior", "ValidationPictures", "Checkpoint"]]
    assert list((tmp_path / "0").glob("events*")) and not (tmp_path / "1").exists()


def test_two_processes_train_one_prior(small_cohort, tmp_path):
    files = str([str(CONFIGS / "train.json"), str(CONFIGS / "multi_gpu_train.json")])
    overrides = {key: value for key, value in SMALL.items() if value is not None and key != "device"}
    overrides |= {"datalist_file": str(small_cohort), "output_dir": str(tmp_path), "total_iterations": 6}
    overrides |= {"validation_slices": "$None", "checkpoint_every": 4}  # the command line drops a bare None
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "--config_file", files]
    command += [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(BUNDLE), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["ANY2ALL_DATA"] = str(tmp_path / "nowhere")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    state = checkpoint(tmp_path)
    assert state["clock"]["iterations"] == averaged(state) == 6
    assert not any(name.startswith("module.") for name in state["network"])  # unwrapped: one GPU may go on from it
    training = load_prior(tmp_path / "model.pt").card.training
    assert training["batch_size"] == 4 and training["stacks_seen"] == 24
    assert len(list(tmp_path.glob("events*"))) == 1
