"""Label Studio's label stream: second opinions first, then what to label next where chosen."""

from __future__ import annotations

from copy import copy
from typing import Any

from core.permissions import all_permissions
from data_manager.actions import register_action
from data_manager.actions.next_task import next_task as label_studios_next_task
from data_manager.functions import filters_ordering_selected_items_exist
from django.db.models import Case, Q, QuerySet, Value, When
from projects.models import Project
from rest_framework.exceptions import NotFound
from tasks.models import Task

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
    past = Q(annotations__completed_by=request.user) | Q(
        drafts__user=request.user, drafts__was_postponed=True
    )
    # Those that this person has answered, skipped or put off are for later, or for others.
    mine = Task.objects.filter(past, project=project).values("id")
    waiting = queryset.filter(is_labeled=False)
    # What a person was given already is theirs until they have answered it.
    held = Task.get_locked_by(request.user, tasks=waiting.exclude(id__in=mine))
    if held is None and not filters_ordering_selected_items_exist(request.data):
        in_order = copy(project)
        in_order.sampling = Project.SEQUENCE
        for ids in (asked_again(project, MOST_PLACES), open_tasks(project)[:MOST_PLACES]):
            if not ids:
                continue
            places = [When(id=task_id, then=Value(place)) for place, task_id in enumerate(ids)]
            chosen = waiting.filter(id__in=ids).exclude(id__in=mine).order_by(Case(*places))
            try:
                return label_studios_next_task(in_order, chosen, **kwargs)
            except NotFound:
                pass  # this person has answered or skipped all of them
    return label_studios_next_task(project, queryset, **kwargs)
