"""Actions in the Data Manager: suggest labels for the selected images, learn features from all."""

from __future__ import annotations

import logging
import time
from typing import Any

from core.permissions import AllPermissions
from data_manager.actions import register_action
from django.db.models import QuerySet
from projects.models import Project
from tasks.models import Prediction, Task

from label_studio_config.blind import is_blind_data
from label_studio_config.plugin import backend
from label_studio_config.plugin.suggestions import (
    SuggestionError,
    batches,
    save_suggestions,
)

logger = logging.getLogger(__name__)

BATCH_SIZE = 200
TIME_BUDGET_S = 240.0
"""A browser gives up on an answer after five minutes; the rest is suggested at the next call."""

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
            "text": "Ask the model for suggestions for the selected images. Suggestions of the "
            "same model version are replaced; blind images never get one.",
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
    """Save the backend's suggestions for the selected tasks; the action of that name."""
    started = time.monotonic()
    rows = list(queryset.values_list("id", "data"))
    ids = [task_id for task_id, data in rows if not is_blind_data(data)]
    saved = without = 0
    version = ""
    try:
        for batch in batches(_missing_first(project, ids), BATCH_SIZE):
            if time.monotonic() - started > TIME_BUDGET_S:
                break
            suggestions = _ask(project, batch)
            count = save_suggestions(project, suggestions)
            saved += count
            without += len(batch) - count
            if suggestions and suggestions[-1]["model_version"] != version:
                version = suggestions[-1]["model_version"]
                _make_visible(project, version)
    except (backend.BackendError, SuggestionError) as error:
        logger.warning("Suggest labels in project %s: %s", project.id, error)
        if not saved:
            return {"processed_items": 0, "detail": str(error), "response_code": 503}
        return _answer(saved, f"{_summary(saved, version)} Then it stopped: {error}")
    detail = _summary(saved, version)
    if without:
        detail += f" {without} got none: there is no model yet, or the image cannot be read."
    if len(rows) > len(ids):
        detail += f" {len(rows) - len(ids)} blind images were left alone."
    rest = len(ids) - saved - without
    if rest:
        detail += f" {rest} are left: call the action again."
    return _answer(saved, detail)


def learn_features(project: Project, queryset: QuerySet, **kwargs: Any) -> Answer:
    """Ask the backend to start SimCLR on all images; the action of that name."""
    try:
        job = backend.learn_features(project).get("job")
    except backend.BackendError as error:
        return {"processed_items": 0, "detail": str(error), "response_code": 503}
    name = job.get("id") or job.get("name") if isinstance(job, dict) else job
    detail = f"Learning features from all images has started (job {name}): see `planktrait jobs`."
    return {"processed_items": project.tasks.count(), "detail": detail, "reload": False}


def _missing_first(project: Project, ids: list[int]) -> list[int]:
    """Tasks without a suggestion of the project's version first, so that a repeat goes on."""
    have = set(
        Prediction.objects.filter(project=project, model_version=project.model_version or "")
        .values_list("task_id", flat=True)
        .iterator()
    )
    return sorted(ids, key=lambda task_id: task_id in have)


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
    # Scores are shown, sorted and sampled by for the project's own version only.
    if project.model_version != version:
        project.model_version = version
        project.save(update_fields=["model_version"])


def _summary(saved: int, version: str) -> str:
    return f"Suggested labels for {saved} images" + (f" ({version})." if version else ".")


def _answer(saved: int, detail: str) -> Answer:
    return {"processed_items": saved, "detail": detail, "reload": saved > 0}
