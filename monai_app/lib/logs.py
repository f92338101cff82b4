"""Structured logs: one JSON line per event, its fields from a closed set, nothing in it that a client wrote."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import re
import threading
import traceback
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = "any2all"
KEPT_LINES = 1000
TALKATIVE = ("monailabel", "python_multipart", "multipart")  # they print requests, file names and form fields

Value = str | int | float | None

WORD = re.compile(r"[A-Za-z0-9_.:/{}-]{1,80}")
EVENT = re.compile(r"[a-z][a-z0-9_ ,]{0,59}")
FRAMES = re.compile(r"[A-Za-z0-9_.:/<> -]{1,400}")
FIELDS: dict[str, re.Pattern[str] | None] = {  # what a text has to look like; None: an address of a peer
    "job": WORD,
    "state": WORD,
    "stage": WORD,
    "seconds": WORD,
    "code": WORD,
    "error_id": WORD,
    "error": WORD,  # class of an exception
    "where": FRAMES,  # file, line and function of an exception; its text may hold names and is left out
    "peer": None,
    "method": WORD,
    "path_template": WORD,  # as the route is declared, never as it was asked
    "status": WORD,
    "count": WORD,
    "bytes": WORD,
    "device": WORD,
}

_recent: deque[str] = deque(maxlen=KEPT_LINES)
_lock = threading.Lock()


@dataclass(frozen=True)
class Events:
    """Writes the events of one part of the server; see `events`."""

    name: str

    def info(self, event: str, **fields: Value) -> None:
        """Something went as it should. ``fields`` are named in `FIELDS`; None is left out."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Value) -> None:
        """Something was refused or given up. Fields as for `info`."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Value) -> None:
        """Something that an administrator has to look at. Fields as for `info`."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Value]) -> None:
        line = _line(level, event, fields)
        with _lock:
            _recent.append(line)
        logging.getLogger(f"{ROOT}.{self.name}").log(level, line)


def events(name: str) -> Events:
    """The event logger of one part, such as ``jobs``.

    A line is ``{"time", "level", "event", ...fields}``. It goes to the standard logger ``any2all.<name>``, whose
    parents write it where MONAI Label writes its own, and into the lines that `recent` returns.
    """
    return Events(name)


def where(error: BaseException) -> str:
    """File, line and function of an exception's last frames; its text may name files and patients and is left out."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)[-400:]


def recent(lines: int) -> list[str]:
    """The last events, oldest first; at most ``lines`` and at most `KEPT_LINES`."""
    with _lock:
        kept = list(_recent)
    return kept[-lines:] if lines > 0 else []


def setup() -> None:
    """Let our events through and keep the libraries' words about requests out, but not their warnings."""
    logging.getLogger(ROOT).setLevel(logging.INFO)
    known = [name for name in logging.root.manager.loggerDict if name.startswith(tuple(f"{t}." for t in TALKATIVE))]
    for name in (*TALKATIVE, *known):
        logger = logging.getLogger(name)
        if name in TALKATIVE or logger.level != logging.NOTSET:
            logger.setLevel(max(logger.level, logging.WARNING))


def _line(level: int, event: str, fields: dict[str, Value]) -> str:
    unknown = fields.keys() - FIELDS.keys()
    if unknown or not EVENT.fullmatch(event):
        raise TypeError(f"not fields of the log: {sorted(unknown)}, or not a name of an event")
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    said = {key: _clean(key, value) for key, value in fields.items() if value is not None}
    return json.dumps({"time": time, "level": logging.getLevelName(level).lower(), "event": event, **said})


def _clean(key: str, value: Value) -> Value:
    """A number, or a text that looks as `FIELDS` says; ``?`` otherwise, because a client may have written it."""
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    if isinstance(value, int):
        return value
    pattern = FIELDS[key]
    if pattern is None:
        return _address(value)
    return value if isinstance(value, str) and pattern.fullmatch(value) else "?"


def _address(text: Value) -> str:
    try:
        return str(ipaddress.ip_address(str(text).partition("%")[0]))
    except ValueError:
        return "?"
