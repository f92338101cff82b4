"""From records to the table that people read: an overview, then every number, as Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .records import Record, write_csv
from .text import markdown_table

FLAGS = (
    "PSNR in dB and SSIM in u clipped to [0, 1], data range 1, over all pixels of the prior's own grid.",
    "k-space is simulated on that grid and reconstructed with the maps that made it, without phase (an inverse crime); "
    "the truth's intensity scale is known.",
    "Rendered heads: no real CT or PET exists in this data. A validation head: settings may have been chosen on it.",
)
EXPLANATION = (
    "one: one sample; mean: the mean of all samples; spread: std of the samples over the error of their mean (0.89 for "
    "4 exact samples); passes and s/slice: of one sample of one slice."
)


def overview(records: Sequence[Record]) -> str:
    """Tasks down, methods across: PSNR of one sample / of the mean of the samples."""
    methods = list(dict.fromkeys(r.method for r in records))
    cells = {(r.task, r.target, r.method): r for r in records}
    rows = []
    for task, target in dict.fromkeys((r.task, r.target) for r in records):
        row = [f"{target} from {task}"]
        for method in methods:
            record = cells.get((task, target, method))
            row.append("" if record is None else _psnr(record))
        rows.append(row)
    return markdown_table(["PSNR, one / mean", *methods], rows)


def _psnr(record: Record) -> str:
    mean = f" / {record.psnr_mean:.2f}" if record.samples > 1 else ""
    return f"{record.psnr:.2f}{mean}"


def details(records: Sequence[Record]) -> str:
    """All numbers, one block for each task and target."""
    header = ["method", "passes", "s/slice", "PSNR one", "SSIM one", "PSNR mean", "SSIM mean", "samples", "spread"]
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
    ]


def subset_tables(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """For methods that were tried on some slices only: all methods on just those slices and tasks."""
    most = max(len(r.slices) for r in records)
    tables = []
    for slices in sorted({tuple(r.slices) for r in records if len(r.slices) < most}):
        pairs = {(r.task, r.target) for r in records if tuple(r.slices) == slices}
        same = [r.on(slices) for r in records if (r.task, r.target) in pairs]
        title = f"on slice{'s' * (len(slices) > 1)} {', '.join(str(z) for z in slices)} only"
        tables.append((title, [r for r in same if r is not None]))
    return tables


def report(records: Sequence[Record], notes: Sequence[str] = ()) -> str:
    """The whole document in Markdown."""
    most = max(len(r.slices) for r in records)
    complete = [r for r in records if len(r.slices) == most]
    parts = ["# Evaluation", *FLAGS, *notes, overview(complete)]
    for title, same in subset_tables(records):
        parts += [f"## All methods {title}", overview(same)]
    parts += ["## All numbers", EXPLANATION, details(complete)]
    for title, same in subset_tables(records):
        parts += [f"## All numbers {title}", details(same)]
    return "\n\n".join(parts) + "\n"


def publish(records: Sequence[Record], folder: Path | None, notes: Sequence[str] = ()) -> None:
    """Print the document; write it as ``table.md``, and the numbers as ``table.csv``, where there is a folder."""
    text = report(records, notes)
    print(text)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "table.md").write_text(text, encoding="utf-8")
        write_csv(records, folder / "table.csv")
        print(f"tables and numbers: {folder}")
