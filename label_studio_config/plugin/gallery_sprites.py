"""The crops of some tasks as one picture, and where each lies in it."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from tasks.models import Task

from label_studio_config.plugin.gallery_access import ProjectView
from label_studio_config.plugin.gallery_filters import task_ids, whole_number
from label_studio_config.plugin.gallery_index import index_tasks
from label_studio_config.plugin.models import Crop
from label_studio_config.plugin.sprites import (
    LARGEST_PX,
    MOST_TASKS,
    SMALLEST_PX,
    USUAL_PX,
    Sprite,
    draw,
    plan,
)

KEPT_S = 3600
"""Seconds that a browser keeps a picture."""


class _SpriteView(ProjectView):
    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Whatever a browser asks for where it shows pictures."""
        return super().perform_content_negotiation(request, force=True)

    def plan(self, request: Request, pk: int) -> Sprite:
        """The plan of the picture that is asked for.

        Raises
        ------
        ValidationError
            No tasks, too many, or a size that is out of bounds.
        """
        project = self.project(request, pk)
        questions = self.questions(project)
        asked = request.query_params
        ids = task_ids(asked.get("tasks", ""), MOST_TASKS)
        if not ids:
            raise ValidationError("tasks: expected task ids with commas between them")
        most_px = whole_number(asked, "most_px", USUAL_PX, LARGEST_PX)
        if most_px < SMALLEST_PX:
            raise ValidationError(f"most_px={most_px}: from {SMALLEST_PX} to {LARGEST_PX}")
        there = set(Task.objects.filter(id__in=ids, project=project).values_list("id", flat=True))
        crops = Crop.objects.filter(project_id=project.id).in_bulk(sorted(there))
        missing = there - crops.keys()
        if missing:
            rows = Task.objects.filter(id__in=missing).values_list("id", "data")
            made = index_tasks(questions, project.id, list(rows))
            crops |= {crop.task_id: crop for crop in made}
        return plan([(task_id, crops.get(task_id)) for task_id in ids], most_px)

    def kept(self, response: HttpResponseBase) -> HttpResponseBase:
        """The response, to be kept by the browser of this person only."""
        response["Cache-Control"] = f"private, max-age={KEPT_S}"
        patch_vary_headers(response, ["Cookie", "Authorization"])
        return response


class GallerySprite(_SpriteView):
    """GET: the picture."""

    def get(self, request: Request, pk: int) -> HttpResponseBase:
        picture = draw(self.plan(request, pk))
        return self.kept(HttpResponse(picture, content_type="image/webp"))


class GallerySpriteMap(_SpriteView):
    """GET: where each crop lies in the picture."""

    def get(self, request: Request, pk: int) -> HttpResponseBase:
        sprite = self.plan(request, pk)
        body = {
            "width": sprite.width,
            "height": sprite.height,
            "cells": [cell.as_json() for cell in sprite.cells],
        }
        return self.kept(Response(body))
