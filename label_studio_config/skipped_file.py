"""The list of what was left out, as a table for whoever mends it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from label_studio_config.manifest import Skipped

SKIPPED_FILE = "_skipped.csv"
"""What reads a folder of shards leaves out names that begin so."""


def write_skipped(path: Path, skipped: Iterable[Skipped], root: Path | None = None) -> Path:
    """Write path and reason of each, as CSV; replaces the file atomically.

    Parameters
    ----------
    root : what lies below it is written relative to it, as in a manifest
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    table = pd.DataFrame([asdict(one) for one in skipped], columns=["path", "reason"])
    if root is not None:
        table["path"] = table["path"].str.removeprefix(f"{root}/")
    table.to_csv(temporary, index=False)
    temporary.replace(path)
    return path


def skipped_file(folder: Path, part: tuple[int, int] = (0, 1)) -> Path:
    """Where one of n calls that share a folder lists what it skipped.

    >>> skipped_file(Path("out"), (2, 8)).name
    '_skipped-2-of-8.csv'
    """
    name, ending = SKIPPED_FILE.split(".")
    return folder / (SKIPPED_FILE if part[1] == 1 else f"{name}-{part[0]}-of-{part[1]}.{ending}")


def remove_other_lists(folder: Path, part: tuple[int, int] = (0, 1)) -> None:
    """Remove the lists of calls that shared a folder otherwise: what they say may hold no more."""
    name, ending = SKIPPED_FILE.split(".")
    ours = {skipped_file(folder, (k, part[1])) for k in range(part[1])}
    for path in {folder / SKIPPED_FILE, *folder.glob(f"{name}-*-of-*.{ending}")} - ours:
        path.unlink(missing_ok=True)
