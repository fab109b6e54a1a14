"""Predictions to count, from the shards that `planktrait predict` wrote."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from label_studio_config.prediction import labels_of, prior_of, probabilities_column
from label_studio_config.prediction_shards import ShardError, shard_metadata
from label_studio_config.words import counted, have
from ml_backend.quantify import QuantifyError, checked_prior
from ml_backend.split import clean_ids

NEEDED = ("image_id", "sample_id", "model_version")
PREDICT_AGAIN = "run `planktrait predict` again, then count again"


@dataclass(frozen=True)
class Predicted:
    """What a model says of one one-of control, on n images where it is asked.

    Attributes
    ----------
    labels : tuple of str
        The k labels that the model knows.
    prior : array (k,)
        The frequencies that the probabilities assume.
    suggested : int array (n,)
        The label that was suggested.
    probabilities : float32 array (n, k)
    not_asked : list of str
        Ids of further images that were predicted, where it is not asked, or that are not counted.
    model_version : str
        Of the model; empty where the shards do not say.
    """

    control: str
    labels: tuple[str, ...]
    prior: np.ndarray
    image_ids: list[str]
    sample_ids: list[str]
    suggested: np.ndarray
    probabilities: np.ndarray
    not_asked: list[str] = field(default_factory=list)
    model_version: str = ""

    def select(self, mask: np.ndarray) -> Predicted:
        """Some of the images, bool (n,); the others join those where it is not asked."""
        rows = np.flatnonzero(mask)
        others = [self.image_ids[row] for row in np.flatnonzero(~mask)]
        return replace(
            self,
            image_ids=[self.image_ids[row] for row in rows],
            sample_ids=[self.sample_ids[row] for row in rows],
            suggested=self.suggested[rows],
            probabilities=self.probabilities[rows],
            not_asked=self.not_asked + others,
        )


def asked_of_none(control: str) -> str:
    """In the same words where the model asks it of blind images that nobody may know of."""
    return (
        f"control {control!r}: the model asks it of no image; blind ones count where people "
        "answered it"
    )


def read_predictions(folder: Path | str, control: str) -> Predicted:
    """Read the shards that `planktrait predict` wrote.

    Raises
    ------
    QuantifyError
        No shards, one that is cut off, no such control in them, one that is not "one of", shards
        of two versions or priors, or without a prior; labels or probabilities that are none.
    """
    paths = sorted(Path(folder).glob("part-*.parquet"))
    if not paths:
        raise QuantifyError(f"{folder} holds no predictions: write them with `planktrait predict`")
    marks = {_mark(path, control) for path in paths}
    if not all(prior for _, prior in marks):
        raise QuantifyError(
            f"{folder} does not say at which prior it was predicted: predict again, into an empty "
            "folder"
        )
    if len(marks) > 1:
        raise QuantifyError(
            f"{folder} holds predictions at several priors or of several sets of labels: predict "
            "again, into an empty folder"
        )
    labels, prior = marks.pop()
    table = pa.concat_tables(_read(path, control) for path in paths)
    version = _one_version(table["model_version"], folder)
    ids = pd.Series(table["image_id"].to_pylist(), dtype=object)
    if ids.duplicated().any():
        raise QuantifyError(
            f"{folder}: image {ids[ids.duplicated()].iloc[0]!r} was predicted twice: predict "
            "again, into an empty folder"
        )
    asked = table[control].is_valid().to_numpy()  # a trait is not asked of every image
    if not asked.any():
        raise QuantifyError(asked_of_none(control))
    table = table.filter(asked)
    predicted = Predicted(
        control,
        labels,
        checked_prior(np.array(prior), len(labels)),
        ids[asked].tolist(),
        clean_ids(table["sample_id"].to_pylist()),
        _places(table[control], labels),
        _probabilities(table[probabilities_column(control)], len(labels)),
        ids[~asked].tolist(),
        version,
    )
    _check_numbers(predicted, folder)
    return predicted


def _mark(path: Path, control: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The labels and prior of a shard."""
    try:
        schema = shard_metadata(path, NEEDED).schema.to_arrow_schema()
    except ShardError as error:
        raise QuantifyError(f"{path} is {error}: {PREDICT_AGAIN}") from error
    column = _column(schema, path.parent, control)
    return labels_of(column), tuple(prior_of(column) or ())


def _read(path: Path, control: str) -> pa.Table:
    columns = [*NEEDED, control, probabilities_column(control)]
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise QuantifyError(f"{path} cannot be read ({error}): {PREDICT_AGAIN}") from error


def _one_version(column: pa.ChunkedArray, folder: Path | str) -> str:
    versions = sorted({str(version or "") for version in column.unique().to_pylist()})
    if len(versions) > 1:
        raise QuantifyError(
            f"{folder} holds predictions of several versions ({', '.join(versions)}): predict "
            "again, into an empty folder"
        )
    return versions[0] if versions else ""


def _places(suggested: pa.ChunkedArray, labels: tuple[str, ...]) -> np.ndarray:
    """The numbers of the labels that were suggested, int (n,)."""
    names = suggested.to_pandas()
    strange = names[~names.isin(labels)]
    if len(strange):
        raise QuantifyError(
            f"{strange.iloc[0]!r} was suggested, which is none of the model's labels "
            f"{list(labels)}: predict again, into an empty folder"
        )
    place = {label: number for number, label in enumerate(labels)}
    return names.map(place).to_numpy(dtype=int)


def _probabilities(column: pa.ChunkedArray, k: int) -> np.ndarray:
    """Float32 (n, k); no numbers where a list is missing or has another length."""
    lists = column.combine_chunks()
    whole = lists.is_valid().to_numpy(zero_copy_only=False)
    whole = whole & (np.diff(lists.offsets.to_numpy()) == k)
    full = np.full((len(whole), k), np.nan, dtype=np.float32)
    flat = lists.filter(pa.array(whole)).flatten()
    full[whole] = flat.to_numpy(zero_copy_only=False).reshape(-1, k)
    return full


def _check_numbers(predicted: Predicted, folder: Path | str) -> None:
    wrong = np.flatnonzero(~np.isfinite(predicted.probabilities).all(axis=1))
    if len(wrong):
        raise QuantifyError(
            f"{folder}: {counted(len(wrong), 'image')} {have(len(wrong))} no probabilities, or "
            f"some that are no numbers, e.g. {predicted.image_ids[wrong[0]]!r}: predict again, "
            "into an empty folder; if it comes again, the model is broken: train a new version"
        )


def _column(schema: pa.Schema, folder: Path, control: str) -> pa.Field:
    known = [
        name.removesuffix("__probabilities")
        for name in schema.names
        if name.endswith("__probabilities") and name.removesuffix("__probabilities") in schema.names
    ]
    known = [name for name in known if pa.types.is_string(schema.field(name).type)]
    if control not in known:
        raise QuantifyError(
            f"{folder} has no predictions of a one-of control {control!r}: choose --control "
            f"from {known}"
        )
    return schema.field(probabilities_column(control))
