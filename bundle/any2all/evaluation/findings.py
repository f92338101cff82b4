"""The paper's findings on this prior, claim by claim, and `mcs` beside every other method on the same ground.

Methods are compared on the slices that both were tried on, one sample with one sample, since the paper's methods draw
one. A difference holds where its whole interval lies above zero, and does not where the whole lies below; what it
cannot tell, as with a single rendering, is left open.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..scores.statistics import Interval, chain, psnr_of_mse
from ..scores.text import markdown_table
from .records import Record
from .results import BEST, Results, Section, Verdict, difference
from .tasks import Method

SLOW, QUICK = "mps-1000", "mds-150"
SAMPLERS = (SLOW, QUICK, BEST)
RECIPES = {"per_modality": "", "shared": "-shared"}  # ending of a method's name by the recipe of its prior
AUXILIARY = ("R4", "R4+T1", "R4+T1+T2star", "R4+T1+T2star+CT+PET")
RECONSTRUCTION = (*AUXILIARY, "R8+T1", "R4-of-three", "mixed", "mixed-T2star")
CT_SYNTHESIS = ("T1", "T1+T2star", "T1+T2star+T2FLAIR", "T1+T2star+T2FLAIR+PET")
DRAWN = ("ancestral-50{} (mps)", "mds-50{}")  # names of draws from nothing
BETTER, MORE = "R4", "R8+T1"
NOTE = (
    "On the slices that both were tried on: one sample against one sample where the method draws samples, else the "
    "mean of our samples against its one image."
)


def auxiliary_inputs(results: Results) -> Section | None:
    """Every auxiliary modality helps the reconstruction of T2FLAIR, and T1 brings the largest gain."""
    verdicts, rows = [], []
    for method in _methods():
        records = [r for task in AUXILIARY if (r := results.rendered(task, "T2FLAIR", method)) is not None]
        if len(records) < 2 or records[0].task != BETTER:
            continue
        found = chain({r.task: r.mse for r in records}, records[0].groups, reduce=psnr_of_mse)
        last = records[-1].task
        asked = f"{method}: each auxiliary modality helps T2FLAIR, up to {last}"
        verdicts.append(Verdict(asked, f"in all {found.total} dB", found.holds))
        gains = {step.after: step.gain.mean for step in found.steps}
        rows += [[method, step.after, str(step.gain), step.verdict] for step in found.steps]
        if "R4+T1" in gains and len(gains) > 1:
            words = ", ".join(f"{task} {gain:+.2f}" for task, gain in gains.items())
            most = max(gains, key=gains.__getitem__) == "R4+T1" and gains["R4+T1"] > 0
            verdicts.append(Verdict(f"{method}: T1 brings the largest gain", f"{words} dB", most))
    if not rows:
        return None
    table = markdown_table(["method", "with", "gain of one sample, dB", "verdict"], rows)
    return Section("The paper: auxiliary modalities help", tuple(verdicts), (table,))


def reconstruction(results: Results) -> Section | None:
    """MDS is ahead of MPS in the PSNR of reconstructions."""
    tried = _pairs(results, QUICK, SLOW, RECONSTRUCTION, "T2FLAIR")
    return _ahead("The paper: MDS ahead of MPS in reconstruction, PSNR", tried)


def ct_synthesis(results: Results) -> Section | None:
    """MPS is ahead of MDS in the synthesis of CT."""
    tried = _pairs(results, SLOW, QUICK, CT_SYNTHESIS, "CT")
    return _ahead("The paper: MPS ahead of MDS in CT synthesis, PSNR", tried)


def more_or_better(results: Results) -> Section | None:
    """More modalities beat better measurements: R = 8 with T1 against R = 4 without."""
    tried = [
        (method, more, better)
        for method in _methods()
        if (more := results.rendered(MORE, "T2FLAIR", method)) is not None
        and (better := results.rendered(BETTER, "T2FLAIR", method)) is not None
        and set(more.slices) & set(better.slices)
    ]
    return _ahead("The paper: more modalities beat better measurements (R = 8 with T1 against R = 4 without)", tried)


def realism(results: Results) -> Section | None:
    """MPS is ahead of MDS in how real whole stacks look that are drawn from nothing (where MPS is ancestral)."""
    experiment = results.evaluation.unconditional
    if experiment is None:
        return None
    found = {distance.name: distance for distance in experiment.distances}
    verdicts = []
    for recipe, ending in RECIPES.items():
        mps, mds = (found.get(name.format(ending)) for name in DRAWN)
        if mps is None or mds is None:
            continue
        theirs, ours = (float(np.mean([fid.value for fid in d.fid.values()])) for d in (mps, mds))
        asked = f"{recipe}: FID of MPS below that of MDS, mean over modalities"
        verdicts.append(Verdict(asked, f"{theirs:.3g} against {ours:.3g}, {mps.n} draws each", theirs < ours))
    return Section("The paper: MPS ahead of MDS in FID", tuple(verdicts)) if verdicts else None


def against_everyone(results: Results) -> Section | None:
    """`mcs` beside every other method on the same operators, seeds and slices: no task where it is clearly behind."""
    verdicts = []
    for method in results.evaluation.methods:
        no_rival = method.sees_truth or (method.sampler == "mcs" and method.model is None)
        tried = [] if no_rival else list(_beside(results, method))
        if not tried:
            continue
        behind = [other for other, gap in tried if above_zero(gap) is False]
        measured = f"{np.mean([gap.mean for _, gap in tried]):+.2f} dB over {len(tried)} tasks"
        if behind:
            measured += "; behind: " + ", ".join(f"{r.target} from {r.task}" for r in behind)
        known = any(gap.low is not None for _, gap in tried)
        asked = f"{BEST} clearly behind {method.name} in no task, PSNR"
        verdicts.append(Verdict(asked, measured, not behind if known else None))
    return Section(f"{BEST} against every other method", tuple(verdicts), (NOTE,)) if verdicts else None


def _beside(results: Results, method: Method) -> Iterator[tuple[Record, Interval]]:
    """A method's record of each task on renderings, and what BEST gains on it in dB."""
    for cases in results.of_kind("rendered"):
        for other in (r for r in results.records if (r.cases, r.method) == (cases.name, method.name)):
            own = results.record(cases.name, other.task, other.target, BEST)
            gap = None if own is None else difference(own, other, mean=not method.draws_samples)
            if gap is not None:
                yield other, gap


def _methods() -> list[str]:
    return [sampler + ending for sampler in SAMPLERS for ending in RECIPES.values()]


def _pairs(
    results: Results, first: str, second: str, tasks: tuple[str, ...], target: str
) -> list[tuple[str, Record, Record]]:
    """(recipe, record of the first sampler, of the second) for every task on which both were tried on some slice."""
    return [
        (f"{task}, {recipe}" if len(tasks) > 1 else recipe, a, b)
        for recipe, ending in RECIPES.items()
        for task in tasks
        if (a := results.rendered(task, target, first + ending)) is not None
        and (b := results.rendered(task, target, second + ending)) is not None
        and set(a.slices) & set(b.slices)
    ]


def _ahead(title: str, tried: list[tuple[str, Record, Record]]) -> Section | None:
    """A verdict for each comparison: whether the first record is ahead of the second."""
    verdicts = []
    for words, a, b in tried:
        gap = difference(a, b, mean=False)
        slices = len(set(a.slices) & set(b.slices))
        verdicts.append(Verdict(f"{a.target}: {words}", f"{gap} dB, {slices} slices", above_zero(gap)))
    return Section(title, tuple(verdicts)) if verdicts else None


def above_zero(gap: Interval) -> bool | None:
    """Whether an interval lies above zero; None where it cannot be told."""
    if gap.low is None or gap.high is None:
        return None
    return True if gap.low > 0 else False if gap.high < 0 else None
