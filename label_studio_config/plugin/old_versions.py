"""Removing the predictions of a model version that is no longer shown, some thousands a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from django.db import transaction
from projects.models import Project
from tasks.models import Annotation, Prediction

from label_studio_config.plugin.deadlocks import persistent
from label_studio_config.plugin.gallery_index import predictions_removed
from label_studio_config.plugin.gallery_signals import index_of
from label_studio_config.plugin.models import SuggestedLabel
from label_studio_config.plugin.task_predictions import (
    count_predictions,
    delete_predictions,
    lock_open_tasks,
)

CHUNK = 5000
"""Predictions deleted in one transaction: about a second, in which others wait on SQLite."""


class VersionShownError(ValueError):
    """People see the version now; the message says the remedy."""


@dataclass(frozen=True)
class Removed:
    """What a call did.

    Attributes
    ----------
    deleted : predictions that are gone
    kept : those that an annotation came from or was made beside: part of the record of what the
        annotator saw
    unreplaced : the others of tasks without a prediction of the newer version
    next : the prediction after which the next call goes on; None where nothing is left
    """

    deleted: int
    kept: int
    unreplaced: int
    next: int | None


@persistent
def remove_version(
    project: Project, version: str, after: int = 0, newer: str | None = None
) -> Removed:
    """Delete the next predictions of one version that no annotation refers to.

    Parameters
    ----------
    after : a prediction's id; only later ones are deleted
    newer : only where the task has a prediction of this version

    Raises
    ------
    VersionShownError
        Nothing is deleted then.
    """
    found = Prediction.objects.filter(project=project, model_version=version, id__gt=after)
    with transaction.atomic():
        # Locked in the order of `push_batch`: project, tasks, predictions.
        _require_not_shown(project.id, version)
        some = dict(found.order_by("id").values_list("id", "task_id")[:CHUNK])
        lock_open_tasks(project.id, some.values())
        rows = _locked(some)
        task_ids = set(rows.values())
        kept = _used(task_ids) & set(rows)
        replaced = task_ids if newer is None else _having(task_ids, newer)
        free = [prediction_id for prediction_id in rows if prediction_id not in kept]
        gone = [prediction_id for prediction_id in free if rows[prediction_id] in replaced]
        delete_predictions(gone)
        count_predictions(task_ids)
        index = index_of(project.id, project.label_config)
        if index is None:
            SuggestedLabel.objects.filter(prediction_id__among=gone).delete()
        else:
            state, questions = index
            predictions_removed(questions, state, version, gone, task_ids)
    last = max(some) if len(some) == CHUNK else None
    return Removed(len(gone), len(kept), len(free) - len(gone), last)


def _require_not_shown(project_id: int, version: str) -> None:
    """Also until the transaction ends: whoever shows another version waits for the project."""
    locked = Project.objects.select_for_update(of=("self",), no_key=True)
    if locked.get(id=project_id).model_version == version:
        raise VersionShownError(f"{version} is shown: make another version live first")


def _locked(rows: Mapping[int, int]) -> dict[int, int]:
    """Those of some predictions that are still there, with their tasks.

    An annotation that comes from one of them is saved before they are locked, or waits.
    """
    locked = Prediction.objects.select_for_update(of=("self",)).filter(id__among=set(rows))
    return dict(locked.order_by("id").values_list("id", "task_id"))


def _used(task_ids: Collection[int]) -> set[int]:
    """The predictions that annotations of some tasks refer to, as parent or as what was shown."""
    annotations = Annotation.objects.filter(task__id__among=task_ids)
    found = set()
    for parent, shown in annotations.values_list("parent_prediction_id", "prediction__id"):
        found |= {number for number in (parent, shown) if isinstance(number, int)}
    return found


def _having(task_ids: Collection[int], version: str) -> set[int]:
    """Those of the tasks that have a prediction of a version."""
    there = Prediction.objects.filter(task__id__among=task_ids, model_version=version)
    return set(there.values_list("task_id", flat=True))
