"""How our API knows who asks: as Label Studio's own, and with the CSRF token that it leaves out."""

from __future__ import annotations

from typing import Any

from jwt_auth.auth import TokenAuthenticationPhaseout
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.views import APIView


class SessionWithCsrf(SessionAuthentication):
    """A browser's session, with the CSRF token that Label Studio itself does not ask for."""

    def enforce_csrf(self, request: Request) -> None:
        # Label Studio logs a bearer token in before Django REST framework looks; no browser sends
        # one by itself.
        if not getattr(request, "is_jwt", False):
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
