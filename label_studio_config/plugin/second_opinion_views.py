"""Asking for a second opinion: from the gallery, the page Model and the Data Manager."""

from __future__ import annotations

from collections import Counter
from typing import Any

from core.permissions import AllPermissions
from data_manager.actions import register_action
from django.db.models import QuerySet
from projects.models import Project
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from users.models import User

from label_studio_config.plugin.bulk_orders import KINDS, Kind, Order, Tally, carry_out
from label_studio_config.plugin.gallery_access import ProjectView
from label_studio_config.plugin.gallery_catch_up import catch_up
from label_studio_config.plugin.second_opinion import Asked, ask_again, conflicting

MOST = 10_000


def register() -> None:
    """Offer the action in every project's Data Manager."""
    register_action(
        second_opinion,
        "Ask for a second opinion",
        order=96,
        permission=AllPermissions().annotations_create,
        dialog={
            "title": "Ask for a second opinion",
            "text": "Images that somebody has judged come first in the label stream of everybody "
            "else, until one more person has judged them.",
            "type": "confirm",
        },
    )
    KINDS["opinion"] = Kind(
        AllPermissions().annotations_create,
        _ask_some,
        _words,
        "ask for a second opinion on",
        counted="asked",
    )


def second_opinion(project: Project, queryset: QuerySet, **kwargs: Any) -> dict[str, Any]:
    """One more person's answer for the selected tasks; the action of that name."""
    ids = list(queryset.order_by("id").values_list("id", flat=True))
    user = kwargs["request"].user
    return carry_out(project, user, Order.new("opinion", project, user), ids)


def _ask_some(project: Project, user: User, order: Order, ids: list[int]) -> Tally:
    return Tally(Counter(vars(ask_again(project, user, ids))))


def _words(order: Order, tally: Tally) -> str:
    return Asked(**{name: int(n) for name, n in tally.counts.items()}).words


class SecondOpinion(ProjectView):
    """POST `{"tasks": [ids]}`, or `{"conflicting": control}`: those on which people differ."""

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        ids, control = request.data.get("tasks"), request.data.get("conflicting")
        if (ids is None) == (control is None):
            raise ValidationError("give tasks, a list of ids, or conflicting, a control")
        if control is not None:
            view = self.view_of(request, project, str(control))
            catch_up(project)
            ids = conflicting(project, view.control.name)
        elif not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise ValidationError("tasks must be a list of task ids")
        elif len(ids) > MOST:
            raise ValidationError(f"at most {MOST} tasks in one call")
        done = ask_again(project, request.user, ids)
        return Response({**vars(done), "words": done.words})
