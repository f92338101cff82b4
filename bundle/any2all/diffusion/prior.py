"""The prior: network + schedule + stack → x0_hat, the expected clean stack given a noisy one."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..errors import Any2allError
from ..stack import Stack
from .calibration import Calibration
from .contrast import Contrast
from .network import CHANNELS, LevelConditionedUNet, size_multiple
from .schedule import Schedule, cosine_schedule
from .selfcheck import SelfCheck
from .weights import Bits, packed, unpacked

Recipe = Literal["shared", "per_modality"]
Prediction = Literal["eps", "v"]
FALLBACK_SIGNAL_VARIANCE = 0.25
SLICE_CORRELATION = 0.6  # of the noise of neighbouring slices, where a prior's card says nothing


class Prior(Protocol):
    """What a sampler needs of a prior; the analytic oracles fulfil it as well as the trained one."""

    schedule: Schedule
    noise_levels: Recipe

    @property
    def channels(self) -> int:
        """M."""

    def x0_hat(self, x: Tensor, levels: Tensor) -> Tensor:
        """E[x_0 | x_k]: x (B, M, H, W) and levels (B, M) → (B, M, H, W), unclamped and differentiable."""

    def error_variance(self, channel: int, companions: frozenset[int], level: int) -> float:
        """r_k²: mean over pixels of (x0_hat - x_0)² of a channel at a level, with these channels clean, others at k."""

    @property
    def contrast(self) -> Contrast | None:
        """How x0_hat errs in tissue contrasts that x_k tells; None: it does not."""


def x0_from_prediction(prediction: Tensor, x: Tensor, levels: Tensor, schedule: Schedule, kind: Prediction) -> Tensor:
    """x0_hat from an eps- or v-prediction, all (B, M, H, W); v = sqrt(abar) eps - sqrt(1 - abar) x_0 (METHOD §2)."""
    signal, noise = schedule.planes(levels, x.dtype)
    if kind == "v":
        return signal * x - noise * prediction
    return (x - noise * prediction) / signal


def default_error_variance(schedule: Schedule, level: int) -> float:
    """r_k² = s σ_k² / (σ_k² + s), s = 0.25 (METHOD §3), until a prior is calibrated."""
    sigma2 = schedule.sigma2(level)
    return FALLBACK_SIGNAL_VARIANCE * sigma2 / (sigma2 + FALLBACK_SIGNAL_VARIANCE)


@dataclass
class PriorCard:
    """What ``prior.json`` says of a prior: how it was made and how it must be used.

    ``matrix`` (H, W) and ``spacing_mm`` (H, W, slice) are the grid the prior was trained on; ``stack`` holds the
    normalisation constants that inference must use; ``detail_mse`` is r_u² of METHOD §4 per modality.
    ``std_scale[role][modality]`` is the factor on the std of MCS samples with which 90 % intervals hold 90 % of the
    truth on validation heads; roles are ``reconstructed`` and ``synthetic``. ``slice_correlation`` is, per modality,
    the correlation of the noise of neighbouring slices with which single samples of it flicker as the truth does.
    ``mean_network`` names, by ``file`` beside this prior and ``sha256``, a network that was trained for one pass alone
    and states posterior means better (`NetworkPrior.mean_network`). ``contrast`` tells how far the network may err in
    tissue contrasts, which MCS corrects by what x_k says of them; None: nothing is corrected. ``selfcheck`` is what the
    self-check of given images tolerates; without it there is none.
    """

    version: str
    noise_levels: Recipe
    prediction: Prediction
    network: dict[str, Any]
    matrix: tuple[int, int]
    spacing_mm: tuple[float, float, float]
    stack: Stack
    calibration: Calibration | None = None
    contrast: Contrast | None = None
    detail_mse: dict[str, float] = field(default_factory=dict)
    std_scale: dict[str, dict[str, float]] = field(default_factory=dict)
    slice_correlation: dict[str, float] = field(default_factory=dict)
    mean_network: dict[str, str] | None = None
    selfcheck: SelfCheck | None = None
    training: dict[str, Any] = field(default_factory=dict)
    sha256: str | None = None

    def std_factor(self, modality: str, measured: bool) -> float:
        """The factor of ``std_scale``; 1 where none was measured."""
        return self.std_scale.get("reconstructed" if measured else "synthetic", {}).get(modality, 1.0)

    def noise_correlation(self, distance_mm: float | None = None) -> tuple[float, ...]:
        """Of the noise of slices so far apart (by default the prior's own spacing), for each modality of the stack."""
        power = 1.0 if distance_mm is None else distance_mm / self.spacing_mm[2]
        return tuple(self.slice_correlation.get(name, SLICE_CORRELATION) ** power for name in self.stack.names)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "noise_levels": self.noise_levels,
            "prediction": self.prediction,
            "network": self.network,
            "matrix": list(self.matrix),
            "spacing_mm": list(self.spacing_mm),
            "sha256": self.sha256,
            "stack": self.stack.model_dump(mode="json"),
            "training": self.training,
            "detail_mse": self.detail_mse,
            "std_scale": self.std_scale,
            "slice_correlation": self.slice_correlation,
            "mean_network": self.mean_network,
            "selfcheck": self.selfcheck.to_json() if self.selfcheck else None,
            "contrast": self.contrast.to_json() if self.contrast else None,
            "calibration": self.calibration.to_json() if self.calibration else None,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> PriorCard:
        calibration, contrast, selfcheck = (document.get(key) for key in ("calibration", "contrast", "selfcheck"))
        stack = Stack.model_validate(document["stack"])
        return cls(
            version=document["version"],
            noise_levels=document["noise_levels"],
            prediction=document["prediction"],
            network=document["network"],
            matrix=tuple(document["matrix"]),
            spacing_mm=tuple(document["spacing_mm"]),
            stack=stack,
            calibration=Calibration.from_json(calibration) if calibration else None,
            contrast=Contrast.from_json(contrast, stack.names) if contrast else None,
            detail_mse=document.get("detail_mse", {}),
            std_scale=document.get("std_scale", {}),
            slice_correlation=document.get("slice_correlation", {}),
            mean_network=document.get("mean_network"),
            selfcheck=SelfCheck.from_json(selfcheck) if selfcheck else None,
            training=document.get("training", {}),
            sha256=document.get("sha256"),
        )


class NetworkPrior:
    """A trained network as a Prior.

    bf16 autocast acts inside the network only; everything around it is float32.

    Args:
        network: maps (x, levels) to the prediction.
        card: recipe, grid, stack and calibration.
        device: where it runs.
        autocast: bf16 inside the network (default: where the processor has bf16 arithmetic).
        folder: where the card's ``mean_network`` lies; None: there is none.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        card: PriorCard,
        device: torch.device | str = "cpu",
        autocast: bool | None = None,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
        self.device = torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)
        self.card, self.stack, self.noise_levels = card, card.stack, card.noise_levels
        self.schedule = cosine_schedule()
        self.autocast = has_fast_bf16(self.device) if autocast is None else autocast

    @property
    def channels(self) -> int:
        return len(self.stack)

    @property
    def contrast(self) -> Contrast | None:
        return self.card.contrast

    @cached_property
    def mean_network(self) -> NetworkPrior | None:
        """The network of the card's ``mean_network``, loaded when it is first asked for; None where there is none.

        Raises Any2allError where its file is missing or another than the card names, or its grid or stack is another.
        """
        named = self.card.mean_network
        if named is None or self.folder is None:
            return None
        file = self.folder / Path(named["file"]).name
        other = load_prior(file, self.device, self.autocast)
        ours, theirs = ((c.matrix, c.spacing_mm, c.stack) for c in (self.card, other.card))
        if other.card.sha256 != named["sha256"] or ours != theirs:
            raise _unusable("this is not the network that the prior's card names for its means", file)
        return other

    def x0_hat(self, x: Tensor, levels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            prediction = self.network(x, levels)
        return x0_from_prediction(prediction.float(), x, levels, self.schedule, self.card.prediction)

    def error_variance(self, channel: int, companions: frozenset[int], level: int) -> float:
        if self.card.calibration is None:
            return default_error_variance(self.schedule, level)
        names = frozenset(self.stack.names[m] for m in companions)
        return self.card.calibration.error_variance(self.stack.names[channel], names, level)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is native on a device (on a CPU: AVX-512 bf16 or AMX)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # torch has no public query for this; without it bf16 on a CPU is emulated and slow, so "no" is the safe answer
    queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in queries)


def usable_device(device: torch.device | str) -> torch.device:
    """The device, on which a number has been kept. Raises Any2allError where there is no such device here."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (AssertionError, RuntimeError, TypeError) as error:
        raise Any2allError(
            "this device cannot be used",
            key="device",
            value=str(device),
            allowed=("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))),
            hint=re.split(r"\.\s|\n", str(error))[0],
        ) from error
    return found


def check_matrix(matrix: Any, multiple: int) -> None:
    """Raise Any2allError where a matrix is not (H, W), both divisible by what the network divides them by."""
    whole = isinstance(matrix, (list, tuple)) and len(matrix) == 2 and all(type(size) is int for size in matrix)
    if not whole or any(size < multiple or size % multiple for size in matrix):
        allowed = f"[H, W], both multiples of {multiple}"
        raise Any2allError("the network cannot take this matrix", key="matrix", value=matrix, allowed=allowed)


def build_network(stack: Stack, settings: dict[str, Any]) -> LevelConditionedUNet:
    """The network of a card's ``network`` settings for a stack."""
    return LevelConditionedUNet(modalities=len(stack), **settings)


def starting_network(
    stack: Stack, settings: dict[str, Any], model_file: str | Path | None, matrix: Sequence[int] | None = None
) -> LevelConditionedUNet:
    """`build_network`, with the weights of a released prior to train on from; with none it starts at random.

    Raises Any2allError when that prior's network or modalities are not these, or the network cannot take the matrix.
    """
    if matrix is not None:
        check_matrix(matrix, size_multiple(settings.get("channels", CHANNELS)))
    network = build_network(stack, settings)
    if model_file is None:
        return network
    released = load_prior(model_file)
    for key, ours, theirs in (
        ("network", settings, released.card.network),
        ("stack", list(stack.names), list(released.stack.names)),
    ):
        if ours != theirs:
            raise Any2allError(
                "the prior to start from was trained with another one", key=key, value=ours, allowed=theirs
            )
    network.load_state_dict(released.network.state_dict())
    return network


def file_sha256(path: Path) -> str:
    """SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def load_prior(
    model_file: str | Path, device: torch.device | str = "cpu", autocast: bool | None = None
) -> NetworkPrior:
    """Load ``<name>.pt`` (plain state dict, in half precision or 8 bits) with the ``<name>.json`` beside it.

    The card of ``model.pt`` is ``prior.json``.
    Raises Any2allError when a file is missing, does not fit its card, or its checksum differs, and for a device that is
    not there.
    """
    device = usable_device(device)
    model_file, card = Path(model_file), load_card(model_file)
    try:
        network = build_network(card.stack, card.network)
        state = torch.load(model_file, map_location="cpu", weights_only=True)
        network.load_state_dict(unpacked(state))
    except (RuntimeError, TypeError, ValueError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise _unusable("the weights do not fit the network that their card describes", model_file) from error
    return NetworkPrior(network, card, device, autocast, model_file.parent)


def load_card(model_file: str | Path) -> PriorCard:
    """The card beside the weights, which are held against its checksum but not loaded.

    Raises Any2allError when a file is missing, the card cannot be read, or the checksum differs.
    """
    model_file = Path(model_file)
    card_file = card_path(model_file)
    for file in (model_file, card_file):
        if not file.is_file():
            raise _unusable("prior file not found", file)
    try:
        document = json.loads(card_file.read_text())
        card = None if _is_cdm(document) else PriorCard.from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable("the prior's card cannot be read", card_file) from error
    if card is None:
        raise _unusable("this is CDM and no prior: it translates given images and draws nothing else", model_file)
    if card.sha256 and file_sha256(model_file) != card.sha256:
        raise _unusable("weights do not match their card (sha256)", model_file)
    return card


def _is_cdm(document: Any) -> bool:
    """Whether this is the card of the second system (`cdm.card`)."""
    return isinstance(document, dict) and "standardisation" in document


def _unusable(message: str, file: Path) -> Any2allError:
    return Any2allError(message, key="prior", value=file.name, code="prior_unavailable")


def save_prior(network: torch.nn.Module, card: PriorCard, model_file: str | Path, bits: Bits = 16) -> None:
    """Write the state dict in half precision, or in ``bits``, and the card beside it, checksum included.

    Each appears whole: a run that is broken off meanwhile leaves the earlier prior.
    """
    model_file = Path(model_file)
    model_file.parent.mkdir(parents=True, exist_ok=True)
    draft = model_file.with_name(f".{model_file.name}.partial")
    torch.save(packed(network.state_dict(), bits), draft)
    card.sha256 = file_sha256(draft)
    draft.replace(model_file)
    save_card(card, model_file)


def save_card(card: PriorCard, model_file: str | Path) -> None:
    """Write the card beside its weights."""
    file = card_path(Path(model_file))
    draft = file.with_name(f".{file.name}.partial")
    draft.write_text(json.dumps(card.to_json(), indent=1) + "\n")
    draft.replace(file)


def card_path(model_file: Path) -> Path:
    """The card of ``model.pt`` is ``prior.json``, of ``<name>.pt`` ``<name>.json``."""
    return model_file.with_name("prior.json" if model_file.stem == "model" else f"{model_file.stem}.json")
