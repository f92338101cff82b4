"""How the figures of the report look, and how they become SVG for the page and PDF for print.

Colours are those of Okabe and Ito (2008), which people with the usual kinds of colour blindness tell apart; every
colour also comes with a hatch, a marker or a name.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ...scores.baselines import MEAN_IMAGE, SENSE, ZERO_FILLED
from ..tasks import Method

WIDTH_IN = 7.2  # what an A4 page holds between its margins
INK, MUTED, RULE = "#1b1f24", "#6a717c", "#cdd2d9"
ROLES = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)"}  # so that the page's theme colours them
CLASSICAL = (ZERO_FILLED, SENSE, "L1_wavelet", "L1_wavelet_real", "TV")
SMALL, TINY = 7.0, 6.0
HATCH = {"hatch.linewidth": 0.5}  # points; matplotlib asks for it when it saves


@dataclass(frozen=True)
class Family:
    """Methods of one kind: their colour and the hatch of their bars."""

    name: str
    colour: str
    hatch: str


FAMILIES = {
    "classical": Family("classical reconstruction", "#A6A6A6", ""),
    "baseline": Family("copied, mean or regressed image", "#009E73", "///"),
    "other": Family("other peers", "#CC79A7", "xx"),
    "mps": Family("mps (paper)", "#D55E00", "--"),
    "mds": Family("mds (paper)", "#E69F00", "\\\\\\"),
    "one": Family("one pass (ours)", "#56B4E9", "||"),
    "mcs": Family("mcs (ours)", "#0072B2", ""),
}
LINE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")


def family_key(method: Method) -> str:
    """Which of `FAMILIES` a method belongs to."""
    if method.name == "regression" or method.peer in (MEAN_IMAGE, "matched_copy"):
        return "baseline"
    if method.sampler == "mcs" and method.steps == 1:
        return "one"
    if method.sampler in FAMILIES:
        return method.sampler
    return "classical" if method.peer in CLASSICAL else "other"


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of the report.

    Attributes:
        name: of its files and its place in the page; letters, digits and ``-``.
        title: a few words.
        caption: what it shows, with N, data range, and whether heads are rendered or real.
        alt: the same for those who cannot see it.
        figure: what is drawn.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def new_figure(height_in: float) -> Figure:
    """An empty, transparent figure of the report's width."""
    figure = Figure(figsize=(WIDTH_IN, height_in), facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def file_name(*words: str) -> str:
    """Words as a name of files and anchors.

    >>> file_name("bars", "ms_mni_19", "T1+T2")
    'bars-ms-mni-19-T1-T2'
    """
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-")


def plain_axes(axes: Axes) -> None:
    """Only what is needed: no box, thin ticks, the report's colours."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
        axes.spines[side].set_linewidth(0.6)
    axes.tick_params(labelsize=TINY, colors=MUTED, labelcolor=INK, length=2, width=0.6, pad=2)
    axes.xaxis.label.set(color=INK, size=SMALL)
    axes.yaxis.label.set(color=INK, size=SMALL)


def write_pdf(drawing: Drawing, folder: Path) -> Path:
    """``<name>.pdf`` with text as text; the same drawing gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{drawing.name}.pdf"
    with matplotlib.rc_context({"pdf.fonttype": 42, **HATCH}):
        drawing.figure.savefig(file, format="pdf", facecolor="white", metadata={"CreationDate": None})
    return file


def to_svg(drawing: Drawing) -> str:
    """The figure as an ``<svg>`` element that may stand in a page beside others, with its text as text."""
    stream = io.StringIO()
    look = {"svg.fonttype": "none", "svg.hashsalt": drawing.name, "font.sans-serif": ["DejaVu Sans"], **HATCH}
    with matplotlib.rc_context(look):
        drawing.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _with_own_names(_shorter(text), drawing.name)
    for colour, role in ROLES.items():
        text = text.replace(colour, role)
    text = text.replace("image-rendering:crisp-edges;image-rendering:pixelated", "")
    text = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", _smaller, text)
    label = f'<svg role="img" aria-label="{escape(drawing.alt)}"'
    return re.sub(r"<svg", lambda _: label, _with_classes(text), count=1).strip()


def _shorter(text: str) -> str:
    """Without line breaks, names of groups, turns by nothing, and more than two decimals in drawing commands; words
    stay."""
    text = re.sub(r'<g id="[^"]*"', "<g", re.sub(r"\s*\n\s*", " ", text))
    text = re.sub(r' transform="rotate\(-?0 [^"]*"| style=""', "", text)
    return re.sub(r"<[^>]+>", lambda tag: re.sub(r"-?\d+\.\d{3,}", _rounded, tag.group()), text)


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found.group()):.2f}".rstrip("0").rstrip(".")


def _with_classes(text: str) -> str:
    """Every style once, as a class that the elements name; a class is named by its content, for all figures of a page
    share their classes."""
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        digest = hashlib.blake2b(found.group(1).encode(), digest_size=4).hexdigest()
        return f' class="{names.setdefault(found.group(1), f"s{digest}")}"'

    text = re.sub(r' style="([^"]+)"', named, text)
    rules = "".join(f".{name}{{{style}}}" for style, name in names.items())
    return re.sub(r"<svg[^>]*>", lambda opening: f"{opening.group()}<style>{rules}</style>", text, count=1)


def _with_own_names(text: str, name: str) -> str:
    """Every id begins with the figure's name, for all figures share the page, and stands once.

    matplotlib names what is defined by its content, and may define the same thing twice.
    """
    seen: set[str] = set()

    def own(found: re.Match[str]) -> str:
        again = found.group(1) in seen
        seen.add(found.group(1))
        return "" if again else f' id="{name}.{found.group(1)}"'

    text = re.sub(r' id="([^"]*)"', own, text)
    text = text.replace("url(#", f"url(#{name}.")
    return re.sub(r'href="#', f'href="#{name}.', text)


def _smaller(found: re.Match[str]) -> str:
    """A PNG of at most 256 colours as one byte a pixel; nothing is lost."""
    image = Image.open(io.BytesIO(base64.b64decode(found.group(1)))).convert("RGB")
    colours = image.getcolors(256)
    if colours is not None:
        palette = {colour: i for i, (_, colour) in enumerate(colours)}
        packed = Image.new("P", image.size)
        packed.putpalette([channel for colour in palette for channel in colour])
        packed.putdata([palette[colour] for colour in image.getdata()])
        image = packed
    stream = io.BytesIO()
    image.save(stream, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def sentence(parts: Sequence[str]) -> str:
    """Words in a row.

    >>> sentence(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))
