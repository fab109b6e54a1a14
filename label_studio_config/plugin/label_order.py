"""The order in which a project labels: chosen per project, kept, renewed as people label."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import Q
from django.utils import timezone
from projects.models import Project

from label_studio_config.plugin import backend
from label_studio_config.plugin.gallery_catch_up import catch_up, shown_version
from label_studio_config.plugin.models import Answered, Crop, LabelOrder
from label_studio_config.plugin.next_tasks import STRATEGIES, choose

logger = logging.getLogger(__name__)

KEPT = 300
RENEWED_AFTER = 100
"""When so many of them are answered the next ones are chosen, while the rest is being labelled."""

CHOOSING_MOST = timedelta(minutes=10)
"""Whoever chooses for longer has been ended."""


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
    """
    assert strategy in STRATEGIES
    LabelOrder.objects.update_or_create(
        project_id=project.id,
        defaults={
            "strategy": strategy,
            "in_label_stream": in_label_stream,
            "tasks": [],
            "choosing_since": None,
        },
    )
    if in_label_stream:
        _choose(project)
    return order_of(project)


def open_tasks(project: Project) -> list[int]:
    """Of the tasks that were chosen, those that nobody has answered, in order.

    Where many are answered, or another model version is live, the next are chosen meanwhile.
    """
    order = order_of(project)
    if not order.in_label_stream:
        return []
    catch_up(project, 1.0)
    answered = Crop.objects.filter(task_id__in=order.tasks).exclude(answered=Answered.NO)
    done = set(answered.values_list("task_id", flat=True))
    left = [task_id for task_id in order.tasks if task_id not in done]
    used_up = len(done) >= RENEWED_AFTER or not left
    if used_up or order.model_version != shown_version(project):
        _choose_meanwhile(project)
    return left


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
    except Exception:  # nobody waits for this thread
        logger.exception("project %d: what to label next could not be chosen", project.id)
        LabelOrder.objects.filter(project_id=project.id).update(choosing_since=None)
    finally:
        connection.close()


def _choose(project: Project) -> None:
    version = shown_version(project)
    strategy = order_of(project).strategy
    changed: dict[str, Any] = {"choosing_since": None}
    try:
        chosen = choose(project, strategy, KEPT)
    except backend.BackendError:
        LabelOrder.objects.filter(project_id=project.id).update(**changed)
        raise
    changed |= {"tasks": chosen["tasks"], "model_version": version, "chosen_at": timezone.now()}
    # Not where somebody has chosen another way meanwhile.
    LabelOrder.objects.filter(project_id=project.id, strategy=strategy).update(**changed)
