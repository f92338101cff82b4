"""Where the air around the head is: there is nothing to be sampled there, so samples need not show their noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor

from ..intensity import head_mask

MARGIN_PX = 2
LEAST_PART = 0.01  # of the head's largest part: a temporal lobe is none of the air, nor what lies beyond a gap
AIR = -0.8  # prior range: what is stated brighter out there is no air, but an ear, or beyond what was imaged


def around_the_head(images: Sequence[Tensor]) -> Tensor:
    """Pixels further than `MARGIN_PX` (in plane) from what any of the images (Z, H, W) shows → bool (Z, H, W).

    The images may have any units (`head_mask`). Without an image, or where one shows no head, nobody knows where the
    head is, and no pixel is air. Around a brain whose skull was stripped everything is.
    """
    heads = [head_mask(image.float().cpu().numpy(), LEAST_PART) for image in images]
    if not heads or not all(head.any() for head in heads):
        return torch.zeros(images[0].shape if images else (), dtype=torch.bool)
    near = binary_dilation(np.any(heads, axis=0), np.ones((1, 3, 3), bool), iterations=MARGIN_PX)
    return torch.from_numpy(~near)
