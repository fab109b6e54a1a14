"""Data Manager actions that judge: accept sure suggestions, label as, mark blind, find similar."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.permissions import AllPermissions
from data_manager.actions import register_action
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum
from projects.models import Project
from tasks.models import Task
from users.models import User

from label_studio_config.batches import batches
from label_studio_config.blind import is_blind_data
from label_studio_config.plugin.deadlocks import persistent
from label_studio_config.plugin.gallery_catch_up import catch_up, shown_version
from label_studio_config.plugin.gallery_parts import View, unanswered
from label_studio_config.plugin.gallery_rows import questions_of
from label_studio_config.plugin.gallery_signals import tasks_changed
from label_studio_config.plugin.judgements import save
from label_studio_config.plugin.judgements_asked import MOST, Asked, Judged
from label_studio_config.plugin.models import (
    GivenAnswer,
    SuggestedLabel,
    SuggestionList,
)
from label_studio_config.plugin.task_predictions import delete_predictions_of

logger = logging.getLogger(__name__)

SURE_ENOUGH = (0.99, 0.95, 0.9, 0.8, 0.7, 0.5)
USUAL = 0.95
MOST_ALIKE = 50
MOST_A_CALL = 20_000
"""Images judged while the browser waits: some minutes."""
CATCH_UP_S = 10.0
_ROWS_A_QUERY = 500

Answer = dict[str, Any]


class CannotJudge(ValueError):
    """The action cannot do it; the message says why and what to do."""


def register() -> None:
    """Offer the actions in every project's Data Manager."""
    annotate, change = AllPermissions().annotations_create, AllPermissions().tasks_change
    register_action(
        accept_suggestions,
        "Accept sure suggestions …",
        order=93,
        permission=annotate,
        dialog={
            "title": "Accept sure suggestions",
            "text": "Save the suggested label of the selected images as your own annotation, where "
            "the model is sure enough and nobody has answered. Confidence is calibrated: of "
            "suggestions at 95 %, about one in twenty is wrong.",
            "type": "confirm",
            "form": _thresholds,
        },
    )
    register_action(
        label_as,
        "Label as …",
        order=94,
        permission=annotate,
        dialog={
            "title": "Label as",
            "text": "Give the selected images one label, as your own annotation.",
            "type": "confirm",
            "form": _labels,
        },
    )
    register_action(
        mark_blind,
        "Mark blind",
        order=95,
        permission=change,
        dialog={
            "title": "Mark blind",
            "text": "Blind images never get a suggestion and never train anything: they are the "
            "yardstick. Their suggestions are deleted; images that somebody has judged already "
            "are left as they are.",
            "type": "confirm",
        },
    )
    register_action(find_similar, "Find similar", order=96, permission=annotate)


def accept_suggestions(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Accept what is suggested with the confidence asked for; the action of that name."""
    request = kwargs["request"]
    try:
        view, complete = _view(project, request.user)
        least = _share(request.data.get("confidence"))
    except CannotJudge as error:
        return _refused(str(error))
    rows = _waiting(view).filter(confidence__gte=least, task_id__in=_ids(queryset))
    total = rows.count()
    chosen = rows.order_by("task_id")[:MOST_A_CALL]
    found = list(chosen.values_list("task_id", "prediction_id", "confidence"))
    judged = [Judged(task_id, prediction_id=prediction) for task_id, prediction, _ in found]
    done = _judge(view, request.user, judged)
    wrong = sum(1 - confidence for _, _, confidence in found)
    detail = f"Accepted {done.saved} suggestions; about {wrong:.0f} of them will be wrong."
    return _judged(done, detail, total - len(found), complete)


def label_as(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Give every selected image one label; the action of that name."""
    request = kwargs["request"]
    try:
        view, complete = _view(project, request.user)
        label = str(request.data.get("label") or "")
        if not view.control.knows(label):
            raise CannotJudge(f"{view.control.name} has no label {label!r}: choose one of the list")
    except CannotJudge as error:
        return _refused(str(error))
    given = GivenAnswer.objects.filter(task_id=OuterRef("id"), control=view.control.name)
    # Those that have the label: called again, it goes on where it stopped.
    waiting = queryset.exclude(Exists(given.filter(user_id=view.user_id, label=label)))
    spoken = 0
    if not view.several_votes:
        others = Exists(given.exclude(user_id=view.user_id))
        # Unless a second opinion is asked for.
        by_others = Q(others) & ~Q(id__among=sorted(view.asked_again))
        spoken = waiting.filter(by_others).count()
        waiting = waiting.exclude(by_others)
    total = waiting.count()
    ids = list(waiting.order_by("id").values_list("id", flat=True)[:MOST_A_CALL])
    known = dict(
        SuggestedLabel.objects.filter(
            project_id=project.id,
            model_version=view.version,
            control=view.control.name,
            task_id__among=ids,
        ).values_list("task_id", "prediction_id")
    )
    judged = [Judged(task_id, label=label, prediction_id=known.get(task_id)) for task_id in ids]
    done = _judge(view, request.user, judged)
    detail = f"Labelled {done.saved} images as {label}."
    if spoken:
        detail += f" Somebody else has judged {spoken}: left alone."
    return _judged(done, detail, total - len(ids), complete)


def mark_blind(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Make images part of the unbiased yardstick; the action of that name."""
    ids = list(queryset.order_by("id").values_list("id", flat=True))
    marked = judged = 0
    for some in batches(ids, _ROWS_A_QUERY):
        fresh, before = _mark_some(project, some)
        marked, judged = marked + fresh, judged + before
    detail = f"Marked {marked} images blind."
    if judged:
        detail += f" {judged} were judged already, perhaps with a suggestion on screen: left alone."
    return _done(marked, detail)


def find_similar(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Say where the gallery shows what is like the selected images; the action of that name."""
    ids = list(queryset.order_by("id").values_list("id", flat=True)[: MOST_ALIKE + 1])
    if not ids or len(ids) > MOST_ALIKE:
        return _refused(f"select 1 to {MOST_ALIKE} images to find others like them")
    address = f"/planktrait/projects/{project.id}/gallery?similar={','.join(map(str, ids))}"
    # The browser goes there; the words are for whoever calls the API.
    detail = f"The gallery shows what is like them: {address}"
    return {"processed_items": len(ids), "detail": detail, "reload": False, "address": address}


@persistent
def _mark_some(project: Project, ids: list[int]) -> tuple[int, int]:
    """How many were marked, and how many were not since somebody had judged them."""
    with transaction.atomic():
        tasks = Task.objects.select_for_update(of=("self",)).filter(id__in=ids, project=project)
        judged, fresh = 0, []
        for task in tasks.order_by("id"):
            if is_blind_data(task.data):
                continue
            if task.total_annotations or task.cancelled_annotations:
                judged += 1
                continue
            task.data = {**task.data, "blind": "yes"}
            fresh.append(task)
        Task.objects.bulk_update(fresh, ["data"], batch_size=100)
        chosen = [task.id for task in fresh]
        delete_predictions_of(chosen)
        tasks_changed(project, chosen)
    return len(fresh), judged


def _thresholds(user: User, project: Project) -> list[dict[str, Any]]:
    """How sure is sure enough: with the number of images, and of errors to expect."""
    try:
        rows = _waiting(_view(project, user)[0])
    except CannotJudge:
        rows = SuggestedLabel.objects.none()
    options = []
    for least in SURE_ENOUGH:
        counted = rows.filter(confidence__gte=least).aggregate(
            n=Count("id"), sure=Sum("confidence")
        )
        wrong = counted["n"] - (counted["sure"] or 0)
        options.append(
            f"{100 * least:g} % or more: {counted['n']} in the project, about {wrong:.0f} wrong"
        )
    usual = options[SURE_ENOUGH.index(USUAL)]
    return [_choice("confidence", "Confidence of the suggestion", options, usual)]


def _labels(user: User, project: Project) -> list[dict[str, Any]]:
    questions = questions_of(project.label_config)
    control = questions.primary if questions else None
    labels = [*control.labels, *sorted(control.not_assessable)] if control else []
    title = f"Label ({control.name})" if control else "This project has no control with labels"
    return [_choice("label", title, labels, None)]


def _choice(name: str, label: str, options: list[str], value: str | None) -> dict[str, Any]:
    field = {"type": "select", "name": name, "label": label, "options": options, "value": value}
    return {"columnCount": 1, "fields": [field]}


def _share(text: Any) -> float:
    """0.95 from "95 % or more: …", "95" or 0.95."""
    try:
        number = float(str(text).split("%")[0])
    except ValueError:
        number = -1.0
    share = number / 100 if number > 1 else number
    if not 0 <= share <= 1:
        raise CannotJudge(f"{text!r} is no confidence: choose one of the list, or give 0.5 to 1")
    return share


def _view(project: Project, user: User) -> tuple[View, bool]:
    """What the person looks at, and whether all of it is indexed yet."""
    questions = questions_of(project.label_config)
    if questions is None or questions.primary is None:
        raise CannotJudge("the labeling config asks for no label that an image has one of")
    complete = catch_up(project, CATCH_UP_S)
    view = View.of(project, questions, questions.primary, shown_version(project), user.id)
    return view, complete


def _waiting(view: View) -> QuerySet[SuggestedLabel]:
    """Suggestions that the person may accept: as the gallery shows them under "Suggested"."""
    list_id = SuggestionList.id_of(view.project.id, view.version, view.control.name)
    return SuggestedLabel.objects.filter(unanswered(view), list_id=list_id)


@dataclass
class _Done:
    """What was saved, in which batches, and why the rest was not."""

    saved: int = 0
    batches: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def _judge(view: View, user: User, judged: Sequence[Judged]) -> _Done:
    done = _Done()
    for some in batches(judged, MOST):
        saved = save(view, user, Asked(tuple(some), lead_time_s=0.0, seen_at=None))
        done.saved += saved.saved
        done.batches += [saved.batch_id] if saved.batch_id is not None else []
        done.reasons += [conflict.why for conflict in saved.conflicts]
    return done


def _judged(done: _Done, detail: str, left: int, complete: bool) -> Answer:
    """The answer: each of `batches` can be undone, `left` images wait for the next call."""
    if done.reasons:
        detail += f" {len(done.reasons)} were left alone, the first because {done.reasons[0]}."
    if left:
        detail += f" {left} images are left: call it again."
    if not complete:
        detail += " The gallery's index is still being made: call it again for the rest."
    return _done(done.saved, detail) | {"batches": done.batches, "left": left}


def _ids(queryset: QuerySet) -> QuerySet:
    return queryset.order_by().values("id")


def _done(count: int, detail: str) -> Answer:
    return {"processed_items": count, "detail": detail, "reload": count > 0}


def _refused(detail: str) -> Answer:
    return {"processed_items": 0, "detail": detail, "response_code": 422}
