"""What is chosen in the panel, kept in the scene: saved and loaded with it. The token is never among it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import slicer

from .form import Form

ROLE = "Any2allVolume_"  # a node reference for each row, so that ids may change when a scene is loaded
FORM, CHOSEN, URL = "form", "chosen", "serverUrl"


@dataclass
class Remembered:
    """A form, the modalities whose row the user has decided, and the server's address."""

    form: Form = field(default_factory=Form)
    chosen: set[str] = field(default_factory=set)
    url: str = ""


class SceneMemory:
    """Writes to and reads from the module's parameter node, which ``get_node`` finds or makes."""

    def __init__(self, get_node: Callable[[], slicer.vtkMRMLScriptedModuleNode]) -> None:
        self._get_node = get_node

    def save(self, form: Form, chosen: set[str], url: str) -> None:
        """Bring the node up to what is chosen; untouched when nothing has changed."""
        node, document = self._get_node(), form.to_json()
        volumes = {name: row.pop("volume") for name, row in document["rows"].items()}
        texts = {FORM: json.dumps(document, sort_keys=True), CHOSEN: json.dumps(sorted(chosen)), URL: url}
        modified = node.StartModify()
        for key, text in texts.items():
            if node.GetParameter(key) != text:
                node.SetParameter(key, text)
        for name, volume in volumes.items():
            if (node.GetNodeReferenceID(ROLE + name) or "") != volume:
                node.SetNodeReferenceID(ROLE + name, volume or None)
        node.EndModify(modified)

    def load(self) -> Remembered:
        """What the node holds; an empty form where it holds nothing."""
        node = self._get_node()
        form = Form.from_json(_read(node.GetParameter(FORM)))
        for name, row in form.rows.items():
            row.volume = node.GetNodeReferenceID(ROLE + name) or ""
        chosen = _read(node.GetParameter(CHOSEN))
        names = {str(name) for name in chosen} if isinstance(chosen, list) else set()
        return Remembered(form, names, node.GetParameter(URL) or "")

    def forget(self) -> None:
        """Empty the node, as when the scene is closed."""
        node = self._get_node()
        for key in (FORM, CHOSEN, URL):
            node.UnsetParameter(key)


def _read(text: str) -> object:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None
