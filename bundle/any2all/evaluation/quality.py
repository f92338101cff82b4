"""Claims about the images themselves: units, lesions, uncertainty, flicker, the self-check, memory of the training."""

from __future__ import annotations

import numpy as np

from ..scores.flicker import flicker_scores
from ..scores.text import markdown_table
from ..scores.uncertainty import coverage, error_by_std, held_by, is_monotone, rank_correlation, spread_ratio
from .alarms import PROPER, alarm_rates
from .cases import Cases
from .lesions import lesion_scores
from .predictions import Prediction
from .regions import amyloid_coverage, cortical_suvr, ct_scores, head_of_labels, pet_scores
from .results import BEST, CENTRED, ONE_PASS, Results, Section, Verdict, number

MANY, FEW = "mcs-10x16", 4
COHERENT, INDEPENDENT = "mcs-10-coherent", "mcs-10-independent"
LEVEL = 0.9


def in_units(results: Results) -> Section | None:
    """CT in HU and bone; PET in SUVr, and whether its samples leave amyloid status open."""
    verdicts, rows, task = [], [], "T1+T2star+T2FLAIR"
    stack = results.evaluation.prior.stack
    for cases in results.of_kind("rendered"):
        groups = np.array(cases.groups)
        head = head_of_labels(cases.labels)
        for method in ("mean_image", "matched_copy", "regression", ONE_PASS, BEST, CENTRED):
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
                    number(ct.mae_hu, 0),
                    number(ct.mae_soft_hu, 0),
                    number(ct.mae_bone_hu, 0),
                    number(ct.bone_dice, 3),
                    number(pet.absolute_error, 3),
                    number(cortex, 3),
                ]
            )
            if method == BEST:
                verdicts.append(
                    Verdict(
                        "CT from T1+T2FLAIR+T2star: bone Dice at least 0.85",
                        f"{number(ct.bone_dice, 3)}; {number(ct.mae_hu, 0)} HU inside the head",
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
            for method in ("L1_wavelet_real", "matched_copy", "regression", ONE_PASS, BEST, CENTRED):
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
                        number(scores.rmse_lesion, 3),
                        number(scores.rmse_rest, 3),
                        number(scores.contrast_truth, 3),
                        number(scores.contrast_estimate, 3),
                        number(scores.detection, 2),
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
    """Whether the std of 16 samples tells the error, and that of the first four of them, as `balanced` draws."""
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
                plain = coverage(samples, truth, inside, LEVEL).normal
                few = samples[:FEW]
                std, of_few = (results.evaluation.written_std(drawn, target, task) for drawn in (samples, few))
                held, held_by_few = (
                    held_by(samples, truth, inside, std, LEVEL),
                    held_by(few, truth, inside, of_few, LEVEL),
                )
                bins = error_by_std(samples, truth, inside, written=std)
                verdicts.append(
                    Verdict(
                        f"{target} from {task}: error rises over bins of std",
                        f"rank correlation {number(rank_correlation(bins), 3)}",
                        is_monotone(bins),
                    )
                )
                verdicts.append(
                    Verdict(
                        f"{target} from {task}: 90 % interval covers 80–97 %",
                        f"{100 * held:.0f} % of 16 samples, {100 * held_by_few:.0f} % of {FEW}; "
                        f"{100 * plain:.0f} % with the samples' own std",
                        all(0.8 <= share <= 0.97 for share in (held, held_by_few)),
                    )
                )
                rows.append(
                    [
                        target,
                        task,
                        f"{100 * plain:.0f} %",
                        f"{100 * held:.0f} %",
                        f"{100 * held_by_few:.0f} %",
                        number(spread_ratio(samples, truth, inside), 2),
                    ]
                )
                bins_rows += [[target, f"{b.std:.4f}", f"{b.error:.4f}"] for b in bins]
    if not rows:
        return None
    header = ["target", "from", "coverage, samples' own std", "std as written", f"by {FEW} samples", "spread ratio"]
    table = markdown_table(header, rows)
    return Section(
        "What the uncertainty is worth (16 samples)",
        tuple(verdicts),
        (table, markdown_table(["target", "predicted std, u", "error of the mean, u"], bins_rows)),
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
                    if scores.mean is None:  # a block without neighbouring slices, or one that does not change
                        continue
                    single = float(np.mean([s for s in scores.single if s is not None]))
                    numbers = (single, scores.mean, scores.correlation, scores.z_correlation)
                    rows.append([cases.name, target, task, method, *(number(n, 3) for n in numbers)])
                    if method == COHERENT:
                        asked = f"{cases.name}, {target}: flicker of a sample 0.9–1.1, of the mean at most 1.05"
                        holds = 0.9 <= single <= 1.1 and scores.mean <= 1.05
                        verdicts.append(Verdict(asked, f"{single:.2f}, {number(scores.mean, 2)}", holds))
    if not rows:
        return None
    header = ["block", "target", "from", "method", "single samples", "mean of 4", "correlation", "of z-differences"]
    card = results.evaluation.prior.card
    rho = ", ".join(f"{name} {value:.2f}" for name, value in zip(card.stack.names, card.noise_correlation()))
    note = f"Noise correlated from slice to slice as the prior's card says ({rho}; coherent), and not (independent)."
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
