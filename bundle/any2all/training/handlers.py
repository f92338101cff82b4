"""What hangs on the trainer: EMA, the clock, the learning rate, curves, the released prior."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor, distributed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from ..diffusion.prior import PriorCard, save_prior
from ..diffusion.weights import Bits
from ..errors import Any2allError
from .engine import AFTER_STEP

NOISE = 2  # sets the random numbers of levels and noise apart from those of heads and items


class Handler(Protocol):
    """What hangs itself on an engine's events."""

    def attach(self, engine: Engine) -> None:
        """Called once, before the engine runs."""


class InOrder:
    """Several handlers as one, attached in their order."""

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self.handlers = list(handlers)

    def attach(self, engine: Engine) -> None:
        for handler in self.handlers:
            handler.attach(engine)


class EMA:
    """Exponential moving average of the weights, its decay warmed up as ``min(decay, (1 + n) / (10 + n))``."""

    def __init__(self, network: torch.nn.Module, decay: float = 0.999) -> None:
        self.decay, self.network = decay, network
        self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(AFTER_STEP, self)

    def __call__(self, engine: Engine) -> None:
        n = int(self.averaged.n_averaged)
        self.averaged.multi_avg_fn = get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))
        self.averaged.update_parameters(self.network)


class Clock:
    """Ends training after ``minutes`` or ``total_iterations``, whichever comes first, and tells which fraction is over.

    What an interrupted run had spent is part of the checkpoint, so a resumed run has only the rest. All ranks of a
    torchrun world follow the clock of the first, so that they stop, and change the learning rate, together.
    """

    def __init__(self, minutes: float | None = None, total_iterations: int | None = None) -> None:
        if minutes is None and total_iterations is None:
            raise Any2allError("training has no end", key="minutes", hint="give minutes, total_iterations or both")
        for key, value in (("minutes", minutes), ("total_iterations", total_iterations)):
            if value is not None and not value > 0:
                raise Any2allError("training would be over at once", key=key, value=value, allowed="more than 0")
        self.minutes, self.total_iterations = minutes, total_iterations
        self.spent_before, self.iterations, self.started = 0.0, 0, time.monotonic()
        self.fraction = 0.0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(AFTER_STEP, self._tick)

    @property
    def seconds(self) -> float:
        return self.spent_before + time.monotonic() - self.started

    def _measured(self) -> float:
        time_gone = self.seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        work_done = self.iterations / self.total_iterations if self.total_iterations is not None else 0.0
        return min(max(time_gone, work_done), 1.0)

    def _start(self, engine: Engine) -> None:
        self.started = time.monotonic()
        self._look(engine)

    def _tick(self, engine: Engine) -> None:
        self.iterations += 1
        self._look(engine)

    def _look(self, engine: Engine) -> None:
        self.fraction = of_first_rank(self._measured())
        if self.fraction >= 1.0:
            engine.terminate()

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds, "iterations": self.iterations}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.spent_before, self.iterations = float(state["seconds"]), int(state["iterations"])
        self.started = time.monotonic()


def of_first_rank(value: float) -> float:
    """The first rank's value on every rank of a torchrun world; the value itself where there is no such world."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.broadcast(shared, 0)
    return float(shared)


class SeedNoise:
    """Seeds torch before every mini-batch, so that levels and noise are a function of the iteration and the rank.

    Args:
        seed: another one on every rank, see `engine.rank_seed`.
        clock: counts the iterations.
    """

    def __init__(self, seed: int, clock: Clock) -> None:
        self.seed, self.clock = seed, clock

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        mini_batch = (engine.state.iteration - 1) % engine.accumulation_steps
        state = np.random.SeedSequence([self.seed, self.clock.iterations, mini_batch, NOISE]).generate_state(2)
        torch.manual_seed(int(state[0]) << 32 | int(state[1]))


class LearningRate:
    """Linear warm-up over ``warmup`` iterations, then a cosine fall to ``final`` times the base rate at the end.

    ``final`` = 1 keeps the rate constant.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clock: Clock, warmup: int = 200, final: float = 0.02) -> None:
        self.optimizer, self.clock, self.warmup, self.final = optimizer, clock, warmup, final
        self.base = [group["lr"] for group in optimizer.param_groups]

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def factor(self) -> float:
        warm = min(1.0, (self.clock.iterations + 1) / self.warmup) if self.warmup else 1.0
        return warm * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * self.clock.fraction)))

    def __call__(self, engine: Engine) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base):
            group["lr"] = base * self.factor()


class Losses:
    """Losses of mini-batches, kept on the device until their mean is asked for: a GPU is not waited for meanwhile."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def add(self, engine: Engine) -> None:
        self.losses.append(engine.state.output["loss"].detach())

    def take_mean(self) -> float:
        mean, self.losses = float(torch.stack(self.losses).mean()), []
        return mean


class Throughput:
    """Logs stacks per second and the mean loss every ``every`` iterations."""

    def __init__(self, clock: Clock, every: int = 50, log: Callable[[str], None] | None = None) -> None:
        self.clock, self.every, self.log = clock, every, log or partial(print, flush=True)
        self.since, self.stacks, self.losses = time.monotonic(), 0, Losses()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(AFTER_STEP, self._report)

    def _count(self, engine: Engine) -> None:
        self.stacks += len(engine.state.output["image"])
        self.losses.add(engine)

    def _report(self, engine: Engine) -> None:
        if self.clock.iterations % self.every == 0:
            loss, now = self.losses.take_mean(), time.monotonic()
            self.log(
                f"iteration {self.clock.iterations}  loss {loss:.4f}  {self.stacks / (now - self.since):.1f} stacks/s  "
                f"{100 * self.clock.fraction:.1f} % of the run"
            )
            self.since, self.stacks = now, 0


class Curves:
    """Loss and learning rate to TensorBoard, the mean of every ``every`` iterations, counted over resumed runs."""

    def __init__(self, writer: SummaryWriter, clock: Clock, optimizer: torch.optim.Optimizer, every: int = 20) -> None:
        self.writer, self.clock, self.optimizer, self.every = writer, clock, optimizer, every
        self.losses = Losses()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.losses.add)
        engine.add_event_handler(AFTER_STEP, self)
        engine.add_event_handler(Events.COMPLETED, lambda _: self.writer.flush())

    def __call__(self, engine: Engine) -> None:
        if self.clock.iterations % self.every == 0:
            self.writer.add_scalar("loss", self.losses.take_mean(), self.clock.iterations)
            self.writer.add_scalar("learning_rate", self.optimizer.param_groups[0]["lr"], self.clock.iterations)


class ReleasePrior:
    """Writes the EMA as a prior (weights and card) at the end of every epoch and of the run.

    Args:
        batch_size: stacks of one iteration, of all mini-batches and ranks together.
        bits: of each weight as it is written, 8 or 16 (see `diffusion.weights`).
    """

    def __init__(
        self, ema: EMA, card: PriorCard, clock: Clock, model_file: str | Path, batch_size: int, bits: Bits = 16
    ) -> None:
        self.ema, self.card, self.clock = ema, card, clock
        self.model_file, self.batch_size, self.bits = Path(model_file), batch_size, bits

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED | Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        self.card.training.update(
            iterations=self.clock.iterations,
            stacks_seen=self.clock.iterations * self.batch_size,
            minutes=round(self.clock.seconds / 60, 1),
            torch_version=torch.__version__,
        )
        save_prior(self.ema.averaged.module, self.card, self.model_file, self.bits)
