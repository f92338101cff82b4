"""The paper's findings, then what the released prior is held to: what was asked, what was measured, whether it holds.

A section is left out where its predictions are not part of the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import findings, quality, realism, rivalry
from .reasons import explained, load_reasons
from .results import Results, Section
from .second_system import second_system

SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    findings.auxiliary_inputs,
    findings.reconstruction,
    findings.ct_synthesis,
    findings.realism,
    findings.more_or_better,
    findings.against_everyone,
    rivalry.more_is_better,
    rivalry.against_mps,
    rivalry.against_regression,
    rivalry.centring,
    rivalry.against_shared,
    rivalry.against_wavelets,
    realism.against_every_peer,
    second_system,
    quality.in_units,
    quality.lesions,
    quality.uncertainty,
    rivalry.real_scans,
    quality.flicker,
    quality.self_check,
    realism.unconditional,
    quality.not_memorised,
)


def sections(results: Results) -> Iterator[Section]:
    """Every section whose predictions are there, in order; what does not hold with its reason, where one is known."""
    reasons, checksums = load_reasons(), results.evaluation.checksums
    for make in SECTIONS:
        section = make(results)
        if section is not None:
            yield explained(section, reasons, checksums)
