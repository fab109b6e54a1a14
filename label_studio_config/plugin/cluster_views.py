"""Clusters of the images to be judged, which the ML backend keeps, as one person sees them.

What the person has no more to judge, or is not asked of, is left out, and so are clusters of which
nothing is left.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
from django.utils import timezone
from projects.models import Project
from rest_framework.request import Request
from rest_framework.response import Response

from label_studio_config.plugin import backend
from label_studio_config.plugin.api_views import whole_number
from label_studio_config.plugin.gallery_parts import View, suggestions_in
from label_studio_config.plugin.model_views import ModelView
from label_studio_config.plugin.shown_tasks import (
    after,
    all_shown,
    among,
    asked_of,
    judged,
    left_to_judge,
    view_for,
)

MOST_ON_A_PAGE = 2000
USUAL_ON_A_PAGE = 200
TIMEOUT_S = 120.0
_SAID_PER_CLUSTER = 10

Json = dict[str, Any]


class Clusters(ModelView):
    """GET `?control=`: the clusters in the order in which they were made, the largest first.

    `size` images of each are left to judge (of that control, by default the primary one), `done`
    are judged; `done` of the answer is the number of clusters of which none is left. `aside` are
    the outliers in the same way, null where none is left or their tasks were not kept. Only images
    that the person is asked it of are counted: `after` are the controls that decide. `label` is
    what most of the first images are suggested to be, `suggestions` are those that say so:
    `{"task", "prediction"}`. POST `{"control"}`: make them. Annotations may leave every control but
    the primary one open: for those, images that have all of theirs are in the clusters too.
    """

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        view = view_for(project, request.user.id, request.query_params.get("control"))
        seen_at = timezone.now()
        asked = {"project": project.id, "members": 1}
        answer = backend.ask("GET", "clusters", params=asked, timeout_s=TIMEOUT_S)
        aside = answer["aside"]
        *left, outliers = _left(
            project, view, [*answer["clusters"], aside or {"tasks": [], "members": []}]
        )
        answer["clusters"] = [one for one in left if one["size"]]
        answer["aside"] = outliers if outliers["size"] else None
        answer["done"] = sum(1 for one in left if one["done"] and not one["size"])
        answer["seen_at"] = seen_at.isoformat()
        answer["after"] = after(view)
        _say(view, answer["clusters"])
        return Response(answer)

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        view = view_for(project, request.user.id, _control(request.data))
        done_too = view is not None and not view.is_primary
        asked = {"project": project.id, "done_too": done_too}
        answer = backend.ask("POST", "clusters", json=asked)
        return Response(answer, status=202)


class ClusterTasks(ModelView):
    """GET `?after=&limit=&made_at=&control=`: the tasks of a cluster that are left to judge.

    Without a number, those of the outliers. Nearest to its centre first. 409 where the clusters are
    not those that were made at that time: the number is another one's.
    """

    def get(self, request: Request, pk: int, number: int | None = None) -> Response:
        project = self.project(request, pk)
        asked = request.query_params
        page = {
            "after": whole_number(asked, "after", 0, 10**9),
            "limit": whole_number(asked, "limit", USUAL_ON_A_PAGE, MOST_ON_A_PAGE, least=1),
            "made_at": asked.get("made_at"),
        }
        view = view_for(project, request.user.id, asked.get("control"))
        which = "outliers" if number is None else number
        answer = backend.ask("GET", f"clusters/{which}", params={"project": project.id, **page})
        left = left_to_judge(project, view, answer["tasks"])
        answer["tasks"] = [task for task in answer["tasks"] if task in left]
        return Response(answer)


def _control(asked: Any) -> str | None:
    control = asked.get("control") if isinstance(asked, dict) else None
    return control if isinstance(control, str) else None


def _left(project: Project, view: View | None, groups: list[Json]) -> list[Json]:
    """The groups with the number of images left and done, and the first ones of those left."""
    members = [one.pop("members") for one in groups]
    tasks = np.fromiter(chain.from_iterable(members), dtype=np.int64)
    there = among(tasks, all_shown(project) if len(tasks) else tasks)
    known = there & among(tasks, judged(view))
    waiting = there & ~known
    if view is not None and view.control.conditions:
        waiting &= among(tasks, asked_of(view))
    found = []
    end = 0
    for one, ids in zip(groups, members, strict=True):
        part = slice(end, end := end + len(ids))
        left = tasks[part][waiting[part]]
        done = int(known[part].sum())
        first = left[: len(one["tasks"])].tolist()
        found.append({**one, "size": len(left), "done": done, "tasks": first})
    return found


def _say(view: View | None, clusters: list[Json]) -> None:
    """What each cluster is mostly suggested to be, as far as the gallery has indexed it."""
    first = [task for one in clusters for task in one["tasks"][:_SAID_PER_CLUSTER]]
    said = _suggested(view, first) if view is not None else {}
    for one in clusters:
        known = [(task, *said[task]) for task in one["tasks"][:_SAID_PER_CLUSTER] if task in said]
        labels = Counter(label for _, label, _ in known)
        most = one["label"] = labels.most_common(1)[0][0] if labels else None
        one["suggestions"] = [
            {"task": task, "prediction": prediction}
            for task, label, prediction in known
            if label == most
        ]


def _suggested(view: View, task_ids: list[int]) -> dict[int, tuple[str, int]]:
    """By task, the label that is suggested for the view's control, and by which prediction."""
    rows = suggestions_in(view, task_ids).order_by("prediction_id")
    found = rows.values_list("task_id", "label", "prediction_id")
    return {task: (label, prediction) for task, label, prediction in found}
