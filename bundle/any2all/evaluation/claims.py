"""What the released prior is held to, claim by claim: what was asked, what was measured, whether it holds.

A section is left out where its predictions are not part of the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from .alarms import PROPER, alarm_rates
from .cases import Cases
from .evaluate import Evaluation
from .flicker import flicker_scores
from .lesions import lesion_scores
from .predictions import Prediction
from .records import Record
from .regions import amyloid_coverage, cortical_suvr, ct_scores, head_of_labels, pet_scores
from .statistics import Interval, chain, paired_bootstrap, psnr_of_mse
from .text import markdown_table
from .uncertainty import coverage, error_by_std, is_monotone, rank_correlation, spread_ratio

BEST, QUICKER, ONE_PASS, MANY, SLOW = "mcs-20", "mcs-10", "mcs-1", "mcs-10x16", "mps-1000"
COHERENT, INDEPENDENT = "mcs-10-coherent", "mcs-10-independent"
CHAINS = {
    "T2FLAIR, more images": ("T2FLAIR", ("R4", "R4+T1", "R4+T1+T2star", "R4+T1+T2star+CT+PET")),
    "T2FLAIR, more raw data, then images": ("T2FLAIR", ("R4", "R4-of-three", "mixed")),
    "CT": ("CT", ("T1", "T1+T2star", "T1+T2star+T2FLAIR")),
    "PET": ("PET", ("T1", "T1+T2star", "T1+T2star+T2FLAIR")),
}
RIVALS = ("L1_wavelet", "L1_wavelet_real")
LEVEL = 0.9


@dataclass(frozen=True)
class Verdict:
    """One thing that was asked: in words, what was measured, and whether it holds (None: it cannot be said)."""

    asked: str
    measured: str
    holds: bool | None

    @property
    def word(self) -> str:
        return {True: "yes", False: "NO", None: "–"}[self.holds]


@dataclass(frozen=True)
class Section:
    """A part of the report: verdicts and tables (Markdown)."""

    title: str
    verdicts: tuple[Verdict, ...] = ()
    body: tuple[str, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Results:
    """All records of an evaluation, found by name."""

    evaluation: Evaluation
    records: Sequence[Record]

    def record(self, cases: str, task: str, target: str, method: str) -> Record | None:
        names = (cases, task, target, method)
        return next((r for r in self.records if (r.cases, r.task, r.target, r.method) == names), None)

    def of_kind(self, kind: str) -> list[Cases]:
        return [cases for cases in self.evaluation.sets if cases.kind == kind]

    def rendered(self, task: str, target: str, method: str) -> Record | None:
        """On the renderings."""
        sets = self.of_kind("rendered")
        return self.record(sets[0].name, task, target, method) if sets else None

    def prediction(self, cases: Cases, task: str, method: str) -> Prediction | None:
        return self.evaluation.find(cases.name, task, method)

    def truth(self, cases: Cases, target: str, prediction: Prediction) -> np.ndarray:
        """(Z, H, W) in u, clipped, of the prediction's slices."""
        image = cases.slices[:, self.evaluation.prior.stack.index(target)].clamp(0, 1).numpy()
        return image[list(prediction.slices)]


def difference(a: Record, b: Record, mean: bool = True) -> Interval:
    """PSNR of a minus PSNR of b in dB, of the mean of the samples or of one, on the slices that both have."""
    slices = [z for z in a.slices if z in b.slices]
    first, second = a.on(slices), b.on(slices)
    scores = (first.mse_mean, second.mse_mean) if mean else (first.mse, second.mse)
    return paired_bootstrap(*scores, first.groups, reduce=psnr_of_mse)


def sections(results: Results) -> Iterator[Section]:
    """Every section whose predictions are there, in order."""
    for make in _SECTIONS:
        section = make(results)
        if section is not None:
            yield section


def more_is_better(results: Results) -> Section | None:
    """The total gain of each chain is positive and no step falls by more than its interval."""
    verdicts, rows = [], []
    for name, (target, tasks) in CHAINS.items():
        steps = {task: results.rendered(task, target, BEST) for task in tasks}
        if None in steps.values():
            continue
        first = next(iter(steps.values()))
        found = chain({task: r.mse_mean for task, r in steps.items()}, first.groups, reduce=psnr_of_mse)
        verdicts.append(Verdict(f"{name}: more is better", f"in all {found.total} dB", found.holds))
        rows += [
            [name, step.before, step.after, f"{steps[step.after].psnr_mean:.2f}", str(step.gain), step.verdict]
            for step in found.steps
        ]
    if not rows:
        return None
    header = ["chain", "from", "to", "PSNR there", "gain, dB", "verdict"]
    return Section(f"More inputs are better ({BEST}, mean of 4)", tuple(verdicts), (markdown_table(header, rows),))


def against_mps(results: Results) -> Section | None:
    """Mean of 4 MCS samples against ONE sample of MPS, and mean against mean, on the slices that MPS was tried on.

    In synthesis the 4 samples may cost a twentieth of one MPS sample, with raw data an eighth; of the methods within
    that cost the one with most steps is held to the claim.
    """
    verdicts, rows = [], []
    for slow in [r for r in results.records if r.method == SLOW]:
        tried = [results.record(slow.cases, slow.task, slow.target, name) for name in (BEST, QUICKER)]
        needed = 8 if _has_raw(results, slow.task) else 20
        found = [r.on(slow.slices) for r in tried if r is not None]
        affordable = [r for r in found if slow.passes >= needed * r.passes * r.samples]
        for own in found:
            ours, theirs = f"{own.psnr:.2f} / {own.psnr_mean:.2f}", f"{slow.psnr:.2f} / {slow.psnr_mean:.2f}"
            cost = f"{own.passes} × {own.samples}"
            rows.append([slow.target, slow.task, own.method, ours, theirs, cost, str(slow.passes)])
        if affordable:
            own = affordable[0]
            ratio = slow.passes / (own.passes * own.samples)
            against_one, against_mean = own.psnr_mean - slow.psnr, own.psnr_mean - slow.psnr_mean
            asked = f"{slow.target} from {slow.task}: {needed} times cheaper, not behind one sample, mean within 0.3 dB"
            measured = f"{own.method}: {ratio:.1f} times cheaper, {against_one:+.2f} dB, {against_mean:+.2f} dB"
            verdicts.append(Verdict(asked, measured, against_one >= 0 and against_mean >= -0.3))
    if not rows:
        return None
    slices = ", ".join(str(z) for z in next(r for r in results.records if r.method == SLOW).slices)
    header = ["target", "from", "method", "one / mean of 4", "MPS: one / mean of 4", "passes", "MPS's for one"]
    note = f"Slices {slices} only: too few for an interval. KID needs 200 slices: n/a."
    return Section("Against MPS with 1,000 steps", tuple(verdicts), (note, markdown_table(header, rows)))


def _has_raw(results: Results, task: str) -> bool:
    return any(t.name == task and t.raw for t in results.evaluation.tasks)


def against_regression(results: Results) -> Section | None:
    """One pass against a masked regression U-Net of the same size."""
    pairs = [
        (r, results.record(r.cases, r.task, r.target, "regression")) for r in results.records if r.method == ONE_PASS
    ]
    pairs = [(own, other) for own, other in pairs if other is not None]
    if not pairs:
        return None
    rows, gaps = [], []
    for own, other in pairs:
        gap = difference(own, other)
        gaps.append(gap.mean)
        rows.append([own.cases, own.target, own.task, f"{own.psnr:.2f}", f"{other.psnr:.2f}", str(gap)])
    worst = min(gaps)
    verdict = Verdict(
        "one pass within 0.3 dB of the regression U-Net",
        f"worst {worst:+.2f} dB, mean {np.mean(gaps):+.2f} dB",
        worst >= -0.3,
    )
    header = ["cases", "target", "from", "one pass", "regression", "difference, dB"]
    facts = results.evaluation.model_facts("regression.pt")
    return Section("One pass against a masked regression U-Net", (verdict,), (facts, markdown_table(header, rows)))


def against_shared(results: Results) -> Section | None:
    """The paper's recipe beside ours, through the paper's samplers."""
    rows = []
    for r in results.records:
        if not r.method.endswith("-shared"):
            continue
        own = results.record(r.cases, r.task, r.target, r.method.removesuffix("-shared"))
        if own is not None:
            rows.append(
                [
                    r.target,
                    r.task,
                    own.method,
                    f"{own.psnr:.2f} / {own.psnr_mean:.2f}",
                    f"{r.psnr:.2f} / {r.psnr_mean:.2f}",
                ]
            )
    if not rows:
        return None
    header = ["target", "from", "sampler", "per_modality: one / mean", "shared: one / mean"]
    return Section(
        "The paper's own recipe, `shared`",
        (),
        (results.evaluation.model_facts("shared.pt"), markdown_table(header, rows)),
    )


def against_wavelets(results: Results) -> Section | None:
    """T2FLAIR from R = 4 and T1 against the best-tuned L1-wavelet."""
    verdicts, rows = [], []
    for cases in [*results.of_kind("rendered"), *results.of_kind("real")]:
        own = results.record(cases.name, "R4+T1", "T2FLAIR", BEST)
        rivals = [r for r in (results.record(cases.name, "R4+T1", "T2FLAIR", name) for name in RIVALS) if r]
        if own is None or not rivals:
            continue
        best = max(rivals, key=lambda r: r.psnr)
        gap, needed = difference(own, best), 3.0 if cases.kind == "rendered" else 1.0
        verdicts.append(
            Verdict(
                f"{cases.name}: at least {needed:.0f} dB above the best L1-wavelet", f"{gap} dB", gap.mean >= needed
            )
        )
        rows += [[cases.name, r.method, f"{r.psnr_mean:.2f}", f"{np.mean(r.ssim_mean):.3f}"] for r in [own, *rivals]]
    if not rows:
        return None
    return Section(
        "T2FLAIR from R = 4, 8 coils, and T1",
        tuple(verdicts),
        (markdown_table(["cases", "method", "PSNR", "SSIM"], rows),),
    )


def in_units(results: Results) -> Section | None:
    """CT in HU and bone; PET in SUVr, and whether its samples leave amyloid status open."""
    verdicts, rows, task = [], [], "T1+T2star+T2FLAIR"
    stack = results.evaluation.prior.stack
    for cases in results.of_kind("rendered"):
        groups = np.array(cases.groups)
        head = head_of_labels(cases.labels)
        for method in ("mean_image", "matched_copy", "regression", ONE_PASS, BEST):
            found = results.prediction(cases, task, method)
            if found is None:
                continue
            mean = {name: image.mean(axis=0) for name, image in found.images.items()}
            chosen = list(found.slices)
            ct = ct_scores(mean["CT"], results.truth(cases, "CT", found), stack["CT"].normalisation, head[chosen])
            pet = pet_scores(
                mean["PET"],
                results.truth(cases, "PET", found),
                stack["PET"].normalisation,
                cases.labels[chosen],
                groups[chosen],
            )
            cortex = pet.of("cerebral_cortex").absolute_error
            rows.append(
                [
                    method,
                    _number(ct.mae_hu, 0),
                    _number(ct.mae_soft_hu, 0),
                    _number(ct.mae_bone_hu, 0),
                    _number(ct.bone_dice, 3),
                    _number(pet.absolute_error, 3),
                    _number(cortex, 3),
                ]
            )
            if method == BEST:
                verdicts.append(
                    Verdict(
                        "CT from T1+T2FLAIR+T2star: bone Dice at least 0.85",
                        f"{_number(ct.bone_dice, 3)}; {_number(ct.mae_hu, 0)} HU inside the head",
                        None if ct.bone_dice is None else ct.bone_dice >= 0.85,
                    )
                )
        found = results.prediction(cases, task, MANY)
        if found is not None:
            verdicts += _amyloid(results, cases, found)
    if not rows:
        return None
    header = ["method", "CT: MAE, HU", "soft tissue", "bone", "bone Dice", "PET: SUVr error", "of cortex"]
    return Section(
        f"CT and PET from {task}, in units (mean of the samples)", tuple(verdicts), (markdown_table(header, rows),)
    )


def _amyloid(results: Results, cases: Cases, found: Prediction) -> list[Verdict]:
    """Whether the samples of PET leave both states open; one MR stack fits either."""
    chosen = list(found.slices)
    groups = [cases.groups[z] for z in chosen]
    status = {name: bool(facts["amyloid_positive"]) for name, facts in cases.facts.items()}
    states = {name: facts["cortex_suvr"] for name, facts in cases.facts.items()}
    normalisation = results.evaluation.prior.stack["PET"].normalisation
    truth, labels = results.truth(cases, "PET", found), cases.labels[chosen]
    cortex = cortical_suvr(found.images["PET"], truth, normalisation, labels, groups, status)
    covered = amyloid_coverage(cortex, states)
    words = "; ".join(
        f"{c.mean:.2f} ± {c.std:.2f} (states {states[c.group][0]:.2f} and {states[c.group][1]:.2f})" for c in cortex
    )
    asked = "cortical SUVr of PET's 16 samples, mean ± 1.645 std, covers both amyloid states"
    return [Verdict(asked, f"in {covered.normal} of {covered.groups}: {words}", covered.normal == covered.groups)]


def lesions(results: Results) -> Section | None:
    """Inside the lesions of real subjects with a mask, beside the rest of the brain."""
    rows = []
    for cases in results.of_kind("real"):
        if cases.lesions is None:
            continue
        for task in ("R4+T1", "T1+T2"):
            for method in ("L1_wavelet_real", "matched_copy", "regression", ONE_PASS, BEST):
                found = results.prediction(cases, task, method)
                if found is None:
                    continue
                chosen = list(found.slices)
                scores = lesion_scores(
                    found.images["T2FLAIR"].mean(axis=0),
                    results.truth(cases, "T2FLAIR", found),
                    cases.lesions[chosen],
                    cases.inside[chosen],
                )
                rows.append(
                    [
                        cases.name,
                        task,
                        method,
                        _number(scores.rmse_lesion, 3),
                        _number(scores.rmse_rest, 3),
                        _number(scores.contrast_truth, 3),
                        _number(scores.contrast_estimate, 3),
                        _number(scores.detection, 2),
                        str(scores.n_visible),
                    ]
                )
    if not rows:
        return None
    header = [
        "subject",
        "T2FLAIR from",
        "method",
        "RMSE in lesions, u",
        "elsewhere",
        "true contrast, u",
        "its contrast",
        "kept",
        "of lesions",
    ]
    note = "Kept: fraction of the lesions of a slice whose contrast is at least half of the truth's."
    return Section("Lesions of a real subject", (), (note, markdown_table(header, rows)))


def uncertainty(results: Results) -> Section | None:
    """Whether the standard deviation of 16 samples tells the error."""
    verdicts, rows, bins_rows = [], [], []
    for cases in results.of_kind("rendered"):
        head = head_of_labels(cases.labels)
        for task, targets in (("R4+T1", ("T2FLAIR",)), ("T1+T2star+T2FLAIR", ("CT", "PET"))):
            found = results.prediction(cases, task, MANY)
            if found is None:
                continue
            inside = head[list(found.slices)]
            for target in targets:
                truth, samples = results.truth(cases, target, found), found.images[target]
                plain = coverage(samples, truth, inside, LEVEL)
                scaled = coverage(results.evaluation.widened(samples, target, task), truth, inside, LEVEL)
                bins = error_by_std(samples, truth, inside)
                verdicts.append(
                    Verdict(
                        f"{target} from {task}: error rises over bins of std",
                        f"rank correlation {_number(rank_correlation(bins), 3)}",
                        is_monotone(bins),
                    )
                )
                verdicts.append(
                    Verdict(
                        f"{target} from {task}: 90 % interval covers 80–97 %",
                        f"{100 * scaled.normal:.0f} % with the calibrated std, {100 * plain.normal:.0f} % without",
                        0.8 <= scaled.normal <= 0.97,
                    )
                )
                rows.append(
                    [
                        target,
                        task,
                        f"{100 * plain.normal:.0f} %",
                        f"{100 * scaled.normal:.0f} %",
                        _number(spread_ratio(samples, truth, inside), 2),
                    ]
                )
                bins_rows += [[target, f"{b.std:.4f}", f"{b.error:.4f}"] for b in bins]
    if not rows:
        return None
    table = markdown_table(["target", "from", "coverage, plain std", "coverage, calibrated std", "spread ratio"], rows)
    return Section(
        "What the uncertainty is worth (16 samples)",
        tuple(verdicts),
        (table, markdown_table(["target", "predicted std, u", "error of the mean, u"], bins_rows)),
    )


def real_scans(results: Results) -> Section | None:
    """Synthesis on real subjects against the histogram-matched copy."""
    verdicts, rows = [], []
    for cases in results.of_kind("real"):
        for task, target in (("T1+T2", "T2FLAIR"), ("T1+T2FLAIR", "T2")):
            found = [
                results.record(cases.name, task, target, m) for m in ("matched_copy", "regression", ONE_PASS, BEST)
            ]
            found = [r for r in found if r is not None]
            rows += [
                [cases.name, target, task, r.method, f"{r.psnr_mean:.2f}", f"{np.mean(r.ssim_mean):.3f}"] for r in found
            ]
            copy, own = (results.record(cases.name, task, target, m) for m in ("matched_copy", BEST))
            if copy and own:
                gap = own.psnr_mean - copy.psnr
                verdicts.append(
                    Verdict(
                        f"{cases.name}, {target} from {task}: better than the matched copy", f"{gap:+.2f} dB", gap > 0
                    )
                )
    if not rows:
        return None
    return Section(
        "Real scans, one by one",
        tuple(verdicts),
        (markdown_table(["subject", "target", "from", "method", "PSNR", "SSIM"], rows),),
    )


def flicker(results: Results) -> Section | None:
    """Neighbouring slices of single samples differ as much as the truth's do."""
    verdicts, rows = [], []
    for cases in results.of_kind("block"):
        for task, targets in (("R4+T1", ("T2FLAIR",)), ("T1+T2star+T2FLAIR", ("CT", "PET"))):
            for method in (COHERENT, INDEPENDENT):
                found = results.prediction(cases, task, method)
                if found is None:
                    continue
                for target in targets:
                    truth = results.truth(cases, target, found)
                    scores = flicker_scores(found.images[target], truth, head_of_labels(cases.labels))
                    single = float(np.mean([s for s in scores.single if s is not None]))
                    numbers = (single, scores.mean, scores.correlation, scores.z_correlation)
                    rows.append([cases.name, target, task, method, *(_number(n, 3) for n in numbers)])
                    if method == COHERENT:
                        asked = f"{cases.name}, {target}: flicker of a sample 0.9–1.1, of the mean at most 1.05"
                        holds = 0.9 <= single <= 1.1 and scores.mean <= 1.05
                        verdicts.append(Verdict(asked, f"{single:.2f}, {_number(scores.mean, 2)}", holds))
    if not rows:
        return None
    header = ["block", "target", "from", "method", "single samples", "mean of 4", "correlation", "of z-differences"]
    note = "Noise correlated along z by 0.9 from slice to slice (coherent, the default), and not (independent)."
    table = markdown_table(header, rows)
    return Section("Flicker between 12 neighbouring slices", tuple(verdicts), (note, table))


def self_check(results: Results) -> Section | None:
    """The self-check fires on images that do not belong, and leaves proper ones alone."""
    prior = results.evaluation.prior
    sets = results.of_kind("rendered")
    if not sets or prior.card.selfcheck is None:
        return None
    rates = alarm_rates(prior, sets[0], results.evaluation.batch_size)
    proper = next(rate for rate in rates if rate.kind == PROPER)
    wrong = [rate for rate in rates if rate.kind != PROPER]
    fired, studies = sum(rate.fired for rate in wrong), sum(rate.studies for rate in wrong)
    verdicts = (
        Verdict("fires on at most 5 % of proper studies", f"{100 * proper.share:.1f} %", proper.share <= 0.05),
        Verdict("fires on at least 90 % of wrong ones", f"{100 * fired / studies:.1f} %", fired >= 0.9 * studies),
    )
    rows = [[rate.kind, f"{100 * rate.share:.1f} %", f"{rate.fired} of {rate.studies}"] for rate in rates]
    return Section("The self-check", verdicts, (markdown_table(["studies", "fired", "how many"], rows),))


def not_memorised(results: Results) -> Section | None:
    """Draws from nothing lie no nearer to training slices than held-out slices do."""
    likeness = results.evaluation.likeness() if results.evaluation.likeness is not None else None
    if likeness is None or likeness["distribution"] is None:
        return None
    found = likeness["distribution"]
    measured = (
        f"median {found['median']:.3f} against {found['median_held_out']:.3f}; a draw is the nearer one with "
        f"probability {found['nearer']:.2f}"
    )
    asked = "draws are no nearer to training slices than held-out slices (RMS in u)"
    compared = ", ".join(f"{count} {kind}" for kind, count in likeness["training_slices"].items())
    note = f"{found['n']} draws and {found['n_held_out']} held-out slices against {compared} training slices."
    return Section("Not memorised", (Verdict(asked, measured, found["median"] >= found["median_held_out"]),), (note,))


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


_SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    more_is_better,
    against_mps,
    against_regression,
    against_shared,
    against_wavelets,
    in_units,
    lesions,
    uncertainty,
    real_scans,
    flicker,
    self_check,
    not_memorised,
)
