"""What a judgement becomes: an annotation that is made or changed, or a conflict. Saves nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from tasks.models import Annotation, Prediction
from tasks.serializers import PredictionSerializer

from label_studio_config.blind import is_blind_data
from label_studio_config.plugin.gallery_parts import View
from label_studio_config.plugin.gallery_rows import answers_of, suggestions_of
from label_studio_config.plugin.judgements_asked import Judged
from label_studio_config.results import Result, is_asked, read_result, write_result

COMMITTING = timedelta(seconds=1)
"""An answer becomes visible a little after the time that it bears."""

BEFORE = (
    *("result", "result_count", "was_cancelled", "lead_time", "prediction"),
    *("parent_prediction_id", "updated_by_id", "updated_at"),
)
"""The fields of an annotation that a judgement changes."""


@dataclass(frozen=True)
class Situation:
    """What is known of a task while it is locked.

    Attributes
    ----------
    data : None where the project has no such task any more
    prediction : the one of the shown version, None without
    since : ids of one's own annotations that were changed after the judgement was made
    """

    data: dict[str, Any] | None
    annotations: Sequence[Annotation]
    prediction: Prediction | None
    since: Collection[int] = ()


@dataclass(frozen=True)
class Conflict:
    """A judgement that is not saved; `user_id` and `label` say who answered what meanwhile."""

    task_id: int
    why: str
    user_id: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class Decided:
    """An annotation to be saved, with its fields before; None for a new one."""

    annotation: Annotation
    before: dict[str, Any] | None


def decide(
    view: View, judged: Judged, situation: Situation, seen_at: datetime | None, share_s: float
) -> Decided | Conflict:
    """What becomes of one judgement.

    Parameters
    ----------
    share_s : the judgement's share of the batch's lead time, in seconds
    """
    task_id = judged.task_id
    if situation.data is None:
        return Conflict(task_id, "the image is no longer in this project")
    blind = is_blind_data(situation.data)
    if blind and judged.label is None:
        return Conflict(task_id, "the image is blind: it has no suggestion to accept")
    several = view.hides_others(task_id)
    meanwhile = None if several else _meanwhile(view, task_id, situation, seen_at)
    meanwhile = meanwhile or _own_since(view, task_id, situation)
    if meanwhile is not None:
        return meanwhile
    prediction = None if blind else situation.prediction
    label = judged.label
    suggested = _suggested(view, prediction)
    if label is None:
        if prediction is None or suggested is None or prediction.id != judged.prediction_id:
            return Conflict(task_id, "the suggestion is no longer there")
        if seen_at is not None and prediction.updated_at > seen_at:
            return Conflict(task_id, "the suggestion has changed", label=suggested)
        label = suggested
    elif suggested is None or not _on_screen(prediction, judged, seen_at):
        prediction = None
    mine = _mine(view, situation.annotations)
    result = _result(view, mine, label)
    if result is None:
        return Conflict(task_id, f"{view.control.name!r} is not asked for this image")
    return _decided(view, task_id, mine, result, prediction, share_s)


def _meanwhile(
    view: View, task_id: int, situation: Situation, seen_at: datetime | None
) -> Conflict | None:
    """Somebody else's answer that was not on the screen, if there is one."""
    since = [
        annotation
        for annotation in situation.annotations
        if annotation.completed_by_id != view.user_id
        and (seen_at is None or annotation.updated_at > seen_at - COMMITTING)
    ]
    given = answers_of(view.questions, map(vars, since)).get(view.control.name, [])
    if not given:
        return None
    return Conflict(task_id, "somebody answered meanwhile", given[0].user_id, given[0].label)


def _own_since(view: View, task_id: int, situation: Situation) -> Conflict | None:
    """One's own newer answer: a judgement that comes late does not overwrite it."""
    newer = [one for one in situation.annotations if one.id in situation.since]
    given = answers_of(view.questions, map(vars, newer)).get(view.control.name, [])
    if not given:
        return None
    return Conflict(task_id, f"you said {given[0].label} since", label=given[0].label)


def _on_screen(prediction: Prediction | None, judged: Judged, seen_at: datetime | None) -> bool:
    """Whether the suggestion is the one that whoever judged says to have seen, unchanged since."""
    if prediction is None or prediction.id != judged.prediction_id:
        return False
    return seen_at is None or prediction.updated_at <= seen_at


def _suggested(view: View, prediction: Prediction | None) -> str | None:
    if prediction is None:
        return None
    found = suggestions_of(view.questions, prediction.result, prediction.score)
    return found[view.control.name].label if view.control.name in found else None


def _mine(view: View, annotations: Sequence[Annotation]) -> Annotation | None:
    """One's own newest annotation; a skipped one only where there is no other."""
    own = [one for one in annotations if one.completed_by_id == view.user_id]
    return max(own, key=lambda one: (not one.was_cancelled, one.updated_at, one.id), default=None)


def _result(view: View, mine: Annotation | None, label: str) -> Result | None:
    """The result with the new answer; None where the control is not asked beside the others.

    What was answered to other controls stays, unless the editor would not ask for it any more.
    """
    schema, name = view.questions.schema, view.control.name
    old = [item for item in (mine.result if mine else None) or [] if isinstance(item, dict)]
    chosen = {
        control: answer.labels
        for control, answer in read_result(schema, old, []).items()
        if schema.control(control).kind in ("one of", "any of")
        and not schema.control(control).per_region
    }
    chosen[name] = (label,)
    new = [item for item in write_result(schema, chosen) if item["from_name"] == name]
    if not new:
        return None
    kept = []
    for item in old:
        of = str(item.get("from_name"))
        if of == name:
            continue
        if of in schema:
            control = schema.control(of)
            hides = control.kind in ("one of", "any of", "number") and not control.per_region
            if hides and not is_asked(schema, control, chosen):
                continue
        kept.append(item)
    return kept + new


@cache
def _serializer() -> PredictionSerializer:
    """The editor's own copy of a prediction; a new serializer takes longer than what it does."""
    return PredictionSerializer()


def _decided(
    view: View,
    task_id: int,
    mine: Annotation | None,
    result: Result,
    prediction: Prediction | None,
    share_s: float,
) -> Decided:
    before = None
    annotation = mine
    if annotation is None:
        annotation = Annotation(
            task_id=task_id,
            project=view.project,
            completed_by_id=view.user_id,
            lead_time=share_s,
            # As the editor leaves it where there is no prediction.
            prediction={},
        )
    else:
        before = {name: getattr(annotation, name) for name in BEFORE}
        before["updated_at"] = annotation.updated_at.isoformat()
        annotation.lead_time = (annotation.lead_time or 0) + share_s
    annotation.result = result
    annotation.result_count = len({item.get("id") for item in result})
    annotation.was_cancelled = False
    annotation.updated_by_id = view.user_id
    if prediction is not None:
        annotation.prediction = dict(_serializer().to_representation(prediction))
        annotation.parent_prediction_id = prediction.id
    return Decided(annotation, before)
