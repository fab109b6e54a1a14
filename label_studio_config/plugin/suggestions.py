"""Saving suggestions in bulk: fast, checked against the config, never blind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from django.db import connection, transaction
from django.utils import timezone
from projects.models import Project
from tasks.models import Prediction, Task

from label_studio_config.plugin.bulk_rows import JsonError, insert, json_text, moment, new_ids
from label_studio_config.plugin.deadlocks import persistent
from label_studio_config.plugin.gallery_added import Added, add_suggestions
from label_studio_config.plugin.gallery_index import index_predictions
from label_studio_config.plugin.gallery_rows import Questions, Suggested, questions_of, suggested_by
from label_studio_config.plugin.gallery_signals import index_of, require_crops
from label_studio_config.plugin.models import IndexState
from label_studio_config.plugin.task_predictions import count_predictions, lock_open_tasks
from label_studio_config.results import ResultError, read_result
from label_studio_config.schema import LabelSchema, SchemaError

COLUMNS = (
    *("id", "project_id", "task_id", "result", "score", "model_version"),
    *("created_at", "updated_at"),
)


class SuggestionError(ValueError):
    """A suggestion that does not fit the project; the message names the task."""


class Read(NamedTuple):
    """A suggestion that fits the config.

    Attributes
    ----------
    text : its result as the database's JSON
    found : what it suggests, by control
    """

    task_id: int
    model_version: str
    score: float | None
    text: str
    found: dict[str, Suggested]

    @property
    def result(self) -> list[Any]:
        """As Label Studio gives it."""
        result: list[Any] = orjson.loads(self.text)
        return result


@persistent
def save_suggestions(project: Project, suggestions: Sequence[dict[str, Any]]) -> int:
    """Save predictions in one transaction; those of the same task and version are replaced.

    The tasks are locked: one that is marked blind meanwhile gets none, and of two that save the
    same version at once the second replaces what the first saved.

    Parameters
    ----------
    suggestions : dicts with `task` (id), `result`, `score` and `model_version`

    Returns
    -------
    int
        How many were saved: blind tasks, and those that are deleted meanwhile, are left out.

    Raises
    ------
    SuggestionError
        For a task of another project, a missing version or a result that the config does not
        allow; nothing is saved then.
    """
    questions = questions_to(project)
    ids = {suggestion.get("task") for suggestion in suggestions}
    _require_tasks(project, ids)
    read = {}
    for suggestion in suggestions:
        one = read_suggestion(questions, suggestion)
        read[one.task_id, one.model_version] = one
    with transaction.atomic():
        open_tasks = lock_open_tasks(project.id, {one.task_id for one in read.values()})
        open_ones = [one for one in read.values() if one.task_id in open_tasks]
        rows = stored(project, open_ones).values_list("id", "task_id", "model_version")
        return write(
            project, open_ones, {(task, version): number for number, task, version in rows}
        )


def questions_to(project: Project) -> Questions:
    """What the project's config asks.

    Raises
    ------
    SuggestionError
        It cannot be read.
    """
    questions = questions_of(project.label_config)
    if questions is None:
        try:
            LabelSchema.from_xml(project.label_config)
        except SchemaError as error:
            raise SuggestionError(
                f"cannot read the config of project {project.id}: {error}"
            ) from error
    assert questions is not None
    return questions


def read_suggestion(questions: Questions, suggestion: Mapping[str, Any]) -> Read:
    """A suggestion that was checked.

    Raises
    ------
    SuggestionError
        The config does not allow it, it has no version, or a database cannot hold it.
    """
    task_id = suggestion.get("task")
    version = suggestion.get("model_version")
    if not isinstance(version, str) or not version:
        raise SuggestionError(f"the suggestion for task {task_id} has no model_version")
    result = suggestion.get("result") or []
    score = suggestion.get("score")
    try:
        answers = read_result(questions.schema, result)
        text = json_text(result)
        number = None if score is None else float(score)
        if number is not None and not math.isfinite(number):
            raise ResultError(f"its score is {number}")
    except (ResultError, JsonError, TypeError, ValueError) as error:
        raise SuggestionError(f"the suggestion for task {task_id} is not valid: {error}") from error
    found = suggested_by(questions, answers, result, number)
    return Read(int(task_id), version, number, text, found)  # type: ignore[arg-type]


def stored(project: Project, suggestions: Sequence[Read]) -> Any:
    """The predictions that are there of the same tasks and versions, the newest last."""
    return Prediction.objects.filter(
        project=project,
        task__id__among={one.task_id for one in suggestions},
        model_version__in={one.model_version for one in suggestions},
    ).order_by("id")


def write(
    project: Project, suggestions: Sequence[Read], existing: Mapping[tuple[int, str], int]
) -> int:
    """Save what was read, for tasks that this transaction has locked and that are not blind.

    Rows that exist keep their id: annotations refer to it, and deleting is 20 times slower.

    Parameters
    ----------
    existing : ids of the predictions that are there, by task and version
    """
    task_ids = {one.task_id for one in suggestions}
    replaced = [one for one in suggestions if (one.task_id, one.model_version) in existing]
    created = [one for one in suggestions if (one.task_id, one.model_version) not in existing]
    index = index_of(project.id, project.label_config)
    caught_up = index is not None and predictions_indexed(index[0])
    ids = insert_predictions(project.id, created)
    _replace([(existing[one.task_id, one.model_version], one) for one in replaced])
    if created:
        count_predictions({one.task_id for one in created})
    if index is not None and suggestions:
        state, questions = index
        require_crops(questions, state, task_ids)
        add_suggestions(questions, state, added(ids, created))
        if caught_up and created:
            IndexState.objects.filter(project_id=project.id).update(last_prediction=ids[-1])
        if replaced:
            index_predictions(
                questions,
                state,
                [
                    (existing[one.task_id, one.model_version], *one[:3], one.result)
                    for one in replaced
                ],
            )
    return len(suggestions)


def predictions_indexed(state: IndexState) -> bool:
    """Whether all predictions are in the index; it stays so until the transaction ends."""
    held = IndexState.objects.select_for_update().get(project_id=state.project_id)
    later = Prediction.objects.filter(project=state.project_id, id__gt=held.last_prediction)
    return not later.exists()


def insert_predictions(project_id: int, suggestions: Sequence[Read]) -> Sequence[int]:
    """New rows; their ids. Neither counts nor the gallery's index follow."""
    ids = new_ids(Prediction, len(suggestions))
    now = moment(timezone.now())
    insert(
        Prediction,
        COLUMNS,
        (
            (number, project_id, one.task_id, one.text, one.score, one.model_version, now, now)
            for number, one in zip(ids, suggestions, strict=True)
        ),
    )
    return ids


def added(ids: Iterable[int], suggestions: Iterable[Read]) -> list[Added]:
    """New predictions, for the gallery's index."""
    return [
        Added(number, one.task_id, one.model_version, one.found)
        for number, one in zip(ids, suggestions, strict=True)
    ]


def _replace(rows: Sequence[tuple[int, Read]]) -> None:
    now = moment(timezone.now())
    json_type = "::jsonb" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE prediction SET result = %s{json_type}, score = %s, updated_at = %s "
            "WHERE id = %s",
            [(one.text, one.score, now, number) for number, one in rows],
        )


def _require_tasks(project: Project, ids: set[Any]) -> None:
    whole = {number for number in ids if isinstance(number, int)}
    there = set(Task.objects.filter(id__among=whole, project=project).values_list("id", flat=True))
    for number in ids - there:
        raise SuggestionError(f"task {number} is not in project {project.id}")
