"""What is true of some tasks now, from Label Studio's own tables; the index is put right by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from tasks.models import Annotation, Prediction, Task
from users.models import User

from label_studio_config.plugin.gallery_images import read_sizes
from label_studio_config.plugin.gallery_index import ANNOTATION_FIELDS, index_again
from label_studio_config.plugin.gallery_parts import View, suggestions_in
from label_studio_config.plugin.gallery_rows import (
    DATA_FIELDS,
    Given,
    answered,
    answers_of,
    crop_of,
)
from label_studio_config.plugin.models import UNKNOWN, Crop, IndexState, SuggestedLabel

Json = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A task as one person sees it.

    Attributes
    ----------
    suggestion : None where there is none, or where the project hides them
    answer : the person's own
    others : what others answered; None while that is hidden
    """

    crop: Crop
    suggestion: SuggestedLabel | None
    answer: Given | None
    others: tuple[Given, ...] | None
    state: str


def look(view: View, task_ids: Sequence[int]) -> dict[int, Seen]:
    """The tasks as they are now, by id; those that are gone are left out.

    Where the index says something else, it is put right.
    """
    view = view.of_tasks(task_ids)
    data = dict(
        Task.objects.filter(id__in=task_ids, project_id=view.project.id).values_list("id", "data")
    )
    crops = Crop.objects.in_bulk(list(task_ids))
    suggestions = _suggestions(view, task_ids)
    given = answers_now(view, list(data))
    wrong = [task_id for task_id in task_ids if task_id not in data]
    for task_id, said in data.items():
        crop, suggestion = crops.get(task_id), suggestions.get(task_id)
        fresh = crop_of(view.questions, view.project.id, task_id, said or {})
        value = answered(given[task_id])
        agree = (
            crop is not None
            and all(getattr(crop, name) == getattr(fresh, name) for name in DATA_FIELDS)
            and (suggestion is None or suggestion.answered == value)
            and (not view.is_primary or crop.answered == value)
            and (not view.is_primary or bool(crop.suggested) == (suggestion is not None))
        )
        if not agree:
            wrong.append(task_id)
    if wrong:
        _put_right(view, wrong)
        crops = Crop.objects.in_bulk(list(data))
        suggestions = _suggestions(view, task_ids)
    read_sizes(crops[task_id] for task_id in data if task_id in crops)
    return {
        task_id: _seen(view, crops[task_id], suggestions.get(task_id), given[task_id])
        for task_id in data
        if task_id in crops
    }


def answers_now(view: View, task_ids: Iterable[int]) -> dict[int, list[Given]]:
    """Everybody's answers to the view's control, from the annotations themselves."""
    ids = list(task_ids)
    annotations: dict[int, list[Json]] = {}
    for annotation in Annotation.objects.filter(task_id__in=ids).values(*ANNOTATION_FIELDS):
        annotations.setdefault(annotation["task_id"], []).append(annotation)
    return {
        task_id: answers_of(view.questions, annotations.get(task_id, [])).get(view.control.name, [])
        for task_id in ids
    }


def as_json(seen: Iterable[Seen]) -> list[Json]:
    """Crops in the form of the API."""
    rows = list(seen)
    people = {one.user_id for row in rows for one in row.others or ()}
    emails = dict(User.objects.filter(id__in=people).values_list("id", "email")) if people else {}
    return [_crop_json(row, emails) for row in rows]


def _suggestions(view: View, task_ids: Sequence[int]) -> dict[int, SuggestedLabel]:
    """The suggestions of tasks whose prediction is still there."""
    found = {row.task_id: row for row in suggestions_in(view, task_ids)}
    there = set(
        Prediction.objects.filter(id__in=[row.prediction_id for row in found.values()]).values_list(
            "id", flat=True
        )
    )
    return {task_id: row for task_id, row in found.items() if row.prediction_id in there}


def _put_right(view: View, task_ids: list[int]) -> None:
    with transaction.atomic():
        state = IndexState.objects.select_for_update().filter(project_id=view.project.id).first()
        if state is not None:
            index_again(view.questions, state, task_ids)


def _seen(view: View, crop: Crop, suggestion: SuggestedLabel | None, given: list[Given]) -> Seen:
    if crop.blind:
        suggestion = None
    mine = next((one for one in given if one.user_id == view.user_id), None)
    others: tuple[Given, ...] | None = tuple(one for one in given if one is not mine)
    unanswered = "open" if suggestion is None else "suggested"
    if view.hides_others(crop.task_id) and mine is None:
        return Seen(crop, suggestion, None, None, unanswered)
    if not given:
        state = unanswered
    elif len({one.label for one in given}) > 1:
        state = "conflicting"
    elif mine is None:
        state = "others"
    else:
        state = "accepted" if mine.as_suggested else "mine"
    return Seen(crop, suggestion, mine, others, state)


def _crop_json(seen: Seen, emails: dict[int, str]) -> Json:
    crop, suggestion = seen.crop, seen.suggestion
    row: Json = {
        "task": crop.task_id,
        "image": crop.image,
        "sample": crop.sample_id or None,
        "width_px": crop.width_px,
        "height_px": crop.height_px,
        "pixel_size_um": crop.pixel_size_um,
        "blind": crop.blind,
        "suggestion": None,
        "state": seen.state,
        "answer": seen.answer.label if seen.answer else None,
    }
    if suggestion is not None:
        row["suggestion"] = {
            "prediction": suggestion.prediction_id,
            "label": suggestion.label,
            "confidence": _known(suggestion.confidence),
            "second_label": suggestion.second_label or None,
            "second_confidence": _known(suggestion.second_confidence),
            "novelty": _known(suggestion.novelty),
        }
    if seen.others is not None:
        row["others"] = [
            {"email": emails.get(one.user_id, str(one.user_id)), "label": one.label}
            for one in seen.others
        ]
    return row


def _known(number: float) -> float | None:
    return None if number == UNKNOWN else number
