"""The parts of a gallery query: who looks, in which states tasks are, and whether they are few."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from projects.models import Project

from label_studio_config.controls import Control
from label_studio_config.plugin.awaited import Awaited
from label_studio_config.plugin.gallery_filters import Filters
from label_studio_config.plugin.gallery_rows import Questions
from label_studio_config.plugin.models import (
    Answered,
    Crop,
    CropText,
    GivenAnswer,
    SuggestedLabel,
)
from label_studio_config.results import conditions_of

FEW = 5000
"""A filter that more images pass is met soon by walking; one that fewer pass is tried first."""


@dataclass(frozen=True)
class View:
    """Who looks at which control of a project.

    Attributes
    ----------
    version : whose suggestions are shown; empty for none
    several_votes : whether others' answers are hidden until one's own is given
    asked_again : tasks that wait for a second opinion, where they are hidden too
    """

    project: Project
    questions: Questions
    control: Control
    version: str
    user_id: int
    several_votes: bool
    asked_again: Awaited = field(default_factory=Awaited)

    @classmethod
    def of(
        cls, project: Project, questions: Questions, control: Control, version: str, user_id: int
    ) -> View:
        """Of a project as it is set now."""
        several_votes = project.maximum_annotations > 1
        again = Awaited() if several_votes else Awaited.of(project.id)
        return cls(project, questions, control, version, user_id, several_votes, again)

    def of_tasks(self, task_ids: Iterable[int]) -> View:
        """The same of some tasks alone, about which much is asked."""
        return replace(self, asked_again=self.asked_again.among(task_ids))

    def hides_others(self, task_id: int) -> bool:
        """Whether others' answers to a task are hidden until one's own is given."""
        return self.several_votes or task_id in self.asked_again

    @property
    def is_primary(self) -> bool:
        """Whether the columns of `Crop` are about this control."""
        return self.control == self.questions.primary


def parts(view: View, filters: Filters) -> list[tuple[Answered, Q]]:
    """By what was answered, the further condition under which a task is in one of the states."""
    mine = Q(Exists(_answers(view, user_id=view.user_id)))
    accepted = Q(Exists(_answers(view, user_id=view.user_id, as_suggested=True)))
    own = Q(Exists(_answers(view, user_id=view.user_id, as_suggested=False)))
    no, yes, conflicting = Answered.NO, Answered.YES, Answered.CONFLICTING
    ways: dict[str, list[tuple[Answered, Q]]] = {
        "suggested": [(no, Q())],
        "accepted": [(yes, accepted)],
        "mine": [(yes, own)],
        "others": [(yes, ~mine)],
        "conflicting": [(conflicting, Q())],
    }
    if view.several_votes:
        ways["suggested"] += [(yes, ~mine), (conflicting, ~mine)]
        ways["others"] = []
        ways["conflicting"] = [(conflicting, mine)]
    elif view.asked_again:
        again = view.asked_again.condition()
        hidden = again & ~mine
        ways["suggested"] += [(yes, hidden), (conflicting, hidden)]
        ways["others"] = [(yes, ~mine & ~again)]
        ways["conflicting"] = [(conflicting, ~hidden)]
    ways["open"] = ways["suggested"]
    states = filters.states
    # A task with a suggestion is never "open", one without is never "suggested".
    if filters.suggested is not None:
        states = states - {"open" if filters.suggested else "suggested"}
    found: dict[Answered, list[Q]] = {}
    if not filters.states:
        found = {no: [Q()], yes: [Q()], conflicting: [Q()]}
    for state in states:
        for value, condition in ways[state]:
            found.setdefault(value, []).append(condition)
    by_answer = Q()
    if filters.on_answers:
        found.pop(no, None)
        by_answer = Q(Exists(_answers(view, **filters.on_answers)))
        if view.several_votes:
            by_answer &= mine
        elif view.asked_again:
            by_answer &= mine | ~view.asked_again.condition()
    return [(value, _any(conditions) & by_answer) for value, conditions in found.items()]


def unanswered(view: View) -> Q:
    """The condition under which a row with `task_id` and `answered` waits for the person's answer.

    Of a suggestion, or of a crop where the control is the primary one. Where others' answers are
    hidden, a task waits until the person has answered it, whoever else has.
    """
    conditions = Q()
    for value, further in parts(view, Filters(states=frozenset({"suggested"}))):
        conditions |= Q(answered=value) & further
    return conditions


def open_crop(view: View) -> Q:
    """As `unanswered`, of a crop, whatever the view's control is."""
    if view.is_primary:
        return unanswered(view)
    answered = crop_answered(view)
    found = parts(view, Filters(states=frozenset({"suggested"})))
    return reduce(or_, (answered([value]) & further for value, further in found))


def asked(view: View) -> Q:
    """The condition under which a row with a `task_id` is asked the view's control of.

    By the person's own answers, which the judgement is to stand beside. A condition on what is not
    in the index is taken to hold.
    """
    condition = Q()
    for one in conditions_of(view.questions.schema, view.control):
        if one.control not in view.questions.names:
            continue
        known = view.questions.schema.control(one.control).labels
        given = GivenAnswer.objects.filter(
            project_id=view.project.id,
            control=one.control,
            user_id=view.user_id,
            label__in=[label for label in known if not one.labels or label in one.labels],
        )
        if one.unselected:
            condition &= ~Q(Exists(given.filter(task_id=OuterRef("task_id"))))
        else:
            # Not `Exists`: SQLite begins with what this finds.
            condition &= Q(task_id__in=given.values("task_id"))
    return condition


def crop_answered(view: View) -> Callable[[Sequence[Answered]], Q]:
    """The condition under which the view's control of a crop is answered in some ways."""
    if view.is_primary:
        return lambda values: Q(answered__in=values)
    answers = _answers(view)
    conflict = Q(Exists(answers.filter(Exists(answers.exclude(label=OuterRef("label"))))))
    conditions = {
        Answered.NO: ~Q(Exists(answers)),
        Answered.YES: Q(Exists(answers)) & ~conflict,
        Answered.CONFLICTING: conflict,
    }
    return lambda values: reduce(or_, (conditions[value] for value in values))


def together(found: Sequence[tuple[Answered, Q]]) -> list[tuple[list[Answered], Q]]:
    """The parts, those of one condition as one: for what is not walked along in order."""
    joined: list[tuple[list[Answered], Q]] = []
    for value, condition in found:
        for values, same in joined:
            if same == condition:
                values.append(value)
                break
        else:
            joined.append(([value], condition))
    return joined


def few(view: View, filters: Filters) -> list[int] | None:
    """The tasks that pass the filters on images and answers; None where they are more than `FEW`.

    Each filter is read until it has passed that many, so that none reads far.
    """
    project_id = view.project.id
    narrow: list[QuerySet] = []
    answers = GivenAnswer.objects.filter(project_id=project_id, control=view.control.name)
    if filters.on_answers:
        narrow.append(answers.filter(**filters.on_answers))
    if filters.states and filters.states <= {"accepted", "mine"}:
        # Not `as_suggested=`: SQLite finds no boolean in an index, but what is in a list.
        ways = [state == "accepted" for state in sorted(filters.states)]
        narrow.append(answers.filter(user_id=view.user_id, as_suggested__in=ways))
    if columns := _columns(filters):
        narrow.append(Crop.objects.filter(project_id=project_id, **columns))
    if filters.text:
        texts = CropText.objects.filter(project_id=project_id, text__has=filters.text)
        narrow.append(texts.filter(**_between(project_id)))
    found: list[int] | None = None
    wide: list[QuerySet] = []
    for rows in narrow:
        if found is not None:
            rows = rows.filter(task_id__among=found)
        ids = list(rows.values_list("task_id", flat=True)[: FEW + 1])
        if len(ids) <= FEW:
            found = list(dict.fromkeys(ids))
        else:
            wide.append(rows)
    for rows in wide if found is not None else []:
        found = list(rows.filter(task_id__among=found).values_list("task_id", flat=True))
    return found


def on_images(filters: Filters) -> Q:
    """The filters on images, as a condition on a row with a `task_id`."""
    condition = Q()
    if columns := _columns(filters):
        condition &= Q(Exists(Crop.objects.filter(task_id=OuterRef("task_id"), **columns)))
    if filters.text:
        texts = CropText.objects.filter(task_id=OuterRef("task_id"), text__has=filters.text)
        condition &= Q(Exists(texts))
    return condition


def _answers(view: View, **which: Any) -> QuerySet[GivenAnswer]:
    return GivenAnswer.objects.filter(
        task_id=OuterRef("task_id"), control=view.control.name, **which
    )


def _any(conditions: list[Q]) -> Q:
    if any(not condition for condition in conditions):
        return Q()
    joined = conditions[0]
    for condition in conditions[1:]:
        joined |= condition
    return joined


def _columns(filters: Filters) -> dict[str, Any]:
    asked = {
        "sample_id": filters.sample,
        "captured_at__gte": filters.captured_from,
        "captured_at__lt": filters.captured_to,
        "depth_m__gte": filters.depth_from,
        "depth_m__lte": filters.depth_to,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _between(project_id: int) -> dict[str, int]:
    """The first and the last task of a project, between which its texts lie."""
    ids = Crop.objects.filter(project_id=project_id).values_list("task_id", flat=True)
    first, last = ids.order_by("task_id").first(), ids.order_by("-task_id").first()
    return {"task_id__gte": first or 0, "task_id__lte": last or 0}


def suggestions_in(view: View, task_ids: Sequence[int]) -> QuerySet[SuggestedLabel]:
    """What is suggested for some tasks, for the view's control by the version it shows."""
    if not view.version:
        return SuggestedLabel.objects.none()
    return SuggestedLabel.objects.filter(
        task_id__among=task_ids,
        project_id=view.project.id,
        model_version=view.version,
        control=view.control.name,
    )
