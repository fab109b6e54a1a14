"""What a row says about one control: a value, its state, and whose answer it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from export_tools.geometry import GeometryError, mask_px, outline_px, points_px
from label_studio_config.controls import Control
from label_studio_config.results import Answer, Region

State = Literal["answered", "absent", "not assessable", "empty", "not asked"]
STATES: dict[str, str] = {
    "answered": "a label, a number or regions were given",
    "absent": "looked for, and not there",
    "not assessable": "the image does not show enough to tell",
    "empty": "asked, and left without an answer",
    "not asked": "the config asks it only for other groups or answers",
}
Value = tuple[str, ...] | float | None


@dataclass(frozen=True)
class TraitValue:
    """What a row says about one control.

    `value` is the person's answer, or the model's in a row with status "predicted": labels, a
    number, or None. `predicted` is the model's answer in either case, `confidence` its calibrated
    probability. `regions` are what was marked, in pixels.
    """

    value: Value = None
    state: State = "empty"
    status: str = ""
    predicted: Value = None
    confidence: float | None = None
    regions: tuple[dict[str, Any], ...] = ()


_EMPTY, _NOT_ASKED = TraitValue(state="empty"), TraitValue(state="not asked")


def trait_of(
    control: Control,
    answer: Answer | None,
    predicted: Answer | None,
    confidence: float | None,
    asked: bool,
    *,
    by_person: bool,
) -> TraitValue:
    """What `answer` (a person's, or the model's own in a row of the model) says of a control."""
    if answer is None and predicted is None:
        return _EMPTY if asked else _NOT_ASKED
    state = _state(control, answer, asked)
    status = ""
    if state in ("answered", "absent", "not assessable"):
        status = "predicted" if not by_person else "human" if predicted is None else "both"
    return TraitValue(
        value=_value(control, answer),
        state=state,
        status=status,
        predicted=_value(control, predicted),
        confidence=confidence if predicted is not None else None,
        regions=() if answer is None else _regions(answer),
    )


def _state(control: Control, answer: Answer | None, asked: bool) -> State:
    if answer is None or not has_content(answer):
        return "empty" if asked else "not asked"
    # Of several boxes one may be beyond judging; the others are answers all the same.
    if not answer.assessable and not (answer.regions and answer.labels):
        return "not assessable"
    if answer.labels and control.absent.issuperset(answer.labels):
        return "absent"
    return "answered"


def has_content(answer: Answer) -> bool:
    """Whether anything was answered, "not assessable" included."""
    return (
        bool(answer.labels or answer.regions or answer.items)
        or answer.number is not None
        or not answer.assessable
    )


def _value(control: Control, answer: Answer | None) -> Value:
    if answer is None:
        return None
    if control.kind == "number":
        return answer.number
    if control.kind == "other":
        return tuple(text for item in answer.items for text in _free_text(item)) or None
    return answer.labels or None


def _free_text(item: dict[str, Any]) -> list[str]:
    """The value of a control that we do not interpret: its text, else its value as JSON."""
    value = item.get("value") or {}
    text = value.get("text")
    if isinstance(text, list):
        return [str(part) for part in text]
    return [text] if isinstance(text, str) else [json.dumps(value, ensure_ascii=False)]


def _regions(answer: Answer) -> tuple[dict[str, Any], ...]:
    if answer.by_region:
        return tuple(
            {"region": region, "labels": list(labels)}
            for region, labels in answer.by_region.items()
        )
    return tuple(_region(region) for region in answer.regions)


def _region(region: Region) -> dict[str, Any]:
    record: dict[str, Any] = {
        "region": region.id,
        "type": region.type,
        "labels": list(region.labels),
        "image_size_px": [region.original_width, region.original_height],
    }
    try:
        if region.points:
            is_flat = "width" in region.value and "height" in region.value
            points = outline_px(region) if is_flat else points_px(region)
            record["points_px"] = points.round(2).tolist()
        else:
            record["area_px"] = int(mask_px(region).sum())
    except GeometryError as error:
        record["problem"] = str(error)
    return record
