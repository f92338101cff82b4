"""The Markdown that sections are written in, as HTML: tables, paragraphs, headings, lists, code and strong words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

WORDS = {"yes": "holds", "NO": "fails", "–": "open"}  # of the column ``holds``, see `Verdict.word`


def to_html(markdown: str) -> str:
    """Blocks that blank lines divide. Whatever is not known stays text."""
    return "\n".join(_block(block) for block in re.split(r"\n\s*\n", markdown.strip()) if block.strip())


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in a box of its own that scrolls, its head and first column in view; numbers to the right."""
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f'<th scope="col"{kind}>{inline(cell)}</th>' for kind, cell in zip(kinds, header, strict=True))
    body = "".join(f"<tr>{_cells(row, kinds)}</tr>" for row in rows)
    return f'<div class="table" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def inline(text: str) -> str:
    """One line of text: escaped, with ``code`` and **strong** words."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def badge(word: str) -> str:
    """A verdict's word, told apart by sign and colour."""
    kind = WORDS[word]
    sign = {"holds": "✓ holds", "fails": "✕ fails", "open": "– open"}[kind]
    return f'<span class="badge {kind}">{sign}</span>'


def _cells(row: Sequence[str], kinds: Sequence[str]) -> str:
    first = f'<th scope="row">{inline(row[0])}</th>'
    return first + "".join(f"<td{kind}>{inline(c) or 'n/a'}</td>" for kind, c in zip(kinds[1:], row[1:], strict=True))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*(n/a|–|)\s*|[+−-]?\d[\d.,\s/×%∞+−-]*|inf.*", cell.strip()) is not None


def _block(block: str) -> str:
    lines = block.strip().splitlines()
    heading = re.match(r"(#{1,6})\s+(.*)", lines[0])
    if heading and len(lines) == 1:
        level = min(len(heading.group(1)) + 1, 6)  # the page's own title is the only h1
        return f"<h{level}>{inline(heading.group(2))}</h{level}>"
    if len(lines) > 1 and all(line.lstrip().startswith("|") for line in lines) and set(lines[1]) <= set("|-: "):
        header, _, *rows = [_split(line) for line in lines]
        if all(len(row) == len(header) for row in rows):
            return table_html(header, rows)
    if all(re.match(r"[-*]\s", line) for line in lines):
        return "<ul>" + "".join(f"<li>{inline(line[2:])}</li>" for line in lines) + "</ul>"
    return f"<p>{inline(' '.join(lines))}</p>"


def _split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
