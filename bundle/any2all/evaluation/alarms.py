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

from ..diffusion.comparisons import comparisons
from ..diffusion.prior import NetworkPrior
from ..diffusion.selfcheck import judge, sets_of
from .cases import Cases

MOST_GIVEN = 4
COMPANION_SETS = 1  # drawn for each foreign image and each number of companions
PROPER, WRONG_MODALITY = "proper", "wrong modality"


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
    counts: dict[str, list[bool]] = {}
    for images, asked in studies(cases, seed):
        sets: dict[int, set[tuple[int, ...]]] = {}
        for _, given in asked:
            for m, companions in sets_of(given).items():
                sets.setdefault(m, set()).update(companions)
        values = comparisons(prior, images, sets, batch_size)
        for kind, given in asked:
            fired = any(finding.fired for finding in judge(prior, values, given))
            counts.setdefault(kind, []).append(fired)
    return [Rate(kind, sum(fired), len(fired)) for kind, fired in counts.items()]


def studies(cases: Cases, seed: int = 0) -> Iterator[tuple[Tensor, list[tuple[str, tuple[int, ...]]]]]:
    """Images (Z, M, H, W) in the prior's range, with every study made of them: its kind and the given channels."""
    generator = torch.Generator().manual_seed(seed)
    groups = list(dict.fromkeys(cases.groups))
    stacks = [2 * cases.of(group).slices.clamp(0, 1) - 1 for group in groups]
    channels = range(stacks[0].shape[1])
    for number, stack in enumerate(stacks):
        choices = [given for n in range(1, MOST_GIVEN + 1) for given in combinations(channels, n)]
        yield stack, [(PROPER, given) for given in choices]
        stranger = stacks[(number + 1) % len(stacks)] if len(stacks) > 1 else None
        for m in channels:
            for kind, foreign in _foreign(stack, stranger, m):
                wrong = stack.clone()
                wrong[:, m] = foreign
                alone = [(f"{kind}, alone", (m,))] if kind == WRONG_MODALITY else []
                beside = [tuple(sorted((m, *others))) for others in _companions(channels, m, generator)]
                yield wrong, alone + [(f"{kind}, with companions", given) for given in beside]


def _foreign(stack: Tensor, stranger: Tensor | None, m: int) -> Iterator[tuple[str, Tensor]]:
    for other in range(stack.shape[1]):
        if other != m:
            yield WRONG_MODALITY, stack[:, other]
    if stranger is not None:
        yield "another head", stranger[:, m]
    if len(stack) > 1:
        yield "slices out of order", stack[:, m].roll(1, dims=0)
    yield "upside down", stack[:, m].flip(-2)


def _companions(channels: Sequence[int], m: int, generator: torch.Generator) -> Iterator[tuple[int, ...]]:
    """A few sets of one to three."""
    others = [c for c in channels if c != m]
    for n in range(1, MOST_GIVEN):
        choices = list(combinations(others, n))
        for at in torch.randperm(len(choices), generator=generator)[:COMPANION_SETS].tolist():
            yield choices[at]
