"""Our own API inside Label Studio, under /api/planktrait/: what its own API cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from core.permissions import ViewClassPermission, all_permissions
from django.conf import settings
from django.shortcuts import get_object_or_404
from organizations.models import Organization
from projects.models import Project
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import ParseError, PermissionDenied, ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from tasks.models import Task
from users.forms import UserSignupForm
from users.models import User

from label_studio_config.home import HomeError
from label_studio_config.plugin.access import Guarded, in_organisation
from label_studio_config.plugin.images_folder import show_images
from label_studio_config.plugin.old_versions import VersionShownError, remove_version
from label_studio_config.plugin.suggestions import SuggestionError, save_suggestions
from label_studio_config.plugin.task_pages import MOST_TASKS, Query, page_of_tasks

MOST_SUGGESTIONS = 10_000
"""SQLite takes at most 32,766 values in one statement."""


class FastJsonParser(JSONParser):
    """JSON as REST framework's own parser takes it, three times as fast."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        """The body; ParseError where it is no JSON."""
        try:
            return orjson.loads(stream.read())
        except orjson.JSONDecodeError as error:
            raise ParseError(f"JSON parse error - {error}") from error


class ProjectView(Guarded):
    """A view of one project, for members who may change it."""

    permission_required = ViewClassPermission(
        GET=all_permissions.projects_view, POST=all_permissions.projects_change
    )

    def project(self, request: Request, pk: int) -> Project:
        """The project, if the person may see it.

        Raises
        ------
        Http404, PermissionDenied
        """
        project = get_object_or_404(Project, pk=pk)
        if not in_organisation(request.user, project):
            raise PermissionDenied("this project belongs to another organisation")
        self.check_object_permissions(request, project)
        return project


class ImagesFolder(ProjectView):
    """GET: the images root. POST: let the members of a project see the images under it."""

    def get(self, request: Request, pk: int) -> Response:
        self.project(request, pk)
        try:
            return Response({"path": str(settings.PLANKTRAIT_HOME.images_root)})
        except HomeError as error:
            raise ValidationError(str(error)) from error

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        try:
            storage, created = show_images(project, settings.PLANKTRAIT_HOME)
        except HomeError as error:
            raise ValidationError(str(error)) from error
        return Response({"id": storage.id, "path": storage.path, "created": created})


class Images(ProjectView):
    """GET: the `image_id` and the address of every task of a project."""

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        known = Task.objects.filter(project=project).values_list("data__image_id", "data__image")
        return Response({"images": [list(pair) for pair in known.iterator() if pair[1]]})


class Tasks(ProjectView):
    """GET: a page of tasks as in a JSON export, with annotations and predictions in full.

    Query: `after` (a task id) and `limit` for the page, `full=0` for data and counters only,
    `annotated=1` or `annotated=0`, `missing_version=<model version>`, `ids=<task ids, by commas>`.
    """

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        asked = request.query_params
        annotated = whole_number(asked, "annotated", -1, 1)
        query = Query(
            after=whole_number(asked, "after", 0, 2**63 - 1),
            limit=whole_number(asked, "limit", 500, MOST_TASKS),
            annotated=None if annotated < 0 else bool(annotated),
            missing_version=asked.get("missing_version", ""),
            full=bool(whole_number(asked, "full", 1, 1)),
            ids=_ids(asked.get("ids")),
        )
        return Response({"tasks": page_of_tasks(project, query)})


def _ids(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",") if text else []
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValidationError(f"ids={text[:60]!r}: expected task ids, separated by commas")
    return tuple(int(part) for part in parts)


def whole_number(
    asked: Mapping[str, str], name: str, default: int, most: int, least: int = 0
) -> int:
    """A number of a query; ValidationError names what is none, or out of range."""
    text = asked.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise ValidationError(f"{name}={text!r}: expected a whole number from {least} to {most}")
    return int(text)


class ModelVersion(ProjectView):
    """POST `{"model_version"}`: the version whose scores sort and sample the project's tasks.

    Label Studio's own API refuses a version before there is a prediction of it.
    """

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        version = request.data.get("model_version")
        if not isinstance(version, str) or not version:
            raise ValidationError("model_version must be the name of a version")
        project.model_version = version
        project.save(update_fields=["model_version"])
        return Response({"id": project.id, "model_version": version})


class Suggestions(ProjectView):
    """POST `[{"task", "result", "score", "model_version"}]`: save suggestions in bulk.

    Older suggestions of the same version are replaced; blind tasks are left without.

    DELETE `?model_version=&after=0`: the next thousands of one version that is not shown, but for
    those that an annotation came from; `{"deleted", "kept", "unreplaced", "next"}`. Call it again
    with `next` as `after` until that is null. DELETE `?replaced=&newer=&after=0`: but for those of
    tasks without a prediction of the newer version, too. A plugin that does not know `newer` would
    delete those; it refuses a call without `model_version`.
    """

    permission_required = ViewClassPermission(
        POST=all_permissions.projects_change, DELETE=all_permissions.projects_change
    )
    parser_classes = (FastJsonParser,)

    def post(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        if not isinstance(request.data, list):
            raise ValidationError("expected a list of predictions")
        if len(request.data) > MOST_SUGGESTIONS:
            raise ValidationError(f"at most {MOST_SUGGESTIONS} predictions in one call")
        try:
            saved = save_suggestions(project, request.data)
        except SuggestionError as error:
            raise ValidationError(str(error)) from error
        return Response({"saved": saved})

    def delete(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        asked = request.query_params
        newer = asked.get("newer")
        name = "model_version" if newer is None else "replaced"
        version = asked.get(name, "")
        if not version:
            raise ValidationError(f"{name}: name the version")
        after = whole_number(asked, "after", 0, 2**63 - 1)
        try:
            return Response(vars(remove_version(project, version, after, newer)))
        except VersionShownError as error:
            raise ValidationError(str(error)) from error


class Users(Guarded):
    """POST `{"email", "password"}`: add an annotator; for the installation's owner only."""

    permission_required = all_permissions.organizations_change

    def post(self, request: Request) -> Response:
        if not request.user.is_superuser:
            raise PermissionDenied("only the owner of the installation adds users")
        email = str(request.data.get("email", "")).strip().lower()
        user = User.objects.filter(email=email).first()
        created = user is None
        if user is None:
            user = _sign_up(email, request.data.get("password"))
        organization = request.user.active_organization or Organization.objects.first()
        organization.add_user(user)
        if user.active_organization_id != organization.id:
            user.active_organization = organization
            user.save(update_fields=["active_organization"])
        token, _ = Token.objects.get_or_create(user=user)
        return Response({"id": user.id, "email": email, "token": token.key, "created": created})


def _sign_up(email: str, password: Any) -> User:
    form = UserSignupForm({"email": email, "password": password})
    if not form.is_valid():
        raise ValidationError(form.errors)
    user = form.save()
    user.username = email.split("@")[0]
    user.save(update_fields=["username"])
    return user
