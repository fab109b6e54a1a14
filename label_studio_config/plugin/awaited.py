"""Tasks that wait for a second opinion: others' answers are hidden until one's own is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Q, QuerySet
from tasks.models import Task

from label_studio_config.plugin.models import AskedAgain

FEW = 5000
"""So many are read once for a request; more stay where they are, and the database looks there."""


def waiting(project_id: int) -> QuerySet[AskedAgain]:
    """The rows of those whose task still wants an answer, asked first first."""
    tasks = Task.objects.filter(id=OuterRef("task_id"), is_labeled=False)
    rows = AskedAgain.objects.filter(Exists(tasks), project_id=project_id)
    return rows.order_by("asked_at", "task_id")


@dataclass(frozen=True)
class Awaited:
    """The tasks of a project that wait for a second opinion.

    Attributes
    ----------
    ids : None where they are more than `FEW`
    """

    project_id: int = 0
    ids: frozenset[int] | None = frozenset()

    @classmethod
    def of(cls, project_id: int) -> Awaited:
        """As they are now."""
        some = frozenset(_ids(project_id)[: FEW + 1])
        return cls(project_id, some if len(some) <= FEW else None)

    def __bool__(self) -> bool:
        return self.ids is None or bool(self.ids)

    def __contains__(self, task_id: int) -> bool:
        return bool(self.among([task_id]))

    def condition(self, column: str = "task_id") -> Q:
        """The condition under which a row is about one of them."""
        if self.ids is None:
            # PostgreSQL makes no join of NOT IN.
            return Q(Exists(waiting(self.project_id).order_by().filter(task_id=OuterRef(column))))
        return Q(**{f"{column}__among": sorted(self.ids)})

    def among(self, task_ids: Iterable[int]) -> Awaited:
        """Those of some tasks."""
        if self.ids is None:
            some = _ids(self.project_id).filter(task_id__among=list(task_ids))
            return Awaited(self.project_id, frozenset(some))
        return Awaited(self.project_id, self.ids.intersection(task_ids))

    def all(self) -> frozenset[int]:
        """However many they are."""
        return frozenset(_ids(self.project_id)) if self.ids is None else self.ids


def _ids(project_id: int) -> QuerySet:
    return waiting(project_id).order_by().values_list("task_id", flat=True)
