"""What the points of the map are coloured by: each task's suggested label, confidence and state.

One compact answer for a whole project, read from the gallery's index. A task that is not in it has
no suggestion and no answer that the person may see.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import get_args

import numpy as np
from django.db.models import Max, Min
from django.http import HttpResponse
from rest_framework.request import Request

from label_studio_config.plugin.gallery_access import ProjectView
from label_studio_config.plugin.gallery_catch_up import catch_up
from label_studio_config.plugin.gallery_filters import State
from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.models import (
    Answered,
    Crop,
    GivenAnswer,
    SuggestedLabel,
    SuggestionList,
)

STATES: tuple[str, ...] = get_args(State)
NOT_SUGGESTED = 0
"""The number of no label."""

SURE = 254
"""The byte of a confidence of 1."""

NOT_KNOWN = 255
CATCH_UP_S = 2.0
_AT_ONCE = 50_000
_ROW = np.dtype([("task", "<i8"), ("label", "<u2"), ("confidence", "<f4"), ("answered", "u1")])


@dataclass(frozen=True)
class Colours:
    """Of n tasks, ascending by id.

    Attributes
    ----------
    labels : names; number 1 is the first
    rows : array (n,) of task, label (`NOT_SUGGESTED` for none), confidence (below 0: not known) and
        what was answered
    state : uint8 array (n,), places in `STATES`, as the person of the view sees them
    """

    labels: tuple[str, ...]
    rows: np.ndarray
    state: np.ndarray

    @classmethod
    def of(cls, view: View) -> Colours:
        """Of what one person looks at."""
        labels, suggested = _suggested(view)
        rows = np.concatenate([suggested, _without(view, suggested["task"])])
        rows = rows[np.argsort(rows["task"], kind="stable")]
        state = _states(view, rows)
        # Where others' answers are hidden, it must not show that there is one.
        told = (rows["label"] != NOT_SUGGESTED) | (state != STATES.index("open"))
        return cls(labels, rows[told], state[told])

    def packed(self, **facts: object) -> bytes:
        """As the page reads it: u32 length of the header, the header (JSON, padded to a multiple of
        four bytes), n u32 tasks, n u16 labels, n u8 confidences, n u8 states; little-endian.
        """
        rows = self.rows
        header = {**facts, "n": len(rows), "labels": self.labels, "states": STATES}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 4)
        known = rows["confidence"] >= 0
        share = np.round(np.clip(rows["confidence"], 0, 1) * SURE).astype("u1")
        confidence = np.where(known, share, np.uint8(NOT_KNOWN))
        parts = (rows["task"].astype("<u4"), rows["label"].astype("<u2"), confidence, self.state)
        return struct.pack("<I", len(text)) + text + b"".join(part.tobytes() for part in parts)


class MapColours(ProjectView):
    """GET `?control=`: see `Colours.packed`; of the primary control where none is named."""

    def get(self, request: Request, pk: int) -> HttpResponse:
        project = self.project(request, pk)
        view = self.view_of(request, project, request.query_params.get("control"))
        complete = catch_up(project, CATCH_UP_S)
        content = Colours.of(view).packed(
            control=view.control.name, model_version=view.version or None, complete=complete
        )
        return HttpResponse(content, content_type="application/octet-stream")


def _suggested(view: View) -> tuple[tuple[str, ...], np.ndarray]:
    """The labels that are suggested, and the rows of tasks with a suggestion."""
    list_id = SuggestionList.id_of(view.project.id, view.version, view.control.name)
    # These columns are an index; without an order they are read as they lie there.
    found = SuggestedLabel.objects.filter(list_id=list_id).values_list(
        "task_id", "label", "confidence", "answered"
    )
    numbers: dict[str, int] = {}
    rows = np.fromiter(
        (
            (task, numbers.setdefault(label, len(numbers) + 1), confidence, answered)
            for task, label, confidence, answered in found.iterator(chunk_size=_AT_ONCE)
        ),
        dtype=_ROW,
    )
    blind = Crop.objects.filter(project_id=view.project.id, blind=True)
    ids = np.fromiter(blind.values_list("task_id", flat=True), dtype="<i8")
    return tuple(numbers), rows[~np.isin(rows["task"], ids)]


def _without(view: View, suggested: np.ndarray) -> np.ndarray:
    """The rows of tasks that somebody answered, and that have no suggestion."""
    answers = GivenAnswer.objects.filter(project_id=view.project.id, control=view.control.name)
    if view.is_primary:
        crops = Crop.objects.filter(project_id=view.project.id, suggested=0)
        given = crops.filter(answered__in=(Answered.YES, Answered.CONFLICTING))
        found = given.values_list("task_id", "answered").iterator(chunk_size=_AT_ONCE)
    else:
        ends = answers.values("task_id").annotate(first=Min("label"), last=Max("label"))
        found = (
            (task, Answered.YES if first == last else Answered.CONFLICTING)
            for task, first, last in ends.values_list("task_id", "first", "last")
        )
    rows = np.fromiter(((task, NOT_SUGGESTED, -1.0, said) for task, said in found), dtype=_ROW)
    return rows[~np.isin(rows["task"], suggested)]


def _states(view: View, rows: np.ndarray) -> np.ndarray:
    """As `gallery_states` says them one by one."""
    answers = GivenAnswer.objects.filter(
        project_id=view.project.id, control=view.control.name, user_id=view.user_id
    )
    given = np.fromiter(
        answers.values_list("task_id", "as_suggested").iterator(chunk_size=_AT_ONCE),
        dtype=[("task", "<i8"), ("as_suggested", "?")],
    )
    mine = np.isin(rows["task"], given["task"])
    accepted = np.isin(rows["task"], given["task"][given["as_suggested"]])
    yes = rows["answered"] == Answered.YES
    conflicting = rows["answered"] == Answered.CONFLICTING
    if view.several_votes:
        yes, conflicting = yes & mine, conflicting & mine
    elif view.asked_again:
        told = mine | ~np.isin(rows["task"], list(view.asked_again.all()))
        yes, conflicting = yes & told, conflicting & told
    conditions = {
        "conflicting": conflicting,
        "accepted": yes & accepted,
        "mine": yes & mine,
        "others": yes,
        "suggested": rows["label"] != NOT_SUGGESTED,
    }
    numbers = [STATES.index(name) for name in conditions]
    state = np.select(list(conditions.values()), numbers, STATES.index("open"))
    return state.astype("u1")
