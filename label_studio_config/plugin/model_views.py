"""A project's model in the browser: its versions, their pages, jobs and logs; what runs is started.

All under /api/planktrait/projects/<pk>/model; the ML backend is asked, and told nothing that its
own checks do not check again.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.http import HttpResponse
from projects.models import Project
from rest_framework.exceptions import APIException, NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from label_studio_config.plugin import backend
from label_studio_config.plugin.api_views import ProjectView

STARTED_BY = {"train": "train", "features": "pretrain", "suggestions": "suggest"}


class ModelView(ProjectView):
    """A view that passes the backend's refusals on, with its words."""

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, backend.BackendError):
            passed_on = APIException(self.words(exc))
            # A 401 of the backend is our own fault, not that of whoever asks.
            passed_on.status_code = exc.status if exc.status in (400, 404, 409, 422) else 503
            exc = passed_on
        return super().handle_exception(exc)

    def words(self, error: backend.BackendError) -> str:
        """What is told of a refusal."""
        return str(error)


class Model(ModelView):
    """GET: `{"live", "versions", "jobs"}`, the newest first."""

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        asked = {"project": project.id}
        answer = backend.ask("GET", "models", params=asked)
        return Response({**answer, "jobs": jobs_of(project)})


class Jobs(ModelView):
    """GET: `{"jobs"}` of the project, the newest first; quick, for pages that ask often.

    Without a backend that answers there are none: pages that only show progress go on without.
    """

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        try:
            return Response({"jobs": jobs_of(project)})
        except backend.BackendError:
            return Response({"jobs": []})


class Report(ModelView):
    """GET: the page of a version, as HTML that may fetch nothing, from an origin of its own.

    With `?scheme=light` or `?scheme=dark` in these colours, without it in those of the system.
    """

    def get(self, request: Request, pk: int, version: str) -> HttpResponse:
        project = self.project(request, pk)
        path = f"models/{quote(version, safe='')}/report"
        page = backend.fetch("GET", path, params={"project": project.id})
        content = page.content
        scheme = request.query_params.get("scheme")
        if scheme in ("light", "dark"):
            marked = f'<html data-color-scheme="{scheme}"'.encode()
            content = content.replace(b"<html", marked, 1)
        response = HttpResponse(content, content_type="text/html; charset=utf-8")
        # Labels and names of files stand in it: whatever they hold, it cannot act for the reader.
        response["Content-Security-Policy"] = (
            "sandbox allow-scripts allow-popups; default-src 'none'; img-src data:; "
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        )
        response["X-Frame-Options"] = "SAMEORIGIN"
        return response


class Promote(ModelView):
    """POST: make a version live; its suggestions follow as a job."""

    def post(self, request: Request, pk: int, version: str) -> Response:
        project = self.project(request, pk)
        path = f"models/{quote(version, safe='')}/promote"
        return Response(backend.ask("POST", path, json={"project": project.id}))


class Start(ModelView):
    """POST: start a training, learning features, or suggestions, as a job."""

    def post(self, request: Request, pk: int, work: str) -> Response:
        project = self.project(request, pk)
        if work not in STARTED_BY:
            raise NotFound(f"{work!r} is none of {', '.join(STARTED_BY)}")
        answer = backend.ask("POST", STARTED_BY[work], json={"project": project.id})
        return Response(answer, status=202)


class JobLog(ModelView):
    """GET `?lines=`: the last lines of the log of one of the project's jobs."""

    def get(self, request: Request, pk: int, job: str) -> Response:
        _check_job(self.project(request, pk), job)
        lines = request.query_params.get("lines", "200")
        return Response(backend.ask("GET", f"jobs/{job}/log", params={"lines": lines}))


class CancelJob(ModelView):
    """POST: end one of the project's jobs."""

    def post(self, request: Request, pk: int, job: str) -> Response:
        _check_job(self.project(request, pk), job)
        return Response(_shown(backend.ask("POST", f"jobs/{job}/cancel")))


def jobs_of(project: Project) -> list[dict[str, Any]]:
    """The project's jobs as people may see them, the newest first."""
    answer = backend.ask("GET", "jobs", params={"project": project.id})
    return [_shown(job) for job in answer["jobs"]]


def _shown(job: dict[str, Any]) -> dict[str, Any]:
    # Where the log lies on the server is nobody's business in the browser.
    return {name: value for name, value in job.items() if name != "log"}


def _check_job(project: Project, job: str) -> None:
    if job not in {known["id"] for known in jobs_of(project)}:
        raise NotFound(f"project {project.id} has no job {job!r}")
