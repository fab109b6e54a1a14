"""Many items, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size` items, taken as they are needed."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items: a thread makes the next one while the last one is at work."""
    rest = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(next, rest, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, rest, end)
            yield item  # type: ignore[misc]
