"""One row per image and annotator: what was said of each trait, and by whom or what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from export_tools.measures import measure
from export_tools.traits import TraitValue, has_content, trait_of
from label_studio_config.manifest import pixel_size
from label_studio_config.results import (
    Answer,
    is_asked,
    read_novelty,
    read_probabilities,
    read_result,
)
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import (
    annotator_name,
    image_id_of,
    is_blind,
    newest_by_annotator,
    suggestion_of,
)

STATUSES: dict[str, str] = {
    "human": "a person answered; no prediction is known",
    "predicted": "the model's answer; nobody answered",
    "both": "a person answered, and there is a prediction beside it",
    "unlabelled": "nobody answered and nothing is predicted",
}


@dataclass(frozen=True)
class Row:
    """One annotator's view of one image, or the model's where nobody annotated it.

    `data` is the task's data as imported; `answers` what was read, for exports that need the
    regions themselves; `is_empty` an annotation that was submitted without any answer.
    """

    task_id: Any
    image_id: str
    image: str
    data: dict[str, Any]
    blind: bool
    annotator: str
    annotation_id: Any
    annotated_at: str
    lead_time_s: float | None
    ground_truth: bool
    status: str
    model_version: str
    confidence: float | None
    novelty: float | None
    suggestion_shown: bool | None
    suggestion_version: str
    traits: dict[str, TraitValue]
    measures: dict[str, float]
    measure_note: str
    is_empty: bool
    answers: dict[str, Answer] = field(repr=False)


def rows_of_task(
    schema: LabelSchema,
    task: dict[str, Any],
    *,
    suggestions_shown: bool = True,
    model_version: str | None = None,
    problems: list[str] | None = None,
) -> list[Row]:
    """The rows of one task: one a person, or one for the model where nobody annotated it.

    Of several annotations by one person the newest counts; skipped ones do not.

    Parameters
    ----------
    suggestions_shown
        Whether the project shows predictions to annotators.
    model_version
        Whose predictions to compare with; by default the newest.
    problems
        Gets what does not fit the schema and was left out.

    Raises
    ------
    ValueError, TypeError, KeyError, AttributeError
        The task is not one of a Label Studio JSON export.
    """
    if not isinstance(task.get("data"), dict):
        raise ValueError("it has no data")
    found: list[str] = []
    prediction = _prediction(task, model_version)
    annotations = newest_by_annotator(task)
    rows = [
        _row(schema, task, annotation, prediction, suggestions_shown, found)
        for annotation in annotations
    ]
    if not rows:
        rows = [_row(schema, task, None, prediction, suggestions_shown, found)]
    if problems is not None:
        problems += [f"task {task.get('id')}: {problem}" for problem in dict.fromkeys(found)]
    return rows


def pixel_size_of(data: Mapping[str, Any]) -> float | None:
    """The pixel size in µm that a task's data states, or None."""
    return pixel_size(data.get("pixel_size_um"))


def _prediction(task: dict[str, Any], model_version: str | None) -> dict[str, Any] | None:
    """The newest prediction that is given in full (Label Studio's own export gives only ids)."""
    full = [p for p in task.get("predictions") or [] if isinstance(p, dict) and p.get("result")]
    if model_version is not None:
        full = [p for p in full if p.get("model_version") == model_version]
    return max(
        full, key=lambda p: (str(p.get("created_at") or ""), int(p.get("id") or 0)), default=None
    )


def _row(
    schema: LabelSchema,
    task: dict[str, Any],
    annotation: dict[str, Any] | None,
    prediction: dict[str, Any] | None,
    suggestions_shown: bool,
    problems: list[str],
) -> Row:
    data = task["data"]
    suggestion = {} if annotation is None else suggestion_of(task, annotation) or {}
    model = prediction or (suggestion if suggestion.get("result") else None)
    if annotation is not None and not isinstance(annotation.get("result") or [], list):
        raise ValueError(f"annotation {annotation.get('id')} has a result that is not a list")
    predicted = read_result(schema, (model or {}).get("result") or [], problems)
    human = read_result(schema, (annotation or {}).get("result") or [], problems)
    answers = predicted if annotation is None else human
    scores = _scores(schema, (model or {}).get("result") or [])
    asked = _asked(schema, frozenset((name, a.labels) for name, a in answers.items()))
    traits = {
        control.name: trait_of(
            control,
            answers.get(control.name),
            predicted.get(control.name),
            scores.get(control.name),
            control.name in asked,
            by_person=annotation is not None,
        )
        for control in schema.controls
    }
    measures, note = measure(schema, answers, pixel_size_of(data))
    if annotation is None:
        status = "predicted" if predicted else "unlabelled"
    else:
        status = "both" if predicted else "human"
    shown = bool(suggestion) and suggestions_shown
    return Row(
        task_id=task.get("id"),
        image_id=image_id_of(schema, task),
        image=str(data.get(schema.image_key) or ""),
        data=data,
        blind=is_blind(task),
        annotator="" if annotation is None else annotator_name(annotation),
        annotation_id=None if annotation is None else annotation.get("id"),
        annotated_at=_text((annotation or {}).get("updated_at")),
        lead_time_s=_number((annotation or {}).get("lead_time")),
        ground_truth=bool((annotation or {}).get("ground_truth")),
        status=status,
        model_version=_text((model or {}).get("model_version")),
        confidence=_number((model or {}).get("score")) if predicted else None,
        novelty=read_novelty((model or {}).get("result") or []),
        suggestion_shown=None if annotation is None else shown,
        suggestion_version=_text(suggestion.get("model_version")) if shown else "",
        traits=traits,
        measures=measures,
        measure_note=note,
        is_empty=annotation is not None and not any(map(has_content, human.values())),
        answers=answers,
    )


@lru_cache(maxsize=4096)
def _asked(schema: LabelSchema, labels: frozenset[tuple[str, tuple[str, ...]]]) -> frozenset[str]:
    """The controls that the config asks, given the labels chosen by control."""
    chosen = dict(labels)
    return frozenset(c.name for c in schema.controls if is_asked(schema, c, chosen))


def _scores(schema: LabelSchema, result: list[dict[str, Any]]) -> dict[str, float]:
    """By control, the model's confidence in what it says: the item's score, else the label's."""
    probabilities = read_probabilities(result)
    scores: dict[str, float] = {}
    for item in result:
        name = item.get("from_name", "")
        score = _number(item.get("score"))
        if score is None and name in probabilities:
            labels = (item.get("value") or {}).get("choices") or []
            known = [probabilities[name][label] for label in labels if label in probabilities[name]]
            score = min(known, default=None)
        if score is not None and name in schema:
            scores[name] = score
    return scores


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)
