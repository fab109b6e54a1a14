"""Who may use the gallery's API, and what they look at."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

from core.permissions import ViewClassPermission, all_permissions
from django.http import QueryDict
from projects.models import Project
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from users.models import User

from label_studio_config.plugin import api_views
from label_studio_config.plugin.awaited import Awaited
from label_studio_config.plugin.gallery_catch_up import shown_version
from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.gallery_rows import Questions, questions_of


def may_see_all(user: User, project: Project) -> bool:
    """Whether somebody may look at others' answers without giving his own, where he asks for it.

    Whoever made the project, and the owner of the installation: somebody must see what people
    disagree on. By default the gallery hides them from these two as well.
    """
    return bool(user.is_superuser or project.created_by_id == user.id)


def query_in_body(request: Request, *, but: str = "") -> QueryDict:
    """What a GET has in its address, from the body of a POST, where that would be too long.

    Parameters
    ----------
    but : a name that is left out

    Raises
    ------
    ValidationError
        The body is no JSON object.
    """
    if not isinstance(request.data, dict):
        raise ValidationError("expected a JSON object")
    given = request.data.items()
    said = {name: value for name, value in given if value is not None and name != but}
    return QueryDict(urlencode(said, doseq=True))


class ProjectView(api_views.ProjectView):
    """A view of one project, for those who may see it in Label Studio."""

    permission_required = ViewClassPermission(
        GET=all_permissions.tasks_view, POST=all_permissions.annotations_create
    )

    def project(self, request: Request, pk: int) -> Project:
        """The project, if the person may do with it what the method does.

        Raises
        ------
        Http404, PermissionDenied
        """
        project = super().project(request, pk)
        needed = getattr(self.permission_required, request.method or "GET", None)
        if needed and not request.user.has_perm(needed, project):
            raise PermissionDenied()
        return project

    def questions(self, project: Project) -> Questions:
        """What the project asks; raises ValidationError where the config cannot be read."""
        questions = questions_of(project.label_config)
        if questions is None or not questions.controls:
            raise ValidationError(
                "the gallery shows Choices and Taxonomies with one answer an image: the labeling "
                "config of this project has none; choose another one on its page Data"
            )
        return questions

    def view_of(
        self, request: Request, project: Project, control: str | None, *, everybody: bool = False
    ) -> View:
        """What the person looks at: the named control, or the primary one.

        Parameters
        ----------
        everybody : with others' answers, also where one's own is not given; PermissionDenied where
            the person may not see them
        """
        if everybody and not may_see_all(request.user, project):
            raise PermissionDenied(
                "others' answers are hidden until you have given yours: only who made the project "
                "sees all of them"
            )
        questions = self.questions(project)
        if not control:
            chosen = questions.primary
        elif control in questions.names:
            chosen = questions.schema.control(control)
        else:
            raise ValidationError(
                f"control={control!r}: expected one of {', '.join(sorted(questions.names))}"
            )
        assert chosen is not None
        view = View.of(project, questions, chosen, shown_version(project), request.user.id)
        if everybody:
            view = replace(view, several_votes=False, asked_again=Awaited())
        return view
