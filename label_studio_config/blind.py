"""The one rule by which a task's data says that it is blind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_YES = ("yes", "true", "1")
_NO = ("no", "false", "0", "")


def is_blind_data(data: Mapping[str, Any]) -> bool:
    """Whether a task is marked blind: it never gets a suggestion and never trains anything.

    Examples
    --------
    >>> is_blind_data({"blind": "yes"}), is_blind_data({"blind": True}), is_blind_data({})
    (True, True, False)
    """
    return _text(data.get("blind")) in _YES


def can_say_blind(value: object) -> bool:
    """Whether a value can stand in `blind`: yes, true, 1, no, false, 0, or nothing."""
    return _text(value) in (*_YES, *_NO)


def _text(value: object) -> str:
    if value is None:
        return ""
    # A table with gaps turns 1 into 1.0.
    if isinstance(value, float) and value in (0.0, 1.0):
        value = int(value)
    return str(value).strip().lower()
