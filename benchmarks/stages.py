"""How long each stage of some work takes, told by its progress."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from hpc_jobs import progress

BEFORE = "begin"


@contextmanager
def timed_stages() -> Iterator[dict[str, float]]:
    """Yield a dict that fills with the seconds of each stage, in their order.

    A stage lasts from its first report to the first one of another stage, or to the end; what comes
    before any report is "begin". One that comes again is added to.
    """
    seconds: dict[str, float] = {}
    stage, began_s = BEFORE, time.monotonic()

    def end_stage(following: str) -> None:
        nonlocal stage, began_s
        now_s = time.monotonic()
        seconds[stage] = round(seconds.get(stage, 0.0) + now_s - began_s, 1)
        stage, began_s = following, now_s

    def hear(told: progress.Progress) -> None:
        if told.stage != stage:
            end_stage(told.stage)

    with progress.told_to(hear):
        yield seconds
    end_stage(BEFORE)
