"""How far annotators agree now, and on how many images they do not: from the gallery's index."""

from __future__ import annotations

from typing import Any

import pandas as pd
from core.permissions import ViewClassPermission, all_permissions
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from label_studio_config.plugin.gallery_access import ProjectView, may_see_all
from label_studio_config.plugin.gallery_catch_up import catch_up
from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.models import GivenAnswer
from label_studio_config.votes import VOTE_COLUMNS

CATCH_UP_S = 2.0
MOST_IMAGES = 20_000
"""Of more images that several people judged, evenly chosen ones say how far they agree."""


class AgreementNow(ProjectView):
    """GET: `{"controls": [{"control", "alpha", "n_images", "conflicts", "confused"}], "of_all"}`.

    Of the controls that the gallery shows. `of_all` says whether all answers count: for whoever may
    not see others' answers before giving his own, only images that he may see them of do.
    """

    permission_required = ViewClassPermission(GET=all_permissions.projects_view)

    def get(self, request: Request, pk: int) -> Response:
        project = self.project(request, pk)
        questions = self.questions(project)
        catch_up(project, CATCH_UP_S)
        of_all = may_see_all(request.user, project)
        views = [self.view_of(request, project, one.name) for one in questions.controls]
        hidden = any(view.several_votes or view.asked_again for view in views)
        return Response(
            {
                "controls": [agreement_of(view, of_all) for view in views],
                "of_all": of_all or not hidden,
                "hidden": hidden,
            }
        )


def agreement_of(view: View, of_all: bool) -> dict[str, Any]:
    """On the view's control: Krippendorff's alpha, images that two persons judged, conflicts.

    `conflicts` are images with different answers, also where one of them is that it cannot be
    assessed, which the alpha leaves out.
    """
    # Heavy, and only wanted here.
    from label_studio_config.agreement import agreement_on

    answers = _answers(view, of_all)
    by_task = answers.values("task_id").annotate(n=Count("id"))
    conflicts = by_task.annotate(labels=Count("label", distinct=True)).filter(labels__gt=1)
    several = list(by_task.filter(n__gt=1).order_by().values_list("task_id", flat=True))
    some = several[:: -(-len(several) // MOST_IMAGES) or 1]
    rows = answers.filter(task_id__among=some).values_list("task_id", "user_id", "label")
    found = agreement_on(view.control, _votes(view, rows))
    return {
        "control": view.control.name,
        "alpha": found["alpha"],
        "n_images": len(several),
        "conflicts": conflicts.order_by().count(),
        "confused": found["confused"],
    }


def _answers(view: View, of_all: bool) -> QuerySet[GivenAnswer]:
    """Everybody's answers to the control, of the images that the person may see them of."""
    answers = GivenAnswer.objects.filter(project_id=view.project.id, control=view.control.name)
    if of_all:
        return answers
    mine = Q(
        Exists(
            GivenAnswer.objects.filter(
                task_id=OuterRef("task_id"), control=view.control.name, user_id=view.user_id
            )
        )
    )
    if view.several_votes:
        return answers.filter(mine)
    return answers.filter(mine | ~view.asked_again.condition())


def _votes(view: View, rows: QuerySet) -> pd.DataFrame:
    said = [
        {
            "image_id": task_id,
            "annotator": user_id,
            "control": view.control.name,
            "labels": (label,),
            "number": float("nan"),
            "assessable": label not in view.control.not_assessable,
        }
        for task_id, user_id, label in rows
    ]
    return pd.DataFrame(said, columns=list(VOTE_COLUMNS))
