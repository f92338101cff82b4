"""The report as one HTML file that needs no other: verdicts, figures, sections, every number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .figures import Drawing, to_svg
from .figures.style import file_name
from .page_style import STYLE
from .page_text import badge, inline, to_html
from .results import Section, Verdict

WARNING = (
    "Not a medical device. Every image that a method made is synthetic or reconstructed: an estimate, not a "
    "measurement."
)


@dataclass(frozen=True, eq=False)
class Page:
    """What stands in the page, from top to bottom.

    Attributes:
        title: of the page.
        lead: one sentence under it.
        notes: what a reader has to know, Markdown paragraphs.
        sections: the claims.
        drawings: the figures.
        numbers: (title, Markdown) of the tables of all numbers.
    """

    title: str
    lead: str
    notes: Sequence[str]
    sections: Sequence[Section]
    drawings: Sequence[Drawing]
    numbers: Sequence[tuple[str, str]]

    def html(self) -> str:
        """The whole document."""
        chapters = [
            ("What was asked", "asked", self._verdicts()),
            ("Figures", "figures", "".join(_figure(i, d) for i, d in _numbered(self.drawings))),
            *((section.title, _anchor("section", section.title), _section(section)) for section in self.sections),
            *((title, _anchor("numbers", title), to_html(text)) for title, text in self.numbers),
        ]
        body = "".join(f'<section><h2 id="{at}">{inline(t)}</h2>{text}</section>' for t, at, text in chapters if text)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(self.title)}</title><style>{STYLE}</style></head><body><div class="sheet">'
            f"{self._contents(chapters)}<main>{self._head()}{body}</main></div></body></html>\n"
        )

    def _head(self) -> str:
        notes = "".join(map(to_html, self.notes))
        return (
            f'<h1>{escape(self.title)}</h1><p class="lead">{inline(self.lead)}</p><p class="warning">{WARNING}</p>'
            f'<div class="notes">{notes}</div>'
        )

    def _contents(self, chapters: Sequence[tuple[str, str, str]]) -> str:
        links = "".join(f'<li><a href="#{at}">{inline(title)}</a></li>' for title, at, text in chapters if text)
        figures = "".join(
            f'<li><a href="#{d.name}">{i}. {inline(d.title)}</a></li>' for i, d in _numbered(self.drawings)
        )
        listed = f"<h2>Figures</h2><ol>{figures}</ol>" if figures else ""
        return f'<nav aria-label="Contents"><h2>Contents</h2><ol>{links}</ol>{listed}</nav>'

    def _verdicts(self) -> str:
        found = [(section, verdict) for section in self.sections for verdict in section.verdicts]
        if not found:
            return ""
        words = [verdict.word for _, verdict in found]
        tally = "".join(f"<span>{badge(word)} {words.count(word)}</span>" for word in ("yes", "NO", "–"))
        rows = "".join(
            f'<tr><th scope="row">{inline(v.asked)}</th><td>{inline(v.measured)}</td>'
            f"<td>{badge(v.word)}</td>"
            f'<td><a href="#{_anchor("section", s.title)}">{inline(s.title)}</a></td></tr>'
            + (f'<tr class="why"><td colspan="4">{_reason(v)}</td></tr>' if v.reason else "")
            for s, v in found
        )
        head = "".join(f'<th scope="col">{name}</th>' for name in ("asked", "measured", "verdict", "section"))
        return (
            f'<div class="tally">{tally}</div><div class="table" tabindex="0"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )


def _numbered(drawings: Sequence[Drawing]) -> list[tuple[int, Drawing]]:
    return list(enumerate(drawings, start=1))


def _anchor(kind: str, title: str) -> str:
    return f"{kind}-{file_name(title)}"


def _figure(number: int, drawing: Drawing) -> str:
    return (
        f'<figure id="{drawing.name}"><h3>{number}. {inline(drawing.title)}</h3>{to_svg(drawing)}'
        f"<figcaption>{inline(drawing.caption)}</figcaption></figure>"
    )


def _reason(verdict: Verdict) -> str:
    return f'<p class="reason"><strong>Why:</strong> {inline(verdict.reason)}</p>' if verdict.reason else ""


def _section(section: Section) -> str:
    """Its verdicts as a list with badges, then its tables."""
    rows = "".join(
        f"<li>{badge(v.word)} {inline(v.asked)}: {inline(v.measured)}{_reason(v)}</li>" for v in section.verdicts
    )
    verdicts = f'<ul class="verdicts">{rows}</ul>' if rows else ""
    return verdicts + "".join(map(to_html, section.body))
