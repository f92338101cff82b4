"""A run that is broken off and resumed has the losses of one that was not, bit for bit on a CPU."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents
from small_runs import averaged, checkpoint, steps, workflow

ITERATIONS = 12


def run_of(cohort: Path, folder: Path, losses: list[float], **overrides: Any) -> ConfigWorkflow:
    """A run of 12 iterations that notes the loss of every mini-batch."""
    torch.manual_seed(0)
    run = workflow(
        "train.json",
        datalist_file=str(cohort),
        output_dir=str(folder),
        validation_slices=None,
        total_iterations=ITERATIONS,
        epoch_length=5,
        **overrides,
    )
    run.trainer.add_event_handler(
        IterationEvents.LOSS_COMPLETED, lambda engine: losses.append(float(engine.state.output["loss"]))
    )
    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_losses_are_those_of_an_uninterrupted_run(small_cohort, tmp_path, workers):
    whole, parts = [], []
    run_of(small_cohort, tmp_path / "whole", whole, workers=workers).run()

    first = run_of(small_cohort, tmp_path / "parts", parts, workers=workers)
    # the signal comes between the optimizer's step and the clock's tick, and waits
    first.trainer.add_event_handler(
        IterationEvents.MODEL_COMPLETED, lambda _: os.kill(os.getpid(), signal.SIGTERM) if len(parts) == 7 else None
    )
    with pytest.raises(SystemExit) as left:
        first.run()
    state = checkpoint(tmp_path / "parts")
    assert left.value.code == 130 and len(parts) == 7
    assert state["clock"]["iterations"] == averaged(state) == 7 and steps(state) == {7}

    torch.rand(5)  # whatever random numbers the process has used meanwhile
    run_of(small_cohort, tmp_path / "parts", parts, workers=workers).run()
    assert len(whole) == ITERATIONS and parts == whole
    ends = [checkpoint(tmp_path / name)["ema"] for name in ("whole", "parts")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_broken_off_accumulation_is_done_again(small_cohort, tmp_path):
    whole, parts = [], []
    run_of(small_cohort, tmp_path / "whole", whole, accumulation_steps=2).run()
    state = checkpoint(tmp_path / "whole")
    assert len(whole) == 2 * ITERATIONS
    assert state["clock"]["iterations"] == averaged(state) == ITERATIONS and steps(state) == {ITERATIONS}

    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    first = run_of(small_cohort, tmp_path / "parts", parts, accumulation_steps=2)
    first.trainer.add_event_handler(Events.ITERATION_STARTED(once=14), interrupt)  # iteration 7 has half its gradient
    with pytest.raises(SystemExit):
        first.run()
    assert len(parts) == 13 and checkpoint(tmp_path / "parts")["clock"]["iterations"] == 6
    del parts[12:]
    run_of(small_cohort, tmp_path / "parts", parts, accumulation_steps=2).run()
    assert parts == whole


def test_periodic_checkpoints_belong_to_one_iteration(small_cohort, tmp_path):
    seen = []
    run = run_of(small_cohort, tmp_path, [], checkpoint_every=5)
    run.trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda _: seen.append((tmp_path / "checkpoint.pt").is_file())
    )
    run.trainer.add_event_handler(Events.ITERATION_STARTED(once=6), lambda _: check(checkpoint(tmp_path)))

    def check(state: dict[str, Any]) -> None:
        assert state["clock"]["iterations"] == averaged(state) == 5 and steps(state) == {5}

    run.run()
    assert seen == [False] * 5 + [True] * 7
