"""How often the self-check fires: on proper studies, and on studies with one image that does not belong.

Every study has one to four given images of one group of slices. The wrong ones carry one foreign image: another
modality under this name, another rendering's image of this name, slices in another order, or upside down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from ..diffusion.prior import NetworkPrior
from ..diffusion.selfcheck import check_images
from .cases import Cases

MOST_GIVEN = 4
COMPANION_SETS = 2  # drawn for each foreign image and each number of companions
PROPER = "proper"


@dataclass(frozen=True)
class Rate:
    """How many studies of a kind fired."""

    kind: str
    fired: int
    studies: int

    @property
    def share(self) -> float:
        return self.fired / self.studies


def alarm_rates(prior: NetworkPrior, cases: Cases, batch_size: int = 24, seed: int = 0) -> list[Rate]:
    """Rates of every kind of study on complete cases; the prior's card has to hold limits."""
    counts: dict[str, list[int]] = {}
    for kind, images, given in studies(cases, seed):
        found = check_images(prior, images, given, batch_size)
        counts.setdefault(kind, []).append(any(finding.fired for finding in found))
    return [Rate(kind, sum(fired), len(fired)) for kind, fired in counts.items()]


def studies(cases: Cases, seed: int = 0) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
    """Kind, images (Z, M, H, W) in the prior's range, and the given channels, of every study."""
    generator = torch.Generator().manual_seed(seed)
    groups = list(dict.fromkeys(cases.groups))
    stacks = [2 * cases.of(group).slices.clamp(0, 1) - 1 for group in groups]
    channels = range(stacks[0].shape[1])
    for number, stack in enumerate(stacks):
        for n in range(1, MOST_GIVEN + 1):
            for given in combinations(channels, n):
                yield PROPER, stack, given
        stranger = stacks[(number + 1) % len(stacks)] if len(stacks) > 1 else None
        for m in channels:
            for kind, foreign in _foreign(stack, stranger, m):
                wrong = stack.clone()
                wrong[:, m] = foreign
                for companions in _companions(channels, m, generator):
                    beside = "with companions" if companions else "alone"
                    if companions or kind == "wrong modality":
                        yield f"{kind}, {beside}", wrong, tuple(sorted((m, *companions)))


def _foreign(stack: Tensor, stranger: Tensor | None, m: int) -> Iterator[tuple[str, Tensor]]:
    for other in range(stack.shape[1]):
        if other != m:
            yield "wrong modality", stack[:, other]
    if stranger is not None:
        yield "another head", stranger[:, m]
    if len(stack) > 1:
        yield "slices out of order", stack[:, m].roll(1, dims=0)
    yield "upside down", stack[:, m].flip(-2)


def _companions(channels: Sequence[int], m: int, generator: torch.Generator) -> Iterator[tuple[int, ...]]:
    """No companion, then a few sets of one to three."""
    yield ()
    others = [c for c in channels if c != m]
    for n in range(1, MOST_GIVEN):
        choices = list(combinations(others, n))
        for at in torch.randperm(len(choices), generator=generator)[:COMPANION_SETS].tolist():
            yield choices[at]
