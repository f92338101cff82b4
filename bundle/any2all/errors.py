"""The one error that users see: it names the key, the value and what is allowed."""

from __future__ import annotations

from typing import Any


class Any2allError(ValueError):
    """Input that cannot be used, in words (contract 3 serialises the same fields).

    Args:
        message: one sentence that says what is wrong.
        key: the study key (dotted path, such as ``modalities.T1.file``) or the setting at fault.
        value: the offending value.
        allowed: what would have been accepted.
        hint: what the user can do next.
        code: a short stable word for programs, such as ``invalid_study``.
    """

    def __init__(
        self,
        message: str,
        *,
        key: str | None = None,
        value: Any = None,
        allowed: Any = None,
        hint: str | None = None,
        code: str = "invalid_study",
    ) -> None:
        self.message, self.key, self.value = message, key, value
        self.allowed, self.hint, self.code = allowed, hint, code
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The whole error as one line of text."""
        text = self.message.rstrip(".")
        if self.key is not None:
            text = f"{self.key}: {text}"
        if self.value is not None:
            text += f"; got {self.value!r}"
        if self.allowed is not None:
            allowed = self.allowed if isinstance(self.allowed, str) else ", ".join(map(str, self.allowed))
            text += f"; allowed: {allowed}"
        if self.hint is not None:
            text += f" ({self.hint})"
        return " ".join(text.split())

    def as_dict(self) -> dict[str, Any]:
        """The fields of contract 3's error reply, with a value that JSON can carry."""
        plain = (str, int, float, bool, type(None))
        return {
            "code": self.code,
            "message": self.message,
            "key": self.key,
            "value": self.value if isinstance(self.value, plain) else repr(self.value),
            "allowed": self.allowed if isinstance(self.allowed, (*plain, list, tuple)) else repr(self.allowed),
            "hint": self.hint,
        }


class Cancelled(Exception):
    """Raised inside a sampler when its caller asked to stop."""
