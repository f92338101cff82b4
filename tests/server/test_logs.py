"""Structured logs: closed fields, no client's text, and what an administrator reads back."""

from __future__ import annotations

import json
import logging

import pytest
from lib.logs import KEPT_LINES, events, recent, setup


def test_an_event_is_one_json_line_of_the_standard_logger(caplog: pytest.LogCaptureFixture) -> None:
    setup()
    with caplog.at_level(logging.INFO, "any2all"):
        events("jobs").warning("job ended", job="ab12", state="failed", seconds=1.23456, count=3, stage=None)
    (record,) = caplog.records
    line = json.loads(record.getMessage())
    assert record.name == "any2all.jobs"
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "event": "job ended",
        "job": "ab12",
        "state": "failed",
        "seconds": 1.235,
        "count": 3,
    }
    assert recent(1) == [record.getMessage()]


@pytest.mark.parametrize("text", ["Müller, Anna", "a\nb", "x" * 81, "100% sure", '{"a"}', ""])
def test_text_that_no_program_wrote_is_left_out(text: str) -> None:
    events("jobs").info("asked", method=text)
    assert json.loads(recent(1)[0])["method"] == "?"


def test_a_peer_is_an_address_or_nothing() -> None:
    log = events("gate")
    log.info("asked", peer="fe80::1%eth0")
    log.info("asked", peer="anna.example.org")
    log.info("asked", path_template="/any2all/v1/jobs/{job_id}")
    first, second, third = map(json.loads, recent(3))
    assert (first["peer"], second["peer"]) == ("fe80::1", "?")
    assert third["path_template"] == "/any2all/v1/jobs/{job_id}"


@pytest.mark.parametrize("field", ["subject", "file", "message"])
def test_fields_that_could_hold_a_patient_do_not_exist(field: str) -> None:
    with pytest.raises(TypeError, match=field):
        events("jobs").info("job started", **{field: "p01"})


def test_not_a_number_stays_json() -> None:
    events("jobs").info("job ended", seconds=float("nan"))
    assert json.loads(recent(1)[0])["seconds"] is None


def test_recent_lines_are_bounded_and_in_order() -> None:
    log = events("jobs")
    for number in range(KEPT_LINES + 5):
        log.info("step", count=number)
    assert len(recent(10**6)) == KEPT_LINES
    assert [json.loads(line)["count"] for line in recent(2)] == [KEPT_LINES + 3, KEPT_LINES + 4]
    assert recent(0) == [] and recent(-3) == []


def test_the_libraries_keep_requests_to_themselves(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    talkative = logging.getLogger("monailabel.endpoints.infer")
    for logger in (talkative, logging.getLogger("monailabel"), logging.getLogger("python_multipart")):
        monkeypatch.setattr(logger, "level", logger.level)
        logger.setLevel(logging.DEBUG)
    setup()
    setup()
    talkative.info("Infer Request: {'image': '/studies/p01'}")
    logging.getLogger("python_multipart.multipart").debug("Calling on_part_data with data[0:3]")
    assert caplog.records == []
    talkative.warning("something is wrong")
    assert [record.getMessage() for record in caplog.records] == ["something is wrong"]
