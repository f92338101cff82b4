"""The page, its figures and the JSON beside it, from a tiny prior's predictions and from records that are made up."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from any2all.diffusion.prior import load_prior
from any2all.evaluation.cases import Cases
from any2all.evaluation.document import document, write_json
from any2all.evaluation.evaluate import Evaluation
from any2all.evaluation.figures import to_svg, write_pdf
from any2all.evaluation.figures.bars import draw_bars
from any2all.evaluation.figures.gains import Ladder, ladders
from any2all.evaluation.figures.grid import draw_grids
from any2all.evaluation.figures.plane import draw_planes
from any2all.evaluation.figures.scores import score
from any2all.evaluation.page import Page
from any2all.evaluation.page_text import to_html
from any2all.evaluation.perception import STRUCTURE, Perception
from any2all.evaluation.records import Record
from any2all.evaluation.report import publish
from any2all.evaluation.results import Results, Section, Verdict
from any2all.evaluation.tasks import Method, Task
from any2all.scores.text import markdown_table
from any2all.stack import load_stack

STACK = load_stack()
VOID = {"meta", "br", "img", "link", "hr", "input"}
RAW, IMAGES = Task("R4+T1", ("T2FLAIR",), ("T1",), ("T2FLAIR",)), Task("T1", ("CT", "PET"), ("T1",))
METHODS = [
    {"name": "zero_filled", "peer": "zero_filled"},
    {"name": "mcs-1", "sampler": "mcs", "steps": 1},
    {"name": "mcs-5", "sampler": "mcs", "steps": 5, "samples": 2, "consistency": "calibrated"},
    {"name": "mds", "sampler": "mds", "steps": 2, "slices": 2},
]


class Balanced(HTMLParser):
    """Every element that opens closes, in order; ids, links and attributes are kept."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.text = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.ids += [names["id"]] if "id" in names else []
        self.sources += [v for k, v in attributes if k in ("src", "href", "xlink:href", "action", "data", "poster")]
        self.links += [names["href"]] if tag == "a" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)


def discs(kind="rendered", groups=("a", "b", "c"), lesions=None):
    """Six slices (6, 6, 32, 32) in u: discs of another brightness in every channel."""
    h, w = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    disc = ((h**2 + w**2) < 0.6).float().expand(6, 1, 32, 32)
    slices = disc * (torch.linspace(0.2, 0.8, 6)[None, :, None, None] + 0.1 * torch.sin(9 * h + 5 * w))
    inside = disc[:, 0].bool().numpy()
    names = tuple(group for group in groups for _ in range(6 // len(groups)))
    labels = np.where(inside, 3, 0) if kind == "rendered" else None
    return Cases(
        "discs", kind, slices, STACK.names, names, inside, labels, lesions, {g: {"real": False} for g in groups}
    )


def evaluation(prior, folder=None, sets=None, tasks=(RAW, IMAGES), methods=METHODS):
    entries = [Method.from_dict({"on": ["rendered", "real"], **m}) for m in methods]
    simulation = {"acceleration": 4, "noise_std": 0.01, "seed": 0}
    return Evaluation(prior, sets or [discs()], list(tasks), entries, simulation, folder)


@pytest.fixture(scope="module")
def published(tiny_model_file, tmp_path_factory):
    """A folder with ``out``, everything, and ``small``, what may be committed."""
    folder = tmp_path_factory.mktemp("published")
    whole = evaluation(load_prior(tiny_model_file, autocast=False), folder / "out")
    publish(whole, whole.run(), folder / "small")
    return folder


def made_up(prior, mse, methods=METHODS, cases=None):
    """Results whose errors are given: (task, target, method) → MSE of each slice."""
    cases = cases or discs()
    whole = evaluation(prior, sets=[cases], methods=methods)
    groups = list(cases.groups)
    records = [
        Record("discs", *names, names[0] == "R4+T1", 20, 4, 0.1, list(range(6)), groups, list(values), [0.9] * 6,
               list(values), [0.95] * 6, [0.0] * 6)
        for names, values in mse.items()
    ]  # fmt: skip
    return Results(whole, records)


def test_what_is_published_is_whole_small_and_asks_nothing_of_the_net(published):
    text = (published / "small" / "index.html").read_text()
    page = Balanced(text)
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    assert page.links and {link[1:] for link in page.links} <= set(page.ids)
    for source in page.sources:
        assert source.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert (published / "out" / "report.html").read_text() == text
    assert sorted(p.name for p in (published / "small").iterdir()) == ["index.html", "numbers.csv", "results.json"]
    assert sum(p.stat().st_size for p in (published / "small").iterdir()) < 1.5e6
    pdfs = sorted((published / "out" / "figures").glob("*.pdf"))
    assert len(pdfs) == text.count("<figure ") >= 7 and all(p.read_bytes()[:5] == b"%PDF-" for p in pdfs)
    words = " ".join(page.text)
    for said in ("inverse crime", "not over people", "n/a", "SYNTHETIC", "Not a medical device", "Seed 0"):
        assert said in words


def test_the_json_holds_the_records_as_they_were_scored(tiny_prior, published):
    content = json.loads((published / "small" / "results.json").read_text())
    again = evaluation(tiny_prior, published / "out").run()
    assert len(content["records"]) == len(again)
    for kept, record in zip(content["records"], again):
        assert (kept["task"], kept["target"], kept["method"]) == (record.task, record.target, record.method)
        assert kept["slices"] == record.slices
        for name in ("mse", "ssim", "mse_mean", "ssim_mean", "ssim_head", "ssim_mean_head"):
            assert kept[name] == pytest.approx(getattr(record, name), rel=1e-4)
        assert kept["psnr_db"] == pytest.approx(record.psnr, rel=1e-4)
        assert kept["ssim_all"] == pytest.approx(np.mean(record.ssim), abs=1e-4)
        assert kept["perception"] == pytest.approx(1 - np.mean(record.ssim), abs=1e-4)
    assert content["settings"]["seed"] == 0 and content["settings"]["simulation"]["acceleration"] == 4
    assert [m["name"] for m in content["settings"]["methods"]] == [m["name"] for m in METHODS]
    assert content["cases"][0]["groups"] == ["a", "a", "b", "b", "c", "c"]


def test_names_are_escaped_and_every_verdict_stands_in_the_page():
    nasty = '<b>"R4" & T1</b>'
    verdicts = tuple(Verdict(f"{nasty} {i}", f"{i} dB", holds) for i, holds in enumerate((True, False, None)))
    section = Section("Claims <here>", verdicts, (markdown_table(["a", nasty], [["x|y".replace("|", "/"), nasty]]),))
    text = Page(nasty, nasty, [nasty], [section], [], [("Numbers", "## inner\n\n- one\n- `two`")]).html()
    page = Balanced(text)
    assert page.open == [] and "<b>" not in text and "<h3>inner</h3>" in text and "<code>two</code>" in text
    words = "".join(page.text)
    for verdict in verdicts:
        assert words.count(verdict.asked) == 2  # in the table of all, and in its section
    for sign in ("✓ holds", "✕ fails", "– open"):
        assert words.count(sign) == 3  # the tally as well


def test_markdown_tables_become_tables_and_empty_cells_are_said_to_be_so():
    text = to_html("words **strong**\n\n" + markdown_table(["method", "PSNR"], [["a", "1.5 / 2.5"], ["b", ""]]))
    assert text.startswith("<p>words <strong>strong</strong></p>")
    assert '<th scope="col" class="number">PSNR</th>' in text and '<td class="number">n/a</td>' in text
    assert "<table" not in to_html("| no table")


def test_a_score_is_the_mean_of_its_renderings(tiny_prior):
    results = made_up(tiny_prior, {("T1", "CT", "mcs-5"): [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4]})
    found = score(results.records[0], "PSNR")
    assert found.mean == pytest.approx(30) and found.low == pytest.approx(20) and found.high == pytest.approx(40)
    assert found.groups == pytest.approx({"a": 20, "b": 30, "c": 40})
    exact = score(replace(results.records[0], mse_mean=[0.0] * 2 + [1e-3] * 4), "PSNR")
    assert exact.mean == math.inf and exact.low is None and exact.groups["b"] == pytest.approx(30)
    assert score(replace(results.records[0], ssim_mean=[math.nan] * 6), "SSIM") is None


@pytest.mark.parametrize("mse", [0.0, 1e-3])
def test_one_method_or_an_exact_one_can_be_drawn(tiny_prior, mse):
    results = made_up(tiny_prior, {("T1", "CT", "mcs-5"): [mse] * 6}, METHODS[2:3])
    (bars,) = draw_bars(results)
    words = to_svg(bars)
    assert ("∞" in words) == (mse == 0) and "CT from T1" in words and "mcs-5" in words
    assert draw_planes(results, STRUCTURE) == []  # one method has nothing to be compared with
    json.dumps(document(results, [], [bars], STRUCTURE), allow_nan=False)


def test_what_a_method_cannot_do_is_said_in_the_figure(tiny_prior):
    scores = {("T1", "CT", "mcs-5"): [1e-3] * 6, ("T1", "CT", "mcs-1"): [2e-3] * 6, ("T1", "PET", "mcs-5"): [1e-3] * 6}
    (bars,) = draw_bars(made_up(tiny_prior, scores))
    assert to_svg(bars).count("n/a<") == 2  # PSNR and SSIM of mcs-1


def test_perception_falls_back_where_it_is_not_known(tiny_prior):
    scores = {("T1", "CT", m): [v] * 6 for m, v in (("mcs-5", 1e-3), ("mcs-1", 2e-3), ("mds", 3e-3))}
    results = made_up(tiny_prior, scores)
    some = Perception("KID × 1000", {"mcs-5": 3.0, "mcs-1": 2.0, "mds": None}.__getitem__, "Of 6 slices.")
    known = replace(some, of=lambda record: some.of(record.method))
    (plane,) = draw_planes(results, known)
    words = to_svg(plane)
    assert "KID × 1000" in words and "mds: n/a" in words and "Of 6 slices." in plane.caption
    (plane,) = draw_planes(results, replace(some, of=lambda record: None))
    assert STRUCTURE.name in to_svg(plane) and "mds: n/a" not in to_svg(plane)


def test_arrows_point_to_the_largest_lesion_of_a_real_subject(tiny_prior):
    lesions = np.zeros((6, 32, 32), bool)
    lesions[3, 10:13, 20:23] = lesions[3, 20, 8] = lesions[4, 5, 5] = True
    sets = [replace(discs("real", ("p",), lesions), present=("T1", "T2FLAIR"))]
    tasks = [replace(RAW, on=("real",)), replace(IMAGES, on=("real",))]
    whole = evaluation(tiny_prior, None, sets, tasks, METHODS[:1] + METHODS[2:3])
    (drawing,) = draw_grids(Results(whole, whole.run()))
    assert "slice 3 of p" in drawing.caption and "a real subject" in drawing.caption
    assert "largest lesion" in drawing.caption and "SYNTHETIC" not in drawing.caption
    arrows = [t for axes in drawing.figure.axes for t in axes.texts if getattr(t, "arrow_patch", None)]
    row, column = (v - 3 for v in (11, 21))  # the head begins 3 pixels, the margin, after the picture does
    first = next(int(np.flatnonzero(sets[0].inside[3].any(axis=1 - a))[0]) for a in (0,))
    spacing = tiny_prior.card.spacing_mm[0]
    expected = ((column + 3 - first + 3 + 0.5) * spacing, (row + 3 - first + 3 + 0.5) * spacing)
    assert len(arrows) >= 5 and all(arrow.xy == pytest.approx(expected) for arrow in arrows)


def test_pictures_say_how_sparsely_each_task_was_measured(tiny_prior):
    sparse = Task("R8+T1", ("T2FLAIR",), ("T1",), ("T2FLAIR",), acceleration=8)
    for tasks, words in (([RAW], "from R = 4 raw data:"), ([RAW, sparse], "raw data (R4+T1 R = 4, R8+T1 R = 8):")):
        whole = evaluation(tiny_prior, None, None, tasks, METHODS[:1])
        (drawing,) = draw_grids(Results(whole, whole.run()))
        assert words in drawing.caption


def test_ladders_join_only_what_holds_the_one_before():
    raw = Task("R4", ("CT",), (), ("T1",))
    one, two, three = (Task("+".join(g), ("CT",), g) for g in (("T1",), ("T1", "T2"), ("T1", "T2", "PET")))
    other = Task("PET+T2star", ("CT",), ("PET", "T2star"))
    (ladder,) = ladders([three, other, raw, one, two])
    assert [t.name for t in ladder.tasks] == ["R4", "T1", "PET+T2star", "T1+T2", "T1+T2+PET"]
    assert [ladder.tasks[i].name for i in ladder.chain] == ["T1", "T1+T2", "T1+T2+PET"]
    sparse = Task("R8+T1", ("CT",), ("T1",), ("CT",), acceleration=8)
    full, alone = Task("R4+T1", ("CT",), ("T1",), ("CT",)), Task("R4", ("CT",), (), ("CT",))
    (raw_ladder,) = ladders([full, sparse, alone])
    assert [raw_ladder.tasks[i].name for i in raw_ladder.chain] == ["R4", "R4+T1"]
    assert ladders([one]) == [] and Ladder.of("CT", [one]).chain == (0,)


def test_a_drawing_is_the_same_twice_and_keeps_text_as_text(tiny_prior, tmp_path):
    scores = {("T1", "CT", m): [v] * 6 for m, v in (("mcs-5", 1e-3), ("mcs-1", 2e-3))}
    first, second = (draw_bars(made_up(tiny_prior, scores))[0] for _ in range(2))
    assert to_svg(first) == to_svg(second) and ">mcs-5</text>" in to_svg(first)
    assert write_pdf(first, tmp_path / "a").read_bytes() == write_pdf(second, tmp_path / "b").read_bytes()


def test_json_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json({"psnr": math.inf}, tmp_path / "x.json")
