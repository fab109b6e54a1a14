"""Tasks with their suggestions into a project, some thousands in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import transaction
from projects.models import Project, ProjectSummary
from tasks.models import Task

from label_studio_config.manifest import Skipped
from label_studio_config.plugin.bulk_rows import insert, json_text, new_ids
from label_studio_config.plugin.deadlocks import persistent
from label_studio_config.plugin.gallery_added import (
    AddedTask,
    add_suggestions,
    add_tasks,
    is_shown,
)
from label_studio_config.plugin.gallery_catch_up import is_current, locked_state
from label_studio_config.plugin.gallery_rows import CropData, Questions, crop_data
from label_studio_config.plugin.gallery_text import search_text
from label_studio_config.plugin.models import IndexState
from label_studio_config.plugin.suggestions import (
    Read,
    added,
    insert_predictions,
    questions_to,
    stored,
    write,
)
from label_studio_config.plugin.task_predictions import lock_open_tasks


class NewTask(NamedTuple):
    """A task that is not there yet, and all that can be said of it beforehand.

    Attributes
    ----------
    text : its data as the database's JSON
    crop, words : for the gallery's index
    """

    data: dict[str, Any]
    text: str
    crop: CropData
    words: str

    @classmethod
    def of(cls, questions: Questions, data: dict[str, Any]) -> NewTask:
        """Of its data.

        Raises
        ------
        JsonError
            A database cannot hold it.
        """
        return cls(data, json_text(data), crop_data(questions, data), search_text(data))


class Pushed(NamedTuple):
    """An image that is pushed.

    Attributes
    ----------
    task : the id of the task that it is already, or the new one
    suggestion : None where there is none; of whichever task
    """

    task: int | NewTask
    suggestion: Read | None


@dataclass
class Done:
    """What was written.

    Attributes
    ----------
    added, blind : new tasks, and how many of them are blind
    suggested, replaced, unchanged : suggestions that are new, that said something else before, and
        that were there already
    bad : images that cannot be tasks, suggestions that do not fit
    """

    added: int = 0
    blind: int = 0
    suggested: int = 0
    replaced: int = 0
    unchanged: int = 0
    bad: list[Skipped] = field(default_factory=list)

    def add(self, other: Done) -> None:
        """Count another batch too."""
        for name in ("added", "blind", "suggested", "replaced", "unchanged"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bad += other.bad


@persistent
def push_batch(project: Project, images: Sequence[Pushed]) -> Done:
    """Write new tasks, new suggestions, and suggestions that have changed, in one transaction.

    Raises
    ------
    SuggestionError
        The project's config cannot be read.
    """
    questions = questions_to(project)
    done = Done()
    new: list[tuple[NewTask, Read | None]] = []
    there: dict[tuple[int, str], Read] = {}
    for task, read in images:
        if isinstance(task, NewTask):
            new.append((task, None if task.crop.blind else read))
        elif read is not None:
            there[task, read.model_version] = read._replace(task_id=task)
    with transaction.atomic():
        # As Label Studio's own import does: inner ids follow each other.
        Project.objects.select_for_update(of=("self",), no_key=True).get(id=project.id)
        if there:
            _write_changed(project, list(there.values()), done)
        if new:
            _write_new(project, questions, new, done)
    return done


def _write_changed(project: Project, read: list[Read], done: Done) -> None:
    open_tasks = lock_open_tasks(project.id, {one.task_id for one in read})
    existing, said = {}, {}
    for number, task_id, version, score, result in stored(project, read).values_list(
        "id", "task_id", "model_version", "score", "result"
    ):
        existing[task_id, version], said[task_id, version] = number, (score, result)
    changed = []
    for one in read:
        if one.task_id not in open_tasks:
            continue
        before = said.get((one.task_id, one.model_version))
        if before == (one.score, one.result):
            done.unchanged += 1
            continue
        changed.append(one)
        done.suggested += before is None
        done.replaced += before is not None
    if changed:
        write(project, changed, existing)


def _write_new(
    project: Project,
    questions: Questions,
    new: list[tuple[NewTask, Read | None]],
    done: Done,
) -> None:
    state = _state_before(project, questions)
    last = Task.objects.filter(project=project).order_by("-inner_id").only("inner_id")[:1]
    first = (last[0].inner_id or 0) + 1 if last else 1
    ids = new_ids(Task, len(new))
    insert(
        Task,
        ("id", "project_id", "data", "inner_id", "overlap", "total_predictions"),
        (
            (task_id, project.id, task.text, inner_id, project.maximum_annotations, int(bool(read)))
            for task_id, inner_id, (task, read) in zip(
                ids, range(first, first + len(new)), new, strict=True
            )
        ),
    )
    read = [
        one._replace(task_id=task_id)
        for task_id, (_, one) in zip(ids, new, strict=True)
        if one is not None
    ]
    prediction_ids = insert_predictions(project.id, read)
    project.summary  # noqa: B018  (made where it is not there)
    summary = ProjectSummary.objects.select_for_update().get(project=project)
    summary.update_data_columns([task.data for task, _ in new])
    done.added += len(new)
    done.blind += sum(task.crop.blind for task, _ in new)
    done.suggested += len(read)
    if state is None:
        return
    primary = questions.primary_name
    suggested = {
        one.task_id for one in read if is_shown(state, primary, one.model_version, one.found)
    }
    tasks = [
        AddedTask(task_id, task.crop, task.words)
        for task_id, (task, _) in zip(ids, new, strict=True)
    ]
    add_tasks(project.id, tasks, suggested)
    add_suggestions(questions, state, added(prediction_ids, read), tasks_are_new=True)
    state.last_task = ids[-1]
    if read:
        state.last_prediction = prediction_ids[-1]
    state.save(update_fields=["last_task", "last_prediction"])


def _state_before(project: Project, questions: Questions) -> IndexState | None:
    """The project's index, if it is whole now; what comes now is else caught up with the rest."""
    if not IndexState.objects.filter(project_id=project.id).exists():
        return None
    state = locked_state(project)
    return state if is_current(state, project, questions) else None
