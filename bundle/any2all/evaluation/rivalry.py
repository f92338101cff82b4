"""Claims against others: more inputs, MPS, regression, the paper's recipe, wavelets, a copied contrast."""

from __future__ import annotations

import numpy as np

from ..scores.statistics import chain, psnr_of_mse
from ..scores.text import markdown_table
from .records import Record
from .results import BEST, CENTRED, FAST, ONE_PASS, QUICKER, Results, Section, Verdict, difference, on_shared_slices

SLOW = "mps-1000"
UNPAIRED = "mcs-20-unpaired"
CHAINS = {
    "T2FLAIR, more images": ("T2FLAIR", ("R4", "R4+T1", "R4+T1+T2star", "R4+T1+T2star+CT+PET")),
    "T2FLAIR, more raw data, then images": ("T2FLAIR", ("R4", "R4-of-three", "mixed")),
    "CT": ("CT", ("T1", "T1+T2star", "T1+T2star+T2FLAIR")),
    "PET": ("PET", ("T1", "T1+T2star", "T1+T2star+T2FLAIR")),
}
FAIR = 1.05  # times the stacks of a rival: more is no comparison of methods
RIVALS = ("L1_wavelet", "L1_wavelet_real")


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
    that cost the one with most steps is held to the claim. What MCS owes to its antithetic pairs, which the paper's
    samplers do not have, shows in the rows without them.
    """
    verdicts, rows, slow_records = [], [], [r for r in results.records if r.method == SLOW]
    for slow in slow_records:
        tried = [results.record(slow.cases, slow.task, slow.target, name) for name in (BEST, QUICKER, UNPAIRED)]
        needed = 8 if _has_raw(results, slow.task) else 20
        found = [both for r in tried if r is not None and (both := on_shared_slices(r, slow)) is not None]
        paired = [both for both in found if both[0].method != UNPAIRED]
        affordable = [both for both in paired if slow.passes >= needed * both[0].passes * both[0].samples]
        for own, other in found:
            ours, theirs = f"{own.psnr:.2f} / {own.psnr_mean:.2f}", f"{other.psnr:.2f} / {other.psnr_mean:.2f}"
            cost = f"{own.passes} × {own.samples}"
            rows.append([slow.target, slow.task, own.method, ours, theirs, cost, str(slow.passes)])
        if affordable:
            verdicts.append(_at_its_cost(*affordable[0], needed))
    if not rows:
        return None
    header = ["target", "from", "method", "one / mean of 4", "MPS: one / mean", "passes", "MPS's for one"]
    note = (
        f"{_few_slices(results, slow_records[0])}The samples of mcs come in antithetic pairs: one sample is as before, "
        f"the mean is sharper; {UNPAIRED} and MPS draw independent ones."
    )
    return Section("Against MPS with 1,000 steps", tuple(verdicts), (note, markdown_table(header, rows)))


def _few_slices(results: Results, record: Record) -> str:
    """Which slices a record has, where these are not all of its cases; else nothing."""
    count = next(len(cases) for cases in results.evaluation.sets if cases.name == record.cases)
    if len(record.slices) == count:
        return ""
    return f"Slices {', '.join(map(str, record.slices))} only: too few for an interval. KID needs 200 slices: n/a. "


def _at_its_cost(own: Record, slow: Record, needed: int) -> Verdict:
    """Means are compared where the slow method has several samples."""
    ratio = slow.passes / (own.passes * own.samples)
    against_one, against_mean = own.psnr_mean - slow.psnr, own.psnr_mean - slow.psnr_mean
    asked = f"{slow.target} from {slow.task}: {needed} times cheaper, not behind one sample"
    measured = f"{own.method}: {ratio:.1f} times cheaper, {against_one:+.2f} dB"
    if slow.samples == 1:
        return Verdict(asked, measured, against_one >= 0)
    holds = against_one >= 0 and against_mean >= -0.3
    return Verdict(f"{asked}, mean within 0.3 dB", f"{measured}, {against_mean:+.2f} dB", holds)


def _has_raw(results: Results, task: str) -> bool:
    return any(t.name == task and t.raw for t in results.evaluation.tasks)


def against_regression(results: Results) -> Section | None:
    """One pass against a masked regression U-Net of the same size, and halfway between both, as `fast` is."""
    tried = [
        (r, results.record(r.cases, r.task, r.target, "regression")) for r in results.records if r.method == ONE_PASS
    ]
    pairs = [both for r, other in tried if other is not None and (both := on_shared_slices(r, other)) is not None]
    if not pairs:
        return None
    rows, gaps, gains = [], [], []
    for own, other in pairs:
        gap, fast = difference(own, other), results.record(own.cases, own.task, own.target, FAST)
        gaps.append(gap.mean)
        both = None if fast is None else on_shared_slices(fast, own)
        gains += [] if both is None else [both[0].psnr - both[1].psnr]
        halfway = "n/a" if fast is None else f"{fast.psnr:.2f}"
        rows.append([own.cases, own.target, own.task, f"{own.psnr:.2f}", f"{other.psnr:.2f}", str(gap), halfway])
    worst, times = min(gaps), results.evaluation.trained_longer("regression.pt")
    fair = times is None or times <= FAIR
    verdict = Verdict(
        "one pass within 0.3 dB of the regression U-Net, trained as long",
        f"worst {worst:+.2f} dB, mean {np.mean(gaps):+.2f} dB" + ("" if fair else f", on {times:.1f} times its stacks"),
        False if worst < -0.3 else True if fair else None,
    )
    verdicts = [verdict]
    if gains:
        measured = f"{np.mean(gains):+.2f} dB over {len(gains)} tasks, worst {min(gains):+.2f} dB"
        verdicts.append(Verdict("`fast`, halfway between both, ahead of one pass", measured, bool(np.mean(gains) > 0)))
    header = ["cases", "target", "from", "one pass", "regression", "difference, dB", "`fast`"]
    facts = results.evaluation.model_facts("regression.pt")
    return Section("One pass against a masked regression U-Net", tuple(verdicts), (facts, markdown_table(header, rows)))


def centring(results: Results) -> Section | None:
    """Means of samples as a study gets them, moved halfway to the mean that one pass states, beside both."""
    rows, gains = [], {}
    for r in [r for r in results.records if r.method == CENTRED]:
        plain = results.record(r.cases, r.task, r.target, BEST)
        both = None if plain is None else on_shared_slices(r, plain)
        if both is None:
            continue
        centred, plain = both
        gain = centred.psnr_mean - plain.psnr_mean
        gains.setdefault(r.cases, []).append(gain)
        others = [results.record(r.cases, r.task, r.target, name) for name in (ONE_PASS, "regression")]
        beside = ["n/a" if other is None else f"{other.psnr:.2f}" for other in others]
        rows.append(
            [r.cases, r.target, r.task, f"{plain.psnr_mean:.2f}", f"{centred.psnr_mean:.2f}", f"{gain:+.2f}", *beside]
        )
    if not rows:
        return None
    verdicts = []
    for cases in results.evaluation.sets:
        if cases.name in gains:
            mean, least = float(np.mean(gains[cases.name])), 0.0 if cases.kind == "real" else -0.1
            asked = f"{cases.name}: centred means {'ahead' if cases.kind == 'real' else 'at most 0.1 dB behind'}"
            verdicts.append(Verdict(asked, f"{mean:+.2f} dB over {len(gains[cases.name])} tasks", mean > least))
    header = ["cases", "target", "from", "mean of 4", "centred", "gain", "one pass", "regression"]
    note = "PSNR of means of missing images. Where the target was measured, centring changes nothing."
    return Section("Samples centred halfway on the stated mean", tuple(verdicts), (note, markdown_table(header, rows)))


def against_shared(results: Results) -> Section | None:
    """The paper's recipe beside ours, through the paper's samplers."""
    rows = []
    for r in results.records:
        if not r.method.endswith("-shared"):
            continue
        own = results.record(r.cases, r.task, r.target, r.method.removesuffix("-shared"))
        both = None if own is None else on_shared_slices(own, r)
        if both is not None:
            scores = [f"{one.psnr:.2f} / {one.psnr_mean:.2f}" for one in both]
            rows.append([r.target, r.task, own.method, str(len(both[0].slices)), *scores])
    if not rows:
        return None
    header = ["target", "from", "sampler", "slices", "per_modality: one / mean", "shared: one / mean"]
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
        rivals = [r for r in rivals if own is not None and on_shared_slices(own, r) is not None]
        if not rivals:
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


def real_scans(results: Results) -> Section | None:
    """Synthesis on real subjects against the histogram-matched copy."""
    verdicts, rows = [], []
    for cases in results.of_kind("real"):
        for task, target in (("T1+T2", "T2FLAIR"), ("T1+T2FLAIR", "T2")):
            methods = ("matched_copy", "regression", ONE_PASS, BEST, CENTRED)
            found = [results.record(cases.name, task, target, method) for method in methods]
            found = [r for r in found if r is not None]
            rows += [
                [cases.name, target, task, r.method, f"{r.psnr_mean:.2f}", f"{np.mean(r.ssim_mean):.3f}"] for r in found
            ]
            copy, own = (results.record(cases.name, task, target, m) for m in ("matched_copy", BEST))
            both = on_shared_slices(own, copy) if copy and own else None
            if both is not None:
                gap = both[0].psnr_mean - both[1].psnr
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
