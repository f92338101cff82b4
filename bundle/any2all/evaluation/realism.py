"""Sections on images as a distribution: unconditional generation, and our sampler beside every other method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..scores.statistics import holm, mean_score, p_text, paired_wilcoxon, psnr_of_mse
from ..scores.text import markdown_table
from .cases import Cases
from .distribution import ENOUGH_FOR_FID, FID, KID, LEAST_FOR_KID, fid, kid
from .perception import STRUCTURE, Perception
from .predictions import Prediction
from .records import Record
from .results import BEST, Results, Section, difference, number, on_shared_slices
from .unconditional import Distance

OWN_NETWORK = "our own small network, so these numbers compare with one another only, never with a published FID"
TESTED = (
    "p: Wilcoxon's signed-rank test over renderings, two-sided, each method against {own}, corrected by Holm for the "
    "methods of one table; with fewer than 6 renderings not tested."
)


def unconditional(results: Results) -> Section | None:
    """FID and KID of draws from nothing, by modality, between the floor and what training heads reach."""
    experiment = results.evaluation.unconditional
    if experiment is None:
        return None
    found, names = experiment.distances, list(experiment.prior.stack.names)
    header = ["from nothing", "N", "passes", "s/draw", *names, "mean"]
    tables = [
        markdown_table([f"FID, {header[0]}", *header[1:]], [_fid_row(d, names) for d in found]),
        markdown_table([f"1000 × KID, {header[0]}", *header[1:]], [_kid_row(d, names) for d in found]),
    ]
    return Section("Unconditional generation", (), (_words(experiment.features.name, experiment.draws), *tables))


def _words(features: str, n: int) -> str:
    whose = f" ({OWN_NETWORK})" if features.startswith("any2all") else ""
    parts = [
        f"Against {n} held-out rendered slices, N equal on both sides. Features: {features}{whose}.",
        "KID ± its standard error over draws and renderings; below zero is noise about zero.",
        "mps without data is ancestral sampling.",
    ]
    if n < ENOUGH_FOR_FID:
        parts.append(f"FID of fewer than {ENOUGH_FOR_FID} images is too large by an amount that the floor shows.")
    if n < LEAST_FOR_KID:
        parts.append(f"KID needs {LEAST_FOR_KID} slices: n/a.")
    return " ".join(parts)


def _start(distance: Distance) -> list[str]:
    seconds = "–" if distance.seconds is None or not distance.passes else f"{distance.seconds:.2f}"
    return [distance.name, str(distance.n), str(distance.passes or "–"), seconds]


def _fid_row(distance: Distance, names: Sequence[str]) -> list[str]:
    values = [distance.fid[name].value for name in names]
    return [*_start(distance), *(f"{value:.3g}" for value in (*values, np.mean(values)))]


def _kid_row(distance: Distance, names: Sequence[str]) -> list[str]:
    values = [distance.kid[name] for name in names]
    mean = "n/a" if None in values else f"{1000 * np.mean([v.value for v in values]):.2g}"
    return [*_start(distance), *("n/a" if v is None else str(v) for v in values), mean]


@dataclass(frozen=True)
class Realism:
    """FID of one sample of every slice and KID of all samples; None where it cannot be measured."""

    fid: FID | None
    kid: KID | None


def realism(results: Results, cases: Cases, target: str, found: Prediction) -> Realism:
    """Of a prediction's target beside its truth, by the evaluation's features; KID from 200 slice samples on."""
    features = results.evaluation.features
    if features is None or len(found.slices) < 2:
        return Realism(None, None)
    samples, true = found.images[target], features(results.truth(cases, target, found))
    one = fid(features(samples[0]), true)
    groups = [cases.groups[z] for z in found.slices]
    if samples[..., 0, 0].size < LEAST_FOR_KID or len(set(groups)) < 2:
        return Realism(one, None)
    every = features(samples.reshape(-1, *samples.shape[2:]))
    return Realism(one, kid(every, true, groups * len(samples), groups))


def perception(results: Results) -> Perception:
    """FID of one sample of every slice, for records that have all slices of their set; without features `STRUCTURE`."""
    features = results.evaluation.features
    if features is None:
        return STRUCTURE
    known: dict[tuple[str, ...], float | None] = {}

    def of(record: Record) -> float | None:
        cases = next(c for c in results.evaluation.sets if c.name == record.cases)
        if len(record.slices) < len(cases):
            return None
        key = (record.cases, record.task, record.target, record.method)
        if key not in known:
            found = results.prediction(cases, record.task, record.method)
            distance = None if found is None else realism(results, cases, record.target, found).fid
            known[key] = None if distance is None else distance.value
        return known[key]

    return Perception(
        "FID of one sample of every slice",
        of,
        f"Features: {features.name}. FID of few slices is too large, by an amount that depends on their number: "
        "compare within one figure only. Methods that were tried on some of the slices are left out.",
    )


@dataclass(frozen=True)
class Rivalry:
    """Our sampler against the other methods on one target of one task.

    Attributes:
        cases, task, target: what was tried.
        own: our record.
        others: the other methods' records.
        p_psnr, p_ssim: adjusted p by method; None: not tested.
    """

    cases: Cases
    task: str
    target: str
    own: Record
    others: tuple[Record, ...]
    p_psnr: Mapping[str, float | None]
    p_ssim: Mapping[str, float | None]


def rivalries(results: Results, own: str = BEST) -> list[Rivalry]:
    """One for each target of each task that ``own`` was tried on, of rendered cases."""
    found = []
    for cases in results.of_kind("rendered"):
        same = [r for r in results.records if r.cases == cases.name]
        for task, target in dict.fromkeys((r.task, r.target) for r in same):
            ours = results.record(cases.name, task, target, own)
            others = tuple(r for r in same if (r.task, r.target) == (task, target) and r.method != own)
            if ours is None or not others:
                continue
            tests = [_tested(ours, other) for other in others]
            p_psnr, p_ssim = (holm([t[i] for t in tests]) for i in (0, 1))
            names = [r.method for r in others]
            found.append(Rivalry(cases, task, target, ours, others, dict(zip(names, p_psnr)), dict(zip(names, p_ssim))))
    return found


def _tested(own: Record, other: Record) -> tuple[float | None, float | None]:
    """p of PSNR and of SSIM of the mean of the samples, on the slices that both have."""
    shared = on_shared_slices(own, other)
    if shared is None:
        return None, None
    a, b = shared
    return (
        paired_wilcoxon(a.mse_mean, b.mse_mean, a.groups, psnr_of_mse),
        paired_wilcoxon(a.ssim_mean, b.ssim_mean, a.groups, mean_score),
    )


def against_every_peer(results: Results) -> Section | None:
    """Quality, realism and cost of our sampler beside every other method, with tests where there are enough."""
    tables = []
    for rivalry in rivalries(results):
        rows = [_rival_row(results, rivalry, record) for record in (rivalry.own, *rivalry.others)]
        tables.append(f"### {rivalry.target} from {rivalry.task}: {BEST}\n\n{markdown_table(_HEADER, rows)}")
    if not tables:
        return None
    features = results.evaluation.features
    words = "PSNR and SSIM of one sample / of the mean of the samples; differences and p are of the mean. "
    words += "FID of one sample of every slice beside its truth; KID of all samples, pairs within a rendering left "
    words += f"out, n/a below {LEAST_FOR_KID} slice samples; both on few slices: see N. "
    words += "Features: none. " if features is None else f"Features: {features.name}. "
    return Section(f"{BEST} against every peer", (), (words + TESTED.format(own=BEST), *tables))


_HEADER = [
    "method",
    "PSNR",
    "SSIM",
    "FID (N)",
    "1000 × KID",
    "passes",
    "s/slice",
    f"{BEST} gains, dB",
    "p, PSNR",
    "p, SSIM",
]


def _rival_row(results: Results, rivalry: Rivalry, record: Record) -> list[str]:
    prediction = results.prediction(rivalry.cases, record.task, record.method)
    found = Realism(None, None) if prediction is None else realism(results, rivalry.cases, record.target, prediction)
    several = record.samples > 1
    ssim, ssim_mean = float(np.mean(record.ssim)), float(np.mean(record.ssim_mean))
    is_own = record is rivalry.own
    return [
        record.method,
        f"{record.psnr:.2f}" + (f" / {record.psnr_mean:.2f}" if several else ""),
        f"{number(ssim, 3)}" + (f" / {number(ssim_mean, 3)}" if several else ""),
        "n/a" if found.fid is None else str(found.fid),
        "n/a" if found.kid is None else str(found.kid),
        str(record.passes or "–"),
        f"{record.seconds:.3f}",
        "" if is_own else str(difference(rivalry.own, record) or "n/a"),
        "" if is_own else p_text(rivalry.p_psnr[record.method]),
        "" if is_own else p_text(rivalry.p_ssim[record.method]),
    ]
