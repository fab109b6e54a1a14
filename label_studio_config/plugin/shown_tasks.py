"""Which tasks may be shown, and which of them one person has no more to judge.

What the ML backend was told may be old: Label Studio's own tables say which tasks are there and
which of them are blind, and the gallery's index what was answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from django.db.models import QuerySet
from projects.models import Project
from rest_framework.exceptions import ValidationError
from tasks.models import Task

from label_studio_config.batches import batches
from label_studio_config.blind import is_blind_data
from label_studio_config.plugin.gallery_catch_up import catch_up, shown_version
from label_studio_config.plugin.gallery_parts import View, asked
from label_studio_config.plugin.gallery_rows import questions_of
from label_studio_config.plugin.models import Crop, GivenAnswer

CATCH_UP_S = 2.0
_TASKS_PER_QUERY = 5000


def shown(project: Project, task_ids: Iterable[int]) -> set[int]:
    """Those of some tasks that are in the project now and not blind."""
    found = set()
    for ids in batches(task_ids, _TASKS_PER_QUERY):
        marks = Task.objects.filter(project=project, id__in=ids).values_list("id", "data__blind")
        found |= {task_id for task_id, mark in marks if not is_blind_data({"blind": mark})}
    return found


def all_shown(project: Project) -> np.ndarray:
    """All tasks of the project that are not blind, ascending by id."""
    tasks = Task.objects.filter(project=project)
    blind = marked_blind(tasks)
    known = tasks.order_by("id").values_list("id", flat=True).iterator(chunk_size=50_000)
    ids = np.fromiter(known, dtype=np.int64)
    return ids[~np.isin(ids, blind)] if blind else ids


def marked_blind(tasks: QuerySet[Task]) -> list[int]:
    """Those of some tasks that are blind; of many tasks, few marks leave the database."""
    marked = tasks.filter(data__has_key="blind").exclude(data__blind="no").exclude(data__blind="")
    marks = marked.values_list("id", "data__blind")
    return [task_id for task_id, mark in marks if is_blind_data({"blind": mark})]


def view_for(project: Project, user_id: int, control: str | None) -> View | None:
    """What a person judges, with the index up to date: a control, by default the primary one.

    None where the config asks for no label that an image has one of.

    Raises
    ------
    ValidationError
        There is no such control.
    """
    questions = questions_of(project.label_config)
    if questions is None or questions.primary is None:
        return None
    if control and control not in questions.names:
        names = ", ".join(sorted(questions.names))
        raise ValidationError(f"control={control!r}: expected one of {names}")
    chosen = questions.schema.control(control) if control else questions.primary
    catch_up(project, CATCH_UP_S)
    return View.of(project, questions, chosen, shown_version(project), user_id)


def judged(view: View | None, task_ids: Iterable[int] | None = None) -> np.ndarray:
    """The tasks, of all or of some, that need no judgement of this person, ascending by id.

    They were answered by the person, or by others whose answers are not hidden.
    """
    if view is None:
        return np.zeros(0, dtype=np.int64)
    answers = GivenAnswer.objects.filter(project_id=view.project.id, control=view.control.name)
    if task_ids is not None:
        answers = answers.filter(task_id__among=task_ids)
    mine = answers.filter(user_id=view.user_id)
    counted = mine if view.several_votes else answers
    found = _ids(counted.values_list("task_id", flat=True))
    if view.asked_again:
        hidden = np.setdiff1d(
            list(view.asked_again.all()), _ids(mine.values_list("task_id", flat=True))
        )
        found = np.setdiff1d(found, hidden)
    return np.unique(found)


def asked_of(view: View, task_ids: Iterable[int] | None = None) -> np.ndarray:
    """The tasks, of all or of some, of which the person is asked the control, ascending by id."""
    rows = Crop.objects.filter(asked(view), project_id=view.project.id)
    if task_ids is not None:
        rows = rows.filter(task_id__among=task_ids)
    return np.unique(_ids(rows.values_list("task_id", flat=True)))


def after(view: View | None) -> list[str]:
    """The controls by whose answers the view's control is asked; [] where it is always asked."""
    conditions = view.control.conditions if view is not None else ()
    return list(dict.fromkeys(one.control for one in conditions))


def left_to_judge(project: Project, view: View | None, task_ids: Sequence[int]) -> set[int]:
    """Those of some tasks that are shown and that the person has still to judge."""
    left = shown(project, task_ids) - set(judged(view, task_ids).tolist())
    if view is not None and view.control.conditions:
        left &= set(asked_of(view, task_ids).tolist())
    return left


def among(task_ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of some tasks are in a list that ascends, bool of the shape of `task_ids`."""
    if not len(known):
        return np.zeros(len(task_ids), dtype=bool)
    places = np.searchsorted(known, task_ids).clip(max=len(known) - 1)
    return np.asarray(known[places] == task_ids)


def _ids(rows: Iterable[int]) -> np.ndarray:
    return np.fromiter(rows, dtype=np.int64)
