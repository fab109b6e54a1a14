"""Which tasks a page of the gallery shows, from the index alone: keyset paging, never an offset.

A page walks along an index in the order that is asked for, and a filter that few images pass would
make it walk far. So filters on the images are tried first: where at most `FEW` images pass, these
are fetched and sorted; else the walk meets one soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from projects.models import Project

from label_studio_config.controls import Control
from label_studio_config.plugin.gallery_filters import Filters, Order, PageAsked
from label_studio_config.plugin.gallery_rows import Questions
from label_studio_config.plugin.models import (
    Answered,
    Crop,
    GivenAnswer,
    SuggestedLabel,
    SuggestionList,
)

FEW = 5000
_ORDERS: dict[Order, tuple[str, bool]] = {
    "certain": ("confidence", True),
    "uncertain": ("confidence", False),
    "novel": ("novelty", True),
    "task": ("task_id", False),
}


@dataclass(frozen=True)
class View:
    """Who looks at which control of a project.

    Attributes
    ----------
    version : whose suggestions are shown; empty for none
    several_votes : whether others' answers are hidden until one's own is given
    """

    project: Project
    questions: Questions
    control: Control
    version: str
    user_id: int
    several_votes: bool

    @property
    def is_primary(self) -> bool:
        """Whether the columns of `Crop` are about this control."""
        return self.control == self.questions.primary


class Place(NamedTuple):
    """A task of a page, and where it stands in the order."""

    key: tuple[Any, ...]
    task_id: int


def places(view: View, asked: PageAsked) -> list[Place]:
    """The places after `asked.after`, at most one more than the limit."""
    if asked.filters.tasks is not None:
        return _given(view, asked)
    if asked.filters.suggested is False:
        return _open(view, asked)
    return _suggested(view, asked)


def count_labels(view: View, filters: Filters) -> list[tuple[str, int]]:
    """The suggested labels that pass the filters and how many images each has, most first."""
    counts: dict[str, int] = {}
    ids = _few(view, filters)
    rows = _suggestions(view, filters, ids)
    for value, condition in _parts(view, filters):
        found = rows.filter(condition, answered=value).values_list("label")
        for label, count in found.annotate(count=Count("id")).order_by():
            counts[label] = counts.get(label, 0) + count
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def count_open(view: View, filters: Filters) -> int:
    """How many images that pass the filters have no suggestion."""
    return sum(rows.count() for rows in _open_parts(view, filters))


def _suggested(view: View, asked: PageAsked) -> list[Place]:
    column, descending = _ORDERS[asked.order]
    ids = _few(view, asked.filters)
    rows = _suggestions(view, asked.filters, ids)
    columns = ("task_id",) if column == "task_id" else (column, "task_id")
    found: list[Place] = []
    for value, condition in _parts(view, asked.filters):
        part = rows.filter(condition, answered=value)
        if ids is None:
            part = _beyond(part, columns, descending, asked.after)
            part = part.order_by(*(f"-{c}" if descending else c for c in columns))
            part = part[: asked.limit + 1]
        found += [Place(tuple(row), row[-1]) for row in part.values_list(*columns)]
    found.sort(key=lambda place: place.key, reverse=descending)
    if ids is not None and asked.after is not None:
        after = asked.after
        found = [p for p in found if (p.key < after if descending else p.key > after)]
    return found[: asked.limit + 1]


def _open(view: View, asked: PageAsked) -> list[Place]:
    found: list[int] = []
    for rows in _open_parts(view, asked.filters):
        if asked.after is not None:
            rows = rows.filter(task_id__gt=asked.after[-1])
        ids = rows.order_by("task_id").values_list("task_id", flat=True)
        found += ids[: asked.limit + 1]
    return [Place((task_id,), task_id) for task_id in sorted(found)[: asked.limit + 1]]


def _given(view: View, asked: PageAsked) -> list[Place]:
    tasks = asked.filters.tasks or ()
    passing: set[int] = set()
    if asked.filters.suggested is not False:
        rows = _suggestions(view, asked.filters, list(tasks))
        rows = rows.filter(_about_images(asked.filters, "task_id"))
        for value, condition in _parts(view, asked.filters):
            passing.update(rows.filter(condition, answered=value).values_list("task_id", flat=True))
    if not asked.filters.suggested:
        for crops in _open_parts(view, asked.filters):
            passing.update(crops.filter(task_id__in=tasks).values_list("task_id", flat=True))
    start = int(asked.after[0]) + 1 if asked.after is not None else 0
    found = [
        Place((position,), task_id)
        for position, task_id in enumerate(tasks)
        if position >= start and task_id in passing
    ]
    return found[: asked.limit + 1]


def _suggestions(view: View, filters: Filters, ids: list[int] | None) -> QuerySet[SuggestedLabel]:
    """The rows of the view that pass the filters on suggestions; of some tasks, if given."""
    rows = SuggestedLabel.objects.all()
    if ids is None:
        chosen = SuggestionList.objects.filter(
            project_id=view.project.id, model_version=view.version, control=view.control.name
        ).values_list("id", flat=True)
        rows = rows.filter(list_id=chosen.first() or -1)
        rows = rows.filter(_about_images(filters, "task_id"))
    else:
        # Not by `list_id`: without statistics SQLite would walk along its index.
        rows = rows.filter(
            task_id__in=ids,
            project_id=view.project.id,
            model_version=view.version,
            control=view.control.name,
        )
    asked = {
        "label": filters.label,
        "confidence__gte": filters.confidence_from,
        "confidence__lte": filters.confidence_to,
        "novelty__gte": filters.novelty_from,
        "novelty__lte": filters.novelty_to,
    }
    # What is not known lies below 0, and in no range.
    if filters.confidence_to is not None and filters.confidence_from is None:
        asked["confidence__gte"] = 0
    if filters.novelty_to is not None and filters.novelty_from is None:
        asked["novelty__gte"] = 0
    return rows.filter(**{name: value for name, value in asked.items() if value is not None})


def _beyond(
    rows: QuerySet, columns: tuple[str, ...], descending: bool, after: tuple[Any, ...] | None
) -> QuerySet:
    if after is None:
        return rows
    if len(after) != len(columns):
        return rows.none()
    table = rows.model._meta.db_table
    names = ", ".join(f'"{table}"."{column}"' for column in columns)
    marks = ", ".join(["%s"] * len(columns))
    sign = "<" if descending else ">"
    return rows.extra(where=[f"({names}) {sign} ({marks})"], params=list(after))


def _open_parts(view: View, filters: Filters) -> list[QuerySet[Crop]]:
    crops = Crop.objects.filter(project_id=view.project.id).filter(_on_crop(filters))
    if view.is_primary:
        crops = crops.filter(suggested=False)
        return [crops.filter(c, answered=value) for value, c in _parts(view, filters)]
    rows = SuggestedLabel.objects.filter(
        task_id=OuterRef("task_id"), model_version=view.version, control=view.control.name
    )
    crops = crops.exclude(Exists(rows))
    answers = _answers(view)
    differing = Exists(answers.exclude(label=OuterRef("label")))
    conflict = Exists(
        GivenAnswer.objects.filter(
            differing, task_id=OuterRef("task_id"), control=view.control.name
        )
    )
    is_answered = {
        Answered.NO: ~Exists(answers),
        Answered.YES: Exists(answers) & ~conflict,
        Answered.CONFLICTING: Q(conflict),
    }
    return [crops.filter(c, is_answered[value]) for value, c in _parts(view, filters)]


def _answers(view: View, **which: Any) -> QuerySet[GivenAnswer]:
    return GivenAnswer.objects.filter(
        task_id=OuterRef("task_id"), control=view.control.name, **which
    )


def _parts(view: View, filters: Filters) -> list[tuple[Answered, Q]]:
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
    ways["open"] = ways["suggested"]
    states = filters.states
    # A task with a suggestion is never "open", one without is never "suggested".
    if filters.suggested is not None:
        states = states - {"open" if filters.suggested else "suggested"}
    parts: dict[Answered, list[Q]] = {}
    if not filters.states:
        parts = {no: [Q()], yes: [Q()], conflicting: [Q()]}
    for state in states:
        for value, condition in ways[state]:
            parts.setdefault(value, []).append(condition)
    by_annotator = Q()
    if filters.annotator is not None:
        parts.pop(no, None)
        by_annotator = Q(Exists(_answers(view, user_id=filters.annotator)))
        if view.several_votes:
            by_annotator &= mine
    return [(value, _any(conditions) & by_annotator) for value, conditions in parts.items()]


def _any(conditions: list[Q]) -> Q:
    if any(not condition for condition in conditions):
        return Q()
    joined = conditions[0]
    for condition in conditions[1:]:
        joined |= condition
    return joined


def _few(view: View, filters: Filters) -> list[int] | None:
    """The tasks that pass the filters on images and answers, if they are few."""
    narrow: list[QuerySet] = []
    if filters.about_images:
        narrow.append(Crop.objects.filter(_on_crop(filters), project_id=view.project.id))
    answers = GivenAnswer.objects.filter(project_id=view.project.id, control=view.control.name)
    if filters.annotator is not None:
        narrow.append(answers.filter(user_id=filters.annotator))
    if filters.states and filters.states <= {"accepted", "mine"}:
        narrow.append(answers.filter(user_id=view.user_id))
    found: set[int] | None = None
    for rows in narrow:
        ids = list(rows.values_list("task_id", flat=True)[: FEW + 1])
        if len(ids) <= FEW:
            found = set(ids) if found is None else found & set(ids)
    if found is None:
        return None
    if len(found) and filters.about_images and len(narrow) > 1:
        crops = Crop.objects.filter(_on_crop(filters), task_id__in=found)
        found = set(crops.values_list("task_id", flat=True))
    return sorted(found)


def _about_images(filters: Filters, column: str) -> Q:
    if not filters.about_images:
        return Q()
    return Q(Exists(Crop.objects.filter(_on_crop(filters), task_id=OuterRef(column))))


def _on_crop(filters: Filters) -> Q:
    asked = {
        "sample_id": filters.sample,
        "captured_at__gte": filters.captured_from,
        "captured_at__lt": filters.captured_to,
        "depth_m__gte": filters.depth_from,
        "depth_m__lte": filters.depth_to,
        "search_text__contains": filters.text or None,
    }
    return Q(**{name: value for name, value in asked.items() if value is not None})
