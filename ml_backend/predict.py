"""Predictions for images: a table for files, and results for Label Studio.

>>> predictions = predict(model, manifest, model_version="project-7-v0003")  # doctest: +SKIP
>>> predictions.table().column("confidence")  # doctest: +SKIP
>>> predictions.suggestions()["image-1"]["result"]  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs import progress
from label_studio_config.manifest import Manifest, Skipped
from label_studio_config.prediction import (
    confidence_column,
    prediction_schema,
    probabilities_column,
    sd_column,
)
from label_studio_config.results import is_asked, write_result
from label_studio_config.schema import LabelSchema
from ml_backend.images import read_batches
from ml_backend.model import TraitModel
from ml_backend.schema_change import ServedHead, serve, with_prior

logger = logging.getLogger(__name__)

BATCH_SIZE = 128
SHARD_SIZE = 20_000
Value = str | list[str] | float


class PredictionError(ValueError):
    """Shards that belong to another model or other images; the message says the remedy."""


@dataclass(frozen=True)
class Predictions:
    """What a model says about the n images that could be read.

    Attributes
    ----------
    images : DataFrame
        image_id, sample_id, path; one row an image.
    schema : LabelSchema
        The config they are valid for.
    served : list of ServedHead
        The heads that fit it.
    unfit : dict
        Why each other control has no prediction.
    values : dict
        By control: calibrated probabilities (n, k), labels as in `served`; numbers (n, 1).
    embedding : float32 array (n, d)
    novelty : float32 array (n,)
        NaN where the model cannot tell.
    skipped : list of Skipped
        Images that could not be read.
    """

    images: pd.DataFrame
    schema: LabelSchema
    served: list[ServedHead]
    unfit: dict[str, str]
    values: dict[str, np.ndarray]
    embedding: np.ndarray
    novelty: np.ndarray
    model_version: str
    skipped: list[Skipped]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def confidence(self) -> np.ndarray:
        """Calibrated probability of the primary control's suggested label, (n,).

        NaN where the model serves no control with labels.
        """
        primary = primary_head(self.schema, self.served)
        if primary is None:
            return np.full(len(self), np.nan)
        return self.confidences[primary.head.control]

    @cached_property
    def choices(self) -> dict[str, np.ndarray]:
        """Which labels are suggested, bool (n, k) by control; numbers have none."""
        return {
            s.head.control: s.choose(self.values[s.head.control])
            for s in self.served
            if s.head.kind != "number"
        }

    @cached_property
    def confidences(self) -> dict[str, np.ndarray]:
        """Calibrated probability of what is suggested, (n,) by control; numbers have none.

        For "any of" that of the least sure label: the answer is the whole set.
        """
        sure = {}
        for s in self.served:
            if s.head.kind == "number":
                continue
            values, chosen = self.values[s.head.control], self.choices[s.head.control]
            if s.head.kind == "one of":
                sure[s.head.control] = values[chosen]
            else:
                sure[s.head.control] = np.where(chosen, values, 1 - values).min(axis=1)
        return sure

    def answers(self, row: int) -> dict[str, Value]:
        """The suggested value by control, for one image, where the control is asked."""
        values = {s.head.control: self._value(s, row) for s in self.served}
        chosen = {
            name: (value,) if isinstance(value, str) else tuple(value)
            for name, value in values.items()
            if not isinstance(value, float)
        }
        return {
            name: value
            for name, value in values.items()
            if is_asked(self.schema, self.schema.control(name), chosen)
        }

    def suggestions(self) -> dict[str, dict[str, Any]]:
        """What Label Studio takes as a prediction, by image id: result, score, model_version."""
        return {
            str(image_id): self._suggestion(row)
            for row, image_id in enumerate(self.images["image_id"])
        }

    def _value(self, served: ServedHead, row: int) -> Value:
        name = served.head.control
        if served.head.kind == "number":
            return float(self.values[name][row, 0])
        labels = [served.labels[k] for k in np.flatnonzero(self.choices[name][row])]
        return labels[0] if served.head.kind == "one of" else labels

    def _suggestion(self, row: int) -> dict[str, Any]:
        answers = self.answers(row)
        probabilities = {
            s.head.control: dict(
                zip(s.labels, self.values[s.head.control][row].tolist(), strict=True)
            )
            for s in self.served
            if s.head.kind != "number" and s.head.control in answers
        }
        novelty = float(self.novelty[row])
        result = write_result(
            self.schema,
            answers,
            probabilities=probabilities,
            novelty=None if np.isnan(novelty) else novelty,
        )
        score = float(self.confidence[row])
        return {
            "result": result,
            "score": None if np.isnan(score) else round(score, 4),
            "model_version": self.model_version,
        }

    def table(self) -> pa.Table:
        """The table of `label_studio_config.prediction`: one row an image."""
        heads = {s.head.control: s.labels for s in self.served}
        columns: dict[str, Any] = {
            name: [None if value != value else value for value in self.images[name]]
            for name in ("image_id", "sample_id", "path")
        }
        columns["model_version"] = [self.model_version] * len(self)
        columns["confidence"] = _nullable(self.confidence)
        columns["novelty"] = _nullable(self.novelty)
        columns["embedding"] = list(self.embedding.astype(np.float16))
        answers = [self.answers(row) for row in range(len(self))]
        for head in self.served:
            name, values = head.head.control, self.values[head.head.control]
            columns[name] = [answer.get(name) for answer in answers]
            if head.head.kind == "number":
                sd = head.head.sd
                columns[sd_column(name)] = [sd if name in answer else None for answer in answers]
                continue
            confidence = self.confidences[name]
            columns[confidence_column(name)] = [
                float(c) if name in answer else None
                for c, answer in zip(confidence, answers, strict=True)
            ]
            columns[probabilities_column(name)] = list(values.astype(np.float32))
        return pa.table(
            columns, schema=prediction_schema(self.schema, heads, self.embedding.shape[1])
        )


def predict(
    model: TraitModel,
    manifest: Manifest,
    *,
    schema: LabelSchema | None = None,
    model_version: str = "",
    priors: Mapping[str, Mapping[str, float]] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Predictions:
    """Predict every image of a manifest that can be read.

    Parameters
    ----------
    model : TraitModel
    manifest : Manifest
        The images, with their pixel sizes where they were known in training too.
    schema : LabelSchema, optional
        The config as it is now; by default the one the model was trained for. Heads that do not
        fit it are named in the log.
    priors : mapping, optional
        How often each label occurs where the images are from, by control, at any scale; by
        default as in the training votes.

    Returns
    -------
    Predictions
        In the order of the manifest, without the skipped images.
    """
    schema, priors = schema or model.schema, priors or {}
    heads = [with_prior(h, priors[h.control]) if h.control in priors else h for h in model.heads]
    served, unfit = serve(heads, schema)
    for control, reason in unfit.items():
        logger.info("control %r gets no prediction: %s", control, reason)
    rows: list[np.ndarray] = [np.zeros(0, dtype=int)]
    embeddings = [np.zeros((0, model.encoder.feature_count), dtype=np.float32)]
    values: dict[str, list[np.ndarray]] = {
        s.head.control: [np.zeros((0, len(s.labels) or 1))] for s in served
    }
    skipped: list[Skipped] = []
    preprocessing = model.encoder.preprocessing
    for batch in read_batches(manifest, preprocessing, batch_size, model.extent_unit):
        skipped += batch.skipped
        if len(batch.rows):
            answers = model.answer(batch.pixels, batch.log_extents, heads)
            rows.append(batch.rows)
            embeddings.append(answers.embedding)
            for s in served:
                values[s.head.control].append(s.narrow(answers.values[s.head.control]))
        done = sum(map(len, rows)) + len(skipped)
        progress.report("predict", done, len(manifest), f"{len(skipped)} skipped")
    table = manifest.table.reindex(columns=["image_id", "sample_id", "path"]).astype(object)
    embedding = np.concatenate(embeddings)
    unknown = np.full(len(embedding), np.nan, dtype=np.float32)
    return Predictions(
        images=table.iloc[np.concatenate(rows)].reset_index(drop=True),
        schema=schema,
        served=served,
        unfit=unfit,
        values={name: np.concatenate(parts) for name, parts in values.items()},
        embedding=embedding,
        novelty=model.novelty.score(embedding) if model.novelty is not None else unknown,
        model_version=model_version,
        skipped=skipped,
    )


def write_predictions(
    model: TraitModel,
    manifest: Manifest,
    folder: str | Path,
    *,
    schema: LabelSchema | None = None,
    model_version: str = "",
    shard_size: int = SHARD_SIZE,
) -> tuple[list[Path], list[Skipped]]:
    """Predict a manifest into Parquet shards; goes on where a killed run stopped.

    Each shard appears whole or not at all, and says which images of which version it holds.

    Returns
    -------
    shards : list of Path
        `part-00000.parquet` and so on, in the order of the manifest.
    skipped : list of Skipped

    Raises
    ------
    PredictionError
        The folder holds shards of another version, other images or another config.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    schema = schema or model.schema
    shards, skipped = [], []
    for number, start in enumerate(range(0, len(manifest), shard_size)):
        mask = np.zeros(len(manifest), dtype=bool)
        mask[start : start + shard_size] = True
        part = manifest.select(mask)
        path = folder / f"part-{number:05d}.parquet"
        mark = hashlib.sha256(
            f"{part.fingerprint}\0{model_version}\0{schema.fingerprint}".encode()
        ).hexdigest()
        if path.exists():
            skipped += _read_mark(path, mark)
        else:
            predictions = predict(model, part, schema=schema, model_version=model_version)
            _write_shard(predictions, path, mark)
            skipped += predictions.skipped
        shards.append(path)
    return shards, skipped


def primary_head(schema: LabelSchema, served: Iterable[ServedHead]) -> ServedHead | None:
    """The served head of the schema's primary control; if it has none, the first with labels."""
    with_labels = [s for s in served if s.head.kind != "number"]
    for s in with_labels:
        if schema.primary is not None and s.head.control == schema.primary.name:
            return s
    return with_labels[0] if with_labels else None


def _nullable(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _write_shard(predictions: Predictions, path: Path, mark: str) -> None:
    table = predictions.table()
    skipped = [[skip.path, skip.reason] for skip in predictions.skipped]
    metadata = {b"planktrait": json.dumps({"mark": mark, "skipped": skipped}).encode()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    temporary.replace(path)


def _read_mark(path: Path, mark: str) -> list[Skipped]:
    metadata = pq.read_schema(path).metadata or {}
    record = json.loads(metadata.get(b"planktrait", b"{}"))
    if record.get("mark") != mark:
        raise PredictionError(
            f"{path} holds predictions of another version or of other images: choose an empty "
            "folder, or remove the old shards"
        )
    return [Skipped(*entry) for entry in record["skipped"]]
