"""Data Manager actions that judge: accept sure suggestions, label as, mark blind, find similar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from core.permissions import AllPermissions
from data_manager.actions import register_action
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from projects.models import Project
from tasks.models import Task
from users.models import User

from label_studio_config.blind import is_blind_data
from label_studio_config.plugin.bulk_orders import KINDS, Kind, Order, Tally, carry_out
from label_studio_config.plugin.deadlocks import persistent
from label_studio_config.plugin.features import MOST_ASKED, evenly
from label_studio_config.plugin.gallery_catch_up import catch_up, shown_version
from label_studio_config.plugin.gallery_parts import View, suggestions_in
from label_studio_config.plugin.gallery_rows import questions_of
from label_studio_config.plugin.gallery_signals import tasks_changed
from label_studio_config.plugin.judgements import save
from label_studio_config.plugin.judgements_asked import Asked, Judged
from label_studio_config.plugin.models import GivenAnswer, JudgementBatch
from label_studio_config.plugin.sure_suggestions import preview, waiting
from label_studio_config.plugin.task_predictions import delete_predictions_of
from label_studio_config.words import counted

MOST_IN_ADDRESS = 50
"""Web servers take addresses of a few thousand letters: more tasks go into the part that stays in
the browser."""

CATCH_UP_S = 10.0
STILL_READING = " The gallery's index is still being made: call it again for the rest."

Answer = dict[str, Any]


class CannotJudge(ValueError):
    """The action cannot do it; the message says why and what to do."""


def register() -> None:
    """Offer the actions in every project's Data Manager."""
    annotate, change = AllPermissions().annotations_create, AllPermissions().tasks_change
    # Without a dialog of Label Studio's, which knows nothing of the selection: the answer is a
    # preview, and the browser asks for the confidence (dm-accept.js).
    register_action(accept_suggestions, "Accept sure suggestions …", order=93, permission=annotate)
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
    KINDS["accept"] = Kind(
        annotate, _accept_some, _accepted, "accept suggestions of", undoable=True
    )
    KINDS["label"] = Kind(annotate, _label_some, _labelled, "label", undoable=True)
    KINDS["blind"] = Kind(change, _mark_some, _marked, "mark blind")


def accept_suggestions(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Accept what is suggested with the confidence asked for; the action of that name.

    Without a confidence nothing is saved: the answer holds a `preview`.
    """
    request = kwargs["request"]
    asked = request.data.get("confidence")
    try:
        view, complete = _view(project, request.user)
        if asked in (None, ""):
            told = {"processed_items": 0, "detail": "Choose a confidence.", "reload": False}
            return told | {"preview": preview(view, queryset, complete)}
        least = _share(asked)
    except CannotJudge as error:
        return _refused(str(error))
    rows = waiting(view).filter(confidence__gte=least, task_id__in=queryset.order_by().values("id"))
    ids = list(rows.order_by("task_id").values_list("task_id", flat=True))
    order = Order.new("accept", project, request.user, least)
    return carry_out(project, request.user, order, ids, "" if complete else STILL_READING)


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
    open_to, by_others = _to_label(view, queryset, label)
    spoken = by_others.count() if by_others is not None else 0
    note = f" Somebody else has judged {spoken}: left alone." if spoken else ""
    ids = list(open_to.order_by("id").values_list("id", flat=True))
    order = Order.new("label", project, request.user, label)
    return carry_out(project, request.user, order, ids, note + ("" if complete else STILL_READING))


def mark_blind(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Make images part of the unbiased yardstick; the action of that name."""
    ids = list(queryset.order_by("id").values_list("id", flat=True))
    user = kwargs["request"].user
    return carry_out(project, user, Order.new("blind", project, user), ids)


def find_similar(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Say where the gallery shows what is like the selected images; the action of that name."""
    selected = list(queryset.order_by("id").values_list("id", flat=True))
    if not selected:
        return _refused("select the images to find others like them")
    ids = evenly(selected, MOST_ASKED)
    of = f"?of={len(selected)}" if len(ids) < len(selected) else ""
    mark = "#" if of or len(ids) > MOST_IN_ADDRESS else "?"
    tasks = f"similar={','.join(map(str, ids))}"
    address = f"/planktrait/projects/{project.id}/gallery{of}{mark}{tasks}"
    # The browser goes there; the words are for whoever calls the API.
    like = counted(len(selected), "image")
    if of:
        like = f"{len(ids)} of {like}"
    detail = f"The gallery shows what is like {like}, at this answer's address."
    return {"processed_items": len(ids), "detail": detail, "reload": False, "address": address}


def _accept_some(project: Project, user: User, order: Order, ids: list[int]) -> Tally:
    view, _ = _view(project, user)
    found = waiting(view).filter(confidence__gte=order.value, task_id__among=ids)
    rows = found.order_by("task_id").values_list("task_id", "prediction_id")
    judged = [Judged(task_id, prediction_id=prediction) for task_id, prediction in rows]
    tally, saved = _judge(view, user, judged, _key(order, ids))
    sure = suggestions_in(view, saved).values_list("confidence", flat=True)
    tally.counts["wrong"] = sum(1 - confidence for confidence in sure)
    return tally


def _label_some(project: Project, user: User, order: Order, ids: list[int]) -> Tally:
    view, _ = _view(project, user)
    tasks = Task.objects.filter(project=project, id__among=ids)
    open_to, _ = _to_label(view, tasks, order.value)
    known = dict(suggestions_in(view, ids).values_list("task_id", "prediction_id"))
    judged = [
        Judged(task_id, label=order.value, prediction_id=known.get(task_id))
        for task_id in open_to.order_by("id").values_list("id", flat=True)
    ]
    return _judge(view, user, judged, _key(order, ids))[0]


@persistent
def _mark_some(project: Project, user: User, order: Order, ids: list[int]) -> Tally:
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
    return Tally(Counter(saved=len(fresh), judged=judged))


def _accepted(order: Order, tally: Tally) -> str:
    wrong = tally.counts["wrong"]
    said = f"Accepted {counted(tally.counts['saved'], 'suggestion')}; about {wrong:.0f} of them "
    return said + "will be wrong." + _alone(tally)


def _labelled(order: Order, tally: Tally) -> str:
    return f"Labelled {counted(tally.counts['saved'], 'image')} as {order.value}." + _alone(tally)


def _marked(order: Order, tally: Tally) -> str:
    said = f"Marked {counted(tally.counts['saved'], 'image')} blind."
    if judged := tally.counts["judged"]:
        said += (
            f" {judged:.0f} were judged already, perhaps with a suggestion on screen: left alone."
        )
    return said


def _alone(tally: Tally) -> str:
    conflicts = tally.counts["conflicts"]
    if not conflicts:
        return ""
    return f" {conflicts:.0f} were left alone, the first because {tally.why}."


def _to_label(view: View, tasks: QuerySet, label: str) -> tuple[QuerySet, QuerySet | None]:
    """The tasks that may be given a label, and those that somebody else's answer forbids.

    Those that have it are neither: called again, an action goes on where it stopped.
    """
    given = GivenAnswer.objects.filter(task_id=OuterRef("id"), control=view.control.name)
    open_to = tasks.exclude(Exists(given.filter(user_id=view.user_id, label=label)))
    if view.several_votes:
        return open_to, None
    others = Exists(given.exclude(user_id=view.user_id))
    # Unless a second opinion is asked for.
    by_others = Q(others) & ~view.asked_again.condition("id")
    return open_to.exclude(by_others), open_to.filter(by_others)


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


def _key(order: Order, ids: list[int]) -> str:
    return f"{order.id}.{ids[0]}"


def _judge(view: View, user: User, judged: Sequence[Judged], key: str) -> tuple[Tally, list[int]]:
    """Save some judgements, once for a key; what was done, and the tasks."""
    batches = JudgementBatch.objects.filter(
        project_id=view.project.id, user_id=user.id, key=key, undone_at=None
    )
    tally = Tally()
    if judged and not batches.exists():
        asked = Asked(tuple(judged), lead_time_s=0.0, seen_at=None, key=key)
        saved = save(view, user, asked)
        tally.counts["conflicts"] = len(saved.conflicts)
        tally.why = next((conflict.why for conflict in saved.conflicts), "")
    batch = batches.first()
    if batch is None:
        return tally, []
    tasks = list(batch.judgements.values_list("task_id", flat=True))
    tally.counts["saved"] = len(tasks)
    tally.batches = [batch.id]
    return tally, tasks


def _refused(detail: str) -> Answer:
    return {"processed_items": 0, "detail": detail, "response_code": 422}
