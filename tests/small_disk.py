"""A disk that is soon full, for tests of what becomes of work then."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECONDS_UNTIL_FREE = 30.0


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of this size, such as "9m", at a folder; call what it gives with a larger size.

    The test is skipped where this machine allows no mounts.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    refused = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    if refused:
        pytest.skip(f"this machine allows no mounts: {refused}")

    def grow(larger: str) -> None:
        assert not _mount("-o", f"remount,size={larger}", str(folder))

    try:
        yield grow
    finally:
        _unmount(folder)


def _mount(*options: str) -> str:
    """What it says where it refuses."""
    done = subprocess.run(["mount", *options], capture_output=True, text=True)
    return done.stderr.strip() or "mount failed" if done.returncode else ""


def _unmount(folder: Path) -> None:
    """It is busy for a moment: Arrow's threads close what they have read after it is returned."""
    end_s = time.monotonic() + SECONDS_UNTIL_FREE
    while (
        done := subprocess.run(["umount", str(folder)], capture_output=True, text=True)
    ).returncode:
        assert time.monotonic() < end_s, done.stderr
        time.sleep(0.1)
