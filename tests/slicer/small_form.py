"""A form with one image, for the tests of the panel's model: what a server says, and what the scene holds."""

from __future__ import annotations

import lib_path  # noqa: F401
from Any2allLib.form import Form, Row, VolumeFacts
from Any2allLib.protocol import ServerInfo
from lib_servers import info_document

INFO = ServerInfo.parse(info_document())
SCENE = {"v1": VolumeFacts("3: T1 SMITH", 10**6), "v2": VolumeFacts("T2", 10**6), "v3": VolumeFacts("big", 2 * 10**8)}
SCENE["v4"] = VolumeFacts("CT · synthesised · Any2all", 10**6, made_here=True)


def small_form() -> Form:
    """T1 is available as ``v1``; everything else is missing and wanted."""
    made = Form(rows={"T1": Row("available", "v1")})
    made.fit(INFO)
    return made
