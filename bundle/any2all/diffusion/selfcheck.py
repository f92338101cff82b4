"""Does a given image look like what the prior knows? Limits on the comparisons of `comparisons`, and their verdict.

Scores of ``structure``, ``contrast`` and ``error`` are 0 when all is as expected, those of ``identity`` and
``denoising`` below 0; an image fires when one is above its limit. Limits are fitted on heads kept out of training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .comparisons import HEAD_U, KINDS, Companions, Key, Values, comparisons, score

if TYPE_CHECKING:
    from .prior import NetworkPrior

LEAST_HEAD = 0.02  # of a slice's pixels
SLICES, BELOW_TOP_MM = 8, (20.0, 110.0)
PROPER_SHARE = 0.98
MOST_GIVEN = 4
REAL_TOLERANCE = 1.25
# Lest a few odd heads blunt the check: an image that keeps a quarter of its expected structure is foreign, whatever
# they did; and lest heads that are too much alike make it nervous.
LEAST_LIMIT = {"structure": 0.2, "contrast": 0.1, "error": 0.3, "identity": 0.02, "denoising": 0.02}
MOST_LIMIT = {"structure": 0.75, "contrast": 1.0, "error": math.log(8), "identity": 0.2, "denoising": math.log(2)}


@dataclass(frozen=True)
class Finding:
    """The most suspicious comparison of one given image; without ``companions`` it was predicted from itself alone."""

    modality: str
    kind: str
    companions: tuple[str, ...]
    score: float
    limit: float

    @property
    def fired(self) -> bool:
        return self.score > self.limit

    def sentence(self) -> str:
        """A warning for the user."""
        beside = f" together with {', '.join(self.companions)}" if self.companions else ""
        causes = "wrong modality, wrong patient, misplaced, slices out of order" if beside else "wrong modality"
        if self.kind == "identity":
            found = f"looks more like another modality by {self.score:.2f} in correlation, limit {self.limit:.2f}"
        elif self.kind == "denoising":
            found = f"denoised as {self.modality} with {math.exp(self.score):.2f} times the error of another modality"
            found += f", limit {math.exp(self.limit):.2f}"
        elif self.kind == "error":
            found = f"{math.exp(self.score):.1f} times the expected error, limit {math.exp(self.limit):.1f}"
        else:
            found = f"{100 * (1 - self.score):.0f} % of the expected {self.kind}, limit {100 * (1 - self.limit):.0f} %"
        return (
            f"{self.modality}: does not look like what the prior knows as {self.modality}{beside} (self-check: {found})"
            f": {causes}, or anatomy outside of its training; trust no output before checking"
        )


@dataclass(frozen=True)
class Report:
    """What the self-check of one study found, in stack order; or why there was none."""

    findings: tuple[Finding, ...] = ()
    slices: int = 0
    skipped: str | None = None

    @property
    def warnings(self) -> list[str]:
        """One sentence for each image that fired, the most suspicious first."""
        fired = [finding for finding in self.findings if finding.fired]
        return [f.sentence() for f in sorted(fired, key=lambda f: f.score / f.limit, reverse=True)]

    def to_json(self) -> dict[str, Any]:
        if self.skipped:
            return {"skipped": self.skipped}
        modalities = {
            f.modality: {
                "score": round(f.score, 3),
                "limit": round(f.limit, 3),
                "fired": f.fired,
                "comparison": f.kind,
                "companions": list(f.companions),
            }
            for f in self.findings
        }
        return {"slices": self.slices, "modalities": modalities}


@dataclass(frozen=True)
class SelfCheck:
    """What proper images give and how far they stray, from `fit_self_check`.

    Attributes:
        expected: ``expected[kind][companions][modality]`` is r̄; companions are sorted names joined by "+", and ""
            stands for an image alone.
        limits: ``limits[kind][modality][n]`` is the highest score that passes beside n companions.
    """

    expected: dict[str, dict[str, dict[str, float]]]
    limits: dict[str, dict[str, tuple[float, ...]]]

    def finding(self, kind: str, modality: str, companions: tuple[str, ...], value: float) -> Finding:
        """Judge one comparison."""
        expected = self.expected[kind]["+".join(sorted(companions))][modality]
        limit = self.limits[kind][modality][len(companions)]
        return Finding(modality, kind, companions, score(kind, value, expected), limit)

    def to_json(self) -> dict[str, Any]:
        def short(value: float) -> float:
            return float(f"{value:.4g}")

        return {
            "expected": {
                kind: {c: {m: short(v) for m, v in row.items()} for c, row in table.items()}
                for kind, table in self.expected.items()
            },
            "limits": {kind: {m: [short(v) for v in row] for m, row in t.items()} for kind, t in self.limits.items()},
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> SelfCheck:
        limits = {kind: {m: tuple(row) for m, row in table.items()} for kind, table in document["limits"].items()}
        return cls(document["expected"], limits)


def check_images(
    prior: NetworkPrior,
    images: Tensor,
    available: Sequence[int],
    batch_size: int = 16,
    cancelled: Callable[[], bool] | None = None,
) -> list[Finding]:
    """Judge every given image of a study by the limits on the prior's card, alone and beside all the others.

    Args:
        prior: of the ``per_modality`` recipe, its card holding a `SelfCheck`.
        images: (Z, M, H, W) in the prior's range, of the slices to look at; channels that are not given are not read.
        available: the given channels.

    Raises:
        Cancelled: ``cancelled()`` said yes; it is asked before every batch.
    """
    return judge(prior, comparisons(prior, images, sets_of(available), batch_size, cancelled), available)


def sets_of(available: Sequence[int]) -> dict[int, set[Companions]]:
    """What a study's images are predicted from: each one alone, and each beside all the others."""
    return {m: {(), tuple(c for c in available if c != m)} for m in available}


def judge(prior: NetworkPrior, values: Values, available: Sequence[int]) -> list[Finding]:
    """The most suspicious comparison of every given image, of all that `sets_of` asks for."""
    names, worst = prior.stack.names, {}
    known = prior.card.selfcheck.limits
    for kind, m, companions in sorted(key for key in _keys(tuple(available)) if key[0] in known):
        named = tuple(names[c] for c in companions)
        finding = prior.card.selfcheck.finding(kind, names[m], named, values[kind, m, companions])
        if m not in worst or finding.score / finding.limit > worst[m].score / worst[m].limit:
            worst[m] = finding
    return [worst[m] for m in available]


def slices_to_check(u: Tensor, slice_mm: float) -> list[int]:
    """Up to eight slices, evenly from 20 to 110 mm below the top of the head, where every given image shows head.

    Args:
        u: the given images (Z, n, H, W) in u, slices upward.
        slice_mm: distance of the slices.
    """
    shown = ((u > HEAD_U).float().mean(dim=(2, 3)) > LEAST_HEAD).all(dim=1).nonzero().flatten()
    if len(shown) == 0:
        return []
    depth = (shown[-1] - shown) * slice_mm
    brain = shown[(depth >= BELOW_TOP_MM[0]) & (depth <= BELOW_TOP_MM[1])]
    chosen = brain if len(brain) else shown
    return chosen[torch.linspace(0, len(chosen) - 1, min(SLICES, len(chosen))).round().long()].tolist()


def fit_self_check(
    prior: NetworkPrior, heads: Sequence[Tensor], real: Sequence[tuple[Tensor, Sequence[int]]] = ()
) -> SelfCheck:
    """Measure what is expected of proper images, and how far they stray.

    The limit of a comparison is what 98 % of its scores stay below, for one modality and number of companions; then all
    limits are raised by one factor until 98 % of all studies of one to four given images pass, but not beyond
    ``MOST_LIMIT``. A limit is at least 1.25 times the score of every real validation stack, which must not be an alarm
    only because it was scanned and not rendered.

    Args:
        prior: of the ``per_modality`` recipe.
        heads: complete stacks (Z, M, H, W) in the prior's range, one for each rendering, none of them trained on.
        real: stacks (Z, M, H, W) that lack modalities, and the channels they have.
    """
    everything = range(prior.channels)
    measured = [comparisons(prior, head, _all_sets(everything)) for head in heads]
    expected = {key: statistics.median(values[key] for values in measured) for key in measured[0]}
    scores = [_scores(values, expected) for values in measured]
    grouped: dict[tuple[str, int, int], list[float]] = {}
    for (kind, m, companions), value in (item for scored in scores for item in scored.items()):
        grouped.setdefault((kind, m, len(companions)), []).append(value)
    limits = {group: max(_quantile(values), LEAST_LIMIT[group[0]]) for group, values in grouped.items()}
    worst = [
        max(scored[kind, m, c] / limits[kind, m, len(c)] for kind, m, c in _keys(given))
        for scored in scores
        for given in _studies(everything)
    ]
    raised = max(1.0, _quantile(worst))
    limits = {group: min(raised * limit, MOST_LIMIT[group[0]]) for group, limit in limits.items()}
    for stack, channels in real:
        for (kind, m, c), value in _scores(comparisons(prior, stack, _all_sets(channels)), expected).items():
            limits[kind, m, len(c)] = max(limits[kind, m, len(c)], REAL_TOLERANCE * value)
    return _named(prior.stack.names, expected, limits)


def _scores(values: Values, expected: Values) -> Values:
    return {key: score(key[0], value, expected[key]) for key, value in values.items()}


def _quantile(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(PROPER_SHARE))


def _all_sets(channels: Sequence[int]) -> dict[int, set[Companions]]:
    """Every image with every set of companions."""
    others = {m: [c for c in channels if c != m] for m in channels}
    return {m: {set_ for n in range(len(others[m]) + 1) for set_ in combinations(others[m], n)} for m in channels}


def _studies(channels: Sequence[int]) -> Iterator[Companions]:
    """Every choice of one to four given images."""
    for n in range(1, min(MOST_GIVEN, len(channels)) + 1):
        yield from combinations(channels, n)


def _keys(given: Companions) -> set[Key]:
    """The comparisons that `check_images` makes of a study."""
    return {(kind, m, companions) for kind in KINDS for m, sets in sets_of(given).items() for companions in sets}


def _named(names: Sequence[str], expected: Values, limits: dict[tuple[str, int, int], float]) -> SelfCheck:
    table: dict[str, dict[str, dict[str, float]]] = {kind: {} for kind in KINDS}
    for (kind, m, companions), value in expected.items():
        table[kind].setdefault("+".join(sorted(names[c] for c in companions)), {})[names[m]] = value
    rows = {
        kind: {name: tuple(limits[kind, m, n] for n in range(len(names))) for m, name in enumerate(names)}
        for kind in KINDS
    }
    return SelfCheck(table, rows)
