"""Actions in the Data Manager: suggest labels for the selected images, learn features from all."""

from __future__ import annotations

import logging
from typing import Any

from core.permissions import AllPermissions
from data_manager.actions import register_action
from django.db.models import Exists, OuterRef, QuerySet
from projects.models import Project
from tasks.models import Prediction, Task

from label_studio_config.blind import is_blind_data
from label_studio_config.plugin import backend
from label_studio_config.plugin.shown_tasks import marked_blind
from label_studio_config.plugin.suggestions import SuggestionError, save_suggestions
from label_studio_config.words import counted

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 200
"""Classified while the browser waits; more of them are a job."""

WHERE_SHOWN = "its progress is shown at the top of this page and on the page Model."

Answer = dict[str, Any]


def register() -> None:
    """Offer the actions in every project's Data Manager."""
    change = AllPermissions().tasks_change
    register_action(
        suggest_labels,
        "Suggest labels",
        order=91,
        permission=change,
        dialog={
            "title": "Suggest labels",
            "text": "Ask the model for suggestions for the selected images. Of more than 200 those "
            "that have none of the live version get one, as a job. Blind images never get one.",
            "type": "confirm",
        },
    )
    register_action(
        learn_features,
        "Learn features from all images",
        order=92,
        permission=change,
        dialog={
            "title": "Learn features from all images",
            "text": "Start self-supervised training (SimCLR) on every image of this project, "
            "labelled or not. It runs as a job; the next training starts from its features.",
            "type": "confirm",
        },
    )


def suggest_labels(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Suggestions for the selected tasks: a few at once, many as a job; the action of that name."""
    if queryset.count() > MOST_AT_ONCE:
        return _suggest_as_job(project, queryset)
    rows = list(queryset.values_list("id", "data"))
    ids = [task_id for task_id, data in rows if not is_blind_data(data)]
    try:
        suggestions = _ask(project, ids)
        saved = save_suggestions(project, suggestions)
    except (backend.BackendError, SuggestionError) as error:
        logger.warning("Suggest labels in project %s: %s", project.id, error)
        return {"processed_items": 0, "detail": str(error), "response_code": 503}
    version = suggestions[-1]["model_version"] if suggestions else ""
    if version:
        _make_visible(project, version)
    detail = _summary(saved, version)
    if len(ids) > saved:
        detail += (
            f" {len(ids) - saved} got none: there is no model yet, or the image cannot be read."
        )
    detail += _left_alone(len(rows) - len(ids))
    return {"processed_items": saved, "detail": detail, "reload": saved > 0}


def _suggest_as_job(project: Project, queryset: QuerySet) -> Answer:
    """Start the job for those that have no suggestion of the live model yet."""
    try:
        live = backend.ask("GET", "models", params={"project": project.id})["live"]
        if not live:
            raise backend.BackendError(
                "There is no model yet: annotate some images and start a training.", 409
            )
        have = Prediction.objects.filter(task_id=OuterRef("id"), model_version=live)
        asked, waiting = queryset.count(), queryset.exclude(Exists(have))
        without = list(waiting.order_by("id").values_list("id", flat=True))
        blind = set(marked_blind(waiting))
        ids = [task_id for task_id in without if task_id not in blind]
        there = f"{asked - len(without)} of {counted(asked, 'image')}"
        left_alone = _left_alone(len(without) - len(ids))
        detail = f"{there} have a suggestion of {live} already.{left_alone}"
        if not ids:
            _make_visible(project, live)
            return {"processed_items": asked, "detail": detail, "reload": True}
        body: dict[str, Any] = {"project": project.id}
        if asked < project.tasks.count():
            body["tasks"] = ids
        job = backend.ask("POST", "suggest", json=body)["job"]
    except backend.BackendError as error:
        return {"processed_items": 0, "detail": str(error), "response_code": error.status}
    started = (
        f"Suggesting labels for {counted(len(ids), 'image')} has started (job {job}); {WHERE_SHOWN}"
    )
    detail = f"{started} {detail}" if len(ids) < asked else started
    return {"processed_items": len(ids), "detail": detail, "reload": False, "job": job}


def learn_features(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Ask the backend to start SimCLR on all images; the action of that name."""
    try:
        job = backend.learn_features(project).get("job")
    except backend.BackendError as error:
        return {"processed_items": 0, "detail": str(error), "response_code": 503}
    detail = f"Learning features from all images has started (job {job}); {WHERE_SHOWN}"
    images = project.tasks.count()
    return {"processed_items": images, "detail": detail, "reload": False, "job": job}


def _ask(project: Project, ids: list[int]) -> list[dict[str, Any]]:
    # Not Label Studio's serializer: it asks the database for each task's annotations, drafts, …
    tasks = list(Task.objects.filter(project=project, id__in=ids).values("id", "data", "project"))
    answers = backend.predict(project, tasks)
    return [
        {**prediction, "task": task["id"]}
        for task, predictions in zip(tasks, answers, strict=True)
        for prediction in predictions
        if prediction.get("result")
    ]


def _make_visible(project: Project, version: str) -> None:
    """Show a version's suggestions, unless more images have one of the version that is shown.

    Then a refresh goes on, which shows the new ones when it is done.
    """
    if project.model_version == version:
        return
    made = Prediction.objects.filter(project=project)
    shown = project.model_version or ""
    before, now = (made.filter(model_version=name).count() for name in (shown, version))
    if not shown or now >= before:
        project.model_version = version
        project.save(update_fields=["model_version"])


def _left_alone(blind: int) -> str:
    were = "was" if blind == 1 else "were"
    return f" {counted(blind, 'blind image')} {were} left alone." if blind else ""


def _summary(saved: int, version: str) -> str:
    of = f" ({version})" if version else ""
    return f"Suggested labels for {counted(saved, 'image')}{of}."
