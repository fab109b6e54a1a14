"""Rows of the gallery's index, from a task's data, a prediction and annotations. No database."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from label_studio_config.blind import is_blind_data
from label_studio_config.controls import Control
from label_studio_config.manifest import pixel_size
from label_studio_config.plugin.models import UNKNOWN, Answered, Crop
from label_studio_config.results import (
    Answer,
    read_novelty,
    read_probabilities,
    read_result,
)
from label_studio_config.schema import LabelSchema, SchemaError

SEVERAL = " + "
"""Joins the labels of an answer to a one-of control that has several."""

INDEX_VERSION = 3
"""Of how rows are read: where it is another, projects are read anew."""


@dataclass(frozen=True)
class Suggested:
    """What a prediction says about one control; see `models.SuggestedLabel`."""

    label: str
    confidence: float = UNKNOWN
    novelty: float = UNKNOWN
    second_label: str = ""
    second_confidence: float = UNKNOWN


@dataclass(frozen=True)
class Given:
    """One person's answer about one control; see `models.GivenAnswer`."""

    user_id: int
    label: str
    as_suggested: bool


class Questions:
    """What a project's config asks that a gallery can show: one-of controls of the whole image.

    Attributes
    ----------
    controls : in the order of the config
    primary : the one that the gallery opens with; None where there is none
    """

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema
        self.controls: tuple[Control, ...] = tuple(
            control for control in schema.trainable if control.kind == "one of"
        )
        first = schema.primary
        if first not in self.controls:
            first = self.controls[0] if self.controls else None
        self.primary: Control | None = first

    @cached_property
    def names(self) -> frozenset[str]:
        """Of the controls."""
        return frozenset(control.name for control in self.controls)

    @property
    def primary_name(self) -> str:
        """Of the primary control; "" where there is none."""
        return self.primary.name if self.primary else ""

    @property
    def key(self) -> str:
        """Differs where rows of the index would differ."""
        labels = {c.name: [sorted(c.labels), sorted(c.not_assessable)] for c in self.controls}
        said = [INDEX_VERSION, self.schema.image_key, self.primary_name, labels]
        return json.dumps(said, sort_keys=True)


@lru_cache(maxsize=64)
def questions_of(label_config: str) -> Questions | None:
    """The questions of a labeling config; None for one that is not about one image."""
    try:
        return Questions(LabelSchema.from_xml(label_config))
    except SchemaError:
        return None


class CropData(NamedTuple):
    """What the row of a task (`Crop`) has from the task's data."""

    image: str
    image_id: str
    sample_id: str
    captured_at: datetime | None
    depth_m: float | None
    pixel_size_um: float | None
    blind: bool


DATA_FIELDS = CropData._fields


def crop_data(questions: Questions, data: Mapping[str, Any]) -> CropData:
    """As far as the data says it."""
    return CropData(
        image=_text(data.get(questions.schema.image_key)),
        image_id=_text(data.get("image_id")),
        sample_id=_text(data.get("sample_id")),
        captured_at=_moment(data.get("captured_at")),
        depth_m=_number(data.get("depth_m")),
        pixel_size_um=pixel_size(data.get("pixel_size_um")),
        blind=is_blind_data(data),
    )


def crop_of(questions: Questions, project_id: int, task_id: int, data: Mapping[str, Any]) -> Crop:
    """The row of a task."""
    said = crop_data(questions, data)
    return Crop(task_id=task_id, project_id=project_id, **said._asdict())


def suggestions_of(questions: Questions, result: Any, score: float | None) -> dict[str, Suggested]:
    """What a prediction suggests, by control; what does not fit the config is left out."""
    items = [item for item in result if isinstance(item, dict)] if isinstance(result, list) else []
    return suggested_by(questions, read_result(questions.schema, items, []), items, score)


def suggested_by(
    questions: Questions,
    answers: Mapping[str, Answer],
    items: Iterable[dict[str, Any]],
    score: float | None,
) -> dict[str, Suggested]:
    """As `suggestions_of`, from the answers that were read from the result's items."""
    try:
        probabilities = read_probabilities(items)
        novelty = _number(read_novelty(items))
    except (AttributeError, KeyError, TypeError, ValueError):
        # Another backend may keep something else under `meta`.
        probabilities, novelty = {}, None
    primary = questions.primary_name
    found = {}
    for name in questions.names & answers.keys():
        answer = answers[name]
        if len(answer.labels) != 1:
            continue
        label = answer.labels[0]
        shares = _numbers(probabilities.get(name, {}))
        said = [answer.items[0].get("score"), shares.pop(label, None)]
        if name == primary:
            said.append(score)
        confidence = next((n for n in map(_number, said) if n is not None), UNKNOWN)
        second = max(shares, key=shares.__getitem__, default="")
        found[name] = Suggested(
            label=label,
            confidence=confidence,
            novelty=UNKNOWN if novelty is None else novelty,
            second_label=second,
            second_confidence=shares.get(second, UNKNOWN),
        )
    return found


def _numbers(shares: Mapping[Any, Any]) -> dict[str, float]:
    """A copy without what is no number."""
    kinds = {*map(type, shares), *map(type, shares.values())}
    if kinds <= {str, float} and math.isfinite(sum(shares.values())):
        return dict(shares)
    return {
        str(label): number
        for label, value in shares.items()
        if (number := _number(value)) is not None
    }


def answers_of(
    questions: Questions, annotations: Iterable[Mapping[str, Any]]
) -> dict[str, list[Given]]:
    """What was answered about one task, by control: each person's newest annotation counts.

    Parameters
    ----------
    annotations
        With `id`, `completed_by_id`, `result`, `prediction`, `was_cancelled` and `updated_at`;
        skipped ones are no answers.
    """
    newest: dict[int, Mapping[str, Any]] = {}
    for annotation in annotations:
        who = annotation["completed_by_id"]
        if annotation["was_cancelled"] or who is None:
            continue
        if who not in newest or _age(annotation) >= _age(newest[who]):
            newest[who] = annotation
    given: dict[str, list[Given]] = {}
    for who, annotation in sorted(newest.items()):
        answers = read_result(questions.schema, annotation["result"] or [], [])
        suggestion = annotation["prediction"]
        suggested: dict[str, Suggested] = {}
        if isinstance(suggestion, dict) and suggestion:
            suggested = suggestions_of(questions, suggestion.get("result"), None)
        for name in questions.names & answers.keys():
            label = label_of(questions.schema.control(name), answers[name])
            if label:
                same = name in suggested and suggested[name].label == label
                given.setdefault(name, []).append(Given(who, label, same))
    return given


def label_of(control: Control, answer: Answer) -> str:
    """The label of an answer as the gallery shows it, also one that says "not assessable"."""
    labels = list(answer.labels)
    if not answer.assessable:
        labels += [
            label
            for item in answer.items
            for label in item.get("value", {}).get("choices") or []
            if label in control.not_assessable
        ]
    return SEVERAL.join(labels)


def answered(given: Iterable[Given]) -> Answered:
    """Nobody's, somebody's, or answers that differ."""
    labels = {one.label for one in given}
    if not labels:
        return Answered.NO
    return Answered.YES if len(labels) == 1 else Answered.CONFLICTING


def _age(annotation: Mapping[str, Any]) -> tuple[str, int]:
    return str(annotation["updated_at"]), annotation["id"]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _moment(value: Any) -> datetime | None:
    """A date or a time from outside; without a time zone it is taken as UTC."""
    text = _text(value).strip()
    for said in (text, text[:10]):
        try:
            moment = datetime.fromisoformat(said)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            continue
    return None
