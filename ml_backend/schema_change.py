"""A model is tied to a schema; this says what of it still serves when the schema has changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from label_studio_config.schema import LabelSchema
from ml_backend.calibrate import SMALLEST_PRIOR, correct_prior
from ml_backend.head import Head

NOT_LEARNED = "not learned yet"
CHOSEN_FROM = 0.5


@dataclass(frozen=True)
class ServedHead:
    """A head as it serves a config that may have changed since the training.

    Attributes
    ----------
    head : Head
    labels : tuple of str
        Labels of the head that the config still has.
    columns : int array
        Their positions among the head's outputs.
    """

    head: Head
    labels: tuple[str, ...]
    columns: np.ndarray

    @property
    def deployed_prior(self) -> list[float]:
        """The head's deployment prior, of the labels that the config still has."""
        return [float(self.head.deployed_prior[column]) for column in self.columns]

    def narrow(self, values: np.ndarray) -> np.ndarray:
        """Keep the labels that the config still has; "one of" sums to 1 again."""
        if self.head.kind == "number":
            return values
        kept = values[:, self.columns]
        if self.head.kind == "one of" and len(self.labels) < len(self.head.labels):
            kept = kept / np.maximum(kept.sum(axis=1, keepdims=True), 1e-12)
        return kept

    def before_correction(self, values: np.ndarray) -> np.ndarray:
        """Probabilities of `narrow` as they were at the prior of the training."""
        trained = np.array(self.head.trained_prior)[self.columns]
        deployed = np.array(self.head.deployed_prior)[self.columns]
        return correct_prior(self.head.kind, values, deployed, trained)

    def choose(self, values: np.ndarray) -> np.ndarray:
        """Which labels are suggested, bool (n, k), from the probabilities that `narrow` returns.

        "one of": exactly one, leaning to what is rare by the head's `choice_balance`; "any of":
        each from a probability of one half on.
        """
        if self.head.kind == "any of":
            return values >= CHOSEN_FROM
        prior = np.clip(np.array(self.head.deployed_prior)[self.columns], SMALLEST_PRIOR, None)
        leaning = values / prior**self.head.choice_balance
        return np.eye(len(self.labels), dtype=bool)[leaning.argmax(axis=1)]

    def spread(self, values: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Return values of `narrow` or `choose` in the order of `labels`, 0 for those unknown."""
        if self.head.kind == "number":
            return values
        full = np.zeros((len(values), len(labels)), dtype=values.dtype)
        full[:, [labels.index(label) for label in self.labels]] = values
        return full


def serve(heads: Iterable[Head], schema: LabelSchema) -> tuple[list[ServedHead], dict[str, str]]:
    """Which heads fit a config, and why the others do not.

    Returns
    -------
    served : list of ServedHead
        Same control, kind and unit, and at least two labels (one, for "any of") still there.
    unfit : dict
        Reason by control, also for controls of the config that have no head.
    """
    served: list[ServedHead] = []
    unfit: dict[str, str] = {}
    for head in heads:
        reason = _unfit_reason(head, schema)
        if reason:
            unfit[head.control] = reason
            continue
        known = schema.control(head.control).labels
        columns = [i for i, label in enumerate(head.labels) if label in known]
        labels = tuple(head.labels[i] for i in columns)
        served.append(ServedHead(head, labels, np.array(columns, dtype=int)))
    with_head = {served_head.head.control for served_head in served} | set(unfit)
    for control in schema.trainable:
        if control.name not in with_head:
            unfit[control.name] = NOT_LEARNED
    return served, unfit


def _unfit_reason(head: Head, schema: LabelSchema) -> str | None:
    if head.control not in schema:
        return "the config has no such control any more"
    control = schema.control(head.control)
    if control.kind != head.kind:
        return f"the config now asks {control.kind!r}, the head learned {head.kind!r}"
    if not control.trained:
        return f"not learned any more: {control.why_not_trained}"
    if head.kind == "number" and control.unit != head.unit:
        return (
            f"the config now asks for {control.unit or 'no unit'}, the head learned "
            f"{head.unit or 'no unit'}"
        )
    kept = [label for label in head.labels if label in control.labels]
    if head.kind != "number" and len(kept) < (2 if head.kind == "one of" else 1):
        return "the config no longer has the labels that it learned"
    return None
