"""The text by which free text finds a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from label_studio_config.plugin.gallery_text import MOST_TEXT, search_text

PATH = "/data/local-files/?d=cruise%201/haul-07/crop-000123.png"
EMBEDDING = [n / 7919 for n in range(512)]
OUTLINE = [[n, n + 0.5] for n in range(512)]


class Watched(list[Any]):
    """A list that counts how many of its values were read."""

    read = 0

    def __iter__(self) -> Iterator[Any]:
        for value in super().__iter__():
            self.read += 1
            yield value


@pytest.mark.parametrize("numbers", [EMBEDDING, OUTLINE, {"z": EMBEDDING}, {"z": {"y": OUTLINE}}])
def test_long_lists_keep_nothing_else_out(numbers: object) -> None:
    """Neither what stands beside them nor what lies within other lists and objects."""
    data = {
        "a": numbers,
        "image": PATH,
        "remark": "Two eggs, " * 12,
        "gear": [{"name": "Bongo net"}, 333.5],
    }
    text = search_text(data)
    for part in ("cruise 1/haul-07/crop-000123.png", "two eggs, two", "bongo net", "333.5"):
        assert part in text
    assert len(text) <= MOST_TEXT
    # PostgreSQL gives the fields of objects in an order of its own.
    assert search_text(dict(reversed(data.items()))) == text


def test_of_a_long_list_no_more_is_read_than_can_be_kept() -> None:
    for values in ([n / 7919 for n in range(50_000)], [0.0] * 50_000, ["x" * 30] * 50_000):
        watched = Watched(values)
        text = search_text({"embedding": watched, "image": PATH})
        assert "crop-000123" in text
        assert str(values[0]) in text
        assert watched.read <= MOST_TEXT + 1
        assert len(text) <= MOST_TEXT


def test_what_is_too_long_leaves_what_is_short() -> None:
    remark = "nothing to see " * 300
    data = {"remark": remark, "image": PATH, "depth_m": 12.5, "net": ["bongo"], "a": EMBEDDING}
    text = search_text(data)
    assert len(text) == MOST_TEXT
    for part in ("crop-000123", "12.5", "nothing to see nothing", "bongo"):
        assert part in text
    # A remark that fits is whole.
    whole = remark[: MOST_TEXT - 100] + "but eggs"
    assert whole in search_text({**data, "remark": whole})


def test_each_text_is_there_once() -> None:
    data = {"image": PATH, "image_id": "crop-000123", "n": 7, "net": ["Bongo", "bongo", "crop-000"]}
    assert search_text(data) == "cruise 1/haul-07/crop-000123.png\nbongo"
    assert search_text({"net": ["", None, True, float("nan"), {}, []], "empty": ""}) == ""
