"""The order in which a project labels: chosen per project, kept, renewed as people label."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from django.db import connection
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone
from projects.models import Project
from rest_framework.exceptions import ValidationError
from tasks.models import Annotation, AnnotationDraft, Task

from label_studio_config.plugin.gallery_catch_up import shown_version
from label_studio_config.plugin.models import LabelOrder
from label_studio_config.plugin.next_tasks import STRATEGIES, choose, not_blind

logger = logging.getLogger(__name__)

KEPT = 300
MOST_BEGUN = 1000
"""Of more tasks that one person had and others had not, the rest come when no other is left."""
LEFT_SHARE = 2 / 3
"""With a smaller share of them left to somebody the next ones are chosen, while these are being
labelled."""

AGAIN_AFTER = timedelta(minutes=1)
"""Sooner only where people have used up what was chosen since."""

CHOOSING_MOST = timedelta(minutes=3)
"""Whoever chooses for longer has been ended, or could not: then others try again."""


def order_of(project: Project) -> LabelOrder:
    """The project's order; one that is not saved where nobody has chosen any."""
    found = LabelOrder.objects.filter(project_id=project.id).first()
    return found or LabelOrder(project_id=project.id)


def set_order(project: Project, strategy: str, in_label_stream: bool) -> LabelOrder:
    """Choose how the project labels next, for everybody, and choose the first tasks.

    Raises
    ------
    BackendError
        The tasks cannot be chosen yet (the order is kept); the message says what to do.
    ValidationError
        The config asks for nothing to choose by; the label stream stays as it was.
    """
    assert strategy in STRATEGIES
    LabelOrder.objects.update_or_create(
        project_id=project.id,
        defaults={
            "strategy": strategy,
            "in_label_stream": in_label_stream,
            "begun": _begun(project, order_of(project)),
            "tasks": [],
            "chosen_at": None,
            "choosing_since": None,
        },
    )
    if in_label_stream:
        try:
            _choose(project)
        except ValidationError:  # there is nothing to choose by
            LabelOrder.objects.filter(project_id=project.id).update(in_label_stream=False)
            raise
    return order_of(project)


def open_tasks(project: Project, mine: Q) -> list[int]:
    """Of the tasks that were chosen, those that wait for a person's answer, none blind, in order.

    Where few are left to the person, or another model version is live, the next are chosen
    meanwhile.

    Parameters
    ----------
    mine : the condition under which a task was the person's already
    """
    order = order_of(project)
    if not order.in_label_stream:
        return []
    ids = [*order.begun, *order.tasks]
    waiting = Task.objects.filter(~mine, project=project, id__in=ids, is_labeled=False)
    there = not_blind(project, waiting.values_list("id", flat=True))
    left = [task_id for task_id in ids if task_id in there]
    used_up = len(left) <= LEFT_SHARE * len(order.tasks) and _used_since(order)
    if used_up or order.model_version != shown_version(project):
        _choose_meanwhile(project)
    return left


def _used_since(order: LabelOrder) -> bool:
    """Whether there may be others to choose by now.

    Somebody who is far ahead had all that can be chosen: each of this person's requests would
    choose the same again.
    """
    if order.chosen_at is None or order.chosen_at < timezone.now() - AGAIN_AFTER:
        return True
    had = Annotation.objects.filter(task_id__in=order.tasks, created_at__gte=order.chosen_at)
    return had.values("task_id").distinct().count() >= (1 - LEFT_SHARE) * max(len(order.tasks), 1)


def _choose_meanwhile(project: Project) -> None:
    # One of all workers: whoever changes the row.
    late = timezone.now() - CHOOSING_MOST
    free = Q(choosing_since=None) | Q(choosing_since__lt=late)
    rows = LabelOrder.objects.filter(free, project_id=project.id)
    if rows.update(choosing_since=timezone.now()):
        threading.Thread(target=_choose_and_close, args=(project,), daemon=True).start()


def _choose_and_close(project: Project) -> None:
    try:
        _choose(project)
    except Exception as error:  # nobody waits for this thread
        logger.warning("project %d: what to label next is not chosen: %s", project.id, error)
    finally:
        connection.close()


def _choose(project: Project) -> None:
    version = shown_version(project)
    order = order_of(project)
    begun = _begun(project, order)
    chosen = choose(project, order.strategy, KEPT, passed=begun)
    # Not where somebody has chosen another way meanwhile.
    LabelOrder.objects.filter(project_id=project.id, strategy=order.strategy).update(
        begun=begun,
        tasks=chosen["tasks"],
        model_version=version,
        chosen_at=timezone.now(),
        choosing_since=None,
    )


def _begun(project: Project, order: LabelOrder) -> list[int]:
    """Of the tasks that were chosen, those that somebody had and that wait for others, in order."""
    ids = [*order.begun, *order.tasks]
    had = Q(Exists(Annotation.objects.filter(task_id=OuterRef("id"))))
    had |= Q(Exists(AnnotationDraft.objects.filter(task_id=OuterRef("id"), was_postponed=True)))
    rows = Task.objects.filter(had, project=project, id__in=ids, is_labeled=False)
    there = set(rows.values_list("id", flat=True))
    return [task_id for task_id in ids if task_id in there][:MOST_BEGUN]
