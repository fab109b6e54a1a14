"""The gallery's index of what the running transaction has just made: nobody else has rows of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from label_studio_config.plugin.bulk_rows import insert, moment
from label_studio_config.plugin.gallery_index import answers_given, list_id
from label_studio_config.plugin.gallery_rows import (
    DATA_FIELDS,
    CropData,
    Questions,
    Suggested,
)
from label_studio_config.plugin.models import (
    Answered,
    Crop,
    CropText,
    IndexState,
    SuggestedLabel,
)

_CROP = ("task_id", "project_id", *DATA_FIELDS, "suggested")
_SUGGESTED = (
    *("list_id", "project_id", "model_version", "control", "label", "confidence", "novelty"),
    *("second_label", "second_confidence", "task_id", "prediction_id", "answered"),
)


class AddedTask(NamedTuple):
    """A new task, and the text of its data that is searched."""

    task_id: int
    data: CropData
    text: str


class Added(NamedTuple):
    """A new prediction and what it suggests, by control."""

    prediction_id: int
    task_id: int
    model_version: str
    found: dict[str, Suggested]


def add_tasks(project_id: int, tasks: Sequence[AddedTask], suggested: Collection[int] = ()) -> None:
    """Rows of new tasks; `suggested` are those with a shown suggestion."""
    insert(
        Crop,
        _CROP,
        (
            (
                *(task_id, project_id, data.image, data.image_id, data.sample_id),
                None if data.captured_at is None else moment(data.captured_at),
                *(data.depth_m, data.pixel_size_um, data.blind),
                int(task_id in suggested),
            )
            for task_id, data, _ in tasks
        ),
    )
    insert(
        CropText,
        ("task_id", "project_id", "text"),
        ((task_id, project_id, text) for task_id, _, text in tasks),
    )


def add_suggestions(
    questions: Questions, state: IndexState, added: Sequence[Added], *, tasks_are_new: bool = False
) -> None:
    """Rows of new predictions, none of a blind task, and none whose task has one of its version.

    Parameters
    ----------
    tasks_are_new : nobody has answered them, and their rows say already that they are suggested
    """
    lists: dict[tuple[str, str], int] = {}
    answers = {} if tasks_are_new else answers_given(one.task_id for one in added)
    primary = questions.primary_name
    rows, shown = [], []
    for one in added:
        for control, found in one.found.items():
            key = (one.model_version, control)
            if key not in lists:
                lists[key] = list_id(state.project_id, *key)
            rows.append(
                (
                    *(lists[key], state.project_id, *key),
                    *(found.label, found.confidence, found.novelty),
                    *(found.second_label, found.second_confidence),
                    *(one.task_id, one.prediction_id),
                    int(answers.get((one.task_id, control), Answered.NO)),
                )
            )
        if is_shown(state, primary, one.model_version, one.found):
            shown.append(one.task_id)
    if not tasks_are_new:
        # Of predictions of this version that were deleted with SQL.
        old = SuggestedLabel.objects.filter(task_id__among=[one.task_id for one in added])
        old.filter(list_id__in=list(lists.values())).delete()
        Crop.objects.filter(task_id__among=shown, suggested=0).update(suggested=1)
    insert(SuggestedLabel, _SUGGESTED, rows)


def is_shown(state: IndexState, primary: str, version: str, found: dict[str, Suggested]) -> bool:
    """Whether a prediction makes its task one with a suggestion that people see."""
    return version == state.model_version and primary in found
