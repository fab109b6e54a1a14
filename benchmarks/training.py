"""One training through `planktrait`'s own `train`, and what the model makes of any image then."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.ndsb import CONTROL, manifest_of, schema_of, tasks_of
from hpc_jobs.whole_files import replacing
from label_studio_config.schema import LabelSchema
from ml_backend.describe import describe
from ml_backend.evaluate import evaluate_labels
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel
from ml_backend.registry import Registry
from ml_backend.report import TrainingReport
from ml_backend.schema_change import serve
from ml_backend.split import SplitRule, Unit
from ml_backend.train import train
from simclr.cache import ImageCache
from simclr.encoder import Encoder

VALIDATION_SHARE = 0.15
RULE = SplitRule("image", 1 - VALIDATION_SHARE, VALIDATION_SHARE, "a benchmark")
WORK = Path(__file__).parent / "work"
CACHE = WORK / "cache"


def heads_only(settings: FitSettings) -> FitSettings:
    """The settings, for heads on frozen features."""
    return replace(settings, fine_tune=replace(settings.fine_tune, epochs=0))


def train_tasks(
    tasks: list[dict[str, Any]],
    schema: LabelSchema,
    data: Path,
    home: Path,
    encoder: Path | None,
    settings: FitSettings,
    cache_folder: Path | None = None,
    unit: Unit = "image",
) -> TrainingReport:
    """Train a version in `home`, as `planktrait train` does; it goes on where it was ended.

    With `unit` "sample" the tasks' sample ids decide who teaches and who chooses.
    """
    replace(RULE, unit=unit).write(home)
    return train(
        tasks,
        schema,
        resolve_image=lambda url: (data / url).resolve(),
        registry=Registry(home),
        encoder=encoder,
        cache_folder=cache_folder or CACHE,
        settings=settings,
    )


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
    schema = schema_of(some, labels)
    return train_tasks(tasks_of(some, labels, schema), schema, data, home, encoder, settings)


def decoded(
    table: pd.DataFrame, data: Path, encoder: Encoder, cache_folder: Path | None = None
) -> ImageCache:
    """The images of a table, in its order, as the encoder takes them.

    Raises
    ------
    SystemExit
        An image cannot be read.
    """
    cache = ImageCache.build(manifest_of(table, data), encoder.preprocessing, cache_folder or CACHE)
    if cache.image_ids != table["image"].tolist():
        raise SystemExit(f"{len(cache.skipped)} images of {data} cannot be read")
    return cache


def inputs_of(
    model: TraitModel, table: pd.DataFrame, rows: np.ndarray, data: Path, keep: bool
) -> Tensor:
    """The heads' inputs of some rows of a table, (len(table), d); of the others they mean nothing.

    With `keep`, what the encoder makes of an image is written down for the next model with heads
    on the same frozen encoder.
    """
    cache = decoded(table, data, model.encoder)
    if not keep:
        return describe(model, cache.images, cache.log_extents, rows)
    mark = f"{cache.folder.name}\0{model.views}\0{model.encoder.fingerprint}"
    digest = hashlib.sha256(mark.encode())
    path = WORK / "inputs" / f"{digest.hexdigest()[:16]}.npy"
    kept = np.full((len(table), len(model.input_mean)), np.nan, dtype=np.float32)
    if path.is_file():
        kept = np.load(path)
    missing = rows[np.isnan(kept[rows, 0])]
    if len(missing):
        made = describe(model, cache.images, cache.log_extents, missing)
        kept[missing] = made[missing].numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, kept)
    return torch.from_numpy(kept)


def evaluate_on(model: TraitModel, inputs: Tensor, truth: np.ndarray) -> dict[str, Any]:
    """How good the suggestions are, as `train` measures it, on images that taught nothing.

    Parameters
    ----------
    inputs : Tensor, shape (n, d)
        As from `inputs_of`.
    truth : array of str (n,)
    """
    (served,), _ = serve(model.heads, model.schema)
    with torch.no_grad():
        logits = model.classify(inputs)[CONTROL].numpy()
    probabilities = served.narrow(served.head.answer(logits))
    shares = np.array([[label == name for name in served.labels] for label in truth], dtype=float)
    return evaluate_labels(
        "one of",
        served.labels,
        probabilities,
        served.before_correction(probabilities),
        served.choose(probabilities),
        shares,
        np.arange(len(truth)).astype(str),
    )
