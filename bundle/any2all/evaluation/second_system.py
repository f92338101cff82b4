"""What CDM is held to: cheaper than diffusion on pixels, at least as good as it, and helped by its representation.

Rows of CDM are compared with others on the slices that both were tried on, with the paired bootstrap over renderings
(`scores.statistics`), or over subjects where these are real. "One" is one sample against one sample, "mean" the mean of
the samples against the mean of the samples; a method with one sample has no mean to compare, a network that draws
nothing has one image for either. What intervals cannot tell is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from ..scores.statistics import Groups, Interval, mean_score, paired_bootstrap, psnr_of_mse
from ..scores.text import markdown_table
from .cases import Cases, Kind
from .distribution import LEAST_FOR_KID
from .findings import above_zero
from .realism import realism
from .records import IN_HEAD, Record
from .results import BEST, Results, Section, Verdict, on_shared_slices
from .tasks import CDM_ORACLE

OWN, NULL, UNCONDITIONAL = "cdm", "cdm-null", "cdm-unconditional"
TITLE = "CDM, the second system"
# Diffusion on pixels, and how many times less time than it CDM has to take.
PIXEL_DIFFUSION = {"mds-150": 10.0, "mps-1000": 1.0, BEST: 1.0}
NORMAL_95 = 1.96

Form = Literal["one", "mean"]
Bar = Literal["not behind", "ahead"]


@dataclass(frozen=True)
class Score:
    """A score of records whose larger values are better, once `reduce` has made a group's number of its slices'."""

    name: str
    unit: str
    digits: int
    fields: dict[Form, str]
    reduce: Callable[[np.ndarray], float]

    def gap(self, own: Record, other: Record, form: Form) -> Interval:
        """What ``own`` gains on ``other``, on the slices that both have (one at least)."""
        a, b = on_shared_slices(own, other)
        field = self.fields[form]
        return paired_bootstrap(getattr(a, field), getattr(b, field), a.groups, reduce=self.reduce)

    def text(self, gap: Interval) -> str:
        """A cell of a table."""
        mean = f"{gap.mean:+.{self.digits}f}"
        return mean if gap.low is None else f"{mean} [{gap.low:.{self.digits}f}, {gap.high:.{self.digits}f}]"


PSNR = Score("PSNR", " dB", 2, {"one": "mse", "mean": "mse_mean"}, psnr_of_mse)
SSIM = Score("SSIM", "", 3, {"one": "ssim", "mean": "ssim_mean"}, mean_score)
SCORES = (PSNR, SSIM)


@dataclass(frozen=True)
class Beside:
    """One method against another on one target of one task; ``gaps`` by form and score."""

    task: str
    target: str
    own: Record
    other: Record
    gaps: dict[tuple[Form, str], Interval]

    @property
    def label(self) -> str:
        return f"{self.target} from {self.task}"


@dataclass(frozen=True)
class Claim:
    """``own`` held against ``other``; why one does not hold stands in `reasons`."""

    asked: str
    own: str
    other: str
    bar: Bar
    forms: tuple[Form, ...] = ("one", "mean")


REPRESENTATION = (
    Claim("drawn from the given images: no worse than no guidance", OWN, NULL, "not behind"),
    Claim("the truth's own representation better than a drawn one", CDM_ORACLE, OWN, "ahead", ("one",)),
    Claim("drawn from the given images: better than drawn from nothing", OWN, UNCONDITIONAL, "ahead"),
)


def second_system(results: Results) -> Section:
    """CDM's claims; in words where there is no CDM or a row is missing."""
    absent = _absent(results)
    if absent:
        return Section(TITLE, (), (absent,))
    verdicts, body = [], []
    for part in (_cost, _quality, _representation, _real_subjects):
        found, text = part(results)
        verdicts += found
        body += text
    return Section(TITLE, tuple(verdicts), (_words(results), *body))


def _absent(results: Results) -> str:
    """Why there is nothing to say, in words; empty where there is."""
    if any(r.method == OWN for r in results.records):
        return ""
    why = results.evaluation.left_out.get(OWN)
    return f"CDM is no part of this evaluation: {why or f'it has no row `{OWN}`'}."


def _words(results: Results) -> str:
    tried = {r.method for r in results.records}
    missing = [name for name in (*PIXEL_DIFFUSION, NULL, UNCONDITIONAL, CDM_ORACLE) if name not in tried]
    words = (
        "One sample against one sample, and the mean of the samples against the mean of the samples; a difference is "
        "clear where its whole interval lies on one side of zero."
    )
    return f"{words} Not in this evaluation: {', '.join(missing)}." if missing else words


def _cost(results: Results) -> tuple[list[Verdict], list[str]]:
    """Passes and seconds of one sample of one slice, beside each diffusion on pixels, in synthesis."""
    verdicts, rows = [], []
    for name, times in PIXEL_DIFFUSION.items():
        pairs = list(_pairs(results, "rendered", OWN, name))
        if not pairs:
            continue
        passes = [pair.other.passes / pair.own.passes for pair in pairs]
        seconds = [pair.other.seconds / pair.own.seconds for pair in pairs]
        asked = f"{OWN}: fewer passes than {name}, and " + (f"{times:.0f} times faster" if times > 1 else "faster")
        measured = f"{min(passes):.0f} times fewer, at least {min(seconds):.1f} times faster in {len(pairs)} tasks"
        verdicts.append(Verdict(asked, measured, min(passes) > 1 and min(seconds) >= times))
        own, other = (np.mean([getattr(pair, side).seconds for pair in pairs]) for side in ("own", "other"))
        rows.append([name, str(pairs[0].other.passes), f"{other:.3f}", str(pairs[0].own.passes), f"{own:.3f}"])
    if not rows:
        return [], []
    header = ["beside", "its passes", "its s/slice", f"passes of {OWN}", f"s/slice of {OWN}"]
    note = "Passes are those of the U-Net; seconds hold the encoder and the small diffusion as well."
    return verdicts, [markdown_table(header, rows), note]


def _quality(results: Results) -> tuple[list[Verdict], list[str]]:
    """CDM not clearly behind any diffusion on pixels, in PSNR, in SSIM, and in KID where there are enough images."""
    verdicts, tried = [], []
    for name in PIXEL_DIFFUSION:
        pairs = list(_pairs(results, "rendered", OWN, name))
        claim = Claim(f"{OWN} clearly behind {name} in no task", OWN, name, "not behind")
        verdicts += [*_judged(claim, pairs), *_kid_judged(results, name, pairs)]
        tried += pairs
    return verdicts, _table("What CDM gains on diffusion on pixels", tried)


def _representation(results: Results) -> tuple[list[Verdict], list[str]]:
    """Source no worse than null, oracle better than source, conditional draws better than unconditional ones."""
    verdicts, tried = [], []
    for claim in REPRESENTATION:
        pairs = list(_pairs(results, "rendered", claim.own, claim.other))
        verdicts, tried = [*verdicts, *_judged(claim, pairs)], [*tried, *pairs]
    return verdicts, _table("What the representation brings, on renderings", tried)


def _real_subjects(results: Results) -> tuple[list[Verdict], list[str]]:
    """The setting that CDM was made for: one of several MR contrasts of real subjects is missing."""
    claims = (
        Claim(f"real subjects: {OWN} clearly behind {BEST} in no task", OWN, BEST, "not behind"),
        *(replace(c, asked=f"real subjects, {c.asked}") for c in REPRESENTATION if c.own == OWN),
    )
    verdicts, tried = [], []
    for claim in claims:
        pairs = list(_pairs(results, "real", claim.own, claim.other))
        verdicts, tried = [*verdicts, *_judged(claim, pairs)], [*tried, *pairs]
    names = ", ".join(cases.name for cases in results.of_kind("real"))
    title = f"Real subjects ({names}), who have T1, T2 and T2FLAIR; intervals over subjects"
    return verdicts, _table(title, tried)


def _pairs(results: Results, kind: Kind, own: str, other: str) -> Iterator[Beside]:
    """Both methods on every target of every task, over all sets of a kind, where they share slices."""
    sets = results.of_kind(kind)
    tried = [r for r in results.records if r.method == own and r.cases in {cases.name for cases in sets}]
    for task, target in dict.fromkeys((r.task, r.target) for r in tried):
        a, b = (_over_sets(results, sets, task, target, method) for method in (own, other))
        if a is None or b is None or not set(a.slices) & set(b.slices):
            continue
        forms: list[Form] = ["one", "mean"] if _has_mean(results, a) and _has_mean(results, b) else ["one"]
        yield Beside(task, target, a, b, {(f, s.name): s.gap(a, b, f) for f in forms for s in SCORES})


def _has_mean(results: Results, record: Record) -> bool:
    draws = next((m.draws_samples for m in results.evaluation.methods if m.name == record.method), True)
    return record.samples > 1 or not draws


def _over_sets(results: Results, sets: Sequence[Cases], task: str, target: str, method: str) -> Record | None:
    """One record over several sets, their slices numbered on; None where none of them has one."""
    parts, first = [], 0
    for cases in sets:
        record = results.record(cases.name, task, target, method)
        if record is not None:
            parts.append(replace(record, slices=[first + z for z in record.slices]))
        first += len(cases)
    if len(parts) < 2:
        return parts[0] if parts else None
    lists = [name for name, value in asdict(parts[0]).items() if isinstance(value, list) and name not in IN_HEAD]
    whole = {name: [value for part in parts for value in getattr(part, name)] for name in lists}
    return replace(parts[0], **whole, **dict.fromkeys(IN_HEAD, []), seconds=float(np.mean([p.seconds for p in parts])))


def _judged(claim: Claim, pairs: Sequence[Beside]) -> list[Verdict]:
    """A verdict for each form."""
    words = {"one": "one sample", "mean": "mean of the samples"}
    verdicts = []
    for form in claim.forms:
        tried = [pair for pair in pairs if (form, PSNR.name) in pair.gaps]
        if tried:
            verdicts.append(_verdict(f"{claim.asked}, {words[form]}", claim.bar, tried, form))
    return verdicts


def _verdict(asked: str, bar: Bar, pairs: Sequence[Beside], form: Form) -> Verdict:
    """``not behind``: no interval below zero; ``ahead``: all above it, and not ahead where one lies below."""
    means, behind, every = [], [], []
    for score in SCORES:
        gaps = [pair.gaps[form, score.name] for pair in pairs]
        means.append(f"{score.name} {np.mean([gap.mean for gap in gaps]):+.{score.digits}f}{score.unit}")
        every += [above_zero(gap) for gap in gaps]
        clear = [(pair.label, gap) for pair, gap in zip(pairs, gaps) if above_zero(gap) is False]
        behind += [f"{label} ({gap.mean:+.{score.digits}f}{score.unit or ' SSIM'})" for label, gap in clear]
    known = any(gap.low is not None for pair in pairs for gap in pair.gaps.values())
    measured = f"{', '.join(means)} over {len(pairs)} task{'s' if len(pairs) > 1 else ''}"
    if behind:
        return Verdict(asked, f"{measured}; behind: {', '.join(behind)}", False)
    reached = known if bar == "not behind" else all(every)
    return Verdict(asked, measured, True if reached else None)


def _kid_judged(results: Results, name: str, pairs: Sequence[Beside]) -> list[Verdict]:
    """CDM's KID not clearly above a rival's; no verdict where neither has enough images."""
    found = [(pair, gap) for pair in pairs if (gap := _kid_gap(results, pair)) is not None]
    if not found:
        return []
    above = [f"{pair.label} ({1000 * -gap:.2g})" for pair, (gap, error) in found if gap + NORMAL_95 * error < 0]
    measured = f"1000 × KID lower by {1000 * np.mean([gap for _, (gap, _) in found]):.2g} over {len(found)} tasks"
    measured += f"; above: {', '.join(above)}" if above else ""
    return [Verdict(f"{OWN}: KID clearly above that of {name} in no task", measured, not above)]


def _kid_gap(results: Results, pair: Beside) -> tuple[float, float] | None:
    """How much lower CDM's KID is, and its standard error as if the two were independent."""
    kids = []
    for record in (pair.own, pair.other):
        if record.samples * len(record.slices) < LEAST_FOR_KID:
            return None
        cases = next(c for c in results.evaluation.sets if c.name == record.cases)
        found = results.prediction(cases, record.task, record.method)
        kids.append(None if found is None else realism(results, cases, record.target, found).kid)
    if None in kids:
        return None
    own, other = kids
    return other.value - own.value, float(np.hypot(own.error, other.error))


def _table(title: str, pairs: Sequence[Beside]) -> list[str]:
    """Every comparison of a part, all intervals."""
    if not pairs:
        return []
    header = [
        "method",
        "against",
        "target",
        "from",
        "groups",
        *(f"{s.name}, {f}" for f in ("one", "mean") for s in SCORES),
    ]
    rows = []
    for pair in pairs:
        cells = [
            score.text(pair.gaps[form, score.name]) if (form, score.name) in pair.gaps else "n/a"
            for form in ("one", "mean")
            for score in SCORES
        ]
        groups = _shared_groups(pair)
        rows.append([pair.own.method, pair.other.method, pair.target, pair.task, str(len(set(groups))), *cells])
    return [f"### {title}", markdown_table(header, rows)]


def _shared_groups(pair: Beside) -> Groups:
    return [group for z, group in zip(pair.own.slices, pair.own.groups) if z in pair.other.slices]
