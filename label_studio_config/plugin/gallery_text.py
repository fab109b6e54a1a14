"""What free text finds a task by. No database."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from label_studio_config.home import LOCAL_FILES_URL

MOST_TEXT = 2000
"""Letters of a task's data that are searched."""


def search_text(data: Mapping[str, Any]) -> str:
    """What of a task's data is searched: texts and numbers, each once, in lower case.

    Also those in lists and objects. A text within another is not repeated, and of an image's
    address only the path counts. Where it is more than `MOST_TEXT` letters, the longest texts are
    cut off.
    """
    values = set(_texts(data.values()))
    kept: list[str] = []
    # PostgreSQL gives the fields in an order of its own.
    for text in sorted(values, key=lambda value: (-len(value), value)):
        if not any(text in longer for longer in kept):
            kept.append(text)
    found = "\n".join(kept)
    if len(found) > MOST_TEXT:
        found = "\n".join(sorted(values, key=lambda value: (len(value), value)))[:MOST_TEXT]
    return found


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            if isinstance(value, float) and not math.isfinite(value):
                continue
            text = str(value).lower().replace("\0", "")
            if LOCAL_FILES_URL in text:
                text = unquote(text.split("d=", 1)[-1])
            yield text
        elif isinstance(value, dict):
            yield from _texts(value.values())
        elif isinstance(value, list):
            yield from _texts(value)
