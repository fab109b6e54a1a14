"""What counts are made of: predictions, the groups of their images, and validated labels."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from label_studio_config.manifest import Manifest
from label_studio_config.prediction import labels_of, prior_of, probabilities_column
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import (
    image_id_of,
    is_blind,
    read_votes,
    vote_shares,
    weights_of,
)
from ml_backend.evaluate import modal_labels
from ml_backend.quantify import QuantifyError, checked_prior
from ml_backend.split import clean_ids

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
COLUMN_OF = {"depth": "depth_m", "day": "captured_at"}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


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
    """

    control: str
    labels: tuple[str, ...]
    prior: np.ndarray
    image_ids: list[str]
    sample_ids: list[str]
    suggested: np.ndarray
    probabilities: np.ndarray

    def select(self, mask: np.ndarray) -> Predicted:
        """Some of the images, bool (n,)."""
        rows = np.flatnonzero(mask)
        return replace(
            self,
            image_ids=[self.image_ids[row] for row in rows],
            sample_ids=[self.sample_ids[row] for row in rows],
            suggested=self.suggested[rows],
            probabilities=self.probabilities[rows],
        )


@dataclass(frozen=True)
class Groups:
    """Which group each of n images is in; `names` in the order of the numbers."""

    by: str
    names: list[str]
    numbers: np.ndarray


@dataclass(frozen=True)
class Validated:
    """What people said of m blind images that are among the predictions.

    Attributes
    ----------
    rows : int array (m,)
        Their positions among the predictions.
    labels : tuple of str
        Those of the model, then those that it does not know.
    shares : array (m, labels)
        1 for the label that most annotators chose, weighted where they have weights; a tie is
        split.
    notes : list of str
        What was left out, for people.
    """

    rows: np.ndarray
    labels: tuple[str, ...]
    shares: np.ndarray
    notes: list[str]


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
        No shards, no such control in them, one that is not "one of", shards of two models or
        priors, or without a prior.
    """
    paths = sorted(Path(folder).glob("part-*.parquet"))
    if not paths:
        raise QuantifyError(f"{folder} holds no predictions: write them with `planktrait predict`")
    fields = [_field(path, control) for path in paths]
    marks = {(labels_of(field), tuple(prior_of(field) or ())) for field in fields}
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
    name = probabilities_column(control)
    columns = ["image_id", "sample_id", control, name]
    table = pa.concat_tables(pq.ParquetFile(path).read(columns=columns) for path in paths)
    table = table.filter(table[control].is_valid())  # a trait is not asked of every image
    if not len(table):
        raise QuantifyError(asked_of_none(control))
    ids = pd.Series(table["image_id"].to_pylist(), dtype=object)
    if ids.duplicated().any():
        raise QuantifyError(
            f"{folder}: image {ids[ids.duplicated()].iloc[0]!r} was predicted twice: predict "
            "again, into an empty folder"
        )
    place = {label: number for number, label in enumerate(labels)}
    suggested = table[control].to_pandas().map(place).to_numpy(dtype=int)
    flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Predicted(
        control,
        labels,
        checked_prior(np.array(prior), len(labels)),
        ids.tolist(),
        clean_ids(table["sample_id"].to_pylist()),
        suggested,
        flat.reshape(len(table), len(labels)).astype(np.float32),
    )


def _field(path: Path, control: str) -> pa.Field:
    schema = pq.read_schema(path)
    known = [
        name.removesuffix("__probabilities")
        for name in schema.names
        if name.endswith("__probabilities")
        and pa.types.is_string(schema.field(name.removesuffix("__probabilities")).type)
    ]
    if control not in known:
        raise QuantifyError(
            f"{path.parent} has no predictions of a one-of control {control!r}: choose --control "
            f"from {known}"
        )
    return schema.field(probabilities_column(control))


def group_images(
    manifest: Manifest, image_ids: list[str], by: str = "sample_id", depth_bin_m: float = 10.0
) -> Groups:
    """Group predicted images by what the manifest says of them.

    Images that it does not know, or whose cell is empty, form the group "unknown", the last one.

    Parameters
    ----------
    by
        "depth" (bins of `depth_bin_m`), "day" (of captured_at, as written), or a column.

    Raises
    ------
    QuantifyError
        No such column, a bin that is not above 0, or no image in common.
    """
    column = COLUMN_OF.get(by, by)
    table = manifest.table
    if column not in table:
        raise QuantifyError(
            f"the images have no column {column!r} to count by; they have {list(table.columns)}"
        )
    if not 0 < depth_bin_m < np.inf:
        raise QuantifyError(f"a depth bin of {depth_bin_m} m: give a number above 0")
    names = _names(table[column], by, depth_bin_m)
    cells = pd.Series(names, index=table["image_id"].to_numpy(), dtype=object)
    known = pd.Index(image_ids).isin(cells.index)
    if not known.any():
        raise QuantifyError(
            "no predicted image is in --source: give the folder or manifest that was predicted"
        )
    if not known.all():
        logger.warning("%d predicted images are not in --source: unknown", (~known).sum())
    mine = cells.reindex(image_ids).fillna(UNKNOWN)
    order = sorted(set(names) | {UNKNOWN}, key=_sorting)
    present = set(mine)
    empty = [name for name in order if name not in present and name != UNKNOWN]
    if empty:
        shown = ", ".join(empty[:5]) + (" …" if len(empty) > 5 else "")
        logger.warning("%d groups have no predicted image: %s", len(empty), shown)
    n_unknown = int((mine == UNKNOWN).sum())
    if n_unknown:
        logger.warning("%d images have no %s: group %r", n_unknown, column, UNKNOWN)
    order = [name for name in order if name in present]
    number_of = {name: number for number, name in enumerate(order)}
    return Groups(by, order, mine.map(number_of).to_numpy(dtype=int))


def _names(cells: pd.Series, by: str, depth_bin_m: float) -> list[str]:
    if by == "depth":
        bins = np.floor(cells.to_numpy(dtype=float) / depth_bin_m)
        return [
            f"{b * depth_bin_m:g} to {(b + 1) * depth_bin_m:g} m" if np.isfinite(b) else UNKNOWN
            for b in bins
        ]
    if by == "day":
        found = [_DAY.match(text) for text in clean_ids(cells.tolist())]
        return [match.group() if match else UNKNOWN for match in found]
    texts = [f"{cell:g}" if isinstance(cell, float) else cell for cell in cells.tolist()]
    return [text if text and text != "nan" else UNKNOWN for text in clean_ids(texts)]


def _sorting(name: str) -> tuple[bool, list[tuple[bool, float, str]]]:
    """Numbers in names by their value, "unknown" last."""
    key = []
    for part in re.findall(r"(?:^-)?\d+(?:\.\d+)?|\D+", name):
        is_number = part[-1].isdecimal()
        key.append((not is_number, float(part) if is_number else 0.0, "" if is_number else part))
    return name == UNKNOWN, key


def read_validated(
    schema: LabelSchema,
    tasks: Iterable[dict[str, Any]],
    predicted: Predicted,
    weights: Mapping[str, float] | None = None,
) -> Validated:
    """Read the labels that people gave to blind images; without rows where there are none.

    Parameters
    ----------
    weights : mapping, optional
        By annotator, 1 for those not named; 0 leaves a person out.

    Raises
    ------
    QuantifyError
        The config has no such control, or none of the validated images was predicted.
    WeightError
        A weight is negative or no number.
    """
    if predicted.control not in schema:
        raise QuantifyError(
            f"the config has no control {predicted.control!r} (it has "
            f"{[control.name for control in schema.trainable]}): give --config"
        )
    control = schema.control(predicted.control)
    blind = [task for task in tasks if is_blind(task)]
    ids = list(dict.fromkeys(image_id_of(schema, task) for task in blind))
    votes = read_votes(schema, blind)
    votes = votes[votes["control"] == control.name]
    weighs = weights_of(votes["annotator"], weights) > 0
    left_out = votes["annotator"][~weighs].nunique()
    votes = votes[weighs]
    shares, n_votes = vote_shares(control, votes, ids, weights)
    place = {image_id: row for row, image_id in enumerate(predicted.image_ids)}
    voted = [n for n in range(len(ids)) if n_votes[n]]
    found = [n for n in voted if ids[n] in place]
    if voted and not found:
        raise QuantifyError(
            f"none of the {len(voted)} validated images was predicted (e.g. {ids[voted[0]]!r}): "
            "give the export of the project that the predictions are for"
        )
    others = [label for label in control.labels if label not in predicted.labels]
    modal = modal_labels(shares[found])
    wide = pd.DataFrame(modal / modal.sum(axis=1, keepdims=True), columns=list(control.labels))
    unknown = [label for label in others if wide[label].any()]
    wide = wide.reindex(columns=[*predicted.labels, *unknown], fill_value=0.0)
    notes = []
    if left_out:
        people = "1 person" if left_out == 1 else f"{left_out} people"
        notes.append(f"the answers of {people} with weight 0 are left out")
    if unknown:
        notes.append(f"labels that the model does not know, counted as validated: {unknown}")
    if len(voted) > len(found):
        notes.append(f"{len(voted) - len(found)} validated images were not predicted: left out")
    unsure = set(votes["image_id"][~votes["assessable"].astype(bool)]) - {ids[n] for n in voted}
    if unsure:
        notes.append(
            f"{len(unsure)} blind images that nobody could assess are counted as if nobody had "
            "looked at them"
        )
    rows = np.array([place[ids[n]] for n in found], dtype=int)
    return Validated(rows, tuple(wide.columns), wide.to_numpy(), notes)
