"""One training through `planktrait`'s own `train`, on images that a benchmark chose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from benchmarks.ndsb import schema_of, tasks_of
from ml_backend.fit import FitSettings
from ml_backend.registry import Registry
from ml_backend.report import TrainingReport
from ml_backend.split import SplitRule
from ml_backend.train import train

VALIDATION_SHARE = 0.15
RULE = SplitRule("image", 1 - VALIDATION_SHARE, VALIDATION_SHARE, "a benchmark")
CACHE = Path(__file__).parent / "work" / "cache"


def train_on(
    some: pd.DataFrame,
    labels: str,
    data: Path,
    home: Path,
    encoder: Path,
    settings: FitSettings,
) -> TrainingReport:
    """Train a new version on the images of a table, as from `read_table`; held-out ones are blind.

    Parameters
    ----------
    labels : str
        "groups" or "classes"; those of the table are what the config asks for.
    home : Path
        Emptied first; holds the version.
    """
    shutil.rmtree(home, ignore_errors=True)
    RULE.write(home)
    schema = schema_of(some, labels)
    return train(
        tasks_of(some, labels, schema),
        schema,
        resolve_image=lambda url: data / url,
        registry=Registry(home),
        encoder=encoder,
        cache_folder=CACHE,
        settings=settings,
    )
