"""Our own pages inside Label Studio, and the files that they are made of."""

from __future__ import annotations

import hashlib
from pathlib import Path

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404
from django.template import Context, Engine
from projects.models import Project

from label_studio_config.plugin.access import in_organisation

FOLDER = Path(__file__).parent / "static" / "planktrait"
_CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
_A_YEAR_S = 31_536_000


@login_required
def gallery(request: HttpRequest, pk: int) -> HttpResponse:
    """The gallery of a project; 404 for who may not see the project."""
    return _project_page(request, pk, "gallery.html")


@login_required
def model(request: HttpRequest, pk: int) -> HttpResponse:
    """The model of a project: versions, their reports, jobs; 404 for who may not see it."""
    return _project_page(request, pk, "model.html")


@login_required
def data(request: HttpRequest, pk: int) -> HttpResponse:
    """Set up, import, export and counts of a project; 404 for who may not see it."""
    return _project_page(request, pk, "data.html")


def static_file(request: HttpRequest, name: str, version: str = "") -> HttpResponse:
    """One of our own files: no other name is known, so none can lead outside the folder.

    Under a version it never changes, and browsers keep it; modules that import their neighbours
    stay within the version they were asked under.
    """
    path = _files().get(name)
    if path is None or path.suffix not in _CONTENT_TYPES:
        raise Http404
    response = HttpResponse(path.read_bytes(), content_type=_CONTENT_TYPES[path.suffix])
    current = bool(version) and version == files_version()
    response["Cache-Control"] = f"public, max-age={_A_YEAR_S}, immutable" if current else "no-cache"
    response["X-Content-Type-Options"] = "nosniff"
    return response


def files_version() -> str:
    """A name for our files as they are now: it changes when one of them does."""
    digest = hashlib.sha256()
    for name, path in sorted(_files().items()):
        stat = path.stat()
        digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _files() -> dict[str, Path]:
    return {path.name: path for path in FOLDER.iterdir() if path.is_file()}


def _project_page(request: HttpRequest, pk: int, name: str) -> HttpResponse:
    project = get_object_or_404(Project, pk=pk)
    if not in_organisation(request.user, project) or not project.has_permission(request.user):
        raise Http404
    return _page(request, name, {"project_id": pk})


def _page(request: HttpRequest, name: str, values: dict[str, object]) -> HttpResponse:
    # A new engine each time: pages are read anew where somebody changes them.
    template = Engine(dirs=[str(FOLDER)]).get_template(name)
    known = {"version": files_version(), "csrf_token": get_token(request), **values}
    response = HttpResponse(template.render(Context(known)))
    response["Content-Security-Policy"] = _POLICY
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "same-origin"
    return response
