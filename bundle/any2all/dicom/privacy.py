"""Words that could name a patient are taken out of whatever is written."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .header import text
from .series import Series

_NAMING = (
    "PatientID",
    "PatientName",
    "OtherPatientIDs",
    "PatientBirthDate",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_SHORTEST = 3
_IDEOGRAPHS = re.compile("[\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]")  # kana and hangul too
_REMOVED = "***"


def naming_words(series: Iterable[Series]) -> frozenset[str]:
    """Parts of names, numbers and dates that name the patients of these series, in lower case."""
    found = set()
    for one in series:
        for keyword in _NAMING:
            value = text(one.header, keyword).lower()
            found |= {value, *re.split(r"[\^\s=,\\/._-]+", value)}
    return frozenset(word for word in found if len(word) >= _SHORTEST or _IDEOGRAPHS.search(word))


def without_names(words: str, naming: frozenset[str]) -> str:
    """A text in which every such word is replaced by ***."""
    for word in sorted(naming, key=len, reverse=True):
        words = re.sub(re.escape(word), _REMOVED, words, flags=re.IGNORECASE)
    return words
