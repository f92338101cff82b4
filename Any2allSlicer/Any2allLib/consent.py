"""Before the first upload to another computer: what will be sent, and whether that is agreed."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
from slicer.i18n import tr as _

from .client import Client


class Consent:
    """Asks once for each server in a session of Slicer; nothing is remembered beyond it."""

    def __init__(self) -> None:
        self._agreed: set[tuple[str, bool]] = set()

    def given(self, client: Client, what_is_sent: Sequence[str], raw: bool = False) -> bool:
        """Whether these lines may go to that server. A server on this computer needs no consent.

        ``raw``: raw data files are among them. They go as they are, so agreeing to images does not cover them.
        """
        url = str(client.url)
        if client.is_loopback or (url, raw) in self._agreed:
            return True
        names = _("Neither patient names nor dates are sent, nor anything else of the scene.")
        if raw:
            names = _("Raw data files go as they are: a patient's name that is written in one goes with it.")
        question = _(
            "This will be sent to {0}, which is another computer:\n\n{1}\n\n{2} A head can be recognised from its "
            "images. The server removes them when the job ends. Send them?"
        ).format(url, "\n".join(f"• {line}" for line in what_is_sent), names)
        if not client.is_private:
            question = f"{question}\n\n" + _("The connection is not encrypted: others on the network can read it.")
        if not slicer.util.confirmOkCancelDisplay(question, _("Send images to another computer")):
            return False
        self._agreed.add((url, raw))
        return True
