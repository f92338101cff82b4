"""The small network whose features FID and KID are measured on when nobody gives weights of a larger one.

It sees ONE image of one slice and is trained to say what it shows and what is wrong with it: which modality, at what
height, how much of each tissue, and whether it is noisy, blurred or aliased, and how much. So its features change with
anatomy, with contrast and with artefacts. Batch normalisation is fixed after training: features see brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

WIDTHS = (24, 48, 96)
FEATURES = 64  # fewer than the images of a small comparison, so that their covariance has full rank
DEGRADATIONS = ("clean", "noise", "blur", "aliasing")


@dataclass(frozen=True)
class Answers:
    """What the network says of images (N, 1, H, W).

    Attributes:
        modality: (N, modalities) logits.
        degradation: (N, 4) logits of `DEGRADATIONS`.
        strength: (N,) of the degradation, 0 to 1.
        height: (N,) of the slice, in units of 50 mm upward from the head's centre.
        tissues: (N, tissues) square roots of the share of all pixels.
    """

    modality: Tensor
    degradation: Tensor
    strength: Tensor
    height: Tensor
    tissues: Tensor


class FeatureNetwork(nn.Module):
    """Six convolutions; the mean over pixels of the last one's output are the features (N, 64).

    Args:
        modalities: of the stack.
        tissues: whose shares it is asked for.
    """

    def __init__(self, modalities: int, tissues: int) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.body = nn.Sequential(
            *_layer(1, a, 5, 2),
            *_layer(a, b, 3, 2),
            *_layer(b, b, 3, 1),
            *_layer(b, c, 3, 2),
            *_layer(c, c, 3, 1),
            *_layer(c, FEATURES, 3, 1),
        )
        self.modality = nn.Linear(FEATURES, modalities)
        self.degradation = nn.Linear(FEATURES, len(DEGRADATIONS))
        self.strength = nn.Linear(FEATURES, 1)
        self.height = nn.Linear(FEATURES, 1)
        self.tissues = nn.Linear(FEATURES, tissues)

    def features(self, u: Tensor) -> Tensor:
        """Images (N, 1, H, W) in u → (N, 64)."""
        return self.body(2 * u - 1).mean(dim=(2, 3))

    def forward(self, u: Tensor) -> Answers:
        seen = self.features(u)
        return Answers(
            self.modality(seen),
            self.degradation(seen),
            self.strength(seen)[:, 0],
            self.height(seen)[:, 0],
            self.tissues(seen),
        )


def _layer(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.SiLU()]
