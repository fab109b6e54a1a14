"""Which tasks a page of the gallery shows, from the index alone: keyset paging, never an offset.

A page walks along an index in the order that is asked for; where only few images pass the filters
(`gallery_parts.few`), these are fetched and sorted instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from label_studio_config.plugin.gallery_filters import Filters, Order, PageAsked
from label_studio_config.plugin.gallery_parts import (
    View,
    crop_answered,
    few,
    on_images,
    parts,
    together,
)
from label_studio_config.plugin.models import (
    Answered,
    Crop,
    SuggestedLabel,
    SuggestionList,
)

_ORDERS: dict[Order, tuple[str, bool]] = {
    "certain": ("confidence", True),
    "uncertain": ("confidence", False),
    "novel": ("novelty", True),
    "task": ("task_id", False),
}


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
    if asked.filters.suggested is None:
        with_, without = _apart(asked.filters)
        both = _suggested(view, replace(asked, filters=with_))
        both += _open(view, replace(asked, filters=without))
        return sorted(both, key=lambda place: place.task_id)[: asked.limit + 1]
    return _suggested(view, asked)


def count(view: View, filters: Filters) -> tuple[list[tuple[str, int]], int]:
    """The images that pass the filters: by suggested label, most first, and without any.

    Whichever of the two `filters.suggested` asks for.
    """
    ids = few(view, filters) if filters.tasks is None else list(filters.tasks)
    counts: dict[str, int] = {}
    rows = _suggestions(view, filters, ids)
    crops, answered = _open_crops(view, filters, ids)
    if filters.tasks is not None:
        rows, crops = rows.filter(on_images(filters)), crops.filter(on_images(filters))
    suggested, without = _apart(filters)
    for values, condition in together(parts(view, suggested)):
        found = rows.filter(condition, answered__in=values).values_list("label")
        for label, number in found.annotate(number=Count("id")).order_by():
            counts[label] = counts.get(label, 0) + number
    rest = sum(
        crops.filter(condition, answered(values)).count()
        for values, condition in together(parts(view, without))
    )
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])), rest


def _apart(filters: Filters) -> tuple[Filters, Filters]:
    """The same filters on images with a suggestion, and on those without: states differ."""
    return replace(filters, suggested=True), replace(filters, suggested=False)


def _suggested(view: View, asked: PageAsked) -> list[Place]:
    column, descending = _ORDERS[asked.order]
    ids = few(view, asked.filters)
    rows = _suggestions(view, asked.filters, ids)
    columns = ("task_id",) if column == "task_id" else (column, "task_id")
    found: list[Place] = []
    if ids is not None:
        for values, condition in together(parts(view, asked.filters)):
            part = rows.filter(condition, answered__in=values)
            found += [Place(tuple(row), row[-1]) for row in part.values_list(*columns)]
        if asked.after is not None:
            after = asked.after
            found = [p for p in found if (p.key < after if descending else p.key > after)]
    else:
        for value, condition in parts(view, asked.filters):
            part = _beyond(rows.filter(condition, answered=value), columns, descending, asked.after)
            part = part.order_by(*(f"-{c}" if descending else c for c in columns))
            part = part[: asked.limit + 1]
            found += [Place(tuple(row), row[-1]) for row in part.values_list(*columns)]
    found.sort(key=lambda place: place.key, reverse=descending)
    return found[: asked.limit + 1]


def _open(view: View, asked: PageAsked) -> list[Place]:
    found: list[int] = []
    crops, answered = _open_crops(view, asked.filters, few(view, asked.filters))
    if asked.after is not None:
        crops = crops.filter(task_id__gt=asked.after[-1])
    for value, condition in parts(view, asked.filters):
        part = crops.filter(condition, answered([value])).order_by("task_id")
        found += part.values_list("task_id", flat=True)[: asked.limit + 1]
    return [Place((task_id,), task_id) for task_id in sorted(found)[: asked.limit + 1]]


def _given(view: View, asked: PageAsked) -> list[Place]:
    filters, tasks = asked.filters, list(asked.filters.tasks or ())
    suggested, without = _apart(filters)
    passing: set[int] = set()
    if filters.suggested is not False:
        rows = _suggestions(view, filters, tasks).filter(on_images(filters))
        for values, condition in together(parts(view, suggested)):
            found = rows.filter(condition, answered__in=values)
            passing.update(found.values_list("task_id", flat=True))
    if not filters.suggested:
        crops, answered = _open_crops(view, filters, tasks)
        crops = crops.filter(on_images(filters))
        for values, condition in together(parts(view, without)):
            found = crops.filter(condition, answered(values))
            passing.update(found.values_list("task_id", flat=True))
    start = int(asked.after[0]) + 1 if asked.after is not None else 0
    places = [
        Place((position,), task_id)
        for position, task_id in enumerate(tasks)
        if position >= start and task_id in passing
    ]
    return places[: asked.limit + 1]


def _suggestions(view: View, filters: Filters, ids: list[int] | None) -> QuerySet[SuggestedLabel]:
    """The rows of the view that pass the filters on suggestions; of some tasks, if given."""
    rows = SuggestedLabel.objects.all()
    if ids is None:
        list_id = SuggestionList.id_of(view.project.id, view.version, view.control.name)
        rows = rows.filter(on_images(filters), list_id=list_id)
    else:
        # Not by `list_id`: without statistics SQLite would walk along its index.
        rows = rows.filter(
            task_id__among=ids,
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


def _open_crops(
    view: View, filters: Filters, ids: list[int] | None
) -> tuple[QuerySet[Crop], Callable[[Sequence[Answered]], Q]]:
    """Crops without a suggestion, and the condition under which one is answered in some ways.

    None of them has a confidence or a novelty, so that none lies in a range of these.
    """
    crops = Crop.objects.filter(project_id=view.project.id)
    if filters.on_figures:
        crops = crops.none()
    crops = crops.filter(on_images(filters)) if ids is None else crops.filter(task_id__among=ids)
    if view.is_primary:
        return crops.filter(suggested=0), crop_answered(view)
    rows = SuggestedLabel.objects.filter(
        task_id=OuterRef("task_id"), model_version=view.version, control=view.control.name
    )
    return crops.exclude(Exists(rows)), crop_answered(view)
