"""Calls to Label Studio's API as the home's first user, with errors that say what was refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import requests

from label_studio_config.home import Home

_ACCESS_S = 200.0
"""Label Studio's short-lived tokens hold for 300 s."""


class ApiError(ValueError):
    """Label Studio refused a call or cannot be reached; the message holds its reason."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """A session with the home's Label Studio; answers are parsed JSON.

    The SDK has no calls for the plugin's own addresses, and hides the reason of a refusal.
    """

    def __init__(self, home: Home, timeout_s: float = 600.0) -> None:
        self._begin(home.settings.label_studio_url, timeout_s)
        self._session.headers["Authorization"] = f"Token {home.secrets.api_token}"

    @classmethod
    def at(cls, url: str, token: str, timeout_s: float = 600.0) -> Api:
        """A session with any Label Studio; the token is a legacy one or a personal access token."""
        api = cls.__new__(cls)
        api._begin(url.rstrip("/"), timeout_s)
        if token.count(".") == 2:
            api._session.auth = _PersonalToken(api.url, token)
        else:
            api._session.headers["Authorization"] = f"Token {token}"
        return api

    def _begin(self, url: str, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._session = requests.Session()
        # A proxy named in the environment must not see the token.
        self._session.trust_env = False

    def call(self, method: str, path: str, **options: Any) -> Any:
        """One call; `path` begins with a slash.

        Raises
        ------
        ApiError
            With Label Studio's own reason, or the remedy if it cannot be reached.
        """
        try:
            response = self._session.request(
                method, self.url + path, timeout=self.timeout_s, **options
            )
        except requests.ConnectionError as error:
            raise ApiError(
                f"Label Studio does not answer at {self.url}: start it with `planktrait serve`"
            ) from error
        except requests.Timeout as error:
            raise ApiError(f"{method} {path} took over {self.timeout_s:.0f} s") from error
        if not response.ok:
            raise ApiError(
                f"Label Studio refused {method} {path} "
                f"({response.status_code}): {_reason(response)}",
                response.status_code,
            )
        return response.json() if response.content else None

    def get(self, path: str, **params: Any) -> Any:
        """GET with query parameters."""
        return self.call("GET", path, params=params)

    def post(self, path: str, body: Any = None) -> Any:
        """POST a JSON body."""
        return self.call("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH with a JSON body."""
        return self.call("PATCH", path, json=body)

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a paged list."""
        page = 1
        while True:
            answer = self.get(path, page=page, page_size=100, **params)
            yield from answer["results"]
            if not answer.get("next"):
                return
            page += 1


class _PersonalToken(requests.auth.AuthBase):
    """Exchanges a personal access token for short-lived ones."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token
        self.access, self.until = "", 0.0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if time.monotonic() > self.until:
            with requests.Session() as session:
                session.trust_env = False
                address = f"{self.url}/api/token/refresh/"
                answer = session.post(address, json={"refresh": self.token}, timeout=60)
            if not answer.ok:
                raise ApiError(f"{self.url} refused the personal access token", answer.status_code)
            self.access = answer.json()["access"]
            self.until = time.monotonic() + _ACCESS_S
        request.headers["Authorization"] = f"Bearer {self.access}"
        return request


def _reason(response: requests.Response) -> str:
    if response.status_code != 500:
        return _said(response)
    # Some errors are a page of HTML that says nothing.
    said = "" if "<html" in response.text[:1000] else f"{_said(response)}. "
    return f"{said}An error of its own: see its log (label-studio.log). Is its database running?"


def _said(response: requests.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return response.text[:500]
    if isinstance(answer, dict):
        errors = answer.get("validation_errors") or answer.get("detail") or answer
        return str(errors)[:2000]
    return str(answer)[:2000]
