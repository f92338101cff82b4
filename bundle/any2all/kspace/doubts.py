"""What measured raw data shows that its study can hardly mean: words for the user; nothing is refused.

Coil maps of another scan, a transform without its shifts and noise in other units all leave an image, but a wrong one
or one that the prior has made up alone.
"""

from __future__ import annotations

import numpy as np
import torch

from .acquisition import Acquisition
from .coil_maps import estimate_noise_std, noise_std_of_outer
from .noncartesian import NonCartesianAcquisition

AnyAcquisition = Acquisition | NonCartesianAcquisition

# Of the data's energy, beyond its noise. Of the measured 8-coil brain right maps leave nothing, maps of which two have
# changed places 12 %, conjugated ones 84 %.
MOST_UNEXPLAINED = 0.05
MOST_NOISE = 3.0  # times what the outer samples show, which is less than the noise by chance alone
FARTHEST = 0.25  # of the size of k-space or image, from its middle
LEAST_GATHERED = 0.1  # resultant of the energy on a ring; 0: it is spread evenly


def doubts(acquisition: AnyAcquisition, image: np.ndarray) -> list[str]:
    """Sentences about an acquisition and its first reconstruction ``image`` (Z, H, W); none where all is well."""
    found = []
    if isinstance(acquisition, Acquisition) and _peak_is_far(acquisition.kspace):
        found.append(
            "k-space is strongest far from its middle: the zero frequency has to lie at index N // 2 of H and W "
            "(np.fft.fftshift)"
        )
    if _lies_at_the_edge(image):
        found.append(
            "the image lies across the edges of its field of view: its own middle has to be at index N // 2 as well "
            "(np.fft.ifftshift of the image before its transform)"
        )
    outer = _outer_noise_std(acquisition)
    share = _unexplained(acquisition, image, max(acquisition.noise_std, outer))
    if share > MOST_UNEXPLAINED:
        found.append(
            f"coil maps and image leave {share:.0%} of the data's energy unexplained: do the maps belong to this data, "
            "coil by coil and not conjugated?"
        )
    if acquisition.noise_std > MOST_NOISE * outer:
        found.append(
            f"a noise_std of {acquisition.noise_std:.3g} is much more than the {outer:.3g} that the outer samples "
            "show, so the data hardly counts: is it the complex std in the file's units?"
        )
    return found


def _peak_is_far(kspace: np.ndarray) -> bool:
    """Whether the strongest sample of (Z, C, H, W) lies further than `FARTHEST` from the middle."""
    energy = np.einsum("zchw,zchw->hw", kspace, kspace.conj(), optimize=True).real
    peak = np.unravel_index(int(np.argmax(energy)), energy.shape)
    return any(abs(i - n // 2) > FARTHEST * n for i, n in zip(peak, energy.shape))


def _lies_at_the_edge(image: np.ndarray) -> bool:
    """Whether energy (Z, H, W) gathers about the edge of the field of view, taken for a ring, not about its middle."""
    energy = np.square(image, dtype=np.float64).sum(axis=0)
    for along in (energy.sum(axis=1), energy.sum(axis=0)):
        turned = np.exp(2j * np.pi * (np.arange(along.size) - along.size // 2) / along.size)
        place = (along * turned).sum() / max(along.sum(), 1e-30)
        if abs(place) > LEAST_GATHERED and abs(np.angle(place)) > 2 * np.pi * FARTHEST:
            return True
    return False


def _outer_noise_std(acquisition: AnyAcquisition) -> float:
    if isinstance(acquisition, Acquisition):
        return estimate_noise_std(acquisition.kspace, acquisition.mask)
    radius = np.hypot(*(2 * acquisition.trajectory / np.array(acquisition.matrix)).T)
    return noise_std_of_outer(acquisition.kspace, radius)


def _unexplained(acquisition: AnyAcquisition, image: np.ndarray, noise_std: float) -> float:
    """(||y - A x||^2 - what noise leaves of it) / ||y||^2, at least 0."""
    channel, left = acquisition.channel(), 0.0
    for z in range(len(image)):
        part = channel.select(torch.tensor([z]))
        residual = part.data - part.operator.forward(torch.from_numpy(image[z : z + 1]))
        left += float(residual.abs().square().sum(dtype=torch.float64))
    energy = float(channel.data.abs().square().sum(dtype=torch.float64))
    samples = acquisition.mask.sum() if isinstance(acquisition, Acquisition) else len(acquisition.trajectory)
    expected = float(samples) * acquisition.kspace.shape[0] * acquisition.kspace.shape[1] * noise_std**2
    return max(left - expected, 0.0) / max(energy, 1e-30)
