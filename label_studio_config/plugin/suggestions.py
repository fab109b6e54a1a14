"""Saving suggestions with Django's bulk calls: fast, checked against the config, never blind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone
from projects.models import Project
from tasks.models import Prediction, Task

from label_studio_config.blind import is_blind_data
from label_studio_config.plugin.deadlocks import persistent
from label_studio_config.plugin.gallery_signals import held, predictions_saved
from label_studio_config.plugin.task_predictions import count_predictions, lock_tasks
from label_studio_config.results import ResultError, read_result
from label_studio_config.schema import LabelSchema, SchemaError


class SuggestionError(ValueError):
    """A suggestion that does not fit the project; the message names the task."""


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
    try:
        schema = LabelSchema.from_xml(project.label_config)
    except SchemaError as error:
        raise SuggestionError(f"cannot read the config of project {project.id}: {error}") from error
    ids = [suggestion.get("task") for suggestion in suggestions]
    tasks = dict(Task.objects.filter(project=project, id__in=ids).values_list("id", "data"))
    rows = [
        _prediction(project, schema, suggestion, tasks)
        for suggestion in suggestions
        if not is_blind_data(tasks.get(suggestion.get("task"), {}))
    ]
    with transaction.atomic():
        locked = lock_tasks(project.id, [row.task_id for row in rows])
        still_open = {task_id for task_id, data in locked.items() if not is_blind_data(data or {})}
        rows = [row for row in rows if row.task_id in still_open]
        with held():
            _replace_or_create(project, rows)
        count_predictions(still_open)
        predictions_saved(project, rows)
    return len(rows)


def _replace_or_create(project: Project, rows: list[Prediction]) -> None:
    """Rows that exist keep their id: annotations refer to it, and deleting is 20 times slower."""
    versions = {row.model_version for row in rows}
    existing = {
        (task_id, version): prediction_id
        for prediction_id, task_id, version in Prediction.objects.filter(
            project=project, task_id__in=[row.task_id for row in rows], model_version__in=versions
        ).values_list("id", "task_id", "model_version")
    }
    now = timezone.now()
    replaced: list[Prediction] = []
    created: list[Prediction] = []
    for row in rows:
        row.updated_at = now
        row.id = existing.get((row.task_id, row.model_version))
        (created if row.id is None else replaced).append(row)
    Prediction.objects.bulk_update(replaced, ["result", "score", "updated_at"], batch_size=200)
    Prediction.objects.bulk_create(created, batch_size=500)


def _prediction(
    project: Project, schema: LabelSchema, suggestion: dict[str, Any], tasks: dict[int, Any]
) -> Prediction:
    task_id = suggestion.get("task")
    if task_id not in tasks:
        raise SuggestionError(f"task {task_id} is not in project {project.id}")
    version = suggestion.get("model_version")
    if not version:
        raise SuggestionError(f"the suggestion for task {task_id} has no model_version")
    result = suggestion.get("result") or []
    try:
        read_result(schema, result)
    except ResultError as error:
        raise SuggestionError(f"the suggestion for task {task_id} is not valid: {error}") from error
    return Prediction(
        project=project,
        task_id=task_id,
        result=result,
        score=suggestion.get("score"),
        model_version=version,
    )


def batches(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Lists of at most `size` items."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
