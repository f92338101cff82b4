"""The section "connection": every way in which a server can answer, or not, is said in words."""

from __future__ import annotations

import time

import pytest
import slicer
from lib_servers import FakeServer, ScriptedServer, answers, info_document
from panel_driver import add_volume, at_the_panel


@pytest.fixture
def person(load_module, run_events):
    with at_the_panel(load_module, run_events) as someone:
        yield someone


def test_before_anything_the_panel_says_what_to_do(person):
    assert person.ui.statusLabel.text == "Not connected. Press Test."
    assert person.ui.readyLabel.text == "Connect to a server first." and not person.ui.applyButton.enabled
    assert person.ui.applyButton.toolTip == "Connect to a server first."


def test_connect_says_who_the_server_is_and_folds_up(person):
    person.connect()
    assert person.ui.statusLabel.text == "Connected: Any2all 0.2.0, model 0.2.0 (abababab), cpu."
    assert person.ui.connectionSection.collapsed and person.server.url in person.ui.connectionSection.text
    assert not person.ui.privacyLabel.isVisibleTo(person.ui.connectionSection)
    assert list(person.ticks()) == ["T1", "T2", "T2FLAIR", "T2star", "CT", "PET"]


def test_the_token_is_sent_and_a_wrong_one_is_named(person):
    person.server.refusals["GET", "/any2all/v1/info"] = (401, {"code": "unauthorized", "message": "no"})
    person.ask()
    assert person.ui.statusLabel.text.startswith("The server wants a token.")
    person.ask(token="wrong-token-wrong")
    assert person.ui.statusLabel.text.startswith("The server does not accept this token.")
    assert not person.ui.applyButton.enabled
    person.server.refusals.clear()
    person.ask(token="right-token-right")
    assert person.ui.statusLabel.text.startswith("Connected")
    assert person.server.tokens == [None, "Bearer wrong-token-wrong", "Bearer right-token-right"]


@pytest.mark.parametrize(("protocol", "words"), [(0, "too old for this module"), (2, "newer than this module")])
def test_another_protocol_is_refused_with_what_to_do(person, protocol, words):
    person.server.info = {"protocol": protocol, "version": "0.1.0"}
    person.ask()
    assert words in person.ui.statusLabel.text and not person.ui.applyButton.enabled


def test_a_server_that_is_none_of_ours(person):
    person.server.refusals["GET", "/any2all/v1/info"] = (404, {"detail": "Not Found"})
    person.ask()
    assert "no Any2all server answers at" in person.ui.statusLabel.text.replace("No", "no")


def test_a_server_that_is_away_and_addresses_that_are_none(person):
    person.server.stop()
    person.ask()
    assert person.panel.connection.info is None
    assert str(person.server.port) in person.ui.statusLabel.text or "connect" in person.ui.statusLabel.text.lower()
    person.server.start()
    person.ask("ftp://x")
    assert person.ui.statusLabel.text.startswith("The address begins with ftp://")


def test_a_changed_address_disconnects_until_it_was_tested(person):
    person.connect()
    person.ui.urlCombo.setEditText("http://127.0.0.1:1")
    assert person.ui.readyLabel.text == "Connect to a server first."
    assert not person.ui.connectionSection.collapsed and person.ui.statusLabel.text == "Not connected. Press Test."


def test_addresses_come_back_in_another_session_and_the_token_does_not(person, load_module):
    person.connect()
    person.ui.tokenEdit.text = "secret-secret-secret"
    first, other = person.server.url, FakeServer()
    try:
        person.ask(other.url)
    finally:
        other.stop()
    person.widget.onReload()
    ui = slicer.modules.Any2allSlicerWidget.ui
    assert [ui.urlCombo.itemText(i) for i in range(ui.urlCombo.count)] == [other.url, first]
    assert ui.urlCombo.currentText == other.url and ui.tokenEdit.text == ""
    slicer.modules.Any2allSlicerWidget.panel.close()


def test_a_server_that_is_still_starting_is_asked_again(person, monkeypatch):
    document = info_document()
    for preset in document["presets"].values():
        preset["seconds_per_slice"] = {"images": None, "raw": None}
    person.server.info = {**document, "state": "starting", "device": None}
    import Any2allLib.connection as connection

    monkeypatch.setattr(connection, "STARTING_S", 0.05)
    add_volume("T1")
    person.connect()
    assert "still warming up" in person.ui.statusLabel.text and person.ui.presetBalanced.text == "Balanced"
    person.server.info = info_document()
    person.wait(lambda: "~" in person.ui.presetBalanced.text)
    assert person.ui.statusLabel.text.endswith("cpu.") and person.ui.applyButton.enabled


@pytest.mark.parametrize("state, words", [("failing", "cannot compute at the moment"), ("stopping", "being stopped")])
def test_apply_waits_while_the_server_takes_no_jobs(person, monkeypatch, state, words):
    import Any2allLib.connection as connection

    monkeypatch.setattr(connection, "AGAIN_S", 0.05)
    add_volume("T1")
    person.server.info = {**info_document(), "state": state}
    person.connect()
    assert words in person.ui.readyLabel.text and words in person.ui.statusLabel.text
    assert not person.ui.applyButton.enabled
    person.server.info = info_document()
    person.wait(lambda: person.ui.applyButton.enabled)  # asked again by itself
    assert person.ui.readyLabel.text.startswith("Ready")


def test_without_a_token_a_refusal_is_said_in_the_servers_words(person):
    document = {"code": "forbidden", "message": "without a token this server answers only its own machine"}
    person.server.refusals["GET", "/any2all/v1/info"] = (403, {**document, "hint": "set ANY2ALL_TOKEN"})
    person.ask()
    assert person.ui.statusLabel.text == (
        "Without a token this server answers only its own machine. Set ANY2ALL_TOKEN."
    )


def test_a_silent_server_never_blocks_the_panel(person, monkeypatch):
    import Any2allLib.client as client
    from Any2allLib.exchange import Timeouts

    monkeypatch.setattr(client.Patience, "__init__", lambda self: None)
    monkeypatch.setattr(client.Patience, "quick", Timeouts(0.5, 0.8))
    with ScriptedServer() as silent:
        silent._scripts = (silent.silent,)
    with ScriptedServer(lambda connection: time.sleep(1.5)) as silent:
        looks: list[bool] = []
        person.ui.urlCombo.setEditText(silent.url)
        person.ui.testButton.click()
        person.wait(lambda: looks.append(person.panel.connection.busy) or not looks[-1])
        assert "Asking" not in person.ui.statusLabel.text and person.panel.connection.info is None
    assert len(looks) >= 10, "a slot waited for the server, and the panel answered nobody meanwhile"


def test_what_is_no_web_server_is_said(person):
    with ScriptedServer(answers(b"SSH-2.0-OpenSSH_9.6\r\n")) as other:
        person.ask(other.url)
    assert "web server" in person.ui.statusLabel.text


def test_an_address_that_others_can_listen_to_is_warned_about(person):
    person.ui.urlCombo.setEditText("http://10.255.255.1:9")
    person.ui.testButton.click()
    label = person.ui.privacyLabel
    assert label.isVisibleTo(person.ui.connectionSection) and label.text.startswith("Not private")
    person.ui.urlCombo.setEditText(person.server.url)
    assert not label.isVisibleTo(person.ui.connectionSection)
