"""What ``configs/train_cdm.json`` is made of: one stage of CDM as network, batches, loss, scores and released file.

Each stage writes a file with everything that came before it and its own network, so that the file of the last stage is
the released CDM.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from ..diffusion.network import size_multiple
from ..diffusion.prior import check_matrix, file_sha256, has_fast_bf16
from ..errors import Any2allError
from ..stack import Stack
from ..training.handlers import EMA, Clock
from ..workflow import as_count
from .batches import FrozenEncoder, GuidedImages, MaskedImages, NoisyRepresentations, RepresentationLoss
from .card import STAGES, CDMCard, Stage, load_card, load_networks, save_networks
from .cunet import WIDTHS, SynthesisLoss
from .mrm import PATCH, MaskedPatchLoss
from .scores import masked_loss, psnr_by_guidance, variance_explained
from .standardise import Standardisation

VERSION = "0.1.0"
CHUNK = 32
STEPS = 1000  # of MDN's schedule
BATCH_KEYS: Mapping[Stage, tuple[str, ...]] = {
    "mrm": ("mask_ratio",),
    "mdn": ("draws", "empty", "conditioned"),
    "cunet": ("encoded", "sampled", "steps"),
}


class StageTraining:
    """One stage: its network, and the frozen ones of the stages before.

    Args:
        stage: ``mrm``, ``mdn`` or ``cunet``.
        stack, matrix, spacing_mm: of training.
        networks: constructor settings of every network.
        batches: settings of `MaskedImages`, `NoisyRepresentations` and `GuidedImages`, by stage.
        previous_file: what the stage before has written; None for the first.
        device: where it trains.

    Raises:
        Any2allError: an unknown stage, a matrix that the networks cannot take, sizes of which one of them (that of a
            later stage, too) cannot be built, shares of patches that are none or all, or the file before is missing,
            unfinished or of another stack or grid.
    """

    def __init__(
        self,
        stage: Stage,
        stack: Stack,
        matrix: Sequence[int],
        spacing_mm: Sequence[float],
        networks: Mapping[str, Mapping[str, Any]],
        batches: Mapping[str, Mapping[str, Any]],
        previous_file: str | Path | None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_stage(stage)
        check_matrix(matrix, _multiple(networks))
        self.stage, self.device, self.batches = stage, torch.device(device), dict(batches.get(stage, {}))
        self.frozen: dict[str, nn.Module] = {}
        self.card = CDMCard(VERSION, tuple(matrix), tuple(spacing_mm), stack, {})
        _check_sizes(replace(self.card, networks=dict(networks)))
        if stage != STAGES[0]:
            fresh = self.card
            self.card, frozen = load_networks(previous_file, STAGES[: STAGES.index(stage)])
            same = [getattr(self.card, key) == getattr(fresh, key) for key in ("stack", "matrix", "spacing_mm")]
            if not all(same):
                raise Any2allError("the stage before has another stack or grid", key="cdm", value=str(previous_file))
            # as `CDM` lays them out, or the first scoring would change the last digit of what they give
            self.frozen = {n: net.to(self.device, memory_format=torch.channels_last) for n, net in frozen.items()}
        self.card.networks[stage] = dict(networks.get(stage, {}))
        self.network = self.card.build(stage).to(self.device, memory_format=torch.channels_last)
        if stage == "mrm":
            _check_masked(self.batches.get("mask_ratio", MaskedImages.mask_ratio), self.network.count)

    def prepare_batch(self) -> Any:
        """The ``prepare_batch`` of the trainer."""
        if self.stage == "mrm":
            return MaskedImages(self.network.patches, self.network.count, **self.batches)
        encoder = FrozenEncoder(self.frozen["mrm"], self.card.standardisation)
        if self.stage == "mdn":
            return NoisyRepresentations(encoder, **self.batches)
        return GuidedImages(encoder, self.frozen["mdn"], **self.batches)

    def loss(self) -> nn.Module:
        """The loss of the stage: L_MRM, the diffusion's, or L_Syn."""
        return {"mrm": MaskedPatchLoss, "mdn": RepresentationLoss, "cunet": SynthesisLoss}[self.stage]()

    def scores(self, network: nn.Module, slices: Tensor, tasks: Sequence[Sequence[str]]) -> dict[str, float]:
        """What the stage has learned, on complete held-out slices (B, M, H, W)."""
        slices = slices.to(self.device)
        if self.stage == "mrm":
            return masked_loss(network, slices)
        if self.stage == "mdn":
            return variance_explained(FrozenEncoder(self.frozen["mrm"], self.card.standardisation), network, slices)
        return psnr_by_guidance({**self.frozen, "cunet": network}, self.card, slices, tasks, self.device)

    def save(self, network: nn.Module, model_file: str | Path) -> None:
        """Write the file of this stage: every network before, and this one."""
        save_networks({**self.frozen, self.stage: network}, self.card, model_file)

    def finish(
        self, model_file: str | Path, slices: Iterable[Mapping[str, Tensor]], count: int, files: Sequence[str]
    ) -> None:
        """The last step of a stage: after MRM y_0 is standardised; the last stage notes what was trained on.

        Args:
            model_file: what the stage has written.
            slices, count: training slices, and over how many of them y_0 is standardised.
            files: real images that were trained on.
        """
        reached = STAGES[: STAGES.index(self.stage) + 1]
        card, trained = load_networks(model_file, reached, finished=self.stage != STAGES[0])
        if self.stage == "mrm":
            card.standardisation = standardisation_of(trained["mrm"].to(self.device), slices, len(card.stack), count)
        if self.stage == STAGES[-1]:
            card.training["file_sha256"] = sorted(file_sha256(Path(file)) for file in files)
        save_networks(trained, card, model_file)


def check_stage(stage: str) -> str:
    """The stage itself. Raises Any2allError for one that there is not."""
    if stage not in STAGES:
        raise Any2allError("unknown stage", key="stage", value=stage, allowed=STAGES)
    return stage


def check_settings(stage: str, batches: Mapping[str, Mapping[str, Any]], standardisation_slices: int) -> None:
    """Raise Any2allError for a stage that there is not, and for settings that would train on nothing or end a run late.

    Args:
        stage, batches: see `StageTraining`; those of all stages are looked at.
        standardisation_slices: over how many slices y_0 is standardised.
    """
    check_stage(stage)
    as_count(standardisation_slices, "standardisation_slices")
    for name, settings in batches.items():
        known = BATCH_KEYS[check_stage(name)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise Any2allError("unknown key", key=f"batches.{name}", value=unknown, allowed=known)
        for key in {"draws", "steps"} & set(settings):
            as_count(settings[key], f"batches.{name}.{key}", most=STEPS if key == "steps" else None)
        for key in {"empty", "encoded", "sampled"} & set(settings):
            _check_share(settings[key], f"batches.{name}.{key}")
    guided = {"encoded": GuidedImages.encoded, "sampled": GuidedImages.sampled, **batches.get("cunet", {})}
    if guided["encoded"] + guided["sampled"] > 1:
        value = guided["encoded"], guided["sampled"]
        raise Any2allError("more than all rows", key="batches.cunet", value=value, allowed="encoded + sampled up to 1")


def _check_share(value: Any, key: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Any2allError("this is no share", key=key, value=value, allowed="0 to 1")


def _check_masked(ratio: Any, patches: int) -> None:
    """L_MRM needs patches that are hidden, and the encoder some that are not."""
    _check_share(ratio, "batches.mrm.mask_ratio")
    if not 0 < round(ratio * patches) < patches:
        message = f"of {patches} patches some have to be hidden and some seen"
        raise Any2allError(message, key="batches.mrm.mask_ratio", value=ratio, allowed="between 0 and 1")


def _check_sizes(card: CDMCard) -> None:
    """Build every network once: a size that a later stage would refuse shows in the first one."""
    for stage in STAGES:
        try:
            with torch.random.fork_rng(devices=[]):
                card.build(stage)
        except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            message, value = f"the network cannot be built: {error}", card.networks.get(stage)
            raise Any2allError(message, key=f"networks.{stage}", value=value) from error


def _multiple(networks: Mapping[str, Mapping[str, Any]]) -> int:
    """What H and W must be divisible by, for MRM's patches and the levels of the C-UNet."""
    patch = networks.get("mrm", {}).get("patch", PATCH)
    return math.lcm(patch, size_multiple(networks.get("cunet", {}).get("widths", WIDTHS)))


def file_before(model_file: str | Path, stage: Stage) -> Path | None:
    """The file of the stage before, in the folder beside; None for the first."""
    model_file, number = Path(model_file), STAGES.index(check_stage(stage))
    return model_file.parents[1] / STAGES[number - 1] / model_file.name if number else None


def check_same_before(model_file: str | Path, previous_file: str | Path) -> None:
    """Raise Any2allError where a stage would go on from a checkpoint that knows another y_0.

    ``model_file``, what the stage has written so far, holds the networks of the stages before as they were then.
    """
    if not (Path(model_file).is_file() and Path(previous_file).is_file()):
        return
    (then, old), (now, new) = (_as_written(Path(file)) for file in (model_file, previous_file))
    same = all(name in old and torch.equal(old[name], value) for name, value in new.items())
    if not same or then.to_json()["standardisation"] != now.to_json()["standardisation"]:
        raise Any2allError(
            "the stage before was trained on since this one was begun, which knows its old representations",
            key="previous_file",
            value=str(previous_file),
            hint=f"remove {Path(model_file).parent} and train this stage anew, or name the old file",
        )


def _as_written(file: Path) -> tuple[CDMCard, dict[str, Tensor]]:
    card = load_card(file)
    return card, torch.load(file, map_location="cpu", weights_only=True)


@torch.no_grad()
def standardisation_of(
    mrm: nn.Module, slices: Iterable[Mapping[str, Tensor]], modalities: int, count: int
) -> Standardisation:
    """Mean and std of y_0 over the first ``count`` training slices."""
    device = mrm.project.weight.device
    parts = []
    items = [item for _, item in zip(range(count), slices)]
    for first in range(0, len(items), CHUNK):
        chunk = items[first : first + CHUNK]
        images, present = (torch.stack([item[key] for item in chunk]).to(device) for key in ("image", "present"))
        row, modality = present.nonzero(as_tuple=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device)):
            parts.append((mrm.encode(images[row, modality][:, None], modality).float().cpu(), modality.cpu()))
    return Standardisation.fit(parts, modalities)


class ReleaseStage:
    """Writes the EMA with the stages before it, and prints its scores, at the end of every epoch and of the run.

    Args:
        stage: what is trained.
        ema, clock: of the run.
        model_file: where to.
        slices: complete held-out slices (B, M, H, W), or None.
        tasks: for each, the modalities that are filled in from all others.
        writer: of TensorBoard.
        settings: of the run, for the card.
    """

    def __init__(
        self,
        stage: StageTraining,
        ema: EMA,
        clock: Clock,
        model_file: str | Path,
        slices: Tensor | None,
        tasks: Sequence[Sequence[str]],
        writer: SummaryWriter,
        settings: Mapping[str, Any],
    ) -> None:
        self.stage, self.ema, self.clock, self.model_file = stage, ema, clock, Path(model_file)
        self.slices, self.tasks, self.writer, self.settings = slices, tasks, writer, dict(settings)
        self.last, self.scores = -1, {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED | Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.clock.iterations == self.last:  # the run ends with its epoch
            return
        self.last, network = self.clock.iterations, self.ema.averaged.module
        if self.slices is not None:
            self.scores = self.stage.scores(network, self.slices, self.tasks)
        for name, value in self.scores.items():
            self.writer.add_scalar(f"held out/{name}", value, self.clock.iterations)
            print(f"held out: {name} {value:.4f}", flush=True)
        self.stage.card.training[self.stage.stage] = {
            **self.settings,
            "iterations": self.clock.iterations,
            "minutes": round(self.clock.seconds / 60, 1),
            "held_out": {name: round(value, 4) for name, value in self.scores.items()},
            "torch_version": torch.__version__,
        }
        self.stage.save(network, self.model_file)
