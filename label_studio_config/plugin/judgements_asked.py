"""What a person judged in the gallery, as it is sent: checked at the door."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from rest_framework.exceptions import ValidationError

from label_studio_config.controls import Control

MOST = 500
LONGEST_KEY = 64


@dataclass(frozen=True)
class Judged:
    """One task's judgement: the suggestion `prediction` accepted, or a label given.

    Attributes
    ----------
    label : None where the suggestion was accepted
    prediction_id : the suggestion that was on the screen; None where none was
    """

    task_id: int
    label: str | None = None
    prediction_id: int | None = None


@dataclass(frozen=True)
class When:
    """When a batch was judged, which may be long before it is sent.

    Attributes
    ----------
    theirs, ours : by the sender's clock, and by the server's
    """

    theirs: datetime
    ours: datetime


@dataclass(frozen=True)
class Asked:
    """A batch of judgements.

    Attributes
    ----------
    lead_time_s : that all of them took together
    seen_at : when the server looked up what was on the screen; None if that is not said
    key : the sender's own name for the batch; None if it has none
    when : None if that is not said
    """

    judged: tuple[Judged, ...]
    lead_time_s: float
    seen_at: datetime | None
    key: str | None = None
    when: When | None = None


def read_asked(body: Any, control: Control) -> Asked:
    """The batch in a request's body.

    Raises
    ------
    ValidationError
        It is malformed, too large, judges a task twice, or names a label that the control does
        not have.
    """
    items = body.get("judgements")
    if not isinstance(items, list) or not items:
        raise ValidationError("judgements: expected a list with one judgement a task")
    if len(items) > MOST:
        raise ValidationError(f"{len(items)} judgements: at most {MOST} in one call")
    judged = tuple(_judged(item, control) for item in items)
    if len({one.task_id for one in judged}) < len(judged):
        raise ValidationError("judgements: a task stands there twice")
    key = read_key(body) if body.get("key") is not None else None
    return Asked(judged, _lead_time(body), _moment(body, "seen_at"), key, _when(body))


def read_key(body: Mapping[str, Any]) -> str:
    """The sender's own name for a batch.

    Raises
    ------
    ValidationError
        There is none, or it is too long.
    """
    key = body.get("key")
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        raise ValidationError(f"key: expected a text of at most {LONGEST_KEY} characters")
    return key


def _judged(item: Any, control: Control) -> Judged:
    if not isinstance(item, dict) or not _is_id(item.get("task")):
        raise ValidationError("a judgement needs the id of its task")
    task_id, prediction_id = item["task"], item.get("prediction")
    if prediction_id is not None and not _is_id(prediction_id):
        raise ValidationError(f"task {task_id}: prediction must be an id")
    label = item.get("label")
    if (item.get("accept") is True) == (label is not None):
        raise ValidationError(f"task {task_id}: give either accept: true or a label")
    if label is None:
        if prediction_id is None:
            raise ValidationError(f"task {task_id}: say which prediction is accepted")
        return Judged(task_id, prediction_id=prediction_id)
    if not isinstance(label, str) or not control.knows(label):
        raise ValidationError(f"task {task_id}: {control.name!r} has no label {str(label)[:80]!r}")
    return Judged(task_id, label=label, prediction_id=prediction_id)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**63


def _lead_time(body: Mapping[str, Any]) -> float:
    value = body.get("lead_time_s", 0)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValidationError("lead_time_s: expected seconds")
    return float(value)


def _when(body: Mapping[str, Any]) -> When | None:
    judged_at, sent_at = _moment(body, "judged_at"), _moment(body, "sent_at")
    if judged_at is None:
        return None
    ahead = sent_at - timezone.now() if sent_at is not None else timedelta()
    return When(judged_at, judged_at - ahead)


def _moment(body: Mapping[str, Any], name: str) -> datetime | None:
    value = body.get(name)
    if value is None:
        return None
    try:
        moment = parse_datetime(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None:
        raise ValidationError(f"{name}: expected a time, as 2014-06-01T12:00:00Z")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
