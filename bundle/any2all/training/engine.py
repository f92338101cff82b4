"""Pieces that MONAI's SupervisedTrainer lacks here: bf16 on any device, clipping, a checkpoint to resume from.

An **iteration** is one step of the optimizer. With gradient accumulation it takes several mini-batches, which ignite
counts; `AFTER_STEP` is the event that ends an iteration.
"""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from torch import Tensor

from ..diffusion.prior import has_fast_bf16
from ..errors import Any2allError
from ..workflow import as_flag

TRAINED_AS = "trained_as"
AFTER_STEP = Events.ITERATION_COMPLETED(event_filter=lambda engine, done: done % engine.accumulation_steps == 0)


class AutocastInferer(Inferer):
    """Calls the network under bf16 autocast where the device has bf16 arithmetic (MONAI's ``amp`` knows CUDA only)."""

    def __init__(self, device: torch.device | str, autocast: bool | None = None) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.autocast = has_fast_bf16(self.device) if autocast is None else autocast

    def __call__(self, inputs: Tensor, network: torch.nn.Module, *args: Any) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            return network(inputs, *args)


def clipped(optimizer: torch.optim.Optimizer, max_norm: float = 1.0) -> torch.optim.Optimizer:
    """The optimizer, clipping the norm of all its gradients before every step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def clip(*_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def join_world(device: torch.device) -> None:
    """Join the world that torchrun has set up: NCCL between GPUs, gloo between CPUs."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def rank_seed(seed: int, rank: int) -> int:
    """The run's seed on the first rank of a torchrun world, another one on every other, so that all see other data."""
    return seed if rank == 0 else int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])


class WholeSteps:
    """Ctrl-C and SIGTERM wait while the optimizer steps and EMA and clock follow, so that a checkpoint never has half.

    It has to come after the handlers that belong to the step.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._arrived: int | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._hold)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._release)

    def _hold(self, engine: Engine) -> None:
        self._handlers = {number: signal.signal(number, self._note) for number in self.SIGNALS}

    def _note(self, number: int, frame: Any) -> None:
        self._arrived = number

    def _release(self, engine: Engine) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._arrived is not None:
            arrived, self._arrived = self._arrived, None
            signal.raise_signal(arrived)


class Checkpoint:
    """Everything that a resumed run needs in one file, written whole or not at all.

    Data and noise are functions of the iteration (`stream.BatchStream`, `handlers.SeedNoise`) and need no state.
    As a handler it writes, and has to be the last: what it writes includes what the others did in that iteration.

    Args:
        file: the checkpoint.
        parts: what has a ``state_dict``, by name (network, optimizer, ema, clock).
        every: iterations between two writes.
        trained_as: settings without which the weights mean something else (recipe, grid, stack, …); plain values.
    """

    def __init__(
        self, file: str | Path, parts: Mapping[str, Any], every: int = 500, trained_as: Mapping[str, Any] | None = None
    ) -> None:
        self.file, self.parts, self.every = Path(file), dict(parts), every
        self.trained_as = dict(trained_as or {})

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(AFTER_STEP, self._save_when_due)
        engine.add_event_handler(Events.COMPLETED, self.save)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._save_after)

    def save(self, engine: Engine | None = None) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state[TRAINED_AS] = json.dumps(self.trained_as)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.file)

    def load(self) -> None:
        """Give every part what the file holds. Raises Any2allError where they do not fit."""
        state = _read(self.file)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise _another(self.file, "the checkpoint is of another network or configuration") from error

    @staticmethod
    def iterations_in(file: str | Path, trained_as: Mapping[str, Any] | None = None, resume: bool | str = True) -> int:
        """How far the run had come that is to be resumed; 0 where there is none, or ``resume`` says not to.

        Raises:
            Any2allError: the file is damaged, or was trained as something else: its weights under this run's card
                would be another prior than the card says.
        """
        file = Path(file)
        if not as_flag(resume, "resume") or not file.is_file():
            return 0
        state = _read(file)
        there = json.loads(state.get(TRAINED_AS, "{}"))  # checkpoints before 0.7.2 do not tell
        ours = json.loads(json.dumps(dict(trained_as or {})))
        other = [key for key, value in there.items() if key in ours and ours[key] != value]
        if other:
            raise _another(file, f"the checkpoint is of another network or configuration: {', '.join(other)}")
        return int(state["clock"]["iterations"])

    def _save_when_due(self, engine: Engine) -> None:
        if (engine.state.iteration // engine.accumulation_steps) % self.every == 0:
            self.save()

    def _save_after(self, engine: Engine, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            self.save()
        raise error


def _read(file: Path) -> dict[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        int(state["clock"]["iterations"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise _another(file, f"{file.name} is no checkpoint, or damaged") from error
    return state


def _another(file: Path, message: str) -> Any2allError:
    hint = "another output_dir, or --resume false to start afresh"
    return Any2allError(message, key="output_dir", value=str(file.parent), hint=hint)


class Resume:
    """Goes on from a checkpoint where there is one. The first handler, so that the others start from what it has read.

    The mini-batches of an iteration that was broken off are seen again: no gradient of theirs is in the checkpoint.

    Args:
        checkpoint: what is read.
        iterations: how far it had come (`Checkpoint.iterations_in`); with 0 nothing is read.
        log: is told, since a run that was finished ends at once.
    """

    def __init__(self, checkpoint: Checkpoint, iterations: int, log: Callable[[str], None] | None = None) -> None:
        self.checkpoint, self.iterations, self.log = checkpoint, iterations, log or partial(print, flush=True)

    def attach(self, engine: Engine) -> None:
        if self.iterations:
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.checkpoint.load()
        self.log(f"going on after iteration {self.iterations} of {self.checkpoint.file} (--resume false starts afresh)")
