"""Votes: per image and control, each annotator's value. Nothing is collapsed before training."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from label_studio_config.blind import is_blind_data
from label_studio_config.controls import Control
from label_studio_config.results import Answer, read_result
from label_studio_config.schema import LabelSchema

logger = logging.getLogger(__name__)

VOTE_COLUMNS = (
    "image_id",
    "task_id",
    "image",
    "sample_id",
    "blind",
    "control",
    "annotator",
    "annotation_id",
    "labels",
    "number",
    "assessable",
    "suggestion_shown",
    "suggestion_version",
)


_Vote = tuple[int, str, np.ndarray]
"""Row of the image, annotator, and what that says (k,)."""


class WeightError(ValueError):
    """A weight that no annotator can have; names the person and the remedy."""


def read_votes(
    schema: LabelSchema, tasks: Iterable[dict[str, Any]], suggestions_shown: bool = True
) -> pd.DataFrame:
    """One row an annotation and control, from the tasks of a Label Studio JSON export.

    Skipped annotations are left out; of several annotations of one task by one person the newest
    counts. What does not fit the schema is logged with its task and left out.

    Parameters
    ----------
    suggestions_shown
        Whether the project shows predictions to annotators: Label Studio fills an annotation's
        `prediction` even where it hides them.

    Returns
    -------
    Table with `VOTE_COLUMNS`; `labels` are tuples, `number` is NaN where there is none.
    """
    rows: list[dict[str, Any]] = []
    for task in tasks:
        for annotation in newest_by_annotator(task):
            problems: list[str] = []
            answers = read_result(schema, annotation.get("result") or [], problems)
            for problem in problems:
                logger.warning("task %s: %s", task.get("id"), problem)
            common = _common(schema, task, annotation, suggestions_shown)
            rows += [common | _vote(answer) for answer in answers.values() if is_vote(answer)]
    return pd.DataFrame(rows, columns=list(VOTE_COLUMNS))


def vote_shares(
    control: Control,
    votes: pd.DataFrame,
    image_ids: Sequence[str],
    weights: Mapping[str, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What share of an image's annotators chose each label.

    An annotator counts once an image: where he judged it several times (in two tasks, say), his
    votes together weigh as one, shared evenly among them.

    Parameters
    ----------
    control
        A one-of or any-of control with k labels.
    votes
        As from `read_votes`.
    image_ids
        The n images, in the order of the result.
    weights
        By annotator, 1 for those not named; 0 leaves a person out.

    Returns
    -------
    shares : float32 (n, k)
        For a one-of control each voted row sums to 1 (a vote for several labels is split).
    n_votes : int (n,)
        Annotators who could assess it and have weight; 0 masks the image for this control.

    Raises
    ------
    WeightError
        A weight is negative or no number.
    """
    column_of = {label: column for column, label in enumerate(control.labels)}
    said: list[_Vote] = []
    for row, who, labels in _assessed(control, votes, image_ids, "labels"):
        columns = [column_of[label] for label in set(labels) if label in column_of]
        if columns or control.kind == "any of":
            vote = np.zeros(len(column_of))
            vote[columns] = 1 / len(columns) if control.kind == "one of" else 1
            said.append((row, who, vote))
    return _weighted_mean(said, (len(image_ids), len(column_of)), weights)


def vote_means(
    control: Control,
    votes: pd.DataFrame,
    image_ids: Sequence[str],
    weights: Mapping[str, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of a number control over an image's annotators: float32 (n,), and votes (n,).

    Annotators count as in `vote_shares`; a number that is not finite is no vote.
    """
    said = [
        (row, who, np.array([number]))
        for row, who, number in _assessed(control, votes, image_ids, "number")
        if np.isfinite(number)
    ]
    means, n_votes = _weighted_mean(said, (len(image_ids), 1), weights)
    return means[:, 0], n_votes


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights as floats.

    Raises
    ------
    WeightError
        One is negative, or no finite number.
    """
    checked: dict[str, float] = {}
    for who, weight in weights.items():
        try:
            checked[str(who)] = float(weight)
        except (TypeError, ValueError):
            checked[str(who)] = np.nan
        if not (np.isfinite(checked[str(who)]) and checked[str(who)] >= 0):
            raise WeightError(
                f"annotator {who!r} has the weight {weight!r}: give a number from 0 (left out) on; "
                "1 is the weight of everybody else"
            )
    return checked


def weights_of(annotators: Iterable[str], weights: Mapping[str, float] | None) -> np.ndarray:
    """The weight of each, 1 where none is given, float (n,)."""
    checked = check_weights(weights or {})
    return np.array([checked.get(str(who), 1.0) for who in annotators], dtype=float)


def _assessed(
    control: Control, votes: pd.DataFrame, image_ids: Sequence[str], column: str
) -> Iterator[tuple[int, str, Any]]:
    """Row of the image, annotator and value of each vote for a control that could be assessed."""
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    mine = votes[(votes["control"] == control.name) & votes["assessable"].astype(bool)]
    for image_id, who, value in zip(mine["image_id"], mine["annotator"], mine[column], strict=True):
        if image_id in row_of:
            yield row_of[image_id], str(who), value


def _weighted_mean(
    said: list[_Vote], shape: tuple[int, int], weights: Mapping[str, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of what persons said by image, float32 (n, k), 0 where nobody did, and how many.

    A person's own mean is taken first.
    """
    checked = check_weights(weights or {})
    times = Counter((row, who) for row, who, _ in said)
    persons = Counter(row for row, who in times if checked.get(who, 1.0) > 0)
    sums, total = np.zeros(shape), np.zeros(shape[0])
    for row, who, value in said:
        weight = checked.get(who, 1.0) / times[row, who]
        sums[row] += weight * value
        total[row] += weight
    means = sums / np.where(total > 0, total, 1.0)[:, None]
    return means.astype(np.float32), np.array([persons[row] for row in range(shape[0])], dtype=int)


def newest_by_annotator(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Each person's newest annotation of a task; skipped ones are left out."""
    return [annotations[-1] for annotations in by_annotator(task).values()]


def by_annotator(task: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Each person's annotations of a task, the newest last; skipped ones are left out."""
    given: dict[str, list[dict[str, Any]]] = {}
    for annotation in task.get("annotations") or []:
        if not annotation.get("was_cancelled"):
            given.setdefault(annotator_name(annotation), []).append(annotation)
    return {who: sorted(annotations, key=_age_key) for who, annotations in given.items()}


def _age_key(annotation: dict[str, Any]) -> tuple[str, int]:
    when = annotation.get("updated_at") or annotation.get("created_at") or ""
    return str(when), int(annotation.get("id") or 0)


def annotator_name(annotation: dict[str, Any]) -> str:
    """Who annotated, as text: the email where Label Studio gives it, else the user id."""
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        return str(who.get("email") or who.get("id"))
    return str(who)


def suggestion_of(task: dict[str, Any], annotation: dict[str, Any]) -> dict[str, Any] | None:
    """The prediction that an annotation was made from, None if there was none.

    Label Studio keeps a copy in `prediction`; an annotation that it made of a prediction by itself
    has only its id, in `parent_prediction`.
    """
    copy = annotation.get("prediction")
    if isinstance(copy, dict) and copy:
        return copy
    parent = annotation.get("parent_prediction")
    if parent is None:
        return None
    for prediction in task.get("predictions") or []:
        if isinstance(prediction, dict) and prediction.get("id") == parent:
            return prediction
    return {"id": parent}


def is_blind(task: dict[str, Any]) -> bool:
    """Whether the task is marked blind: it never gets a suggestion and never trains anything."""
    return is_blind_data(task.get("data") or {})


def image_id_of(schema: LabelSchema, task: dict[str, Any]) -> str:
    """The task's image id; where it was not imported by us, its image URL."""
    data = task.get("data") or {}
    return str(data.get("image_id") or data.get(schema.image_key) or f"task-{task.get('id')}")


def _common(
    schema: LabelSchema, task: dict[str, Any], annotation: dict[str, Any], suggestions_shown: bool
) -> dict[str, Any]:
    data = task.get("data") or {}
    suggestion = suggestion_of(task, annotation)
    shown = suggestion is not None and suggestions_shown
    return {
        "image_id": image_id_of(schema, task),
        "task_id": task.get("id"),
        "image": data.get(schema.image_key),
        "sample_id": data.get("sample_id"),
        "blind": is_blind(task),
        "annotator": annotator_name(annotation),
        "annotation_id": annotation.get("id"),
        "suggestion_shown": shown,
        "suggestion_version": str((suggestion or {}).get("model_version") or "") if shown else "",
    }


def is_vote(answer: Answer) -> bool:
    """Whether it says anything: a control that was left open is no vote."""
    return bool(answer.labels) or answer.number is not None or not answer.assessable


def _vote(answer: Answer) -> dict[str, Any]:
    return {
        "control": answer.control,
        "labels": answer.labels,
        "number": np.nan if answer.number is None else answer.number,
        "assessable": answer.assessable,
    }
