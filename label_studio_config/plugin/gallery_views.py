"""The gallery's API: what the page needs once, counts by label, and pages."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from core.permissions import ViewClassPermission, all_permissions
from django.db import connection
from django.db.models import Exists, Max, Min, OuterRef, QuerySet
from django.http import QueryDict
from django.utils import timezone
from projects.models import Project
from rest_framework.request import Request
from rest_framework.response import Response
from users.models import User

from label_studio_config.controls import Control
from label_studio_config.plugin.gallery_access import ProjectView, query_in_body
from label_studio_config.plugin.gallery_catch_up import catch_up, find_lost, shown_version
from label_studio_config.plugin.gallery_filters import read_filters, read_page
from label_studio_config.plugin.gallery_page import page
from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.gallery_query import count
from label_studio_config.plugin.gallery_rows import Questions
from label_studio_config.plugin.models import Crop, GivenAnswer, SuggestedLabel, SuggestionList

FIRST_BUDGET_S = 20.0
"""What a first visit waits for the index of a large project; the next visit goes on."""

PAGE_BUDGET_S = 2.0
MOST_SAMPLES = 200


class Gallery(ProjectView):
    """GET: what the page needs once."""

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        questions = self.questions(project)
        complete = catch_up(project, FIRST_BUDGET_S)
        crops = Crop.objects.filter(project_id=project.id)
        # One by one: each is then the end of an index.
        lowest, highest = (crops.aggregate(m=end("depth_m"))["m"] for end in (Min, Max))
        assert questions.primary is not None
        return Response(
            {
                "project": {
                    "id": project.id,
                    "title": project.title,
                    "votes_wanted": project.maximum_annotations,
                },
                "user": {"id": request.user.id, "email": request.user.email},
                "model_version": shown_version(project) or None,
                "controls": [_control(questions, control) for control in questions.controls],
                "control": questions.primary.name,
                "samples": _samples(project),
                "depth_m": None if lowest is None else [lowest, highest],
                "annotators": _annotators(project, questions),
                "complete": complete,
                "has_images": crops.exists(),
                "has_suggestions": _suggestions(project, questions.primary.name).exists(),
            }
        )


class GalleryIndex(ProjectView):
    """GET: how far the index is, and what had been lost of it and was put right."""

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        questions = self.questions(project)
        complete = catch_up(project, FIRST_BUDGET_S)
        mended = find_lost(project) if complete else 0
        assert questions.primary is not None
        return Response(
            {
                "tasks": Crop.objects.filter(project_id=project.id).count(),
                "suggestions": _suggestions(project, questions.primary.name).count(),
                "complete": complete,
                "mended": mended,
            }
        )


class _Asked(ProjectView):
    """GET, or POST with the same names where `tasks` is too long for an address.

    With `answers=all` nobody's answers are hidden; see `may_see_all`.
    """

    permission_required = ViewClassPermission(
        GET=all_permissions.tasks_view, POST=all_permissions.tasks_view
    )

    def get(self, request: Request, pk: int) -> Response:
        return self._answer(request, pk, request.query_params)

    def post(self, request: Request, pk: int) -> Response:
        return self._answer(request, pk, query_in_body(request))

    def _answer(self, request: Request, pk: int, query: QueryDict) -> Response:
        project = self.project(request, pk)
        everybody = query.get("answers") == "all"
        view = self.view_of(request, project, query.get("control"), everybody=everybody)
        return Response(self.answer(view, query))

    def answer(self, view: View, query: QueryDict) -> dict[str, Any]:
        """What is answered to a query."""
        raise NotImplementedError


class GalleryLabels(_Asked):
    """How many images each suggested label has, under the filters."""

    def answer(self, view: View, query: QueryDict) -> dict[str, Any]:
        filters = read_filters(query)
        catch_up(view.project, PAGE_BUDGET_S)
        counts, without = count(view, filters)
        labels = [{"label": label, "count": number} for label, number in counts]
        return {"labels": labels, "open": without}


class GalleryPage(_Asked):
    """One page of crops."""

    def answer(self, view: View, query: QueryDict) -> dict[str, Any]:
        asked = read_page(query)
        seen_at = timezone.now()
        catch_up(view.project, PAGE_BUDGET_S)
        return {**page(view, asked), "seen_at": seen_at.isoformat()}


def _control(questions: Questions, control: Control) -> dict[str, Any]:
    hotkeys = _hotkeys(questions.schema.xml, control)
    title = control.attributes.get("trait") or control.name.replace("_", " ")
    return {
        "name": control.name,
        "title": title[:1].upper() + title[1:],
        "labels": [{"name": label, "hotkey": hotkeys.get(label)} for label in control.labels],
        "not_assessable": sorted(control.not_assessable),
    }


def _hotkeys(xml: str, control: Control) -> dict[str, str]:
    """The keys that the config gives to labels; those of a Taxonomy have none."""
    keys: dict[str, str] = {}
    for element in ET.fromstring(xml).iter(control.tag):
        if element.get("name") != control.name:
            continue
        for choice in element.iter("Choice"):
            label = choice.get("alias") or choice.get("value")
            if label and choice.get("hotkey"):
                keys[label] = choice.get("hotkey", "")
    return keys


def _samples(project: Project) -> list[str]:
    """The first sample ids, jumping along the index from one to the next."""
    table = Crop._meta.db_table
    query = f"""
        WITH RECURSIVE samples(sample_id) AS (
            SELECT MIN(sample_id) FROM {table} WHERE project_id = %s AND sample_id > ''
            UNION ALL
            SELECT (SELECT MIN(c.sample_id) FROM {table} c
                    WHERE c.project_id = %s AND c.sample_id > samples.sample_id)
            FROM samples WHERE samples.sample_id IS NOT NULL
        )
        SELECT sample_id FROM samples WHERE sample_id IS NOT NULL LIMIT {MOST_SAMPLES}
    """
    with connection.cursor() as cursor:
        cursor.execute(query, [project.id, project.id])
        return [row[0] for row in cursor.fetchall()]


def _annotators(project: Project, questions: Questions) -> list[dict[str, Any]]:
    # Person by person: each is a look into an index, where all answers may be many.
    answers = GivenAnswer.objects.filter(
        project_id=project.id, control__in=sorted(questions.names), user_id=OuterRef("id")
    )
    users = User.objects.filter(Exists(answers)).order_by("email")
    return [{"id": user_id, "email": email} for user_id, email in users.values_list("id", "email")]


def _suggestions(project: Project, control: str) -> QuerySet:
    list_id = SuggestionList.id_of(project.id, shown_version(project), control)
    return SuggestedLabel.objects.filter(list_id=list_id)
