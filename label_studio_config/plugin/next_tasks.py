"""What to label next: open tasks in the order that teaches the model most."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from django.db.models import Exists, OuterRef, Q
from projects.models import Project
from rest_framework.exceptions import ValidationError
from tasks.models import Task

from label_studio_config.blind import is_blind_data
from label_studio_config.plugin import backend
from label_studio_config.plugin.gallery_catch_up import catch_up, shown_version
from label_studio_config.plugin.gallery_filters import Filters, PageAsked
from label_studio_config.plugin.gallery_parts import View, asked, few, open_crop
from label_studio_config.plugin.gallery_query import places
from label_studio_config.plugin.gallery_rows import questions_of
from label_studio_config.plugin.models import (
    Answered,
    Crop,
    SuggestedLabel,
    SuggestionList,
)

STRATEGIES = ("mixture", "diversity", "uncertainty")
MOST_CONSIDERED = 20_000
"""Of a larger project a sample of so many open tasks is looked at, and as many labelled ones."""

CATCH_UP_S = 5.0
CHOOSING_S = 120.0


Narrow = Callable[[list[int]], list[int]]


def choose(
    project: Project,
    strategy: str,
    limit: int,
    view: View | None = None,
    *,
    passed: Collection[int] = (),
    narrow: Narrow | None = None,
) -> dict[str, Any]:
    """`{"tasks", "features", "considered"}`: open tasks, the most useful first.

    Parameters
    ----------
    view : open is what its person has not answered of its control and the gallery shows as such,
        of images that it is asked of; without one, what nobody has answered of the primary
        control, and then what still wants an answer of somebody
    passed : tasks that were shown already; what comes now is what follows them
    narrow : which of some open tasks may be chosen, all by default (see `passing`)

    Raises
    ------
    BackendError
        The backend does not answer, or has no features of this project yet.
    ValidationError
        The config asks for no label.
    """
    body = _considered(project, view, frozenset(passed), narrow)
    body |= {"project": project.id, "strategy": strategy, "limit": limit}
    answer = backend.ask("POST", "next", json=body, timeout_s=CHOOSING_S)
    there = not_blind(project, answer["tasks"])
    return {
        "tasks": [task_id for task_id in answer["tasks"] if task_id in there],
        "features": answer["features"],
        "considered": len(body["open"]),
    }


def passing(view: View, filters: Filters) -> Narrow:
    """Those of some tasks that the gallery shows under some filters."""

    def narrow(task_ids: list[int]) -> list[int]:
        there = few(view, filters)
        some = _some(task_ids if there is None else sorted(set(task_ids).intersection(there)))
        if not some:
            return []
        these = replace(filters, tasks=tuple(some), suggested=None, label=None)
        return [place.task_id for place in places(view, PageAsked(these, limit=len(some)))]

    return narrow


def not_blind(project: Project, ids: Iterable[int]) -> set[int]:
    """Those of some tasks that are there and not blind, by Label Studio's own tables."""
    rows = Task.objects.filter(project=project, id__in=list(ids)).values_list("id", "data")
    return {task_id for task_id, data in rows if not is_blind_data(data)}


def _considered(
    project: Project, view: View | None, passed: frozenset[int], narrow: Narrow | None
) -> dict[str, Any]:
    """Open tasks, the confidence of their suggestions (none without a model), and labelled ones."""
    questions = questions_of(project.label_config)
    if questions is None or questions.primary is None:
        raise ValidationError("the labeling config asks for no label that an image has one of")
    catch_up(project, CATCH_UP_S)
    crops = Crop.objects.filter(project_id=project.id, blind=False)
    ways = [Q(answered=Answered.NO)]
    if view is not None:
        ways = [open_crop(view)]
    elif project.maximum_annotations > 1:
        # Until nothing else is left, what one person has answered teaches as if everybody had.
        wanting = Task.objects.filter(id=OuterRef("task_id"), is_labeled=False)
        ways.append(Q(Exists(wanting)))
    for is_open in ways:
        rows = crops.filter(is_open, asked(view) if view else Q())
        waiting = list(rows.values_list("task_id", flat=True))
        left = [task_id for task_id in waiting if task_id not in passed]
        if left:
            break
    open_ids = _some(left if narrow is None else narrow(left))
    # What was shown teaches as if it were labelled: what follows is unlike it.
    known = list(crops.exclude(is_open).values_list("task_id", flat=True))
    labelled = _some(known + [task_id for task_id in waiting if task_id in passed])
    control = view.control if view else questions.primary
    list_id = SuggestionList.id_of(project.id, shown_version(project), control.name)
    rows = SuggestedLabel.objects.filter(list_id=list_id, task_id__among=open_ids)
    sure = dict(rows.values_list("task_id", "confidence"))
    # What the model has said nothing about yet is what it is least sure of.
    confidence = [max(sure.get(task_id, 0.0), 0.0) for task_id in open_ids] if sure else []
    return {"open": open_ids, "confidence": confidence, "labelled": labelled}


def _some(ids: list[int]) -> list[int]:
    if len(ids) <= MOST_CONSIDERED:
        return ids
    return sorted(random.Random(0).sample(ids, MOST_CONSIDERED))
