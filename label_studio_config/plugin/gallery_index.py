"""Writing the gallery's index: tasks, predictions, answers. Every function can be repeated."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.db.models import Exists, OuterRef
from tasks.models import Annotation, Prediction, Task

from label_studio_config.plugin.gallery_rows import (
    DATA_FIELDS,
    Given,
    Questions,
    answered,
    answers_of,
    crop_of,
    suggestions_of,
)
from label_studio_config.plugin.gallery_text import search_text
from label_studio_config.plugin.models import (
    Answered,
    Crop,
    CropText,
    GivenAnswer,
    IndexState,
    SuggestedLabel,
    SuggestionList,
)
from label_studio_config.plugin.task_predictions import delete_predictions_of

PREDICTION_FIELDS = ("id", "task_id", "model_version", "score", "result")
ANNOTATION_FIELDS = (
    *("id", "task_id", "completed_by_id", "result", "prediction", "was_cancelled", "updated_at"),
)
_ROWS_A_QUERY = 2000
"""SQLite takes at most 32,766 values in one statement."""


def index_tasks(
    questions: Questions, project_id: int, tasks: Iterable[tuple[int, dict[str, Any]]]
) -> list[Crop]:
    """Write the rows of tasks, given as (id, data); what was read from files or people is kept.

    Whatever predictions blind tasks have are deleted.
    """
    given = [(task_id, data or {}) for task_id, data in tasks]
    rows = [crop_of(questions, project_id, task_id, data) for task_id, data in given]
    blind = [row.task_id for row in rows if row.blind]
    # Tasks are locked before rows of the index, as everywhere.
    delete_predictions_of(blind)
    Crop.objects.bulk_create(
        rows,
        batch_size=_ROWS_A_QUERY,
        update_conflicts=True,
        unique_fields=["task_id"],
        update_fields=["project_id", *DATA_FIELDS],
    )
    CropText.objects.bulk_create(
        [
            CropText(task_id=task_id, project_id=project_id, text=search_text(data))
            for task_id, data in given
        ],
        batch_size=_ROWS_A_QUERY,
        update_conflicts=True,
        unique_fields=["task_id"],
        update_fields=["project_id", "text"],
    )
    SuggestedLabel.objects.filter(task_id__among=blind).delete()
    Crop.objects.filter(task_id__among=blind, suggested=1).update(suggested=0)
    return rows


def is_indexed(questions: Questions, task_id: int, data: dict[str, Any]) -> bool:
    """Whether the rows of a task say what its data says."""
    there = Crop.objects.filter(task_id=task_id).values(*DATA_FIELDS).first()
    fresh = crop_of(questions, 0, task_id, data or {})
    return (
        there is not None
        and all(there[name] == getattr(fresh, name) for name in DATA_FIELDS)
        and CropText.objects.filter(task_id=task_id, text=search_text(data or {})).exists()
    )


def index_predictions(
    questions: Questions, state: IndexState, predictions: Sequence[tuple[Any, ...]]
) -> int:
    """Write the rows of predictions, given as `PREDICTION_FIELDS`; how many rows that are.

    Of several predictions of a task by one version the newest counts; blind tasks have none.
    """
    project_id = state.project_id
    ids = [prediction[0] for prediction in predictions]
    task_ids = {prediction[1] for prediction in predictions}
    blind = set(
        Crop.objects.filter(task_id__among=task_ids, blind=True).values_list("task_id", flat=True)
    )
    lists: dict[tuple[str, str], int] = {}
    rows: dict[tuple[int, int], SuggestedLabel] = {}
    for prediction_id, task_id, version, score, result in predictions:
        if task_id in blind or not version:
            continue
        for control, found in suggestions_of(questions, result, score).items():
            if (version, control) not in lists:
                lists[version, control] = list_id(project_id, version, control)
            key = (task_id, lists[version, control])
            if key in rows and rows[key].prediction_id > prediction_id:
                continue
            rows[key] = SuggestedLabel(
                list_id=key[1],
                project_id=project_id,
                model_version=version,
                control=control,
                task_id=task_id,
                prediction_id=prediction_id,
                **vars(found),
            )
    SuggestedLabel.objects.filter(prediction_id__among=ids).delete()
    _leave_newest(rows, list(lists.values()))
    _copy_answers(rows.values())
    SuggestedLabel.objects.bulk_create(
        rows.values(),
        batch_size=_ROWS_A_QUERY,
        ignore_conflicts=True,
    )
    primary = questions.primary_name
    shown = [
        row.task_id
        for row in rows.values()
        if row.control == primary and row.model_version == state.model_version
    ]
    Crop.objects.filter(task_id__among=shown, suggested=0).update(suggested=1)
    return len(rows)


def list_id(project_id: int, version: str, control: str) -> int:
    """The short number of a version's suggestions for a control; a new one where there is none."""
    made, _ = SuggestionList.objects.get_or_create(
        project_id=project_id, model_version=version, control=control
    )
    return int(made.id)


def _leave_newest(rows: dict[tuple[int, int], SuggestedLabel], list_ids: list[int]) -> None:
    """Older rows of the same task and version go; where a newer one is there, ours goes."""
    task_ids = {task_id for task_id, _ in rows}
    present = SuggestedLabel.objects.filter(task_id__among=task_ids, list_id__in=list_ids)
    older = []
    for row_id, task_id, number, prediction_id in present.values_list(
        "id", "task_id", "list_id", "prediction_id"
    ):
        new = rows.get((task_id, number))
        if new is None:
            continue
        if prediction_id > new.prediction_id:
            del rows[task_id, number]
        else:
            older.append(row_id)
    SuggestedLabel.objects.filter(id__among=older).delete()


def answers_given(task_ids: Iterable[int]) -> dict[tuple[int, str], Answered]:
    """What the index says was answered, by task and control; the others are not answered."""
    given: dict[tuple[int, str], list[Given]] = {}
    rows = GivenAnswer.objects.filter(task_id__among=set(task_ids))
    for task_id, control, user_id, label in rows.values_list(
        "task_id", "control", "user_id", "label"
    ):
        given.setdefault((task_id, control), []).append(Given(user_id, label, False))
    return {key: answered(ones) for key, ones in given.items()}


def _copy_answers(rows: Collection[SuggestedLabel]) -> None:
    answers = answers_given(row.task_id for row in rows)
    for row in rows:
        row.answered = answers.get((row.task_id, row.control), Answered.NO)


def index_answers(
    questions: Questions, project_id: int, task_ids: Iterable[int]
) -> dict[int, dict[str, list[Given]]]:
    """Write what was answered about tasks, from all their annotations; by task and control."""
    ids = sorted(set(task_ids))
    annotations: dict[int, list[dict[str, Any]]] = {}
    for annotation in Annotation.objects.filter(task__id__among=ids).values(*ANNOTATION_FIELDS):
        annotations.setdefault(annotation["task_id"], []).append(annotation)
    given = {task_id: answers_of(questions, annotations.get(task_id, [])) for task_id in ids}
    GivenAnswer.objects.filter(task_id__among=ids).delete()
    GivenAnswer.objects.bulk_create(
        [
            GivenAnswer(project_id=project_id, task_id=task_id, control=control, **vars(one))
            for task_id, by_control in given.items()
            for control, ones in by_control.items()
            for one in ones
        ],
        batch_size=_ROWS_A_QUERY,
        ignore_conflicts=True,
    )
    for control in questions.names:
        tasks_with: dict[Answered, list[int]] = {}
        for task_id in ids:
            tasks_with.setdefault(answered(given[task_id].get(control, [])), []).append(task_id)
        for value, tasks in tasks_with.items():
            rows = SuggestedLabel.objects.filter(task_id__among=tasks, control=control)
            rows.exclude(answered=value).update(answered=value)
            if questions.primary and control == questions.primary.name:
                crops = Crop.objects.filter(task_id__among=tasks)
                crops.exclude(answered=value).update(answered=value)
    return given


def index_again(questions: Questions, state: IndexState, task_ids: Iterable[int]) -> None:
    """Write everything about some tasks anew; those that are gone, go."""
    ids = set(task_ids)
    tasks = list(
        Task.objects.filter(id__among=ids, project_id=state.project_id).values_list("id", "data")
    )
    present = {task_id for task_id, _ in tasks}
    forget_tasks(ids - present, state.project_id)
    before = dict(Crop.objects.filter(task_id__among=present).values_list("task_id", "image"))
    crops = index_tasks(questions, state.project_id, tasks)
    changed = [crop.task_id for crop in crops if before.get(crop.task_id, "") != crop.image]
    Crop.objects.filter(task_id__among=changed).update(width_px=0, height_px=0)
    index_answers(questions, state.project_id, present)
    SuggestedLabel.objects.filter(task_id__among=present).delete()
    Crop.objects.filter(task_id__among=present, suggested=1).update(suggested=0)
    predictions = Prediction.objects.filter(task__id__among=present).order_by("id")
    index_predictions(questions, state, list(predictions.values_list(*PREDICTION_FIELDS)))


def predictions_removed(
    questions: Questions,
    state: IndexState,
    version: str,
    prediction_ids: Iterable[int],
    task_ids: Collection[int],
) -> None:
    """Remove the rows of a version's predictions that are gone from tasks.

    Where a task has others of the version, those count again.
    """
    SuggestedLabel.objects.filter(prediction_id__among=prediction_ids).delete()
    left = Prediction.objects.filter(task__id__among=task_ids, model_version=version)
    index_predictions(questions, state, list(left.order_by("id").values_list(*PREDICTION_FIELDS)))
    if version == state.model_version:
        crops = Crop.objects.filter(task_id__among=task_ids, suggested=1)
        crops.exclude(_has_suggestion(questions, state, version)).update(suggested=0)


def forget_tasks(task_ids: Iterable[int], project_id: int | None) -> None:
    """Remove the rows of a project's tasks that are gone."""
    ids = list(task_ids)
    for table in (Crop, CropText, SuggestedLabel, GivenAnswer):
        table.objects.filter(task_id__among=ids, project_id=project_id).delete()


def forget_project(project_id: int) -> None:
    """Remove all rows of a project; the next catching up starts anew."""
    for table in (Crop, CropText, SuggestedLabel, SuggestionList, GivenAnswer, IndexState):
        rows = table.objects.filter(project_id=project_id)
        rows._raw_delete(rows.db)


def show_version(questions: Questions, state: IndexState, version: str) -> None:
    """Make `Crop.suggested` say which tasks have a suggestion of this version."""
    crops = Crop.objects.filter(project_id=state.project_id)
    has = _has_suggestion(questions, state, version)
    crops.filter(suggested=1).exclude(has).update(suggested=0)
    crops.filter(has, suggested=0).update(suggested=1)
    state.model_version = version
    state.save(update_fields=["model_version"])


def _has_suggestion(questions: Questions, state: IndexState, version: str) -> Exists:
    """Whether a crop has a suggestion of a version for the primary control."""
    primary = questions.primary_name
    list_id = SuggestionList.id_of(state.project_id, version, primary)
    return Exists(SuggestedLabel.objects.filter(task_id=OuterRef("task_id"), list_id=list_id))
