"""A project's tasks page by page, with everything that was said about each: few queries a page.

Label Studio's own list of tasks leaves out the suggestion that an annotator saw, and its export is
one answer for the whole project.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from core.label_config import replace_task_data_undefined_with_config_field
from django.db.models import Exists, OuterRef
from projects.models import Project
from tasks.models import Annotation, Prediction, Task

MOST_TASKS = 5000
_TASK = ("id", "data", "meta", "inner_id", "created_at", "updated_at", "is_labeled", "overlap")
_COUNTS = ("total_annotations", "cancelled_annotations", "total_predictions")
_ANNOTATION = (
    *("id", "task", "project", "result", "prediction", "parent_prediction", "parent_annotation"),
    *("was_cancelled", "ground_truth", "lead_time", "created_at", "updated_at", "unique_id"),
    *("draft_created_at", "result_count", "import_id", "last_action"),
)
_PREDICTION = (
    *("id", "task", "project", "result", "score", "model_version", "cluster", "neighbors"),
    *("mislabeling", "created_at", "updated_at"),
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """Which tasks of a project, in the order of their ids.

    Attributes
    ----------
    after : only larger ids
    limit : how many at most
    annotated : only those with annotations (True) or without any (False); skips do not count
    missing_version : only those without a prediction of this model version
    ids : only these, where given
    full : with annotations and predictions, not only data and counters
    """

    after: int = 0
    limit: int = 500
    annotated: bool | None = None
    missing_version: str = ""
    full: bool = True
    ids: tuple[int, ...] | None = None


def page_of_tasks(project: Project, query: Query) -> list[Row]:
    """One page, in the form of Label Studio's JSON export."""
    found = Task.objects.filter(project=project, id__gt=query.after).order_by("id")
    if query.ids is not None:
        found = found.filter(id__in=query.ids)
    if query.annotated is not None:
        found = (
            found.filter(total_annotations__gt=0)
            if query.annotated
            else found.filter(total_annotations=0)
        )
    if query.missing_version:
        have = Prediction.objects.filter(
            task_id=OuterRef("id"), model_version=query.missing_version
        )
        found = found.filter(~Exists(have))
    tasks: list[Row] = list(found.values(*_TASK, *_COUNTS)[: query.limit])
    ids = [task["id"] for task in tasks]
    annotations = _annotations(ids) if query.full else {}
    predictions = _predictions(ids) if query.full else {}
    for task in tasks:
        replace_task_data_undefined_with_config_field(task["data"], project)
        task["project"] = project.id
        task["annotations"] = annotations.get(task["id"], [])
        task["predictions"] = predictions.get(task["id"], [])
    return tasks


def _annotations(task_ids: list[int]) -> dict[int, list[Row]]:
    rows = (
        Annotation.objects.filter(task_id__in=task_ids)
        .order_by("id")
        .values(*_ANNOTATION, "completed_by", "completed_by__email")
    )
    by_task: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        email = row.pop("completed_by__email")
        if row["completed_by"] is not None:
            row["completed_by"] = {"id": row["completed_by"], "email": email}
        row["prediction"] = row["prediction"] or {}
        by_task[row["task"]].append(row)
    return by_task


def _predictions(task_ids: list[int]) -> dict[int, list[Row]]:
    rows = Prediction.objects.filter(task_id__in=task_ids).order_by("id").values(*_PREDICTION)
    by_task: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    return by_task
