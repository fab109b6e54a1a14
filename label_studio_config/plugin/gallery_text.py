"""What free text finds a task by. No database."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from itertools import count, islice
from typing import Any
from urllib.parse import unquote

from label_studio_config.home import LOCAL_FILES_URL

MOST_TEXT = 2000
"""Letters of a task's data that are searched."""

MOST_WITHIN = 500
"""Of these, those within lists and objects where texts beside them are too long for all."""


def search_text(data: Mapping[str, Any]) -> str:
    """What of a task's data is searched: texts and numbers, each once, in lower case.

    A text within another is not repeated, and of an image's address only the path counts. Where it
    is more than `MOST_TEXT` letters, the longest texts are cut off. What lies in lists and objects
    gets the room that is left, and `MOST_WITHIN` letters where the rest is cut off anyway.
    """
    texts = set(filter(None, map(_searched, data.values())))
    own = _joined(texts, MOST_TEXT)
    room = MOST_WITHIN if len(own) == MOST_TEXT else MOST_TEXT - len(own) - 1
    within = ""
    # Of more than that nothing is kept: there are embeddings and outlines in some tasks' data.
    for text in islice(_within(data), MOST_TEXT):
        if room <= 0:
            break
        if text not in own and text not in within:
            within += "\n" + text[:room]
            room -= len(text) + 1
    if len(own) + len(within) > MOST_TEXT:
        own = _joined(texts, MOST_TEXT - len(within))
    return (own + within).lstrip("\n")


def _joined(texts: set[str], most: int) -> str:
    kept: list[str] = []
    room = most + 1
    # PostgreSQL gives the fields in an order of its own.
    for text in sorted(texts, key=lambda text: (-len(text), text)):
        if not any(text in longer for longer in kept):
            kept.append(text)
            room -= len(text) + 1
            if room < 0:
                return "\n".join(sorted(texts, key=lambda text: (len(text), text)))[:most]
    return "\n".join(kept)


def _within(data: Mapping[str, Any]) -> Iterator[str]:
    """The texts in lists and objects, those in short ones first, however deep they lie."""
    found: list[tuple[int, int, Any]] = []
    number = count()
    holder: Any = {name: value for name, value in data.items() if isinstance(value, (dict, list))}
    while True:
        for value in map(holder.get, sorted(holder)) if isinstance(holder, dict) else holder:
            if isinstance(value, (dict, list)):
                heappush(found, (len(value), next(number), value))
            elif text := _searched(value):
                yield text
        if not found:
            return
        *_, holder = heappop(found)


def _searched(value: Any) -> str:
    """A text or a number as it is searched; empty for anything else."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    text = str(value).lower().replace("\0", "")
    return unquote(text.split("d=", 1)[-1]) if LOCAL_FILES_URL in text else text
