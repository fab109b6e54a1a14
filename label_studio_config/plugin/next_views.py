"""What to label next, for the gallery, and how a project chooses it."""

from __future__ import annotations

from typing import Any

from core.permissions import ViewClassPermission, all_permissions
from django.http import QueryDict
from projects.models import Project
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from label_studio_config.plugin import backend
from label_studio_config.plugin.api_views import whole_number
from label_studio_config.plugin.gallery_access import query_in_body
from label_studio_config.plugin.gallery_filters import Filters, read_filters
from label_studio_config.plugin.label_order import order_of, set_order
from label_studio_config.plugin.model_views import ModelView
from label_studio_config.plugin.models import LabelOrder
from label_studio_config.plugin.next_tasks import STRATEGIES, choose, passing
from label_studio_config.plugin.shown_tasks import after, view_for

USUAL, MOST = 200, 1000
MOST_PASSED = 100_000
"""So many were looked at by nobody in one sitting."""


class NextTasks(ModelView):
    """GET `?strategy=mixture|diversity|uncertainty&limit=`: `{"tasks", "considered", "after"}`.

    Tasks that wait for the person's answer of `control`, by default the primary one, never blind
    ones: what a model that knows the answers so far would learn most from. What the person is not
    asked is not open: `after` are the controls that decide. By default as the project chooses.
    Where others' answers are hidden until one's own is given, theirs take no task away. Filters as
    for `gallery/page`: among the images that pass them, of all suggested labels.

    POST the same names, and `{"not": [task]}`: what follows these, none of which comes again.
    """

    permission_required = ViewClassPermission(
        GET=all_permissions.projects_view, POST=all_permissions.projects_view
    )

    def get(self, request: Request, pk: int) -> Response:
        return self._answer(request, pk, request.query_params, [])

    def post(self, request: Request, pk: int) -> Response:
        query = query_in_body(request, but="not")
        passed = request.data.get("not", [])
        if not isinstance(passed, list) or not all(type(one) is int for one in passed):
            raise ValidationError("not: expected a list of task ids")
        if len(passed) > MOST_PASSED:
            raise ValidationError(f"not: at most {MOST_PASSED} tasks in one call")
        return self._answer(request, pk, query, passed)

    def _answer(self, request: Request, pk: int, query: QueryDict, passed: list[int]) -> Response:
        project = self.project(request, pk)
        strategy = _strategy(query.get("strategy", usual(order_of(project))))
        limit = whole_number(query, "limit", USUAL, MOST, least=1)
        filters = read_filters(query)
        view = view_for(project, request.user.id, query.get("control"))
        narrow = passing(view, filters) if view and filters != Filters() else None
        chosen = choose(project, strategy, limit, view, passed=passed, narrow=narrow)
        return Response({**chosen, "strategy": strategy, "after": after(view)})


class Order(ModelView):
    """GET, or POST by whoever may change the project: `{"strategy", "in_label_stream"}`.

    The answer tells too how many tasks are `chosen` for the label stream, and by `may_change`
    whether this person may choose.
    """

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        return Response(_told(order_of(project), _may_change(request, project)))

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        if not _may_change(request, project):
            raise PermissionDenied("only who may change the project chooses its order")
        strategy = _strategy(request.data.get("strategy", usual(order_of(project))))
        in_stream = request.data.get("in_label_stream", False)
        if not isinstance(in_stream, bool):
            raise ValidationError(f"in_label_stream={in_stream!r}: expected true or false")
        why = None
        try:
            order = set_order(project, strategy, in_stream)
        except backend.BackendError as error:
            order, why = order_of(project), str(error)
        return Response({**_told(order, True), "waits_because": why})


def usual(order: LabelOrder) -> str:
    """The strategy of an order, by default the one that needs the fewest labels."""
    return order.strategy or STRATEGIES[0]


def _strategy(given: Any) -> str:
    if given not in STRATEGIES:
        raise ValidationError(f"strategy={given!r}: expected one of {', '.join(STRATEGIES)}")
    return str(given)


def _may_change(request: Request, project: Project) -> bool:
    return bool(request.user.has_perm(all_permissions.projects_change, project))


def _told(order: LabelOrder, may_change: bool) -> dict[str, Any]:
    return {
        "strategy": usual(order),
        "in_label_stream": order.in_label_stream,
        "chosen": len(order.tasks),
        "chosen_at": order.chosen_at,
        "may_change": may_change,
    }
