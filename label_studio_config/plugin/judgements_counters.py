"""What Label Studio counts, after annotations were made, changed or deleted in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from core.utils.common import load_func
from django.conf import settings
from django.db.models import Count, Q
from projects.models import Project, ProjectSummary
from tasks.models import Annotation, AnnotationDraft, Task, TaskLock
from users.models import User
from webhooks.models import WebhookAction
from webhooks.utils import emit_webhooks, emit_webhooks_for_instance, get_active_webhooks


def count_tasks(project: Project, task_ids: Sequence[int], user_id: int, now: datetime) -> None:
    """The annotations of each task, whether it is finished, and who changed it when."""
    counts = dict.fromkeys(task_ids, (0, 0))
    counted = (
        Annotation.objects.filter(task_id__in=task_ids)
        .order_by()
        .values_list("task_id")
        .annotate(
            total=Count("id", filter=Q(was_cancelled=False)),
            cancelled=Count("id", filter=Q(was_cancelled=True)),
        )
    )
    for task_id, total, cancelled in counted:
        counts[task_id] = (total, cancelled)
    alike: dict[tuple[int, int], list[int]] = {}
    for task_id, both in counts.items():
        alike.setdefault(both, []).append(task_id)
    for (total, cancelled), ids in alike.items():
        Task.objects.filter(id__in=ids).update(
            total_annotations=total,
            cancelled_annotations=cancelled,
            updated_at=now,
            updated_by_id=user_id,
        )
    load_func(settings.BULK_UPDATE_IS_LABELED)(list(task_ids), project)


def count_labels(project: Project, removed: Sequence[Any], added: Sequence[Any]) -> None:
    """The project's own counts of answers and labels; each row has a `result`.

    Locks the project's summary until the transaction ends: it is one JSON value for everybody.
    """
    if not hasattr(project, "summary"):
        return
    summary = ProjectSummary.objects.select_for_update().get(project=project)
    if removed:
        summary.remove_created_annotations_and_labels(removed)
    # Label Studio begins a new count at each annotation of a control that has none yet.
    for row in added:
        for item in row["result"] or []:
            if item.get("from_name"):
                summary.created_labels.setdefault(item["from_name"], {})
    summary.update_created_annotations_and_labels(added)


def drop_drafts(project: Project, user: User, annotations: Iterable[Annotation]) -> None:
    """Delete what the person left unfinished in the editor about tasks that are answered now.

    The editor would show it in the place of the answer. Others' drafts stay, and those that would
    change somebody else's annotation.
    """
    by_task = {annotation.task_id: annotation.id for annotation in annotations}
    own = Q(annotation__isnull=True) | Q(annotation__completed_by=user)
    drafts = list(AnnotationDraft.objects.filter(own, task_id__in=list(by_task), user=user))
    if not drafts:
        return
    if hasattr(project, "summary"):
        summary = ProjectSummary.objects.select_for_update().get(project=project)
        # While they are there: it empties the count where no draft is left beside them.
        summary.remove_created_drafts_and_labels(drafts)
    AnnotationDraft.objects.filter(id__in=[draft.id for draft in drafts]).delete()


def release(project: Project, user: User, annotations: Iterable[Annotation], now: datetime) -> None:
    """What a submit in the editor does besides: the person's locks, activity and history."""
    by_task = {annotation.task_id: annotation.id for annotation in annotations}
    TaskLock.objects.filter(task_id__in=list(by_task), user_id=user.id).delete()
    User.objects.filter(id=user.id).update(activity_at=now)
    history = user.histories.filter(project=project).first()
    if history is None:
        return
    for item in history.data or []:
        if item.get("taskId") in by_task:
            item["annotationId"] = by_task[item["taskId"]]
    history.save(update_fields=["data"])


def tell(
    project: Project,
    *,
    created: Sequence[int] = (),
    updated: Sequence[int] = (),
    deleted: Sequence[int] = (),
) -> None:
    """One webhook each for the annotations that a batch made, changed or deleted, by id.

    Label Studio knows no webhook for several changed annotations: theirs is ANNOTATION_UPDATED
    with lists under `annotation` and `task`, as in ANNOTATIONS_CREATED.
    """
    organization = project.organization
    if created and _asked_for(project, WebhookAction.ANNOTATIONS_CREATED):
        emit_webhooks_for_instance(
            organization, project, WebhookAction.ANNOTATIONS_CREATED, _annotations(created)
        )
    if updated and _asked_for(project, WebhookAction.ANNOTATION_UPDATED):
        changed = _annotations(updated)
        if len(changed) == 1:
            emit_webhooks_for_instance(
                organization, project, WebhookAction.ANNOTATION_UPDATED, changed[0]
            )
        elif changed:
            form = WebhookAction.ACTIONS[WebhookAction.ANNOTATIONS_CREATED]
            tasks = form["nested-fields"]["task"]["serializer"]
            payload = {
                "annotation": form["serializer"](instance=changed, many=True).data,
                "task": tasks(instance=[one.task for one in changed], many=True).data,
            }
            emit_webhooks(organization, project, WebhookAction.ANNOTATION_UPDATED, payload)
    if deleted and _asked_for(project, WebhookAction.ANNOTATIONS_DELETED):
        emit_webhooks_for_instance(
            organization,
            project,
            WebhookAction.ANNOTATIONS_DELETED,
            [{"id": annotation_id} for annotation_id in deleted],
        )


def _asked_for(project: Project, action: str) -> bool:
    return bool(get_active_webhooks(project.organization, project, action).exists())


def _annotations(ids: Sequence[int]) -> list[Annotation]:
    found = Annotation.objects.filter(id__in=ids).order_by("id")
    return list(found.select_related("task", "project", "completed_by"))
