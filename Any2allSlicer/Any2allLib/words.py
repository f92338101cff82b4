"""Numbers and lists as a person says them."""

from __future__ import annotations

from collections.abc import Sequence

from slicer.i18n import tr as _


def about(seconds: float | None) -> str:
    """A duration, roughly: ``~ 40 s``, ``~ 3 min``, ``~ 1 h 10 min``; '' where it is not known."""
    if seconds is None:
        return ""
    if seconds < 1.5:
        return _("~ 1 s")
    if seconds < 90:
        step = 1 if seconds < 10 else 5
        return _("~ {0} s").format(step * round(seconds / step))
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("~ {0} min").format(minutes)
    tens = 10 * round(minutes / 10)
    hours, rest = divmod(tens, 60)
    return _("~ {0} h {1} min").format(hours, rest) if rest else _("~ {0} h").format(hours)


def listed(names: Sequence[str]) -> str:
    """``T1``, ``T1 and T2``, ``T1, T2 and CT``."""
    if len(names) < 2:
        return "".join(names)
    return _("{0} and {1}").format(", ".join(names[:-1]), names[-1])
