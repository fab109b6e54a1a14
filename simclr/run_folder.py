"""Whose a run folder is: one run's, told by its arguments, and one process's at a time."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from hpc_jobs.whole_files import replacing
from simclr.cache import ImageCache
from simclr.encoder import Encoder
from simclr.record import CHECKPOINT_FILE, METRICS_FILE, read_history
from simclr.settings import (
    PretrainError,
    SimCLRSettings,
    completed_facts,
    settings_facts,
)

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
SKIPPED_FILE = "_skipped.csv"


def run_arguments(
    encoder: Encoder, cache: ImageCache, epochs: int, settings: SimCLRSettings
) -> dict[str, Any]:
    """What makes two runs the same, as JSON keeps it."""
    facts = {
        "backbone": encoder.backbone_name,
        "preprocessing": encoder.preprocessing.as_dict(),
        "images": cache.folder.name,
        "image_count": len(cache),
        "epochs": epochs,
        **settings_facts(settings),
    }
    if encoder.trained:  # random weights follow from the rest
        facts["initial_weights"] = _weights_digest(encoder)
    return dict(json.loads(json.dumps(facts)))


def arguments_digest(arguments: Mapping[str, Any]) -> str:
    """A short name for the arguments of a run."""
    text = json.dumps(arguments, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _weights_digest(encoder: Encoder) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the run folder; who comes second waits, and finds the run finished."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process learns in %s: waiting for its end", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def claim(folder: Path, arguments: dict[str, Any], fresh: bool) -> None:
    """Make the folder this run's, or go on with it if it is already."""
    path = folder / RUN_FILE
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        for name in (RUN_FILE, CHECKPOINT_FILE, METRICS_FILE):
            (folder / name).unlink(missing_ok=True)
    if path.is_file():
        earlier = completed_facts(json.loads(path.read_text()))
        keys = arguments.keys() | earlier.keys()
        different = sorted(key for key in keys if earlier.get(key) != arguments.get(key))
        if different:
            raise PretrainError(
                f"{folder} holds a run with other {', '.join(different)}: "
                f"give another folder, or start afresh (fresh)"
            )
    temporary = folder / f".{RUN_FILE}"
    temporary.write_text(json.dumps(arguments, indent=2))
    temporary.replace(path)


def list_skipped(folder: Path, cache: ImageCache) -> None:
    """List the images that are not learned from, beside the run."""
    path = folder / SKIPPED_FILE
    table = pd.DataFrame([asdict(one) for one in cache.skipped], columns=["path", "reason"])
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
    if cache.skipped:
        logger.warning("%d images cannot be read: all are listed in %s", len(cache.skipped), path)


def count_images(encoder_folder: Path) -> int:
    """Images that an encoder of a run was learned from."""
    arguments = json.loads((encoder_folder.parent / RUN_FILE).read_text())
    return int(arguments["image_count"])


def is_finished(folder: Path, epochs: int) -> bool:
    """Whether the folder holds all epochs of its run."""
    history = read_history(folder)
    whole = bool(history) and history[-1]["epoch"] >= epochs
    return whole and (folder / CHECKPOINT_FILE).is_file()
