"""Votes: per image and control, each annotator's value. Nothing is collapsed before training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
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
            rows += [common | _vote(answer) for answer in answers.values() if _votes(answer)]
    return pd.DataFrame(rows, columns=list(VOTE_COLUMNS))


def vote_shares(
    control: Control, votes: pd.DataFrame, image_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """What share of an image's annotators chose each label.

    Parameters
    ----------
    control
        A one-of or any-of control with k labels.
    votes
        As from `read_votes`.
    image_ids
        The n images, in the order of the result.

    Returns
    -------
    shares : float32 (n, k)
        For a one-of control each voted row sums to 1 (a vote for several labels is split).
    n_votes : int (n,)
        Annotators who could assess it; 0 masks the image for this control.
    """
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    column_of = {label: column for column, label in enumerate(control.labels)}
    shares = np.zeros((len(row_of), len(column_of)), dtype=np.float32)
    n_votes = np.zeros(len(row_of), dtype=np.int64)
    mine = votes[(votes["control"] == control.name) & votes["assessable"].astype(bool)]
    for image_id, labels in zip(mine["image_id"], mine["labels"], strict=True):
        row = row_of.get(image_id)
        columns = [column_of[label] for label in labels if label in column_of]
        if row is None or (control.kind == "one of" and not columns):
            continue
        n_votes[row] += 1
        shares[row, columns] += 1 / len(columns) if control.kind == "one of" else 1
    return shares / np.maximum(n_votes, 1)[:, None], n_votes


def vote_means(
    control: Control, votes: pd.DataFrame, image_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of a number control over an image's annotators: float32 (n,), and votes (n,)."""
    mine = votes[(votes["control"] == control.name) & votes["assessable"].astype(bool)]
    numbers = mine.dropna(subset=["number"]).groupby("image_id")["number"].agg(["mean", "count"])
    ordered = numbers.reindex(list(image_ids))
    return (
        ordered["mean"].fillna(0).to_numpy(np.float32),
        ordered["count"].fillna(0).to_numpy(np.int64),
    )


def newest_by_annotator(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Each person's newest annotation of a task; skipped ones are left out."""
    newest: dict[str, dict[str, Any]] = {}
    for annotation in task.get("annotations") or []:
        if annotation.get("was_cancelled"):
            continue
        who = annotator_name(annotation)
        if who not in newest or _age_key(annotation) >= _age_key(newest[who]):
            newest[who] = annotation
    return list(newest.values())


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


def _votes(answer: Answer) -> bool:
    return bool(answer.labels) or answer.number is not None or not answer.assessable


def _vote(answer: Answer) -> dict[str, Any]:
    return {
        "control": answer.control,
        "labels": answer.labels,
        "number": np.nan if answer.number is None else answer.number,
        "assessable": answer.assessable,
    }
