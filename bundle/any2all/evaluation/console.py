"""What command lines share: a progress bar for the pipeline's stages, tables in Markdown, one-line errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from tqdm import tqdm

from ..errors import Any2allError


class ProgressBar:
    """``progress(stage, done, total)`` as a bar of network passes, with the stage's name beside it.

    Use as a context manager; it writes to stderr, so that stdout holds results only.
    """

    def __init__(self, title: str) -> None:
        self.bar = tqdm(total=1, desc=title, unit="pass", file=sys.stderr, dynamic_ncols=True, leave=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if total > 1:
            self.bar.total = total
            self.bar.update(done - self.bar.n)
        self.bar.set_postfix_str(stage, refresh=done == 0)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns padded to equal width, the first one to the left, the others to the right."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * w) if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def run_command(main: Callable[[], int | None]) -> int:
    """Exit status of a command: 2 and one line ``error: …`` for what cannot be used, 130 after Ctrl-C."""
    try:
        return main() or 0
    except Any2allError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cancelled: nothing was written", file=sys.stderr)
        return 130
