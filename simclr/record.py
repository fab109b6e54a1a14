"""What a pretraining leaves behind after each epoch: encoder, checkpoint, figures, a plot."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from hpc_jobs import progress
from simclr.cache import ImageCache
from simclr.embed import features_of
from simclr.knn import KnnAccuracy, knn_accuracy

logger = logging.getLogger(__name__)

STAGE = "pretrain"
CHECKPOINT_FILE = "checkpoint.ckpt"
ENCODER_FOLDER = "encoder"
METRICS_FILE = "metrics.csv"
PLOT_FILE = "progress.png"
MOST_KNN_IMAGES = 3000


class EpochRecord(lightning.Callback):
    """Save and report after each epoch; of several ranks, the first does.

    Parameters
    ----------
    folder : Path
        Of the run.
    cache : ImageCache
        The images that are learned from.
    labels : dict of image id to label
        For the kNN accuracy; at most 3,000 images are judged.
    epochs : int
        Of the whole run.
    batch_size : int
        Images in a batch of all ranks.

    Raises
    ------
    FloatingPointError
        The loss of an epoch is not finite; what was saved before stays.
    """

    def __init__(
        self,
        folder: Path,
        cache: ImageCache,
        labels: dict[str, str],
        epochs: int,
        batch_size: int,
    ) -> None:
        self.folder, self.cache, self.epochs = folder, cache, epochs
        self.batch_size = batch_size
        self.rows, self.labels = _judged_rows(cache.image_ids, labels)
        self.history: list[dict[str, Any]] = []

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        done = trainer.current_epoch
        # A run killed between its figures and its checkpoint repeats that epoch.
        self.history = [row for row in read_history(self.folder) if row["epoch"] <= done]
        self.started_s, self.first_step = time.monotonic(), trainer.global_step
        if done:
            logger.info("pretraining goes on after epoch %d of %d", done, self.epochs)
        elif len(self.rows) and trainer.is_global_zero:
            self.history = [{"epoch": 0, **self._judge(module)}]

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.epoch_started_s = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        done, total = trainer.global_step, int(trainer.estimated_stepping_batches)
        per_step_s = (time.monotonic() - self.started_s) / max(1, done - self.first_step)
        left_s = per_step_s * (total - done)
        message = f"epoch {trainer.current_epoch + 1}/{self.epochs}, {_duration(left_s)} left"
        for row in self.history[-1:]:
            message += "".join(
                f", {name} {row[key]:.3f}"
                for name, key in (("loss", "loss"), ("kNN", "knn_macro"))
                if not math.isnan(row.get(key, math.nan))
            )
        progress.report(STAGE, done, total, message)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        loss = float(trainer.callback_metrics["loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of epoch {trainer.current_epoch + 1} is {loss}: lower the learning rate"
            )
        seconds = time.monotonic() - self.epoch_started_s
        images = trainer.num_training_batches * self.batch_size
        if trainer.is_global_zero:
            row = {
                "epoch": trainer.current_epoch + 1,
                "loss": loss,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": round(seconds, 2),
                "images_per_second": round(images / seconds, 1),
                **self._judge(module),
            }
            self.history.append(row)
            write_history(self.folder, self.history)
            logger.info("%s", ", ".join(f"{key} {_short(value)}" for key, value in row.items()))
            module.encoder.save(self.folder / ENCODER_FOLDER)  # type: ignore[operator, union-attr]
        # Lightning writes elsewhere and moves, which across disks is a copy that a kill can halve.
        beside = self.folder / f".{CHECKPOINT_FILE}.new"
        trainer.save_checkpoint(beside, weights_only=False)
        if trainer.is_global_zero:
            beside.replace(self.folder / CHECKPOINT_FILE)

    def _judge(self, module: Any) -> dict[str, float]:
        if not len(self.rows):
            return {}
        features = features_of(module.encoder, self.cache.images[self.rows])
        accuracy: KnnAccuracy = knn_accuracy(features, self.labels)
        return {"knn_macro": accuracy.macro, "knn_micro": accuracy.micro}


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.csv, one an epoch; none before the first."""
    path = folder / METRICS_FILE
    return pd.read_csv(path).to_dict("records") if path.is_file() else []  # type: ignore


def readable_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a run; None, with a warning, where it cannot be read."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever half a file makes its reader raise
        logger.warning("%s cannot be read, the run starts from the beginning: %s", path, error)
        return None
    return path


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.csv and its plot, each replaced atomically."""
    table = pd.DataFrame(history)
    temporary = folder / f".{METRICS_FILE}.{os.getpid()}"
    table.to_csv(temporary, index=False)
    temporary.replace(folder / METRICS_FILE)
    picture = folder / f".{os.getpid()}.{PLOT_FILE}"
    _draw(table, picture)
    picture.replace(folder / PLOT_FILE)


def _draw(table: pd.DataFrame, path: Path) -> None:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss")
    axes.plot(table["epoch"], table["loss"], color="C0", marker=".", label="loss")
    if "knn_macro" in table:
        accuracy = axes.twinx()
        accuracy.set(ylabel="kNN accuracy", ylim=(0, 1))
        accuracy.plot(table["epoch"], table["knn_macro"], color="C1", marker=".", label="kNN macro")
        accuracy.plot(table["epoch"], table["knn_micro"], color="C2", marker=".", label="kNN micro")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def _judged_rows(image_ids: list[str], labels: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of labelled images, and their labels; none where no label is shared by two."""
    rows = np.array([row for row, name in enumerate(image_ids) if name in labels], dtype=np.int64)
    if len(rows) > MOST_KNN_IMAGES:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_KNN_IMAGES, replace=False))
    names = np.array([labels[image_ids[row]] for row in rows])
    if len(rows) == len(set(names)):
        logger.info("%d labels, none shared by two images: no kNN accuracy", len(names))
        return rows[:0], names[:0]
    return rows, names


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
