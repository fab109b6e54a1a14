"""Saving what people judge in the gallery, as ordinary annotations; and undoing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from tasks.models import Annotation, Prediction, Task
from users.models import User

from label_studio_config.plugin.deadlocks import persistent
from label_studio_config.plugin.gallery_index import index_answers
from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.gallery_signals import held
from label_studio_config.plugin.judgements_asked import Asked
from label_studio_config.plugin.judgements_counters import (
    count_labels,
    count_tasks,
    drop_drafts,
    release,
    tell,
)
from label_studio_config.plugin.judgements_decide import (
    BEFORE,
    Conflict,
    Decided,
    Situation,
    decide,
)
from label_studio_config.plugin.judgements_sent import batch_of, changed_since
from label_studio_config.plugin.models import Judgement, JudgementBatch

_CHANGED = ("result", "result_count", "was_cancelled", "lead_time", "prediction")
_CHANGED_FIELDS = [*_CHANGED, "parent_prediction", "updated_by"]
_ROWS_A_QUERY = 100


@dataclass(frozen=True)
class Saved:
    """A batch as it was saved; `batch_id` is None where nothing was."""

    batch_id: int | None
    saved: int
    conflicts: list[Conflict]


@dataclass(frozen=True)
class Undone:
    """What of a batch was undone, and which tasks were left, and why."""

    undone: int
    task_ids: list[int]
    kept: list[tuple[int, str]]


@persistent
def save(view: View, user: User, asked: Asked) -> Saved:
    """Save a batch in one transaction; what conflicts is left out and told.

    The tasks are locked: of two people who judge the same one, the second sees the first's answer.
    A batch with a key is saved once: sent again, it is told what was saved then.
    """
    with transaction.atomic(), held():
        batch, new = batch_of(view, user, asked)
        if not new:
            return _saved_before(batch)
        situations = _situations(view, user, asked)
        view = view.of_tasks(situations)
        share_s = asked.lead_time_s / len(asked.judged)
        outcomes = [
            decide(view, one, situations[one.task_id], asked.seen_at, share_s)
            for one in asked.judged
        ]
        conflicts = [one for one in outcomes if isinstance(one, Conflict)]
        decided = [one for one in outcomes if isinstance(one, Decided)]
        if not decided:
            if batch.pk is not None:
                batch.delete()
            return Saved(None, 0, conflicts)
        made, changed = _write(decided)
        annotations = [one.annotation for one in decided]
        task_ids = sorted(annotation.task_id for annotation in annotations)
        count_labels(
            view.project,
            [one.before for one in decided if one.before is not None],
            [{"result": annotation.result} for annotation in annotations],
        )
        index_answers(view.questions, view.project.id, task_ids)
        batch.conflicts = [asdict(one) for one in conflicts]
        _finish(view, user, batch, decided)
    tell(view.project, created=made, updated=changed)
    return Saved(batch.id, len(decided), conflicts)


@persistent
def undo(view: View, user: User, batch_id: int) -> Undone:
    """Put back what a batch of one's own changed, and delete what it made.

    What somebody has changed since is left as it is.

    Raises
    ------
    JudgementBatch.DoesNotExist
        The person has no such batch in this project.
    """
    with transaction.atomic(), held():
        batch = JudgementBatch.objects.select_for_update().get(
            id=batch_id, project_id=view.project.id, user_id=user.id
        )
        judgements = list(batch.judgements.order_by("task_id"))
        task_ids = [judgement.task_id for judgement in judgements]
        if batch.undone_at is not None:
            return Undone(0, task_ids, [(task_id, "it was undone before") for task_id in task_ids])
        _lock(view, task_ids)
        found = Annotation.objects.in_bulk([one.annotation_id for one in judgements])
        kept: list[tuple[int, str]] = []
        ours: list[tuple[Judgement, Annotation]] = []
        for judgement in judgements:
            annotation = found.get(judgement.annotation_id)
            if annotation is None:
                kept.append((judgement.task_id, "the annotation was deleted since"))
            elif annotation.updated_at != judgement.changed_at:
                kept.append((judgement.task_id, "the annotation was changed since"))
            else:
                ours.append((judgement, annotation))
        deleted, restored = _put_back(view, ours)
        now = timezone.now()
        changed_ids = sorted(judgement.task_id for judgement, _ in ours)
        count_tasks(view.project, changed_ids, user.id, now)
        index_answers(view.questions, view.project.id, changed_ids)
        batch.undone_at = now
        batch.save(update_fields=["undone_at"])
    tell(view.project, updated=restored, deleted=deleted)
    return Undone(len(ours), task_ids, kept)


def _lock(view: View, task_ids: Sequence[int]) -> dict[int, Any]:
    """The data of the project's tasks, locked until the transaction ends.

    SQLite locks the whole database when the transaction begins.
    """
    tasks = Task.objects.select_for_update(of=("self",)).filter(
        id__in=task_ids, project_id=view.project.id
    )
    return dict(tasks.order_by("id").values_list("id", "data"))


def _saved_before(batch: JudgementBatch) -> Saved:
    if batch.undone_at is not None:
        return Saved(None, 0, [])
    conflicts = [Conflict(**one) for one in batch.conflicts]
    return Saved(batch.id, batch.judgements.count(), conflicts)


def _situations(view: View, user: User, asked: Asked) -> dict[int, Situation]:
    task_ids = [one.task_id for one in asked.judged]
    data = _lock(view, task_ids)
    annotations: dict[int, list[Annotation]] = {}
    for annotation in Annotation.objects.filter(task_id__in=list(data)).order_by("id"):
        annotations.setdefault(annotation.task_id, []).append(annotation)
    since = changed_since(view, user, asked, chain.from_iterable(annotations.values()))
    predictions: dict[int, Prediction] = {}
    if view.version:
        # Of several by one version the newest counts, as in the index.
        predictions = {
            prediction.task_id: prediction
            for prediction in Prediction.objects.filter(
                task_id__in=list(data), model_version=view.version
            ).order_by("id")
        }
    return {
        task_id: Situation(
            data.get(task_id), annotations.get(task_id, []), predictions.get(task_id), since
        )
        for task_id in task_ids
    }


def _write(decided: Sequence[Decided]) -> tuple[list[int], list[int]]:
    """Save the annotations; the ids of those made and of those changed."""
    new = [one.annotation for one in decided if one.before is None]
    old = [one.annotation for one in decided if one.before is not None]
    Annotation.objects.bulk_create(new, batch_size=_ROWS_A_QUERY)
    Annotation.objects.bulk_update(old, _CHANGED_FIELDS, batch_size=_ROWS_A_QUERY)
    return [one.id for one in new], [one.id for one in old]


def _finish(view: View, user: User, batch: JudgementBatch, decided: Sequence[Decided]) -> None:
    """Counters, the batch's own record, and the time, as late as can be.

    Others who looked at the page before this time did not see the answers.
    """
    annotations = [one.annotation for one in decided]
    task_ids = sorted(annotation.task_id for annotation in annotations)
    now = timezone.now()
    count_tasks(view.project, task_ids, user.id, now)
    drop_drafts(view.project, user, annotations)
    release(view.project, user, annotations, now)
    batch.made_at = now
    batch.save()
    Judgement.objects.bulk_create(
        [
            Judgement(
                batch=batch,
                task_id=one.annotation.task_id,
                annotation_id=one.annotation.id,
                before=one.before,
                changed_at=now,
            )
            for one in decided
        ],
        batch_size=_ROWS_A_QUERY,
    )
    Annotation.objects.filter(id__in=[one.id for one in annotations]).update(updated_at=now)


def _put_back(
    view: View, ours: Sequence[tuple[Judgement, Annotation]]
) -> tuple[list[int], list[int]]:
    """Delete and restore; the ids of the annotations deleted and of those restored."""
    made = [annotation for judgement, annotation in ours if judgement.before is None]
    changed = [(judgement, one) for judgement, one in ours if judgement.before is not None]
    removed = [{"result": annotation.result} for _, annotation in ours]
    predictions = {judgement.before["parent_prediction_id"] for judgement, _ in changed}
    there = set(Prediction.objects.filter(id__in=predictions - {None}).values_list("id", flat=True))
    people = {judgement.before["updated_by_id"] for judgement, _ in changed}
    users = set(User.objects.filter(id__in=people - {None}).values_list("id", flat=True))
    for judgement, annotation in changed:
        before = dict(judgement.before)
        before["updated_at"] = parse_datetime(before["updated_at"])
        # Label Studio empties these where what they point to is deleted.
        if before["parent_prediction_id"] not in there:
            before["parent_prediction_id"] = None
        if before["updated_by_id"] not in users:
            before["updated_by_id"] = None
        Annotation.objects.filter(id=annotation.id).update(**{n: before[n] for n in BEFORE})
    # While they are there: Label Studio starts afresh where all annotations are removed.
    count_labels(
        view.project, removed, [{"result": judgement.before["result"]} for judgement, _ in changed]
    )
    Annotation.objects.filter(id__in=[annotation.id for annotation in made]).delete()
    return [one.id for one in made], [one.id for _, one in changed]
