"""Batches that come twice, or late: each is saved once, and none overwrites what is newer."""

from __future__ import annotations

from collections.abc import Iterable

from django.utils import timezone
from projects.models import Project
from tasks.models import Annotation
from users.models import User

from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.judgements_asked import Asked
from label_studio_config.plugin.models import JudgementBatch


def batch_of(view: View, user: User, asked: Asked) -> tuple[JudgementBatch, bool]:
    """The batch that was sent, and whether it comes for the first time.

    One with a key is taken note of at once: whoever sends it again meanwhile waits for the end of
    this transaction. One without is not saved yet.
    """
    whose = {"project_id": view.project.id, "user_id": user.id}
    said = {
        "control": view.control.name,
        "judged_at": asked.when.theirs if asked.when else None,
        "made_at": timezone.now(),
    }
    if asked.key is None:
        return JudgementBatch(**whose, **said), True
    return JudgementBatch.objects.get_or_create(**whose, key=asked.key, defaults=said)


def withdrawn(project: Project, user: User, key: str) -> JudgementBatch | None:
    """The batch with this key, which is to be undone; None if it never came.

    It may still be on its way: then it will find itself undone.
    """
    now = timezone.now()
    batch, new = JudgementBatch.objects.get_or_create(
        project_id=project.id,
        user_id=user.id,
        key=key,
        defaults={"control": "", "made_at": now, "undone_at": now},
    )
    return None if new or not batch.control else batch


def changed_since(
    view: View, user: User, asked: Asked, annotations: Iterable[Annotation]
) -> set[int]:
    """Ids of the person's own annotations that were changed after the batch was judged.

    A batch that was judged before, but saved after that, has not changed them since; neither has
    one about another control.
    """
    when = asked.when
    if when is None:
        return set()
    own = {
        one.id: one.updated_at
        for one in annotations
        if one.completed_by_id == user.id and one.updated_at > when.ours
    }
    if not own:
        return set()
    earlier = {
        made_at
        for made_at, judged_at, control in JudgementBatch.objects.filter(
            project_id=view.project.id, user_id=user.id, made_at__in=set(own.values())
        ).values_list("made_at", "judged_at", "control")
        if control != view.control.name or (judged_at is not None and judged_at <= when.theirs)
    }
    return {annotation_id for annotation_id, changed_at in own.items() if changed_at not in earlier}
