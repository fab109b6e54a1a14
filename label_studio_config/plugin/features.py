"""More like this, and the map of a project's features, which the ML backend keeps.

The backend answers with task ids. What it was told of blind tasks may be old: nothing leaves here
before Label Studio's own tables were asked which tasks are there, and which of them are blind.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from core.label_config import replace_task_data_undefined_with_config_field
from django.http import HttpResponse
from PIL import Image
from projects.models import Project
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import FormParser, JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from tasks.models import Task

from label_studio_config.plugin import backend
from label_studio_config.plugin.gallery_catch_up import catch_up
from label_studio_config.plugin.model_views import ModelView
from label_studio_config.plugin.models import Crop
from label_studio_config.plugin.shown_tasks import (
    CATCH_UP_S,
    all_shown,
    judged,
    left_to_judge,
    shown,
    view_for,
)

MOST_ASKED = 1000
MOST_FOUND = 2000
USUAL_FOUND = 200
LARGEST_IMAGE_BYTES = 20 * 1024 * 1024
ADDED_AT_ONCE = 200
"""New images that are embedded within a query; more of them are a job's work."""

TIMEOUT_S = 120.0
_SPARE = 50
_MOST_LOOKED_AT = 5 * MOST_FOUND


def evenly(task_ids: Sequence[int], most: int) -> list[int]:
    """At most so many of some tasks, spread evenly over them, in their order."""
    count = min(len(task_ids), most)
    return [task_ids[number * len(task_ids) // count] for number in range(count)]


class Neighbours(ModelView):
    """POST `{"tasks", "limit"}`, or a file `image`: the tasks that look most like them.

    `{"tasks": [{"task", "similarity"}], "features": {"n", "missing"}}`; the tasks that were asked
    about and blind ones are left out. Where many are asked about, `features.compared` of them are
    compared, spread evenly. `features.job` is the job that adds what is missing. With `open` (and
    `control`, by default the primary one) those that this person has no more to judge are left out,
    too: asked again when these are judged, it finds the next ones.
    """

    parser_classes = (JSONParser, MultiPartParser, FormParser)

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        limit = _number(request.data.get("limit", USUAL_FOUND), "limit", 1, MOST_FOUND)
        asked = self._asked(request, project)
        known = backend.ask("GET", "features", params={"project": project.id})
        body = {"project": project.id, **asked, **_newer(project, int(known["last_task"]))}
        view = None
        if str(request.data.get("open")).lower() in ("1", "true"):
            view = view_for(project, request.user.id, request.data.get("control"))
        most = limit + _SPARE if view is None else 3 * limit + _SPARE
        while True:
            answer = backend.ask(
                "POST", "neighbours", json={**body, "limit": most}, timeout_s=TIMEOUT_S
            )
            ids = [found["task"] for found in answer["tasks"]]
            left = left_to_judge(project, view, ids)
            tasks = [found for found in answer["tasks"] if found["task"] in left]
            told = view is None or "without" in body
            if len(tasks) >= limit or len(answer["tasks"]) < most:
                break
            # As many of the next ones may be left; most of a project's ids take longer to hand on.
            wanted = max(4 * most, 2 * limit * len(ids) // len(tasks)) if tasks else _MOST_LOOKED_AT
            if not told and wanted >= _MOST_LOOKED_AT:
                body["without"] = judged(view).tolist()
                most = limit + _SPARE
            elif most < _MOST_LOOKED_AT:
                # Also where many have become blind, or were deleted, since the backend last looked.
                most = min(wanted, _MOST_LOOKED_AT)
            else:
                break
        return Response({"tasks": tasks[:limit], "features": answer["features"]})

    def _asked(self, request: Request, project: Project) -> dict[str, Any]:
        image = request.FILES.get("image")
        if image is not None:
            return {"image": base64.b64encode(_checked_image(image)).decode()}
        ids = request.data.get("tasks")
        if not isinstance(ids, list) or not ids or not all(type(one) is int for one in ids):
            raise ValidationError("give tasks, a list of task ids, or a file named image")
        if len(ids) > MOST_ASKED:
            raise ValidationError(f"at most {MOST_ASKED} tasks in one call")
        there = set(Task.objects.filter(project=project, id__in=ids).values_list("id", flat=True))
        for one in ids:
            if one not in there:
                raise ValidationError(f"task {one} is not in project {project.id}")
        comparable = shown(project, ids)
        if not comparable:
            raise ValidationError(
                "blind images are not compared with others: choose one that is not"
            )
        return {"tasks": [one for one in dict.fromkeys(ids) if one in comparable]}


class Map(ModelView):
    """GET: the places of the images on the map of features; POST: make it.

    `{"made_at", "n", "x", "y", "task", "job"}`. With `?binary=1` the points alone: n float32 x,
    n float32 y, n uint32 task ids, little-endian, and the time in `X-Planktrait-Made-At`.
    """

    def get(self, request: Request, pk: int) -> HttpResponse:
        project = self.project(request, pk)
        asked = {"project": project.id}
        told = backend.ask("GET", "map", params=asked)
        content = b""
        if told["n"]:
            points = backend.fetch("GET", "map/points", params=asked, timeout_s=TIMEOUT_S)
            told["made_at"] = points.headers["X-Planktrait-Made-At"]
            content = points.content
        task, x, y = _points(project, content)
        if request.query_params.get("binary") == "1":
            packed = x.tobytes() + y.tobytes() + task.astype("<u4").tobytes()
            response = HttpResponse(packed, content_type="application/octet-stream")
            response["X-Planktrait-Made-At"] = told["made_at"] or ""
            return response
        places = {name: axis.astype(float).round(4).tolist() for name, axis in (("x", x), ("y", y))}
        answer = {**told, "n": len(task), **places, "task": task.tolist()}
        return HttpResponse(json.dumps(answer), content_type="application/json")

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        return Response(backend.ask("POST", "map", json={"project": project.id}), status=202)


class MapState(ModelView):
    """GET: what is there of the map, without its points: `{"made_at", "n", "new", "job"}`.

    `new` images, which are not blind, have come since it was made.
    """

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        told = backend.ask("GET", "map", params={"project": project.id})
        last_task = told.pop("last_task")
        catch_up(project, CATCH_UP_S)
        newer = Crop.objects.filter(project_id=project.id, task_id__gt=last_task, blind=False)
        return Response({**told, "new": newer.count() if told["n"] else 0})


def _points(project: Project, content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Task ids, x and y, as `/map/points` packs them; of what may be shown."""
    n = len(content) // 16
    x, y = np.frombuffer(content[: 8 * n], "<f4").reshape(2, n)
    task = np.frombuffer(content[8 * n :], "<i8")
    kept = np.isin(task, all_shown(project)) if n else np.zeros(0, dtype=bool)
    return task[kept], x[kept], y[kept]


def _newer(project: Project, last_task: int) -> dict[str, Any]:
    """The tasks that the backend has not seen, or how many there are, where that is too many."""
    newer = Task.objects.filter(project=project, id__gt=last_task).order_by("id")
    tasks = list(newer.values("id", "data")[: ADDED_AT_ONCE + 1])
    if len(tasks) > ADDED_AT_ONCE:
        return {"newer": newer.count()}
    for task in tasks:
        replace_task_data_undefined_with_config_field(task["data"], project)
    return {"new_tasks": tasks, "label_config": project.label_config} if tasks else {}


def _checked_image(image: Any) -> bytes:
    if image.size > LARGEST_IMAGE_BYTES:
        raise ValidationError(f"the image has more than {LARGEST_IMAGE_BYTES // 2**20} MB")
    content: bytes = image.read()
    try:
        # Only the header and the checks of the format; the pixels are decoded in the backend.
        with Image.open(io.BytesIO(content)) as opened:
            opened.verify()
    except Exception as error:  # Pillow raises almost anything on broken files
        raise ValidationError("the file is not an image that can be read") from error
    return content


def _number(value: Any, name: str, least: int, most: int) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise ValidationError(f"{name}={text!r}: expected a whole number from {least} to {most}")
    return int(text)
