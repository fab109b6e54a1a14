"""Suggestions that a person may accept, and how many of them are expected to be wrong."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q, QuerySet, Sum

from label_studio_config.plugin.gallery_parts import View, unanswered
from label_studio_config.plugin.models import SuggestedLabel, SuggestionList

SURE_ENOUGH = (0.99, 0.95, 0.9, 0.8, 0.7, 0.5)
USUAL = 0.95


def waiting(view: View) -> QuerySet[SuggestedLabel]:
    """Suggestions that the person may accept: as the gallery shows them under "Suggested"."""
    list_id = SuggestionList.id_of(view.project.id, view.version, view.control.name)
    return SuggestedLabel.objects.filter(unanswered(view), list_id=list_id)


def preview(view: View, tasks: QuerySet, complete: bool) -> dict[str, Any]:
    """What would be accepted of some tasks, and how many errors are expected among it.

    Confidence is calibrated: of n suggestions, n less the sum of their confidences are wrong.

    Parameters
    ----------
    complete : whether all of the project is indexed yet

    Returns
    -------
    dict
        `selected` and `waiting` images, `choices` of `{"confidence", "images", "wrong"}`, the most
        certain first, the `usual` confidence, and the `control`.
    """
    rows = waiting(view).filter(task_id__in=tasks.order_by().values("id"))
    asked: dict[str, Any] = {"n": Count("id")}
    for place, least in enumerate(SURE_ENOUGH):
        sure = Q(confidence__gte=least)
        asked |= {
            f"n_{place}": Count("id", filter=sure),
            f"sum_{place}": Sum("confidence", filter=sure),
        }
    counted = rows.aggregate(**asked)
    choices = [
        {
            "confidence": least,
            "images": counted[f"n_{place}"],
            "wrong": round(counted[f"n_{place}"] - (counted[f"sum_{place}"] or 0.0), 4),
        }
        for place, least in enumerate(SURE_ENOUGH)
    ]
    return {
        "selected": tasks.count(),
        "waiting": counted["n"],
        "choices": choices,
        "usual": USUAL,
        "control": view.control.name,
        "complete": complete,
    }
