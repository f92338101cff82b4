"""Which rows of the form follow the scene by themselves, and which the user has decided."""

from __future__ import annotations

from collections.abc import Sequence

from .assign import VolumeInfo, assign
from .form import Form
from .protocol import ModalityInfo


def follow_scene(form: Form, chosen: set[str], volumes: Sequence[VolumeInfo], stack: Sequence[ModalityInfo]) -> bool:
    """Assign the scene's volumes to the rows that nobody has touched → whether a row has changed.

    Args:
        form: its rows are changed in place.
        chosen: modalities whose row the user has decided; these rows, and the volumes that they use, are left alone.
        volumes: of the scene, results of Any2all among them.
        stack: the server's modalities.
    """
    taken = {form.rows[name].volume for name in chosen if name in form.rows and form.rows[name].uses_volume}
    found = assign([volume for volume in volumes if volume.id not in taken], stack)
    changed = False
    for name, row in form.rows.items():
        wanted = ("available" if name in found else "missing", found.get(name, ""))
        if name not in chosen and (row.status, row.volume) != wanted:
            row.status, row.volume = wanted
            changed = True
    return changed
