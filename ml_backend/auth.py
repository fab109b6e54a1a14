"""Basic authentication on every address of the backend."""

from __future__ import annotations

import hmac
import logging

from flask import Flask, Response, jsonify, request

logger = logging.getLogger(__name__)

CHALLENGE = 'Basic realm="Planktrait ML backend", charset="UTF-8"'


def require_basic_auth(app: Flask, username: str, password: str) -> None:
    """Answer 401 to every request of `app` without this user name and password.

    Also for addresses that do not exist, so that a stranger learns nothing.
    """
    expected = (username.encode(), password.encode())

    @app.before_request
    def check() -> Response | None:
        given = request.authorization
        if given is not None and given.type == "basic":
            pair = ((given.username or "").encode(), (given.password or "").encode())
            # Both are compared in full, so that the time tells nothing about either.
            matches = [hmac.compare_digest(a, b) for a, b in zip(pair, expected, strict=True)]
            if all(matches):
                return None
        logger.warning("%s %s refused: wrong or no password", request.method, request.path)
        response = jsonify(
            error="wrong or no password: connect the backend again with "
            "`planktrait project create`, which knows it"
        )
        response.status_code = 401
        response.headers["WWW-Authenticate"] = CHALLENGE
        return response
