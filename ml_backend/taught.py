"""How many images taught a version, in the words of its page and its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REFITTED = (
    "few images: the model learned from the validation side too, after that had chosen how it is "
    "trained"
)
"""A note in the record; older records say by it alone that both sides taught."""


def refitted(record: Mapping[str, Any]) -> bool:
    """Whether the validation side taught too, once it had chosen."""
    return bool(record.get("refitted", REFITTED in (record.get("notes") or ())))


def images_that_taught(record: Mapping[str, Any], control: str | None = None) -> int | None:
    """How many images with votes taught a version, or its head of a control; None if not known."""
    for head in record.get("heads") or ():
        if head["control"] == control and head.get("n_images"):
            return head["n_images"]
    counts = record.get("images") or {}
    if counts.get("train") is None:
        return None
    return counts["train"] + (counts.get("validation", 0) if refitted(record) else 0)


def who_taught(record: Mapping[str, Any]) -> str:
    """What images with votes were for.

    >>> counts = {"train": 197, "validation": 44}
    >>> who_taught({"images": counts})
    '197 taught it, 44 chose its settings'
    >>> who_taught({"images": counts, "refitted": True})
    '241 taught it, 44 of which first chose its settings'
    """
    chose = (record.get("images") or {}).get("validation", 0)
    of_which = " of which first" if refitted(record) else ""
    return f"{images_that_taught(record) or 0:,} taught it, {chose:,}{of_which} chose its settings"
