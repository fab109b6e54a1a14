"""What only the owner of the installation may do, though Label Studio lets every member.

Its open edition has no roles: each member may add people, hand out invite links, and read the
webhooks, whose headers hold the backend's password.
"""

from __future__ import annotations

from typing import Any

from organizations.api import OrganizationAPI, OrganizationInviteAPI, OrganizationResetTokenAPI
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.views import APIView
from users.api import UserAPI
from webhooks.api import WebhookAPI, WebhookListAPI

_EVERY_METHOD = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


def guard() -> None:
    """Refuse everyone else with 403; called once, when Django has loaded all apps."""
    for view in (OrganizationInviteAPI, OrganizationResetTokenAPI, WebhookListAPI, WebhookAPI):
        _refuse_others(view, _EVERY_METHOD)
    # Its answer holds the invite link's token.
    _refuse_others(OrganizationAPI, _EVERY_METHOD)
    _refuse_others(UserAPI, frozenset({"POST"}))


def _refuse_others(view: type[APIView], methods: frozenset[str]) -> None:
    # The class and not its address: Label Studio serves one view under several.
    initial = view.initial

    def initial_for_owner(self: APIView, request: Request, *args: Any, **kwargs: Any) -> None:
        initial(self, request, *args, **kwargs)
        uploads_avatar = getattr(self, "action", None) == "avatar"
        if request.method in methods and not request.user.is_superuser and not uploads_avatar:
            raise PermissionDenied("only the owner of the installation may do this")

    view.initial = initial_for_owner
