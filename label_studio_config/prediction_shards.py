"""Prediction shards (`planktrait predict`) as suggestions for Label Studio; no model is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from label_studio_config.controls import Control
from label_studio_config.manifest import Skipped
from label_studio_config.prediction import labels_of, probabilities_column
from label_studio_config.results import DECIMALS, ResultError, write_result
from label_studio_config.schema import LabelSchema

_NEEDED = ("image_id", "model_version")
_KINDS = ("one of", "any of", "number")


class ShardError(ValueError):
    """A folder without usable shards, with the remedy; or what is wrong with a shard."""


@dataclass
class ShardBatch:
    """Some rows of a shard.

    Attributes
    ----------
    suggestions : by image id, `{"result", "score", "model_version"}`
    bad : rows that the config does not allow, and shards that cannot be read
    """

    suggestions: dict[str, dict[str, Any]] = field(default_factory=dict)
    bad: list[Skipped] = field(default_factory=list)


def shard_metadata(path: Path, columns: Sequence[str]) -> pq.FileMetaData:
    """What the end of a shard says of it.

    Raises
    ------
    ShardError
        It was cut off, or lacks one of the columns.
    """
    try:
        metadata = pq.read_metadata(path)
        known = metadata.schema.to_arrow_schema().names
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"not a whole shard ({error})") from error
    missing = [name for name in columns if name not in known]
    if missing:
        raise ShardError(f"not a whole shard (it has no column {missing[0]!r})")
    return metadata


class Shards:
    """The shards of a folder, in the order of their names.

    Raises
    ------
    ShardError
        There are none, or none can be read.
    """

    def __init__(self, folder: Path | str, schema: LabelSchema) -> None:
        self.schema = schema
        self.bad: list[Skipped] = []
        self.files: list[Path] = []
        self.rows = 0
        """Rows of all shards that can be read."""
        # A dot: what a killed run left half written.
        paths = sorted(p for p in Path(folder).glob("*.parquet") if p.name[0] not in "._")
        for path in paths:
            try:
                self.rows += shard_metadata(path, _NEEDED).num_rows
            except ShardError as error:
                remedy = "run `planktrait predict` again, then push again"
                self.bad.append(Skipped(str(path), f"{error}: {remedy}"))
                continue
            self.files.append(path)
        if not self.files:
            reason = self.bad[0].reason if self.bad else "run `planktrait predict` first"
            raise ShardError(f"{folder} holds no predictions: {reason}")

    @property
    def model_version(self) -> str:
        """The version of the first row."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(1, columns=["model_version"]):
                    if batch.num_rows:
                        return str(batch.column(0)[0].as_py() or "")
        return ""

    def by_row(
        self, size: int, row_of: Mapping[str, int], addresses: Sequence[str]
    ) -> Iterator[tuple[dict[int, dict[str, Any]], list[Skipped], int]]:
        """Suggestions by row of a manifest, each address once; what is bad; rows seen so far.

        Parameters
        ----------
        row_of : by image id
        addresses : of the manifest's images, row by row
        """
        pushed: set[str] = set()
        seen = 0
        for batch in self.batches(size):
            seen += len(batch.suggestions) + len(batch.bad)
            found = {}
            for image_id, suggestion in batch.suggestions.items():
                row = row_of.get(image_id)
                if row is None or addresses[row] in pushed:
                    twice = "the image stands in another shard too"
                    reason = "not in the manifest" if row is None else twice
                    batch.bad.append(Skipped(image_id, reason))
                    continue
                pushed.add(addresses[row])
                found[row] = suggestion
            yield found, batch.bad, min(seen, self.rows)
        if seen < self.rows:
            yield {}, [], self.rows

    def batches(self, size: int) -> Iterator[ShardBatch]:
        """All rows, at most `size` at a time."""
        for path in self.files:
            try:
                with pq.ParquetFile(path) as file:
                    names = self._columns(file.schema_arrow)
                    for batch in file.iter_batches(size, columns=names):
                        yield _suggestions(self.schema, batch, path)
            except (pa.ArrowException, OSError) as error:
                yield ShardBatch(bad=[Skipped(str(path), f"cannot be read further: {error}")])

    def _columns(self, there: pa.Schema) -> list[str]:
        wanted = [*_NEEDED, "confidence", "novelty"]
        for control in self.schema.controls:
            wanted += [control.name, probabilities_column(control.name)]
        return [name for name in dict.fromkeys(wanted) if name in there.names]


def _suggestions(schema: LabelSchema, batch: pa.RecordBatch, path: Path) -> ShardBatch:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    image_ids = columns["image_id"].to_pylist()
    versions = columns["model_version"].to_pylist()
    scores = _numbers(columns.get("confidence"), len(image_ids))
    novelties = _numbers(columns.get("novelty"), len(image_ids))
    controls = [c for c in schema.controls if c.name in columns and c.kind in _KINDS]
    answers = {c.name: columns[c.name].to_pylist() for c in controls}
    shares = {c.name: _Shares(c, batch) for c in controls}
    done = ShardBatch()
    for row, image_id in enumerate(image_ids):
        said = {name: values[row] for name, values in answers.items() if values[row] is not None}
        try:
            if not image_id or not versions[row]:
                raise ResultError("it has no image_id or no model_version")
            if image_id in done.suggestions:
                raise ResultError("the image stands twice")
            result = write_result(
                schema,
                said,
                probabilities={name: shares[name].of(row) for name in said},
                novelty=novelties[row],
                rounded=True,
            )
        except (ResultError, TypeError, ValueError) as error:
            done.bad.append(Skipped(str(image_id or f"{path}, row {row}"), str(error)))
            continue
        score = scores[row]
        done.suggestions[image_id] = {
            "result": result,
            "score": None if score is None else round(score, DECIMALS),
            "model_version": versions[row],
        }
    return done


class _Shares:
    """The probabilities of a control's labels, as far as the config still has these."""

    def __init__(self, control: Control, batch: pa.RecordBatch) -> None:
        name = probabilities_column(control.name)
        self.labels: Sequence[str] = ()
        self.rows: Sequence[Sequence[float] | None] = ()
        if name not in batch.schema.names:
            return
        labels = labels_of(batch.schema.field(name))
        keep = [k for k, label in enumerate(labels) if control.knows(label)]
        self.labels = [labels[k] for k in keep]
        column = batch.column(name)
        lengths = np.diff(column.offsets.to_numpy())
        if column.null_count == 0 and bool((lengths == len(labels)).all()) and len(labels):
            values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(labels))
            self.rows = np.round(values[:, keep].astype(np.float64), DECIMALS).tolist()
            return
        self.rows = [
            [round(one[k], DECIMALS) for k in keep]
            if one is not None and len(one) == len(labels)
            else None
            for one in column.to_pylist()
        ]

    def of(self, row: int) -> dict[str, float]:
        """By label, without those that round to 0; empty where the shard does not say."""
        values = self.rows[row] if self.rows else None
        if values is None:
            return {}
        return {label: p for label, p in zip(self.labels, values, strict=True) if p}


def _numbers(column: pa.Array | None, count: int) -> list[float | None]:
    if column is None:
        return [None] * count
    return [None if value is None or value != value else value for value in column.to_pylist()]
