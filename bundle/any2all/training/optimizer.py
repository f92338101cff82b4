"""Muon for the weights between hidden features, AdamW for all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..diffusion.network import LevelConditionedUNet


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` for the hidden weights of the network, `torch.optim.AdamW` for its other parameters.

    Muon (Jordan et al. 2024) steps along the momentum of a matrix made orthogonal; its steps are as large as AdamW's
    (Liu et al. 2025, arXiv 2502.16982), so that one rate serves both. torch's knows matrices only: a convolution's
    weight (O, I, kh, kw) is one of O rows. The first and last convolution, the embedding of the level, biases and
    norms are AdamW's.

    Args:
        network: whose parameters are trained.
        lr: rate of both. A schedule sets ``lr`` of `param_groups`, as of any optimizer.
        weight_decay: decoupled, of both.
        momentum: of Muon, in Nesterov's form.
    """

    def __init__(
        self, network: LevelConditionedUNet, lr: float, weight_decay: float = 0.05, momentum: float = 0.95
    ) -> None:
        hidden = hidden_weights(network)
        ours = {id(weight) for weight in hidden}
        others = [weight for weight in network.parameters() if id(weight) not in ours]
        super().__init__([{"params": hidden}, {"params": others}], {"lr": lr})
        self._matrices = [torch.nn.Parameter(as_matrix(weight.detach(), weight)) for weight in hidden]
        self._parts = (
            torch.optim.Muon(
                self._matrices, lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr, weight_decay=weight_decay),
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step along the gradients. ``closure`` as for any optimizer of torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hidden = self.param_groups[0]["params"]
        for weight, matrix in zip(hidden, self._matrices):
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad, weight)
        for part, group in zip(self._parts, self.param_groups):
            part.param_groups[0]["lr"] = group["lr"]
            part.step()
        for matrix in self._matrices:
            matrix.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        """States of Muon and AdamW, by their names."""
        return {type(part).__name__: part.state_dict() for part in self._parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises KeyError or ValueError for the state of another optimizer or network."""
        for part in self._parts:
            part.load_state_dict(state_dict[type(part).__name__])


def hidden_weights(network: LevelConditionedUNet) -> list[torch.nn.Parameter]:
    """Weights of the convolutions and linear layers inside the blocks of the U-Net: from features to features."""
    blocks = (network.unet.down_blocks, network.unet.middle_block, network.unet.up_blocks)
    return [weight for block in blocks for weight in block.parameters() if weight.ndim >= 2]


def as_matrix(values: Tensor, like: Tensor) -> Tensor:
    """``values`` (O, …) as (O, rest), the rest in the order in which ``like`` of the same shape lies in memory.

    For ``like`` itself that is a view, contiguous or channels_last; Muon does not depend on the order.
    """
    order = sorted(range(1, like.ndim), key=lambda axis: -like.stride(axis))
    return values.permute(0, *order).flatten(1)
