"""What Label Studio saves and deletes one by one reaches the gallery's index at once.

Only for projects whose gallery was opened; what comes in bulk is caught up at the next request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from django.db.models.signals import post_delete, post_save
from projects.models import Project
from tasks.models import Annotation, Prediction, Task, post_bulk_create

from label_studio_config.blind import is_blind_data
from label_studio_config.plugin.deadlocks import persistent
from label_studio_config.plugin.gallery_index import (
    forget_tasks,
    index_again,
    index_answers,
    index_predictions,
    index_tasks,
    is_indexed,
)
from label_studio_config.plugin.gallery_rows import Questions, questions_of
from label_studio_config.plugin.models import Crop, IndexState, SuggestedLabel
from label_studio_config.plugin.task_predictions import delete_predictions_of

_held = ContextVar("held", default=False)


@contextmanager
def held() -> Iterator[None]:
    """Within, annotations do not reach the index: whoever changes many indexes them in one go."""
    token = _held.set(True)
    try:
        yield
    finally:
        _held.reset(token)


def connect() -> None:
    """Called once, when Django has loaded all apps."""
    for receiver, signal, sender in (
        (_task_saved, post_save, Task),
        (_task_deleted, post_delete, Task),
        (_prediction_saved, post_save, Prediction),
        (_prediction_deleted, post_delete, Prediction),
        (_annotation_changed, post_save, Annotation),
        (_annotation_changed, post_delete, Annotation),
        (_annotations_created, post_bulk_create, Annotation),
    ):
        uid = f"planktrait-gallery-{receiver.__name__}-{sender.__name__}-{id(signal)}"
        signal.connect(receiver, sender=sender, dispatch_uid=uid)


def predictions_saved(project: Any, predictions: Sequence[Prediction]) -> None:
    """Index predictions that were saved in bulk, if the project has an index."""
    found = index_of(project.id, project.label_config)
    if found is None or not predictions:
        return
    state, questions = found
    require_crops(questions, state, {prediction.task_id for prediction in predictions})
    index_predictions(
        questions,
        state,
        [(p.id, p.task_id, p.model_version, p.score, p.result) for p in predictions],
    )


def predictions_created(predictions: Sequence[Prediction]) -> None:
    """Index predictions that Label Studio creates in bulk, where catching up might miss them.

    PostgreSQL shows ids in the order of commits: a later one may be indexed before an earlier one
    can be seen. SQLite has one writer at a time.
    """
    if connection.vendor != "postgresql" or _held.get():
        return
    by_project: dict[int | None, list[Prediction]] = {}
    for prediction in predictions:
        by_project.setdefault(prediction.project_id, []).append(prediction)
    for project_id, rows in by_project.items():
        if IndexState.objects.filter(project_id=project_id).exists():
            predictions_saved(Project.objects.get(id=project_id), rows)


def tasks_changed(project: Project, task_ids: Sequence[int]) -> None:
    """Index tasks again that were changed in bulk, if the project has an index."""
    found = index_of(project.id, project.label_config)
    if found is not None and task_ids:
        index_again(found[1], found[0], task_ids)


def index_of(project_id: int | None, config: str) -> tuple[IndexState, Questions] | None:
    """A project's index as far as it can be added to; None where it is not there yet."""
    state = IndexState.objects.filter(project_id=project_id).first()
    questions = questions_of(config) if state is not None else None
    # With another config all rows are made anew at the next request.
    if state is None or questions is None or state.questions != questions.key:
        return None
    return state, questions


def require_crops(questions: Questions, state: IndexState, task_ids: set[int]) -> None:
    """Index those of the tasks that are not: whether a task is blind stands in its row."""
    present = Crop.objects.filter(task_id__among=task_ids).values_list("task_id", flat=True)
    missing = task_ids - set(present)
    if missing:
        tasks = Task.objects.filter(id__in=missing, project_id=state.project_id)
        index_tasks(questions, state.project_id, list(tasks.values_list("id", "data")))


def _task_saved(instance: Task, update_fields: Any = None, **kwargs: Any) -> None:
    # Counters change with every annotation.
    if instance.project_id is None or (update_fields and "data" not in update_fields):
        return
    if is_blind_data(instance.data or {}):
        delete_predictions_of([instance.id])
        instance.total_predictions = 0
    found = index_of(instance.project_id, instance.project.label_config)
    # The editor saves the whole task with every change of an annotation.
    if found is not None and not is_indexed(found[1], instance.id, instance.data):
        with transaction.atomic():
            index_again(found[1], found[0], [instance.id])


def _task_deleted(instance: Task, **kwargs: Any) -> None:
    forget_tasks([instance.id], instance.project_id)


def _prediction_saved(instance: Prediction, **kwargs: Any) -> None:
    project = instance.project or instance.task.project
    with transaction.atomic():
        predictions_saved(project, [instance])


def _prediction_deleted(instance: Prediction, **kwargs: Any) -> None:
    rows = SuggestedLabel.objects.filter(prediction_id=instance.id)
    deleted, _ = rows.delete()
    if not deleted:
        return
    shown = IndexState.objects.filter(
        project_id=OuterRef("project_id"), model_version=instance.model_version
    )
    crops = Crop.objects.filter(Exists(shown), task_id=instance.task_id, suggested=1)
    crops.update(suggested=0)
    # An older one of the same version counts again.
    others = Prediction.objects.filter(
        task_id=instance.task_id, model_version=instance.model_version
    ).exclude(id=instance.id)
    project = instance.project if others.exists() else None
    found = index_of(project.id, project.label_config) if project else None
    if found is not None:
        with transaction.atomic():
            index_again(found[1], found[0], [instance.task_id])


def _annotation_changed(instance: Annotation, **kwargs: Any) -> None:
    _answers_changed(instance.project, {instance.task_id})


def _annotations_created(objs: Sequence[Annotation], **kwargs: Any) -> None:
    by_project: dict[Any, set[int]] = {}
    for annotation in objs:
        by_project.setdefault(annotation.project, set()).add(annotation.task_id)
    for project, task_ids in by_project.items():
        _answers_changed(project, task_ids)


def _answers_changed(project: Any, task_ids: set[int]) -> None:
    if _held.get() or project is None:
        return
    # Within Label Studio's transaction, which holds locks of its own, the index could be the other
    # half of a deadlock, and the annotation would be lost with it.
    transaction.on_commit(partial(_index_answers, project, task_ids), robust=True)


@persistent
def _index_answers(project: Any, task_ids: set[int]) -> None:
    found = index_of(project.id, project.label_config)
    if found is not None:
        with transaction.atomic():
            index_answers(found[1], found[0].project_id, task_ids)
