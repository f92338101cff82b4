"""What FID and KID compare images by: features of a fixed network, whose name stands in every table.

Ours (``any2all``) is a small network trained on this stack (`train_features`); its numbers can be compared with one
another and with nobody else's. ``inception`` and ``radimagenet_*`` are the networks of the literature, from weights
that the user has; of those, the Inception of this project has torchvision's weights, not those of the first FID.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..diffusion.prior import file_sha256
from ..diffusion.weights import packed
from ..errors import Any2allError
from .feature_network import FEATURES, FeatureNetwork

OWN = Path(__file__).parents[2] / "models" / "features.pt"
OWN_NAME = "any2all-features"
BATCH = 64


@dataclass(frozen=True, eq=False)
class FeatureExtractor:
    """A fixed network as a map from images to features.

    Attributes:
        name: in every table.
        sha256: of the weights.
        dimension: D.
        network: images (N, 1, H, W) in u → (N, D).
    """

    name: str
    sha256: str
    dimension: int
    network: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Images (N, H, W) in u, clipped to [0, 1] → features (N, D) float64."""
        u = torch.as_tensor(np.asarray(images), dtype=torch.float32).clamp(0, 1)[:, None]
        parts = [self.network(u[i : i + BATCH]) for i in range(0, len(u), BATCH)]
        return torch.cat(parts).double().numpy() if parts else np.empty((0, self.dimension))

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:8]}, {self.dimension} numbers)"


def load_features(kind: str = "any2all", file: str | Path | None = None) -> FeatureExtractor:
    """One of `KINDS`; ``file``: its weights (ours ship with the bundle).

    Raises:
        Any2allError: no such kind, no file, weights of another network, or torchvision is not there.
    """
    if kind not in KINDS:
        raise Any2allError("no such features", key="features.kind", value=kind, allowed=list(KINDS))
    if file is None and kind != "any2all":
        raise Any2allError(f"{kind} needs a file of weights", key="features.file", value=None, hint=_WHERE[kind])
    weights = Path(OWN if file is None else file)
    if not weights.is_file():
        raise Any2allError("weights not found", key="features.file", value=str(weights), hint=_WHERE[kind])
    return KINDS[kind](weights)


def own_features(file: Path) -> FeatureExtractor:
    """Ours, from ``features.pt`` and the ``features.json`` beside it."""
    card_file = file.with_suffix(".json")
    try:
        card = json.loads(card_file.read_text(encoding="utf-8"))
        network = FeatureNetwork(len(card["modalities"]), len(card["tissues"])).eval()
        sha256, name = card["sha256"], f"{OWN_NAME} {card['version']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable("the features' card cannot be read", card_file) from error
    if file_sha256(file) != sha256:
        raise _unusable("weights do not match their card (sha256)", file)
    _fill(network, _read(file), file)
    return FeatureExtractor(name, sha256, FEATURES, network.features)


def inception_features(file: Path) -> FeatureExtractor:
    """The 2,048 numbers before the last layer of torchvision's InceptionV3 with ImageNet weights (Szegedy et al.)."""
    return _large("InceptionV3 (ImageNet, torchvision)", file, _inception(file), 299)


def radimagenet_inception(file: Path) -> FeatureExtractor:
    """InceptionV3 trained on 1.35 million CT, MR and ultrasound images (Mei et al., Radiology: AI 2022)."""
    return _large("InceptionV3 (RadImageNet)", file, _inception(file), 299)


def radimagenet_resnet50(file: Path) -> FeatureExtractor:
    """ResNet50 trained on 1.35 million CT, MR and ultrasound images (Mei et al., Radiology: AI 2022)."""
    from monai.networks.nets import resnet50  # in 2-D it has the layers, strides and names of torchvision's

    network = resnet50(spatial_dims=2, n_input_channels=3, feed_forward=False, bias_downsample=False)
    return _large("ResNet50 (RadImageNet)", file, _fill(network, _plain(_read(file), network), file), 224)


KINDS: Mapping[str, Callable[[Path], FeatureExtractor]] = {
    "any2all": own_features,
    "inception": inception_features,
    "radimagenet_inception": radimagenet_inception,
    "radimagenet_resnet50": radimagenet_resnet50,
}
_WHERE = {
    "any2all": "python -m any2all.evaluation.train_features makes them",
    "inception": "torchvision's inception_v3_google-0cc3c7bd.pth",
    "radimagenet_inception": "InceptionV3.pt of the PyTorch weights of github.com/BMEII-AI/RadImageNet",
    "radimagenet_resnet50": "ResNet50.pt of the PyTorch weights of github.com/BMEII-AI/RadImageNet",
}


def _inception(file: Path) -> nn.Module:
    try:
        from torchvision.models import inception_v3
    except (ImportError, RuntimeError) as error:  # RuntimeError: a build for another torch
        raise Any2allError(
            f"torchvision cannot be imported: {error}", key="features.kind", hint="pip install any2all[inception]"
        ) from error
    # the file's own input transform undoes ImageNet's normalisation; images come as 2u - 1 here, which is what it makes
    network = inception_v3(weights=None, aux_logits=False, transform_input=False, init_weights=False)
    network.fc = nn.Identity()
    return _fill(network, _plain(_read(file), network), file)


def _large(name: str, file: Path, network: nn.Module, side: int) -> FeatureExtractor:
    """A network of three colours that wants images of ``side`` pixels in [-1, 1]; the aspect of ours is kept."""
    network.eval().requires_grad_(False)

    def seen(u: Tensor) -> Tensor:
        h, w = u.shape[-2:]
        size = (round(h * side / max(h, w)), round(w * side / max(h, w)))
        large = nn.functional.interpolate(u, size, mode="bilinear", align_corners=False, antialias=True)
        down, right = side - size[0], side - size[1]
        square = nn.functional.pad(large, (right // 2, right - right // 2, down // 2, down - down // 2))
        return network((2 * square - 1).expand(-1, 3, -1, -1))

    return FeatureExtractor(name, file_sha256(file), 2048, seen)


def _read(file: Path) -> dict[str, Tensor]:
    """A state dict; nothing else in the file is unpickled."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise _unusable("the weights cannot be read", file) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise _unusable("this file holds no state dict", file)
    return {key.removeprefix("module."): value.float() for key, value in state.items()}


def _plain(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Without the classifier, and with names in place of RadImageNet's numbers (``backbone.7.`` → ``layer4.``)."""
    if len(state.get("fc.weight", ())) == 1008:
        raise Any2allError(
            "these weights are of TensorFlow's Inception (pytorch-fid), whose pooling differs",
            key="features.file",
            hint=_WHERE["inception"],
        )
    children = [name for name, _ in network.named_children()]
    numbered = {f"backbone.{number}.": f"{name}." for number, name in enumerate(children)}
    found = {}
    for key, value in state.items():
        prefix = ".".join(key.split(".")[:2]) + "."
        name = numbered.get(prefix, prefix) + key.removeprefix(prefix)
        if not name.startswith(("fc.", "AuxLogits.")):
            found[name] = value
    return found


def _fill(network: nn.Module, state: dict[str, Tensor], file: Path) -> nn.Module:
    try:
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise _unusable(f"weights of another network: {first[0].strip()[:160]}", file) from error
    return network.requires_grad_(False)


def _unusable(message: str, file: Path) -> Any2allError:
    return Any2allError(message, key="features.file", value=file.name)


def save_own(network: FeatureNetwork, card: dict[str, Any], file: Path) -> None:
    """Write ``features.pt`` in half precision, and the card with its checksum beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(packed(network.state_dict()), file)
    document = {**card, "sha256": file_sha256(file)}
    file.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
