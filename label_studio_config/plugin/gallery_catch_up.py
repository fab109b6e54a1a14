"""Bringing the gallery's index up to date: bulk loads and imports tell nobody what they added."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from django.db import transaction
from django.db.models import Max, QuerySet
from projects.models import Project
from tasks.models import Annotation, Prediction, Task

from label_studio_config.plugin.gallery_index import (
    PREDICTION_FIELDS,
    forget_project,
    index_answers,
    index_predictions,
    index_tasks,
    show_version,
)
from label_studio_config.plugin.gallery_rows import Questions, questions_of
from label_studio_config.plugin.models import Crop, IndexState

logger = logging.getLogger(__name__)

CHUNK = 5000
"""Rows indexed in one transaction: about a second, in which others wait on SQLite."""

_FAR = 10_000
_MARKS = {"last_task": Task, "last_prediction": Prediction, "last_annotation": Annotation}


def shown_version(project: Project) -> str:
    """The model version whose suggestions people see; empty where the project hides them."""
    if not project.show_collab_predictions:
        return ""
    return project.model_version or ""


def catch_up(project: Project, budget_s: float = float("inf")) -> bool:
    """Index what was added since the last time.

    Parameters
    ----------
    budget_s : seconds after which the rest is left for the next call; a chunk is always done

    Returns
    -------
    bool
        Whether everything is indexed.
    """
    questions = questions_of(project.label_config)
    if questions is None:
        return True
    end = time.monotonic() + budget_s
    state = IndexState.objects.filter(project_id=project.id).first()
    while state is None or not is_current(state, project, questions):
        _one_chunk(project, questions)
        state = IndexState.objects.filter(project_id=project.id).first()
        if time.monotonic() > end:
            return state is not None and is_current(state, project, questions)
    return True


def reindex(project: Project, report: Callable[[IndexState], None] = lambda state: None) -> None:
    """Make the index of a project anew from Label Studio's tables."""
    with transaction.atomic():
        locked_state(project)
        forget_project(project.id)
    while not catch_up(project, 0):
        report(IndexState.objects.get(project_id=project.id))


def find_lost(project: Project) -> int:
    """Index tasks that catching up missed, forget those that are gone; how many that were.

    Ids become visible in another order than they were given where transactions overlap, and a
    task may be deleted with SQL.
    """
    questions = questions_of(project.label_config)
    tasks = Task.objects.filter(project_id=project.id)
    crops = Crop.objects.filter(project_id=project.id)
    if questions is None or tasks.count() == crops.count():
        return 0
    from label_studio_config.plugin.gallery_index import index_again

    there = set(tasks.values_list("id", flat=True))
    indexed = set(crops.values_list("task_id", flat=True))
    wrong = sorted(there ^ indexed)
    for start in range(0, len(wrong), CHUNK):
        with transaction.atomic():
            index_again(questions, locked_state(project), wrong[start : start + CHUNK])
    logger.info(
        "Project %d: %d tasks of the gallery's index were put right", project.id, len(wrong)
    )
    return len(wrong)


def is_current(state: IndexState, project: Project, questions: Questions) -> bool:
    """Whether everything is indexed, as the project is now."""
    if state.questions != questions.key or state.model_version != shown_version(project):
        return False
    return not any(
        _added(table, project, getattr(state, mark)).exists() for mark, table in _MARKS.items()
    )


def _added(table: type, project: Project, last: int) -> QuerySet:
    return table.objects.filter(project_id=project.id, id__gt=last).order_by("id")  # type: ignore[attr-defined]


def locked_state(project: Project) -> IndexState:
    """The state of a project, held until the transaction ends; two workers never do one chunk."""
    IndexState.objects.get_or_create(project_id=project.id)
    return IndexState.objects.select_for_update().get(project_id=project.id)


@transaction.atomic
def _one_chunk(project: Project, questions: Questions) -> None:
    state = locked_state(project)
    if state.questions != questions.key:
        if state.questions:
            forget_project(project.id)
            state = locked_state(project)
        state.questions = questions.key
        state.save(update_fields=["questions"])
    if state.model_version != shown_version(project):
        show_version(questions, state, shown_version(project))
    # Tasks first: which of them are blind says what else is indexed.
    for mark, index in (
        ("last_task", _index_tasks),
        ("last_prediction", _index_predictions),
        ("last_annotation", _index_annotations),
    ):
        newest = index(state, questions, _added(_MARKS[mark], project, getattr(state, mark)))
        if newest is None:
            _skip_others(state, mark)
            continue
        setattr(state, mark, newest)
        state.save(update_fields=[mark])
        return


def _skip_others(state: IndexState, mark: str) -> None:
    """What other projects added need not be passed over again and again."""
    newest = _MARKS[mark].objects.aggregate(newest=Max("id"))["newest"] or 0
    if newest - getattr(state, mark) < _FAR:
        return
    added = _MARKS[mark].objects.filter(project_id=state.project_id)
    if not added.filter(id__gt=getattr(state, mark), id__lte=newest).exists():
        setattr(state, mark, newest)
        state.save(update_fields=[mark])


def _index_tasks(state: IndexState, questions: Questions, added: QuerySet) -> int | None:
    tasks = list(added.values_list("id", "data")[:CHUNK])
    index_tasks(questions, state.project_id, tasks)
    return tasks[-1][0] if tasks else None


def _index_predictions(state: IndexState, questions: Questions, added: QuerySet) -> int | None:
    predictions = list(added.values_list(*PREDICTION_FIELDS)[:CHUNK])
    if predictions:
        index_predictions(questions, state, predictions)
    return predictions[-1][0] if predictions else None


def _index_annotations(state: IndexState, questions: Questions, added: QuerySet) -> int | None:
    annotations = list(added.values_list("id", "task_id")[:CHUNK])
    if annotations:
        index_answers(questions, state.project_id, [task_id for _, task_id in annotations])
    return annotations[-1][0] if annotations else None
