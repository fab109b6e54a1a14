"""What a model says about images: as suggestions for Label Studio, and as a table for files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from label_studio_config.manifest import Skipped
from label_studio_config.prediction import (
    confidence_column,
    interval_columns,
    prediction_schema,
    probabilities_column,
    sd_column,
)
from label_studio_config.results import DECIMALS, number_range, write_result
from label_studio_config.schema import LabelSchema
from ml_backend.prediction_columns import (
    asked_rows,
    chosen_label,
    chosen_labels,
    half_precision,
    known_numbers,
    lists,
    numbers,
    same_text,
    texts,
)
from ml_backend.schema_change import ServedHead

Value = str | list[str] | float


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

    @property
    def n_images(self) -> int:
        """Images that were looked at, read or skipped."""
        return len(self.images) + len(self.skipped)

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

    @cached_property
    def asked(self) -> dict[str, np.ndarray]:
        """Which images each control is asked of, given what is suggested, bool (n,) by control."""
        labels = {s.head.control: s.labels for s in self.served}
        return {
            name: asked_rows(
                self.schema, self.schema.control(name), labels, self.choices, len(self)
            )
            for name in labels
        }

    def interval(self, served: ServedHead) -> tuple[np.ndarray, np.ndarray]:
        """The ends of a number's 95 % interval, (n,) each, within what the config allows.

        NaN where the head does not know its errors.
        """
        values = self.values[served.head.control][:, 0]
        reach = served.head.half_widths(values)
        allowed = number_range(self.schema.control(served.head.control))
        return np.clip(values - reach, *allowed), np.clip(values + reach, *allowed)

    def answers(self, row: int) -> dict[str, Value]:
        """The suggested value by control, for one image, where the control is asked."""
        return {
            s.head.control: self._value(s, row)
            for s in self.served
            if self.asked[s.head.control][row]
        }

    def suggestions(self) -> dict[str, dict[str, Any]]:
        """What Label Studio takes as a prediction, by image id: result, score, model_version."""
        shares = {
            s.head.control: np.round(self.values[s.head.control].astype(np.float64), DECIMALS)
            for s in self.served
            if s.head.kind != "number"
        }
        by_row = {name: values.tolist() for name, values in shares.items()}
        return {
            str(image_id): self._suggestion(row, {name: rows[row] for name, rows in by_row.items()})
            for row, image_id in enumerate(self.images["image_id"])
        }

    def _value(self, served: ServedHead, row: int) -> Value:
        name = served.head.control
        if served.head.kind == "number":
            return float(self.values[name][row, 0])
        labels = [served.labels[k] for k in np.flatnonzero(self.choices[name][row])]
        return labels[0] if served.head.kind == "one of" else labels

    def _suggestion(self, row: int, shares: dict[str, list[float]]) -> dict[str, Any]:
        answers = self.answers(row)
        probabilities = {
            s.head.control: dict(zip(s.labels, shares[s.head.control], strict=True))
            for s in self.served
            if s.head.control in shares and s.head.control in answers
        }
        novelty = float(self.novelty[row])
        result = write_result(
            self.schema,
            answers,
            probabilities=probabilities,
            novelty=None if np.isnan(novelty) else novelty,
            rounded=True,
        )
        score = float(self.confidence[row])
        return {
            "result": result,
            "score": None if np.isnan(score) else round(score, DECIMALS),
            "model_version": self.model_version,
        }

    def table(self) -> pa.Table:
        """The table of `label_studio_config.prediction`: one row an image."""
        columns: dict[str, pa.Array] = {
            name: texts(self.images[name]) for name in ("image_id", "sample_id", "path")
        }
        columns["model_version"] = same_text(self.model_version, len(self))
        columns["confidence"] = known_numbers(self.confidence)
        columns["novelty"] = known_numbers(self.novelty)
        columns["embedding"] = half_precision(self.embedding)
        for head in self.served:
            columns |= self._columns(head)
        heads = {s.head.control: s.labels for s in self.served}
        priors = {s.head.control: s.deployed_prior for s in self.served if s.labels}
        return pa.table(
            columns, schema=prediction_schema(self.schema, heads, self.embedding.shape[1], priors)
        )

    def _columns(self, served: ServedHead) -> dict[str, pa.Array]:
        """The columns of one control."""
        name = served.head.control
        values, asked = self.values[name], self.asked[name]
        if served.head.kind == "number":
            sd = served.head.sd
            ends = zip(interval_columns(name), self.interval(served), strict=True)
            return {
                name: numbers(values[:, 0], asked),
                sd_column(name): numbers(
                    np.full(len(self), 0.0 if sd is None else sd), asked & (sd is not None)
                ),
                **{column: known_numbers(np.where(asked, end, np.nan)) for column, end in ends},
            }
        label_column = chosen_label if served.head.kind == "one of" else chosen_labels
        return {
            name: label_column(served.labels, self.choices[name], asked),
            confidence_column(name): numbers(self.confidences[name], asked),
            probabilities_column(name): lists(values),
        }


def primary_head(schema: LabelSchema, served: Iterable[ServedHead]) -> ServedHead | None:
    """The served head of the schema's primary control; if it has none, the first with labels."""
    with_labels = [s for s in served if s.head.kind != "number"]
    for s in with_labels:
        if schema.primary is not None and s.head.control == schema.primary.name:
            return s
    return with_labels[0] if with_labels else None
