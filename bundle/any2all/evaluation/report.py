"""From records to the report that people read: verdicts, overview, sections, then every number.

In ``output_dir``: ``report.html`` (with the figures), ``report.md`` (the same words and tables), ``figures/*.pdf``,
``numbers.csv`` (a line for each record), ``results.json`` (everything, slice by slice), and a picture for each set of
cases. In ``report_dir``, small enough to commit: ``index.html``, ``numbers.csv``, ``results.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..scores.text import markdown_table
from . import realism
from .claims import sections
from .document import document, write_json
from .evaluate import Evaluation
from .figures import draw_figures, write_pdf
from .page import Page
from .pictures import draw_pictures
from .records import Record, write_csv
from .results import Results, Section, same_slices

FLAGS = (
    "PSNR in dB and SSIM in u clipped to [0, 1], data range 1, over all pixels of the prior's own grid; `head`: "
    "over those inside the head, every slice of the same weight.",
    "k-space is simulated on that grid and reconstructed with the maps that made it, without phase (an inverse crime); "
    "the truth's intensity scale is known.",
    "Rendered heads: no real CT or PET exists in this data. Intervals are 95 % paired bootstrap over renderings, not "
    "over people: renderings of one head vary less, and intervals of few groups are too narrow.",
)
MOST_MB = 3.0  # of the page, CSV and JSON that are committed
EXPLANATION = (
    "one: one sample; mean: the mean of all samples; spread: std of the samples over the error of their mean (0.89 for "
    "4 exact samples); passes and s/slice: of one sample of one slice."
)


def overview(records: Sequence[Record]) -> str:
    """Methods down, tasks across: PSNR of one sample / of the mean of the samples."""
    columns = list(dict.fromkeys((r.task, r.target) for r in records))
    cells = {(r.task, r.target, r.method): r for r in records}
    rows = []
    for method in dict.fromkeys(r.method for r in records):
        found = [cells.get((*column, method)) for column in columns]
        rows.append([method, *("n/a" if record is None else _psnr(record) for record in found)])
    return markdown_table(["PSNR, one / mean", *(f"{target} from {task}" for task, target in columns)], rows)


def _psnr(record: Record) -> str:
    mean = f" / {record.psnr_mean:.2f}" if record.samples > 1 else ""
    return f"{record.psnr:.2f}{mean}"


def overviews(records: Sequence[Record]) -> list[str]:
    """One overview for what was measured, one for what is synthetic."""
    raw = [r for r in records if r.measured]
    return [overview(part) for part in (raw, [r for r in records if not r.measured]) if part]


def details(records: Sequence[Record]) -> str:
    """All numbers, one block for each task and target."""
    header = [
        "method",
        "passes",
        "s/slice",
        "PSNR one",
        "SSIM one",
        "PSNR mean",
        "SSIM mean",
        "samples",
        "spread",
        "PSNR head",
        "SSIM head",
    ]
    blocks = []
    for task, target in dict.fromkeys((r.task, r.target) for r in records):
        rows = [_row(r) for r in records if (r.task, r.target) == (task, target)]
        blocks.append(f"### {target} from {task}\n\n{markdown_table(header, rows)}")
    return "\n\n".join(blocks)


def _row(record: Record) -> list[str]:
    numbers = record.summary()
    several = record.samples > 1
    return [
        record.method,
        str(record.passes or "–"),
        f"{record.seconds:.3f}",
        f"{numbers['psnr_db']:.2f}",
        f"{numbers['ssim']:.3f}",
        f"{numbers['psnr_mean_db']:.2f}" if several else "–",
        f"{numbers['ssim_mean']:.3f}" if several else "–",
        str(record.samples),
        f"{record.spread_ratio:.2f}" if several and record.spread_ratio is not None else "–",
        _or_dash(numbers["psnr_mean_head_db"], 2),
        _or_dash(numbers["ssim_mean_head"], 3),
    ]


def _or_dash(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader has to know of this prior and these data."""
    card = evaluation.prior.card
    calibrated = "calibrated" if card.calibration else "NOT calibrated (r_k² by formula)"
    sets = [f"{c.name} ({c.kind}: {len(c)} slices, {', '.join(dict.fromkeys(c.groups))})" for c in evaluation.sets]
    simulation = ", ".join(f"{key} {value}" for key, value in evaluation.simulation.items())
    found = [
        f"Prior {str(card.sha256)[:12]}, {card.noise_levels}, {calibrated}, {card.matrix[0]}×{card.matrix[1]} at "
        f"{card.spacing_mm[0]} mm. Simulation: {simulation}. Seed {evaluation.seed}.",
        "Cases: " + "; ".join(sets) + ".",
    ]
    if evaluation.mean_image is None:
        found.append("This prior has no mean training image: synthetic images stand without that baseline.")
    bounds = [method.name for method in evaluation.methods if method.sees_truth]
    if bounds:
        found.append(f"{', '.join(bounds)} looks at the truth: an upper bound that nobody has in practice, no result.")
    left_out = [f"{name} ({why})" for name, why in evaluation.left_out.items()]
    if left_out:
        found.append(f"Left out: {'; '.join(left_out)}.")
    return found


def section_text(section: Section) -> str:
    """One section in Markdown."""
    rows = [[v.asked, v.measured, v.word] for v in section.verdicts]
    table = [markdown_table(["asked", "measured", "holds"], rows)] if rows else []
    reasons = [f"Why not “{v.asked}”: {v.reason}" for v in section.verdicts if v.reason]
    return "\n\n".join([f"## {section.title}", *table, *reasons, *section.body])


def tally(found: Sequence[Section]) -> str:
    """How many of the things asked hold, in a sentence; empty when nothing was asked."""
    verdicts = [v for section in found for v in section.verdicts]
    held, unknown = (sum(v.holds is word for v in verdicts) for word in (True, None))
    return f"Of {len(verdicts)} things asked {held} hold, {unknown} cannot be said." if verdicts else ""


def numbers(evaluation: Evaluation, records: Sequence[Record]) -> list[tuple[str, str]]:
    """Title and Markdown of the tables of every set of cases, then of the slices that only some methods had."""
    found = []
    for cases in evaluation.sets:
        for slices, part in same_slices([r for r in records if r.cases == cases.name]):
            title = f"All numbers: {cases.name}" + (f", slices {', '.join(map(str, slices))} only" if slices else "")
            found.append((title, "\n\n".join([*overviews(part), EXPLANATION, details(part)])))
    return found


def report(evaluation: Evaluation, records: Sequence[Record], found: Sequence[Section]) -> str:
    """The whole document in Markdown."""
    parts = ["# Evaluation", *FLAGS, *notes(evaluation), *filter(None, [tally(found)]), *map(section_text, found)]
    parts += [f"## {title}\n\n{text}" for title, text in numbers(evaluation, records)]
    return "\n\n".join(parts) + "\n"


def publish(
    evaluation: Evaluation,
    records: Sequence[Record],
    report_dir: Path | None = None,
) -> None:
    """Print the document and write it with all that belongs to it, see the head of this file.

    Args:
        evaluation, records: what was measured; with its ``output_dir`` the whole report is written there.
        report_dir: where the set that is small enough to commit goes; None: nowhere.
    """
    results = Results(evaluation, records)
    found = list(sections(results))
    text = report(evaluation, records, found)
    print(text)
    folder = evaluation.output_dir
    if folder is None and report_dir is None:
        return
    perception = realism.perception(results)
    drawings = draw_figures(results, perception)
    page = Page(
        "Evaluation of the Any2all prior",
        " ".join(filter(None, [tally(found), f"Cases: {', '.join(c.name for c in evaluation.sets)}."])),
        [*FLAGS, *notes(evaluation)],
        found,
        drawings,
        numbers(evaluation, records),
    ).html()
    content = document(results, found, drawings, perception)
    for place, name in ((folder, "report.html"), (report_dir, "index.html")):
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(page, encoding="utf-8")
            write_csv(records, place / "numbers.csv")
            write_json(content, place / "results.json")
            size = sum((place / file).stat().st_size for file in (name, "numbers.csv", "results.json")) / 1e6
            over = f", MORE than the {MOST_MB} MB that are fit to commit" if size > MOST_MB else ""
            print(f"report and numbers: {place} ({size:.2f} MB{over})")
    if folder is not None:
        (folder / "report.md").write_text(text, encoding="utf-8")
        for drawing in drawings:
            write_pdf(drawing, folder / "figures")
        draw_pictures(results, folder)
