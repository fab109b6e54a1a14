"""What a training has reached, on disk: one file a run, whole or not there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from hpc_jobs.whole_files import replacing

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Take the place of the run's checkpoint in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    # Into an open file: a path's own writer does not tell that the disk is full.
    with replacing(folder / CHECKPOINT) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint, or {} without one or for one that cannot be read: then start clean."""
    path = folder / CHECKPOINT
    if not path.exists():
        return {}
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # cut off by a full disk, say
        logger.warning("%s cannot be read (%s): starting clean", path, error)
        return {}


def remove_checkpoints(folder: Path) -> None:
    """Forget the runs in a folder and below, once their model is a version."""
    for path in folder.rglob(CHECKPOINT):
        path.unlink(missing_ok=True)
