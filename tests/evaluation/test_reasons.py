"""Reasons stand beside what does not hold, and nowhere else."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import pytest
from any2all.errors import Any2allError
from any2all.evaluation.page import Page
from any2all.evaluation.reasons import REASONS, Reason, explained, load_reasons
from any2all.evaluation.report import section_text
from any2all.evaluation.results import Section, Verdict

WHY = Reason("Sizes*", "a is larger*", "abc", "The ruler is short.", "subject16")


def section(holds, title="Sizes, in mm", asked="a is larger than b"):
    return Section(title, (Verdict(asked, "1 against 2", holds),))


def reason_of(part, *checksums):
    return explained(part, [WHY], checksums or ("abcdef",)).verdicts[0].reason


def test_a_reason_stands_beside_what_does_not_hold_only():
    assert reason_of(section(False)) == "The ruler is short. Found on: subject16."
    assert reason_of(section(True)) == reason_of(section(None)) == ""
    assert reason_of(section(False, title="Weights")) == reason_of(section(False, asked="b is larger")) == ""


def test_a_reason_is_that_of_the_weights_it_was_found_with():
    assert reason_of(section(False), "bbb") == ""
    assert reason_of(section(False), "bbb", "abcdef") == WHY.sentence


def test_a_reason_that_verdicts_share_is_printed_once():
    three = [
        Verdict(f"a is larger than {name}", "1 against 2", holds) for name, holds in zip("bcd", (False, True, False))
    ]
    found = explained(Section("Sizes, in mm", tuple(three), ()), [WHY], ["abcdef"]).verdicts
    assert [v.reason for v in found] == [WHY.sentence, "", "As for “a is larger than b”."]


def test_the_first_reason_that_fits_is_printed_in_text_and_page():
    other = Reason("*", "*", "a", "Something else.", "nothing")
    found = explained(section(False), [WHY, other], ["abcdef"])
    assert found.verdicts[0].reason == WHY.sentence
    assert f"Why not “a is larger than b”: {WHY.sentence}" in section_text(found)
    html = Page("t", "", [], [found], [], []).html()
    assert html.count(WHY.sentence) == 2 and WHY.sentence not in Page("t", "", [], [section(False)], [], []).html()


def test_a_reason_without_all_its_parts_is_refused(tmp_path):
    file = tmp_path / "reasons.json"
    for broken in ({"section": "*", "asked": "*"}, {**vars(WHY), "weights": ""}, {**vars(WHY), "note": ""}):
        file.write_text(json.dumps([broken]))
        with pytest.raises(Any2allError, match="not whole"):
            load_reasons(file)


def test_the_reasons_of_the_bundle_name_where_they_were_found_and_what_can_be_asked():
    asked = json.loads((REASONS.parents[2] / "docs" / "evaluation" / "results.json").read_text())["verdicts"]
    for reason in load_reasons():
        assert "subject17" not in reason.sentence and "subject18" not in reason.sentence
        assert any(
            fnmatchcase(v["section"], reason.section) and fnmatchcase(v["asked"], reason.asked) for v in asked
        ), reason
        assert reason.measured and reason.why
