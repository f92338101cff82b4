"""The section "connection": which server, whether it answers, and what it says about itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from .client import Call, Client
from .failures import Failure
from .protocol import ServerInfo, compatibility

DEFAULT_URL = "http://127.0.0.1:8000"
HISTORY_KEY, HISTORY_LENGTH = "Any2all/servers", 8
AGAIN_S, STARTING_S = 5.0, 2.0  # until a server that is away or failing, or that is starting, is asked again
GREY, AMBER, RED, GREEN = "#8a8d90", "#d08a00", "#d64545", "#3fa34d"


class Connection:
    """Asks a server for its ``info`` and says in words how that went.

    Args:
        ui: the panel's named widgets.
        make_client: `Client` or a fake of it.
        changed: called whenever ``info`` has changed.

    Attributes:
        client: the server that was asked last, or None.
        info: what it is, while it can be used; else None.
    """

    def __init__(self, ui: Any, make_client: Callable[[str, str], Client], changed: Callable[[], None]) -> None:
        self._ui, self._make_client, self._changed = ui, make_client, changed
        self.client: Client | None = None
        self.info: ServerInfo | None = None
        self._call: Call[ServerInfo] | None = None
        self._ask_at: float | None = None
        self._patient_until = 0.0
        self._now = 0.0
        self._has_met = False  # it answered once: then it is asked again by itself when it is away
        self._fill_history()
        ui.testButton.connect("clicked(bool)", lambda: self.test())
        ui.urlCombo.lineEdit().connect("returnPressed()", lambda: self.test())
        ui.tokenEdit.connect("returnPressed()", lambda: self.test())
        ui.urlCombo.connect("editTextChanged(QString)", self._on_edited)
        ui.tokenEdit.connect("textEdited(QString)", self._on_edited)
        self._say(GREY, _("Not connected. Press Test."))

    @property
    def url(self) -> str:
        return self._ui.urlCombo.currentText.strip()

    @property
    def busy(self) -> bool:
        return self._call is not None

    def set_url(self, url: str) -> None:
        """Write an address into the field, without asking that server. It is not sent the token of another one."""
        if url and url != self.url:
            self._ui.tokenEdit.text = ""
            self._ui.urlCombo.setEditText(url)

    def test(self, patience_s: float = 0.0) -> None:
        """Ask the server; for ``patience_s`` seconds, again and again until it answers."""
        self._now = time.monotonic()
        self._patient_until = self._now + patience_s
        self._ask()

    def tick(self, now: float) -> None:
        """Go on; called by the panel's timer with the monotonic time."""
        self._now = now
        if self._call is not None:
            if self._call.tick(0.01):
                call, self._call = self._call, None
                self._answered(call)
        elif self._ask_at is not None and now >= self._ask_at:
            self._ask()

    def use(self, make_client: Callable[[str, str], Client]) -> None:
        """Ask servers by other means from now on, as the self-test does."""
        self._make_client = make_client
        self._unusable(GREY, _("Not connected. Press Test."))

    def close(self) -> None:
        """Leave the server alone."""
        if self._call is not None:
            self._call.abort()
        self._call = self._ask_at = None

    # -- asking --------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        self.close()
        try:
            self.client = self._make_client(self.url, self._ui.tokenEdit.text)
        except ValueError as error:
            self.client = None
            self._unusable(RED, str(error))
            return
        self._ui.privacyLabel.visible = not self.client.is_private
        self._ui.privacyLabel.text = _(
            "Not private: on the way to this server, images and token can be read. Use an address that begins with "
            "https://, or a server on this computer."
        )
        self._call = self.client.info()
        if self.info is None and self._now >= self._patient_until:
            self._say(AMBER, _("Asking {0} …").format(self.client.url))

    def _answered(self, call: Call[ServerInfo]) -> None:
        if call.failure is not None:
            self._failed(call.failure)
            return
        problem = compatibility(call.value)
        if problem is not None:
            self._unusable(RED, problem)
            return
        before, self.info, self._has_met = self.info, call.value, True
        if before is None:
            self._make_room()
        self._remember()
        self._say(GREEN if self.info.state == "ok" else AMBER, _greeting(self.info))
        if self.info.state == "starting":
            self._ask_at = self._now + STARTING_S
        elif self.info.problem:
            self._ask_at = self._now + AGAIN_S
        if before != self.info:
            self._changed()

    def _make_room(self) -> None:
        """Connected: the section folds up, unless it holds something to be seen."""
        ui, client = self._ui, self.client
        ui.connectionSection.text = _("Connection: {0}, connected").format(client.url)
        if client.is_private and ui.localServerBox.collapsed:
            ui.connectionSection.collapsed = True

    def _failed(self, failure: Failure) -> None:
        waiting = failure.again and self._now < self._patient_until
        if waiting:
            self._ask_at = self._now + 1.0
            self._unusable(AMBER, _("The server is starting …"))
            return
        words = failure.sentence()
        if failure.again and self._has_met:
            self._ask_at = self._now + AGAIN_S
            words = _("{0} It is tried again by itself.").format(words)
        self._unusable(RED, words)

    def _unusable(self, colour: str, words: str) -> None:
        self._say(colour, words)
        self._ui.connectionSection.text = _("Connection")
        if self.info is not None:
            self._ui.connectionSection.collapsed = False
            self.info = None
            self._changed()

    def _on_edited(self, _text: str) -> None:
        """Another address or token: what the old one said does not count any more."""
        self.close()
        self._has_met = False
        self._ui.privacyLabel.visible = False
        self._unusable(GREY, _("Not connected. Press Test."))

    def _say(self, colour: str, words: str) -> None:
        self._ui.statusDot.styleSheet = f"color: {colour}; font-size: 16px"
        self._ui.statusLabel.text = words

    # -- addresses of earlier days -------------------------------------------------------------------------------------

    def _fill_history(self) -> None:
        combo, earlier = self._ui.urlCombo, _history()
        for url in earlier or [DEFAULT_URL]:
            combo.addItem(url)
        combo.currentIndex = 0

    def _remember(self) -> None:
        """This address comes first the next time."""
        urls = [self.url, *(url for url in _history() if url != self.url)][:HISTORY_LENGTH]
        qt.QSettings().setValue(HISTORY_KEY, urls)
        combo = self._ui.urlCombo
        combo.blockSignals(True)
        combo.clear()
        for url in urls:
            combo.addItem(url)
        combo.currentIndex = 0
        combo.blockSignals(False)


def _history() -> list[str]:
    """Settings give back one text where a list of one was stored, and None where it was empty."""
    found = qt.QSettings().value(HISTORY_KEY)
    urls = [found] if isinstance(found, str) else list(found or ())
    return [str(url) for url in urls if url]


def _greeting(info: ServerInfo) -> str:
    prior = f"{info.prior.version} ({info.prior.sha256[:8]})"
    words = _("Connected: Any2all {0}, model {1}.").format(info.version, prior)
    if info.device:
        words = f"{words[:-1]}, {info.device}."
    if info.state == "starting":
        return f"{words} {_('The server is still warming up; expected times follow.')}"
    return f"{words} {info.problem}".strip()
