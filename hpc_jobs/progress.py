"""How far a piece of work is: a bar on a terminal, log lines elsewhere, a file when it is a job.

>>> from hpc_jobs import progress
>>> sum(progress.track(range(4), "add"))
6
>>> progress.report("train", done=3, total=10, message="loss 0.41")
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from hpc_jobs.files import read_json, write_json

logger = logging.getLogger(__name__)

JOB_FOLDER_VARIABLE = "PLANKTRAIT_JOB_FOLDER"
FILE_NAME = "progress.json"
SECONDS_BETWEEN_FILES = 0.5
SECONDS_BETWEEN_LOG_LINES = 10.0

Item = TypeVar("Item")


@dataclass(frozen=True)
class Progress:
    """Where a piece of work stands.

    Attributes
    ----------
    stage : str
        What is being done, e.g. "decode images".
    done, total : int
        Units done of all units; `total` is 0 where it is not known.
    message : str
        Anything worth a glance, e.g. the current loss.
    updated : float
        Unix time of the report, in seconds.
    """

    stage: str
    done: int
    total: int
    message: str = ""
    updated: float = 0.0

    @property
    def share(self) -> float | None:
        """Done of total, 0 to 1; None where the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None

    def as_text(self) -> str:
        """One line for a log or a table: `train 3/10 (loss 0.41)`."""
        amount = f"{self.done}/{self.total}" if self.total else str(self.done)
        return f"{self.stage} {amount}" + (f" ({self.message})" if self.message else "")


@dataclass
class _Reporter:
    """What was last told to whom, so that nobody is told too often."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stage: tuple[str, str | None] | None = None
    file_written_s: float = 0.0
    line_logged_s: float = 0.0
    bar: Any = None

    def report(self, progress: Progress) -> None:
        with self.lock:
            folder = os.environ.get(JOB_FOLDER_VARIABLE)
            new_stage = (progress.stage, folder) != self.stage
            last = bool(progress.total) and progress.done >= progress.total
            self.stage = None if last else (progress.stage, folder)
            now = time.monotonic()
            if folder and (new_stage or last or now - self.file_written_s > SECONDS_BETWEEN_FILES):
                self.file_written_s = now
                _write(Path(folder), progress)
            if sys.stderr.isatty():
                self._draw(progress, new_stage, last)
            elif new_stage or last or now - self.line_logged_s > SECONDS_BETWEEN_LOG_LINES:
                self.line_logged_s = now
                logger.info("%s", progress.as_text())

    def _draw(self, progress: Progress, new_stage: bool, last: bool) -> None:
        if new_stage or self.bar is None:
            self._close()
            self.bar = tqdm(total=progress.total or None, desc=progress.stage, file=sys.stderr)
        self.bar.set_postfix_str(progress.message, refresh=False)
        self.bar.update(progress.done - self.bar.n)
        if last:
            self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


_reporter = _Reporter()
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
_listener: ContextVar[Callable[[Progress], None] | None] = ContextVar("listener", default=None)


def report(stage: str, done: int, total: int, message: str = "") -> None:
    """Say how far the work is. Cheap enough to call in every step of a loop.

    Parameters
    ----------
    stage : str
        What is being done; a new name starts a new bar.
    done, total : int
        Units done of all units; `total` 0 where it is not known.
    message : str
        Shown beside the numbers.
    """
    if _quiet.get():
        return
    progress = Progress(stage, int(done), int(total), message, time.time())
    listener = _listener.get()
    if listener is not None:
        listener(progress)
    _reporter.report(progress)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what is called inside, in this thread, from reporting: its caller does."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextmanager
def told_to(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Tell a function, too, of what is reported inside, in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def track(iterable: Iterable[Item], stage: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items of `iterable` and report after each.

    Parameters
    ----------
    iterable : iterable
    stage : str
        What is being done.
    total : int, optional
        How many items there are; by default `len(iterable)` where it has a length.
    """
    if total is None:
        total = len(iterable) if isinstance(iterable, Sized) else 0
    report(stage, 0, total)
    for done, item in enumerate(iterable, start=1):
        yield item
        report(stage, done, total)


def read(job_folder: Path) -> Progress | None:
    """The last progress that a job wrote into its folder; None before the first."""
    content = read_json(Path(job_folder) / FILE_NAME)
    try:
        return Progress(**content) if isinstance(content, dict) else None
    except TypeError:
        return None


def _write(job_folder: Path, progress: Progress) -> None:
    try:
        write_json(job_folder / FILE_NAME, vars(progress))
    except OSError as error:  # a full disk must not end a training through its progress bar
        logger.warning("progress not written to %s: %s", job_folder, error)
