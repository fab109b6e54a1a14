"""Adds small scripts to Label Studio's own pages: our link in their header, jobs and actions."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token

from label_studio_config.plugin.pages import files_version

_APPLICATION = b'class="app-wrapper"'
"""Stands in every page of Label Studio that draws its header in the browser, and in no other."""
_END = b"</body>"
_SCRIPTS = ("gallery-link.js", "dm-actions.js", "dm-accept.js", "dm-notice.js")


class GalleryLink:
    """Django middleware; the script itself decides where the link is shown."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if (
            response.status_code == 200
            and not response.streaming
            and response.get("Content-Type", "").startswith("text/html")
            and _APPLICATION in response.content
        ):
            before, end, after = response.content.rpartition(_END)
            response.content = before + _script(get_token(request)) + end + after
        return response


def _script(csrf_token: str) -> bytes:
    """With the token that undoing needs: its cookie may be out of the scripts' reach."""
    folder = f"/planktrait/static/{files_version()}"
    return b"".join(
        f'<script src="{folder}/{name}" data-csrf="{csrf_token}" defer></script>\n'.encode()
        for name in _SCRIPTS
    )
