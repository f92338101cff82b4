"""Pieces that MONAI's SupervisedTrainer lacks here: bf16 on any device, clipping, a checkpoint to resume from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor

from ..diffusion.prior import has_fast_bf16
from ..errors import Any2allError


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


def fresh_seed(seed: int, rank: int, iterations: int) -> int:
    """The run's seed at its start on the first rank; another one on other ranks, and where a resumed run goes on.

    Without it every rank, and every resumption, would see the same heads from the first one on.
    """
    if rank == 0 and iterations == 0:
        return seed
    return int(np.random.SeedSequence([seed, rank, iterations]).generate_state(1)[0])


class Checkpoint:
    """Writes everything that a resumed run needs into one file, whole or not at all, and reads it back.

    It has to be the first handler, so that the others start from what it has read.

    Args:
        file: the checkpoint. When it exists at the start of the run, training goes on from it.
        parts: what has a ``state_dict``, by name (network, optimizer, ema, clock).
        every: iterations between two writes.
        resume: False starts afresh although a checkpoint exists.
        writes: False on all ranks of a torchrun world but the first.
    """

    def __init__(
        self, file: str | Path, parts: Mapping[str, Any], every: int = 500, resume: bool = True, writes: bool = True
    ) -> None:
        self.file, self.parts, self.every = Path(file), dict(parts), every
        self.resume, self.writes = resume, writes

    def attach(self, engine: Engine) -> None:
        if self.resume and self.file.is_file():
            engine.add_event_handler(Events.STARTED, self.load)
        if self.writes:
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.every), self.save)
            engine.add_event_handler(Events.COMPLETED | Events.TERMINATE, self.save)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._save_after)

    def save(self, engine: Engine | None = None) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state["random"] = torch.get_rng_state()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.file)

    def load(self, engine: Engine | None = None) -> None:
        state = torch.load(self.file, map_location="cpu", weights_only=True)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise Any2allError(
                "the checkpoint is of another network or configuration",
                key="output_dir",
                value=str(self.file.parent),
                hint="another output_dir, or --resume false to start afresh",
            ) from error
        if self.writes:  # the other ranks keep their own random numbers
            torch.set_rng_state(state["random"])

    @staticmethod
    def iterations_in(file: str | Path) -> int:
        """How far the run of a checkpoint had come; 0 where there is none."""
        if not Path(file).is_file():
            return 0
        return int(torch.load(file, map_location="cpu", weights_only=True)["clock"]["iterations"])

    def _save_after(self, engine: Engine, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            self.save()
        raise error
