"""Columns of a prediction table, made for all images at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from label_studio_config.controls import Control
from label_studio_config.results import is_asked
from label_studio_config.schema import LabelSchema


def asked_rows(
    schema: LabelSchema,
    control: Control,
    labels: Mapping[str, Sequence[str]],
    choices: Mapping[str, np.ndarray],
    n_images: int,
) -> np.ndarray:
    """Where a control's conditions hold (recursively), bool (n_images,).

    Parameters
    ----------
    labels : dict
        By control.
    choices : dict
        Which of them are chosen, bool (n_images, k) by control.
    """
    above = [name for name in sorted(_above(schema, control)) if name in choices]
    if not above or not n_images:
        return np.full(n_images, is_asked(schema, control, {}))
    # Each answer to the controls above is looked at once, however many images have it.
    packed = np.concatenate([np.packbits(choices[name], axis=1) for name in above], axis=1)
    _, first_rows, answer = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    holds = [
        is_asked(schema, control, {name: _chosen(labels[name], choices[name][r]) for name in above})
        for r in first_rows
    ]
    return np.array(holds)[answer.ravel()]


def texts(values: Iterable[object]) -> pa.Array:
    """Text; null where there is none."""
    return pa.array(values, pa.string(), from_pandas=True)


def same_text(value: str, n_rows: int) -> pa.Array:
    """The same text in each row."""
    return pa.repeat(pa.scalar(value, pa.string()), n_rows)


def numbers(values: np.ndarray, where: np.ndarray) -> pa.Array:
    """float32 of numbers (n,); null but `where`, bool (n,)."""
    return pa.array(np.asarray(values, dtype=np.float32), mask=~where, from_pandas=False)


def known_numbers(values: np.ndarray) -> pa.Array:
    """float32 of numbers (n,); null where they are NaN."""
    return numbers(values, ~np.isnan(values))


def chosen_label(labels: Sequence[str], choices: np.ndarray, where: np.ndarray) -> pa.Array:
    """The first chosen label of each row, from bool (n, k); null but `where`, bool (n,)."""
    positions = pa.array(choices.argmax(axis=1), mask=~where)
    return pa.array(labels, pa.string()).take(positions)


def chosen_labels(labels: Sequence[str], choices: np.ndarray, where: np.ndarray) -> pa.Array:
    """A list of the chosen labels of each row, from bool (n, k); null but `where`, bool (n,)."""
    chosen = choices & where[:, None]
    ends = np.concatenate([[0], chosen.sum(axis=1).cumsum()]).astype(np.int32)
    values = pa.array(labels, pa.string()).take(pa.array(chosen.nonzero()[1]))
    return pa.ListArray.from_arrays(pa.array(ends), values, mask=pa.array(~where))


def lists(values: np.ndarray) -> pa.Array:
    """Lists of float32, from numbers (n, k)."""
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(values.astype(np.float32).ravel()))


def half_precision(values: np.ndarray) -> pa.Array:
    """Lists of k float16, from numbers (n, k)."""
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.astype(np.float16).ravel()), values.shape[1]
    )


def _above(schema: LabelSchema, control: Control) -> set[str]:
    """The controls whose answers decide whether this one is asked."""
    found: set[str] = set()
    for condition in control.conditions:
        found.add(condition.control)
        if condition.control in schema:
            found |= _above(schema, schema.control(condition.control))
    return found


def _chosen(labels: Sequence[str], choices: np.ndarray) -> tuple[str, ...]:
    return tuple(labels[k] for k in np.flatnonzero(choices))
