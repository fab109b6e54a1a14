"""One more person's answer to images that have one: they go back into others' label stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from core.utils.common import load_func
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q
from django.utils import timezone
from projects.models import Project
from tasks.models import Task
from users.models import User

from label_studio_config.batches import batches
from label_studio_config.plugin.awaited import waiting
from label_studio_config.plugin.models import AskedAgain, GivenAnswer
from label_studio_config.words import counted

_ROWS_A_QUERY = 500


@dataclass
class Asked:
    """What became of the tasks that were asked about.

    Attributes
    ----------
    asked : go back into the label stream of whoever has not answered
    waiting : were there already: more answers are wanted than there are
    unanswered : have no answer yet, and are in everybody's label stream anyway
    """

    asked: int = 0
    waiting: int = 0
    unanswered: int = 0

    @property
    def words(self) -> str:
        """For people."""
        told = f"A further opinion is asked for on {counted(self.asked, 'image')}."
        if self.waiting:
            told += f" {self.waiting} wait for one already."
        if self.unanswered:
            told += f" {self.unanswered} have no answer yet, so there is nothing to ask again."
        return told


def ask_again(project: Project, user: User, task_ids: Iterable[int]) -> Asked:
    """Ask for one more person's answer on each task that has answers.

    Label Studio wants as many answers of a task as its overlap: it becomes one more than there are.
    Who has answered is never given the task again.
    """
    done = Asked()
    for ids in batches(sorted(set(task_ids)), _ROWS_A_QUERY):
        with transaction.atomic():
            _ask(project, user, ids, done)
    return done


def conflicting(project: Project, control: str) -> list[int]:
    """The tasks on which people's answers to a control differ, and no further one is awaited."""
    answers = (
        GivenAnswer.objects.filter(project_id=project.id, control=control)
        .values_list("task_id")
        .annotate(labels=Count("label", distinct=True))
        .filter(labels__gt=1)
        .order_by("task_id")
    )
    return [task_id for task_id, _ in answers]


def asked_again(project: Project, mine: Q, limit: int) -> list[int]:
    """The tasks that still wait for the opinion that was asked for, those asked first first.

    Without those that were the person's already: `mine` is the condition on a task.
    """
    had = Task.objects.filter(mine, id=OuterRef("task_id"))
    rows = waiting(project.id).exclude(Exists(had))
    return list(rows.values_list("task_id", flat=True)[:limit])


def _ask(project: Project, user: User, ids: list[int], done: Asked) -> None:
    # As Label Studio counts when it decides whether a task is done.
    given = Q(annotations__isnull=False)
    if project.skip_queue != Project.SkipQueue.IGNORE_SKIPPED:
        given = Q(annotations__was_cancelled=False)
    answered = Count("annotations__completed_by", distinct=True, filter=given)
    rows = Task.objects.filter(project=project, id__in=ids).annotate(people=answered)
    wanted: dict[int, list[int]] = defaultdict(list)
    for task_id, overlap, people in rows.values_list("id", "overlap", "people"):
        if not people:
            done.unanswered += 1
        elif overlap > people:
            done.waiting += 1
        else:
            wanted[people + 1].append(task_id)
    now = timezone.now()
    for opinions, some in wanted.items():
        Task.objects.filter(id__in=some).update(overlap=opinions)
        AskedAgain.objects.filter(task_id__in=some).delete()
        AskedAgain.objects.bulk_create(
            AskedAgain(
                task_id=task_id,
                project_id=project.id,
                opinions=opinions,
                asked_by_id=user.id,
                asked_at=now,
            )
            for task_id in some
        )
        load_func(settings.BULK_UPDATE_IS_LABELED)(some, project)
        done.asked += len(some)


def guard() -> None:
    """Keep what was asked for when Label Studio sets the overlap of all tasks anew.

    It takes tasks of a larger overlap for a part of the project that alone wants several answers.
    """
    theirs = Project._update_tasks_states

    def ours(self: Project, *changed: bool, **named: bool) -> None:
        rows = AskedAgain.objects.filter(project_id=self.id)
        asked = dict(rows.values_list("task_id", "opinions"))
        if not asked:
            return theirs(self, *changed, **named)
        for ids in batches(list(asked), _ROWS_A_QUERY):
            Task.objects.filter(id__in=ids).update(overlap=1)
        theirs(self, *changed, **named)
        alike: dict[int, list[int]] = defaultdict(list)
        for task_id, opinions in asked.items():
            alike[opinions].append(task_id)
        for opinions, some in alike.items():
            for ids in batches(some, _ROWS_A_QUERY):
                fewer = Task.objects.filter(id__in=ids, overlap__lt=opinions)
                fewer.update(overlap=opinions)
        load_func(settings.BULK_UPDATE_IS_LABELED)(list(asked), self)
        return None

    Project._update_tasks_states = ours
