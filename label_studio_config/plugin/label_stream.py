"""Label Studio's label stream: second opinions first, then what to label next where chosen."""

from __future__ import annotations

from copy import copy
from typing import Any

from core.permissions import all_permissions
from data_manager.actions import register_action
from data_manager.actions.next_task import next_task as label_studios_next_task
from data_manager.functions import filters_ordering_selected_items_exist
from django.db.models import Case, Exists, OuterRef, Q, QuerySet, Value, When
from projects.models import Project
from rest_framework.exceptions import NotFound
from tasks.models import Annotation, AnnotationDraft, Task
from users.models import User

from label_studio_config.plugin.label_order import open_tasks
from label_studio_config.plugin.second_opinion import asked_again

MOST_PLACES = 300
"""Databases take so many conditions, and not many more."""


def register() -> None:
    """Take the place of Label Studio's own action, which ours asks."""
    register_action(
        next_task,
        "Generate Next Task",
        order=0,
        permission=all_permissions.projects_view,
        hidden=True,
    )


def next_task(project: Project, queryset: QuerySet, **kwargs: Any) -> dict[str, Any]:
    """The next task of whoever asks; the action of that name.

    Who has it locked, who has answered and who skipped is Label Studio's own rule: it is only given
    the tasks in our order. What somebody filtered or sorted in the Data Manager stays as it is.
    """
    request = kwargs["request"]
    mine = _had_by(request.user)
    waiting = queryset.filter(~mine, is_labeled=False)
    # What a person was given already is theirs until they have answered it.
    held = Task.get_locked_by(request.user, tasks=waiting)
    if held is None and not filters_ordering_selected_items_exist(request.data):
        in_order = copy(project)
        in_order.sampling = Project.SEQUENCE
        again = asked_again(project, mine, MOST_PLACES)
        for ids in (again, open_tasks(project, mine)[:MOST_PLACES]):
            if not ids:
                continue
            places = [When(id=task_id, then=Value(place)) for place, task_id in enumerate(ids)]
            chosen = waiting.filter(id__in=ids).order_by(Case(*places))
            try:
                return label_studios_next_task(in_order, chosen, **kwargs)
            except NotFound:
                pass  # this person has answered or skipped all of them
    return label_studios_next_task(project, queryset, **kwargs)


def _had_by(user: User) -> Q:
    """The condition under which a person has answered, skipped or put off a task.

    It is for later then, or for others.
    """
    annotations = Annotation.objects.filter(task_id=OuterRef("id"), completed_by=user)
    drafts = AnnotationDraft.objects.filter(task_id=OuterRef("id"), user=user, was_postponed=True)
    return Q(Exists(annotations)) | Q(Exists(drafts))
