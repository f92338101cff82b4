"""While training goes on: a few fixed tasks on validation slices, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ignite.engine import Engine, Events
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..diffusion.prior import NetworkPrior, PriorCard
from ..errors import Any2allError
from ..physics.measurements import Channel, Measurements
from ..samplers.base import Problem
from ..samplers.mcs import MCS
from ..samplers.mds import MDS
from ..samplers.noise import VolumeNoise
from ..stack import Stack
from .handlers import EMA, Clock


@dataclass(frozen=True)
class SynthesisTask:
    """Fill ``missing`` modalities from all others of complete slices."""

    missing: tuple[str, ...]
    steps: int = 5


def tasks_of(stack: Stack, tasks: Sequence[Sequence[str]]) -> list[list[str]]:
    """Tasks as far as a stack has their modalities and others to fill them in from; without any, its last modality.

    >>> tasks_of(load_stack(), [["CT", "PET"], ["T1rho"]])
    [['CT', 'PET']]
    """
    known = [[name for name in task if name in stack.names] for task in tasks]
    found = [task for task in known if task and len(task) < len(stack)]
    return found or [[name] for name in stack.names[1:][-1:]]


def check_tasks(stack: Stack, tasks: Sequence[Sequence[str]]) -> None:
    """Raise Any2allError where a task is not to fill in some of a stack's modalities from others."""
    for task in tasks if isinstance(tasks, (list, tuple)) else [tasks]:
        if not isinstance(task, (list, tuple)) or not task or not {*map(str, task)} < {*stack.names}:
            allowed = f"lists of lists of modalities, not all at once, of {', '.join(stack.names)}"
            raise Any2allError("no such task for this stack", key="validation_tasks", value=task, allowed=allowed)


def fill(prior: NetworkPrior, slices: Tensor, task: SynthesisTask, seed: int = 0) -> Tensor:
    """Slices (B, M, H, W) in prior range → one sample of the whole stack; MDS where the prior has shared levels."""
    hidden = {prior.stack.index(name) for name in task.missing}
    u = (slices + 1) / 2
    channels = [Channel.missing() if m in hidden else Channel.available(u[:, m]) for m in range(prior.channels)]
    problem = Problem.of(Measurements(tuple(channels)), tuple(slices.shape))
    sampler = MCS(steps=task.steps) if prior.noise_levels == "per_modality" else MDS(steps=50)
    noise = VolumeNoise(tuple(slices.shape[1:]), seed=seed, subject="validation")
    return sampler.sample(prior, problem, noise, batch_size=len(slices), device=prior.device)[0]


def psnr(estimate: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of tensors in the prior range: a peak of u = 1 (data range 1 in u)."""
    return float(-10 * torch.log10(((estimate - truth) / 2).square().mean()))


class ValidationPictures:
    """At the end of each epoch and of the run: PSNR of each task to TensorBoard, and truth over estimate as a picture.

    Args:
        ema: its averaged network is what is validated.
        card: of the prior in training.
        clock: counts the iterations that the curves run over.
        slices: complete slices (B, M, H, W) in the prior range; None: there are none, and nothing is validated.
        tasks: for each, the modalities that are filled in from all others.
        writer: of TensorBoard.
        device: where the network runs.
        steps: network passes of a task (the ``shared`` recipe takes its own number).
    """

    def __init__(
        self,
        ema: EMA,
        card: PriorCard,
        clock: Clock,
        slices: Tensor | None,
        tasks: Sequence[Sequence[str]],
        writer: SummaryWriter,
        device: torch.device | str = "cpu",
        steps: int = 5,
    ) -> None:
        self.ema, self.card, self.clock, self.slices, self.device = ema, card, clock, slices, device
        self.tasks = [SynthesisTask(tuple(missing), steps) for missing in tasks]
        self.writer, self.last = writer, -1

    def attach(self, engine: Engine) -> None:
        if self.slices is None:
            print("validation: no complete validation stack was given, so there are no scores", flush=True)
        else:
            engine.add_event_handler(Events.EPOCH_COMPLETED | Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.clock.iterations == self.last:  # the run ends with its epoch
            return
        self.last = self.clock.iterations
        prior = NetworkPrior(self.ema.averaged.module, self.card, self.device)
        for task in self.tasks:
            filled = fill(prior, self.slices, task)
            for name in task.missing:
                m = self.card.stack.index(name)
                tag = f"{name} from the other {len(self.card.stack) - len(task.missing)}"
                value = psnr(filled[:, m], self.slices[:, m])
                self.writer.add_scalar(f"PSNR/{tag}", value, self.clock.iterations)
                print(f"validation: {tag} {value:.2f} dB", flush=True)
                rows = torch.cat([torch.cat(list(part[:4, m]), -1) for part in (self.slices, filled)], -2)
                self.writer.add_image(tag, ((rows + 1) / 2).clamp(0, 1)[None], self.clock.iterations)
        self.writer.flush()
