"""Key points in COCO: which slot of a category each label takes, and what joins them."""

from __future__ import annotations

import numpy as np

from export_tools.measures import key_lengths
from label_studio_config.controls import Control


def slots_of(control: Control) -> list[str]:
    """The names of the key points: a label that may be set twice has two."""
    slots = []
    for label in control.labels:
        usages = control.vocabulary.get(label, {}).get("maxUsages", "1")
        number = int(usages) if usages.isdigit() else 1
        slots += [label] if number <= 1 else [f"{label} {k + 1}" for k in range(number)]
    return slots


def free_slot(slots: list[str], label: str, triples: np.ndarray) -> int | None:
    """The first slot of that label that holds no point yet."""
    for slot, name in enumerate(slots):
        stem, _, number = name.rpartition(" ")
        is_mine = name == label or (number.isdigit() and stem == label)
        if is_mine and not triples[slot, 2]:
            return slot
    return None


def skeleton_of(control: Control, slots: list[str]) -> list[list[int]]:
    """Pairs of key points (counted from 1) that a length of the config joins."""
    pairs = []
    for start, ends in key_lengths(control).values():
        for end in ends.split("|"):
            if start in slots and end in slots:
                pairs.append([slots.index(start) + 1, slots.index(end) + 1])
    return pairs
