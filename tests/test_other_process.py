"""Items made by another process: the same, one ahead, and an error in words when it is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from label_studio_config.other_process import ProcessKilledError, in_other_process


def test_the_same_items_from_another_process():
    made = list(in_other_process(lambda: ((n, os.getpid()) for n in range(5)), "counts"))
    assert [n for n, _ in made] == [0, 1, 2, 3, 4]
    assert os.getpid() not in {pid for _, pid in made}


def test_its_error_is_raised_here_with_where_it_was():
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("depth")

    items = in_other_process(broken, "reads")
    assert next(items) == 1
    with pytest.raises(KeyError, match="depth") as raised:
        next(items)
    assert "in broken" in raised.value.__notes__[0]


def test_killed_it_says_what_to_do():
    def killed() -> Iterator[int]:
        yield 1
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ProcessKilledError, match=r"that reads was killed.*A repetition goes on"):
        list(in_other_process(killed, "reads"))


def test_it_ends_with_whoever_takes_the_items():
    def endless() -> Iterator[int]:
        while True:
            yield os.getpid()

    items = in_other_process(endless, "counts")
    pid = next(items)
    items.close()
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
