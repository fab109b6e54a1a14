"""The steps of work on many tasks, which a job asks for, and undoing all that one order saved."""

from __future__ import annotations

import time

from core.permissions import ViewClassPermission, all_permissions
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from label_studio_config.plugin.bulk_orders import AT_ONCE, Order, OrderError, step
from label_studio_config.plugin.gallery_access import ProjectView
from label_studio_config.plugin.judgements import undo
from label_studio_config.plugin.judgements_asked import read_key
from label_studio_config.plugin.judgements_sent import withdrawn
from label_studio_config.plugin.models import JudgementBatch

UNDO_S = 8.0
"""An answer comes after so many seconds at the latest, and the browser asks for the rest."""


class Orders(ProjectView):
    """POST `{"order", "tasks": [ids], "so_far"}`: do what was ordered to these tasks."""

    permission_required = ViewClassPermission(POST=all_permissions.projects_view)

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        ids = request.data.get("tasks")
        if not isinstance(ids, list) or not 0 < len(ids) <= AT_ONCE:
            raise ValidationError(f"tasks: expected a list of 1 to {AT_ONCE} ids")
        if not all(type(one) is int for one in ids):
            raise ValidationError("tasks: expected task ids")
        try:
            order = Order.read(str(request.data.get("order")))
            if order.project_id != project.id:
                raise OrderError(f"this order is about project {order.project_id}")
            if not request.user.is_superuser and request.user.id != order.user_id:
                raise PermissionDenied("this is somebody else's order")
            return Response(step(order, ids, request.data.get("so_far")))
        except OrderError as error:
            raise ValidationError(str(error)) from error


class UndoOrder(ProjectView):
    """POST `{"key"}`, the id of an order: undo what it saved, and do no more of it.

    `{"undone", "kept", "left"}`: images put back, images left since somebody changed them, and
    batches that are left for the next call.
    """

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        if not isinstance(request.data, dict):
            raise ValidationError("expected a JSON object")
        key = read_key(request.data)
        withdrawn(project, request.user, key)
        made = JudgementBatch.objects.filter(
            project_id=project.id,
            user_id=request.user.id,
            key__startswith=f"{key}.",
            undone_at=None,
        ).order_by("id")
        end = time.monotonic() + UNDO_S
        undone = kept = 0
        waiting = list(made)
        while waiting and time.monotonic() < end:
            batch = waiting.pop(0)
            done = undo(self.view_of(request, project, batch.control), request.user, batch.id)
            undone, kept = undone + done.undone, kept + len(done.kept)
        return Response({"undone": undone, "kept": kept, "left": len(waiting)})
