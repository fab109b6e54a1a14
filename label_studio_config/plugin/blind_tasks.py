"""Blind tasks stay without predictions, by whatever way Label Studio is given one.

Our own way, `suggestions.py`, leaves them out. Label Studio's addresses (`/api/predictions`,
`/import/predictions`, predictions within imported tasks) refuse them, and no ML backend is asked
for them, nor while somebody works on one (interactive backends), nor to try the backend out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models
from django.db.models.signals import pre_save
from ml.models import MLBackend
from rest_framework.exceptions import ValidationError
from tasks.models import Prediction, Task

from label_studio_config.batches import batches
from label_studio_config.blind import is_blind_data
from label_studio_config.plugin.gallery_signals import predictions_created

_TASKS_PER_QUERY = 5000


class _Predictions(models.Manager):
    """The manager of predictions: bulk calls send no signals."""

    def bulk_create(self, objs: Iterable[Prediction], *args: Any, **kwargs: Any) -> Any:
        rows = list(objs)
        _require_none_blind({row.task_id for row in rows})
        made = super().bulk_create(rows, *args, **kwargs)
        predictions_created(made)
        return made


def guard() -> None:
    """Called once, when Django has loaded all apps."""
    Prediction._meta.local_managers = []
    Prediction.add_to_class("objects", _Predictions())
    pre_save.connect(_before_save, sender=Prediction, dispatch_uid="planktrait-blind")
    ask = MLBackend._get_predictions_from_ml_backend

    def ask_for_open_tasks(self: Any, tasks: list[dict[str, Any]]) -> Any:
        open_tasks = [task for task in tasks if not is_blind_data(task.get("data") or {})]
        return ask(self, open_tasks) if open_tasks else []

    MLBackend._get_predictions_from_ml_backend = ask_for_open_tasks
    ask_meanwhile = MLBackend.interactive_annotating

    def ask_meanwhile_if_open(self: Any, task: Task, *args: Any, **kwargs: Any) -> Any:
        if is_blind_data(task.data or {}):
            # As of a backend that has nothing to suggest: the editor shows no error for it.
            return {"data": {"result": []}}
        return ask_meanwhile(self, task, *args, **kwargs)

    MLBackend.interactive_annotating = ask_meanwhile_if_open
    try_out = MLBackend._predict

    def try_out_if_open(self: Any, task: Task) -> Any:
        if is_blind_data(task.data or {}):
            why = f"The image drawn by chance (task {task.id}) is blind: send the request again."
            return {"status": 409, "data": {"detail": why}}
        return try_out(self, task)

    MLBackend._predict = try_out_if_open


def _before_save(sender: Any, instance: Prediction, raw: bool, **kwargs: Any) -> None:
    if not raw and instance.task_id is not None and is_blind_data(instance.task.data):
        _refuse(instance.task_id)


def _require_none_blind(task_ids: set[int]) -> None:
    for ids in batches(sorted(task_ids), _TASKS_PER_QUERY):
        marks = Task.objects.filter(id__in=ids).values_list("id", "data__blind")
        for task_id, mark in marks:
            if is_blind_data({"blind": mark}):
                _refuse(task_id)


def _refuse(task_id: int) -> None:
    raise ValidationError(f"task {task_id} is blind: it never gets a prediction")
