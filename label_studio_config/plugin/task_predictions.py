"""Predictions of many tasks at once: locked, counted and deleted as Label Studio would have it.

Its own deletion asks the database ten times a prediction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django.db import transaction
from django.db.models import Count
from tasks.models import Annotation, Prediction, PredictionMeta, Task

from label_studio_config.blind import is_blind_data
from label_studio_config.plugin import gallery_lookup  # noqa: F401  (registers `among`)


def lock_open_tasks(project_id: int, task_ids: Iterable[int]) -> set[int]:
    """Lock a project's tasks until the transaction ends; those of them that are not blind.

    An annotation may be saved meanwhile: the key stays free. SQLite locks the whole database when
    the transaction begins.
    """
    tasks = Task.objects.select_for_update(of=("self",), no_key=True).filter(
        id__among=set(task_ids), project_id=project_id
    )
    marks = tasks.order_by("id").values_list("id", "data__blind")
    return {task_id for task_id, mark in marks if not is_blind_data({"blind": mark})}


def count_predictions(task_ids: Iterable[int]) -> None:
    """Label Studio's own recount joins annotations and predictions; only these have changed."""
    counts = dict.fromkeys(task_ids, 0)
    predictions = Prediction.objects.filter(task__id__among=counts).order_by()
    counts.update(predictions.values_list("task_id").annotate(count=Count("id")))
    by_count: dict[int, list[int]] = {}
    for task_id, count in counts.items():
        by_count.setdefault(count, []).append(task_id)
    for count, ids in by_count.items():
        Task.objects.filter(id__among=ids).update(total_predictions=count)


def delete_predictions(prediction_ids: Collection[int]) -> None:
    """Delete rows that no annotation refers to; neither counts nor the gallery's index follow."""
    for rows in (
        PredictionMeta.objects.filter(prediction__id__among=prediction_ids),
        Prediction.objects.filter(id__among=prediction_ids),
    ):
        rows._raw_delete(rows.db)


def delete_predictions_of(task_ids: Collection[int]) -> None:
    """Leave tasks without any prediction; annotations keep their copy of what was shown.

    The gallery's index does not follow.
    """
    predictions = Prediction.objects.filter(task__id__among=task_ids)
    ids = list(predictions.values_list("id", flat=True))
    if not ids:
        return
    with transaction.atomic():
        Annotation.objects.filter(parent_prediction__id__among=ids).update(parent_prediction=None)
        delete_predictions(ids)
        count_predictions(task_ids)
