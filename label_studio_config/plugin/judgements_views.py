"""Judging in bulk, and undoing it, at the gallery's API."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from users.models import User

from label_studio_config.plugin.gallery_access import ProjectView
from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.gallery_states import as_json, look
from label_studio_config.plugin.judgements import save, undo
from label_studio_config.plugin.judgements_asked import read_asked, read_key
from label_studio_config.plugin.judgements_decide import Conflict
from label_studio_config.plugin.judgements_sent import withdrawn
from label_studio_config.plugin.models import JudgementBatch


class Judgements(ProjectView):
    """POST: save a batch of judgements."""

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        if not isinstance(request.data, dict):
            raise ValidationError("expected a JSON object")
        view = self.view_of(request, project, request.data.get("control"))
        asked = read_asked(request.data, view.control)
        saved = save(view, request.user, asked)
        return Response(
            {
                "batch": saved.batch_id,
                "saved": saved.saved,
                "crops": _crops(view, [one.task_id for one in asked.judged]),
                "conflicts": _conflicts(saved.conflicts),
            }
        )


class Undo(ProjectView):
    """POST: undo a batch of one's own."""

    def post(self, request: Request, pk: int, batch: int) -> Response:
        project = self.project(request, pk)
        made = JudgementBatch.objects.filter(
            id=batch, project_id=project.id, user_id=request.user.id
        ).first()
        if made is None:
            raise NotFound("there is no such batch of yours in this project")
        return Response(_undone(self.view_of(request, project, made.control), request.user, made))


class UndoByKey(ProjectView):
    """POST `{"key"}`: undo a batch whose number was never heard, or that never came.

    One that comes after all is not saved any more.
    """

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        if not isinstance(request.data, dict):
            raise ValidationError("expected a JSON object")
        made = withdrawn(project, request.user, read_key(request.data))
        if made is None:
            return Response({"undone": 0, "crops": [], "kept": []})
        return Response(_undone(self.view_of(request, project, made.control), request.user, made))


def _undone(view: View, user: User, made: JudgementBatch) -> dict[str, Any]:
    done = undo(view, user, made.id)
    kept = [{"task": task_id, "why": why} for task_id, why in done.kept]
    return {"undone": done.undone, "crops": _crops(view, done.task_ids), "kept": kept}


def _crops(view: View, task_ids: list[int]) -> list[dict[str, Any]]:
    seen = look(view, task_ids)
    return as_json(seen[task_id] for task_id in task_ids if task_id in seen)


def _conflicts(conflicts: list[Conflict]) -> list[dict[str, Any]]:
    people = {conflict.user_id for conflict in conflicts if conflict.user_id is not None}
    emails = dict(User.objects.filter(id__in=people).values_list("id", "email"))
    return [
        {
            "task": conflict.task_id,
            "by": emails.get(conflict.user_id),
            "label": conflict.label,
            "why": conflict.why,
        }
        for conflict in conflicts
    ]
