"""Who asks and what they may: as Label Studio has it, but stricter where it lets everybody pass."""

from __future__ import annotations

from typing import Any

from data_manager.actions import check_action_permission
from data_manager.api import ProjectActionsAPI
from jwt_auth.auth import TokenAuthenticationPhaseout
from projects.models import Project
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.views import APIView
from users.models import User


class SessionWithCsrf(SessionAuthentication):
    """A browser's session, with the CSRF token that Label Studio itself does not ask for."""

    def enforce_csrf(self, request: Request) -> None:
        # Label Studio logs a bearer token in before Django REST framework looks; no browser sends
        # one by itself.
        if not getattr(request, "is_jwt", False):
            super().enforce_csrf(request)


class SessionOfOurPages(SessionWithCsrf):
    """A browser's session; a page of this server needs no token: Label Studio's own sends none."""

    def enforce_csrf(self, request: Request) -> None:
        if not from_this_server(request):
            # Label Studio's DisableCSRF has turned the check off.
            request._dont_enforce_csrf_checks = False
            super().enforce_csrf(request)


class Guarded(APIView):
    """A view that whoever is logged in by cookie must ask with the CSRF token."""

    authentication_classes = (TokenAuthenticationPhaseout, SessionWithCsrf)

    @classmethod
    def as_view(cls, **options: Any) -> Any:
        view = super().as_view(**options)
        # Label Studio's DisableCSRF turns the check off for every view that does not say so.
        view._dont_enforce_csrf_checks = False
        return view


def guard_actions() -> None:
    """Refuse actions of the Data Manager, ours and Label Studio's own, to pages of other origins.

    Called once, when Django has loaded all apps.
    """
    # The class and not its address: Label Studio serves one view under several.
    ProjectActionsAPI.authentication_classes = (TokenAuthenticationPhaseout, SessionOfOurPages)


def from_this_server(request: Request) -> bool:
    """Whether a browser says that a page of this very scheme, host and port asks.

    No page can set these headers. Every browser of today sends `Origin` with whatever is not GET,
    and `Sec-Fetch-Site`, which knows of a proxy with TLS, to addresses that it holds for safe.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return bool(site == "same-origin")
    host = request.get_host()
    return request.headers.get("Origin") in (f"https://{host}", f"http://{host}")


def in_organisation(user: User, project: Project) -> bool:
    """Whether the project is one of the organisation that the person is in.

    Also where Label Studio's permissions are asked, which look at no project.
    """
    return bool(project.organization_id == user.active_organization_id)


def may_act(user: User, action: dict[str, Any], project: Project) -> bool:
    """Whether somebody may run an action of the Data Manager, or see its form.

    Label Studio's setting DATA_MANAGER_CHECK_ACTION_PERMISSION: its own check asks for no project,
    so that people of other organisations could run every action, ours and its own.
    """
    return in_organisation(user, project) and bool(check_action_permission(user, action, project))
