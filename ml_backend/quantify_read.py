"""What people said of blind images: the labels that counts are checked by."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from label_studio_config.schema import LabelSchema
from label_studio_config.votes import (
    image_id_of,
    is_blind,
    read_votes,
    vote_shares,
    weights_of,
)
from label_studio_config.words import counted, have
from ml_backend.evaluate import modal_labels
from ml_backend.quantify import QuantifyError
from ml_backend.quantify_denied import denied_ids
from ml_backend.quantify_predicted import Predicted


@dataclass(frozen=True)
class Validated:
    """What people said of blind images that are among the predictions.

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
    denied : int array, optional
        Positions of further images, of which people said that the question does not arise.
    """

    rows: np.ndarray
    labels: tuple[str, ...]
    shares: np.ndarray
    notes: list[str]
    denied: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))


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
    weighs = weights_of(votes["annotator"], weights) > 0
    of_control = votes["control"] == control.name
    unheard = votes["annotator"][~weighs & of_control].nunique()
    shares, n_votes = vote_shares(control, votes[weighs], ids, weights)
    place = {image_id: row for row, image_id in enumerate(predicted.image_ids)}
    voted = [n for n in range(len(ids)) if n_votes[n]]
    found = [n for n in voted if ids[n] in place]
    strange = _left_out([ids[n] for n in voted if ids[n] not in place], len(voted), predicted)
    denied = [place[i] for i in denied_ids(schema, control, votes[weighs]) if i in place]
    wide, unknown = _modal(shares[found], control.labels, predicted.labels)
    unassessable = votes[weighs & of_control & ~votes["assessable"].astype(bool)]
    unsure = (set(unassessable["image_id"]) & set(place)) - {ids[n] for n in voted}
    return Validated(
        np.array([place[ids[n]] for n in found], dtype=int),
        tuple(wide.columns),
        wide.to_numpy(),
        [*_unheard(unheard), *strange, *_counted_apart(control.name, unknown, denied, unsure)],
        np.array(sorted(denied), dtype=int),
    )


def _modal(
    shares: np.ndarray, asked: Sequence[str], known: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """What most chose, (m, labels): the model's labels first, then others that people saw."""
    modal = modal_labels(shares)
    wide = pd.DataFrame(modal / modal.sum(axis=1, keepdims=True), columns=list(asked))
    unknown = [label for label in asked if label not in known and wide[label].any()]
    return wide.reindex(columns=[*known, *unknown], fill_value=0.0), unknown


def _unheard(n_people: int) -> list[str]:
    people = "1 person" if n_people == 1 else f"{n_people} people"
    return [f"the answers of {people} with weight 0 are left out"] if n_people else []


def _counted_apart(
    control: str, unknown: Sequence[str], denied: Sequence[int], unsure: Collection[str]
) -> list[str]:
    """What is said of blind images that do not count as the others do."""
    notes = []
    if unknown:
        notes.append(f"labels that the model does not know, counted as validated: {unknown}")
    if denied:
        notes.append(
            f"{counted(len(denied), 'blind image')} left out: the model asks {control!r} of "
            "them, but people gave another control an answer with which it is not asked"
        )
    if unsure:
        notes.append(
            f"{counted(len(unsure), 'blind image')} that nobody could assess: counted as if nobody "
            "had looked"
        )
    return notes


def _left_out(ids: list[str], n_validated: int, predicted: Predicted) -> list[str]:
    """What is said of validated images that are not among those to count."""
    not_asked = set(predicted.not_asked)
    strange = [one for one in ids if one not in not_asked]
    if strange and len(strange) == n_validated:
        raise QuantifyError(
            f"none of the {n_validated} validated images was predicted (e.g. {strange[0]!r}): "
            "give the export of the project that the predictions are for"
        )
    notes = []
    if strange:
        said = counted(len(strange), "validated image")
        notes.append(f"{said} {have(len(strange))} no prediction: left out")
    if len(ids) > len(strange):
        notes.append(
            f"{counted(len(ids) - len(strange), 'validated image')} left out: people answered "
            f"{predicted.control!r}, but the model does not ask it there. A count of it is of the "
            "images of which the model asks it."
        )
    return notes


def without(
    predicted: Predicted, validated: Validated | None, mask: np.ndarray
) -> tuple[Predicted, Validated | None]:
    """Both less some of the n predicted images, bool (n,); none of them may be validated."""
    kept = ~mask
    if validated is not None:
        new = np.cumsum(kept) - 1
        denied = validated.denied[kept[validated.denied]]
        validated = replace(validated, rows=new[validated.rows], denied=new[denied])
    return predicted.select(kept), validated


def without_denied(
    predicted: Predicted, validated: Validated | None
) -> tuple[Predicted, Validated | None]:
    """Both less the images of which people said that the question does not arise."""
    if validated is None or not len(validated.denied):
        return predicted, validated
    mask = np.zeros(len(predicted.image_ids), dtype=bool)
    mask[validated.denied] = True
    return without(predicted, validated, mask)
