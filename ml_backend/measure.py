"""A version's figures on images it never learned from, through the same door as predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from label_studio_config.manifest import Manifest
from ml_backend.evaluate import evaluate_labels, evaluate_number
from ml_backend.model import TraitModel
from ml_backend.predict import predict
from ml_backend.targets import LearningSet


@dataclass(frozen=True)
class Answered:
    """A model's answers on annotated images.

    Attributes
    ----------
    data : LearningSet
        The n images that could be read.
    values : dict
        By control that the model serves: calibrated probabilities (n, k), labels in the order of
        today's config (0 for those it does not know), or numbers (n, 1).
    uncorrected : dict
        The probabilities at the training prior, before the correction to the deployment prior.
    chosen : dict
        By control with labels: what it suggests, bool (n, k).
    unfit : dict
        Reason by control that it does not serve.
    sd : dict
        Standard deviation of a number's prediction, by control.
    novelty : float32 array (n,)
        NaN where the model cannot tell.
    half_widths : dict
        Half the width of a number's 95 % interval, (n,) by control; NaN where it is not known.
    """

    data: LearningSet
    values: dict[str, np.ndarray]
    uncorrected: dict[str, np.ndarray]
    chosen: dict[str, np.ndarray]
    unfit: dict[str, str]
    sd: dict[str, float]
    novelty: np.ndarray
    half_widths: dict[str, np.ndarray] = field(default_factory=dict)

    def answers(self, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """What an annotator would be shown: labels chosen, bool (n, k), or numbers (n, 1)."""
        shown = self.values | self.chosen
        return shown if rows is None else {name: value[rows] for name, value in shown.items()}


def answer(model: TraitModel, data: LearningSet, manifest: Manifest) -> Answered:
    """Let a model predict annotated images, for the config that `data` was read with.

    Parameters
    ----------
    manifest : Manifest
        Holds the images of `data` that can be found.
    """
    wanted = set(data.images["image_id"])
    mask = np.array([image_id in wanted for image_id in manifest.image_ids], dtype=bool)
    predictions = predict(model, manifest.select(mask), schema=data.schema)
    row_of = {image_id: row for row, image_id in enumerate(data.images["image_id"])}
    rows = np.array([row_of[i] for i in predictions.images["image_id"]], dtype=int)
    values, uncorrected, chosen = {}, {}, {}
    for s in predictions.served:
        name = s.head.control
        labels = data.schema.control(name).labels
        values[name] = s.spread(predictions.values[name], labels)
        if s.head.kind != "number":
            chosen[name] = s.spread(predictions.choices[name], labels)
            before = s.before_correction(predictions.values[name])
            uncorrected[name] = s.spread(before, labels)
    return Answered(
        data.select(rows),
        values,
        uncorrected,
        chosen,
        predictions.unfit,
        {s.head.control: s.head.sd for s in predictions.served if s.head.sd is not None},
        predictions.novelty,
        {
            s.head.control: s.head.half_widths(predictions.values[s.head.control][:, 0])
            for s in predictions.served
            if s.head.kind == "number"
        },
    )


def measure(answered: Answered, rows: np.ndarray) -> dict[str, dict[str, Any]]:
    """Metrics by control on some of the images; controls without a vote there are left out."""
    units = answered.data.images["split_key"].to_numpy(dtype=str)[rows]
    measured = {}
    for name, values in answered.values.items():
        target = answered.data.targets[name].take(rows)
        known = target.known
        if not known.any():
            continue
        mine, control = values[rows][known], target.control
        if control.kind == "number":
            truth = target.shares[known][:, 0]
            reach = answered.half_widths.get(name)
            measured[name] = evaluate_number(
                mine[:, 0],
                truth,
                answered.sd.get(name, float("nan")),
                control.unit,
                None if reach is None else reach[rows][known],
            )
        else:
            measured[name] = evaluate_labels(
                control.kind,
                control.labels,
                mine,
                answered.uncorrected[name][rows][known],
                answered.chosen[name][rows][known],
                target.shares[known],
                units[known],
                control.ordinal,
            )
    return measured
