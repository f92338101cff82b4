"""``qt.QSettings`` in memory, with what an INI file does to values: after a restart everything is text."""

from __future__ import annotations

from typing import Any

_stored: dict[str, Any] = {}


def clear() -> None:
    _stored.clear()


def _as_read_back(value: Any) -> Any:
    """A flag comes back as "true", a number as its digits, a list of one as its item, an empty list as None."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return None if not value else str(value[0]) if len(value) == 1 else tuple(str(item) for item in value)
    return None if value is None else str(value)


class Settings:
    """The part of QSettings that modules use. All instances share one store, as in the application."""

    def __init__(self) -> None:
        self._group: list[str] = []

    def _key(self, key: str) -> str:
        if not isinstance(key, str):
            raise TypeError(f"settings key {key!r} is not text")
        return "/".join([*self._group, key])

    def value(self, key: str, default: Any = None) -> Any:
        return _stored.get(self._key(key), default)

    def setValue(self, key: str, value: Any) -> None:
        _stored[self._key(key)] = _as_read_back(value)

    def contains(self, key: str) -> bool:
        return self._key(key) in _stored

    def remove(self, key: str) -> None:
        full = self._key(key)
        for stored in [name for name in _stored if name == full or name.startswith(full + "/")]:
            del _stored[stored]

    def allKeys(self) -> tuple[str, ...]:
        prefix = self._key("")
        return tuple(name[len(prefix) :] for name in _stored if name.startswith(prefix))

    def beginGroup(self, name: str) -> None:
        self._group.append(name)

    def endGroup(self) -> None:
        self._group.pop()

    def sync(self) -> None:
        """Nothing is buffered."""
