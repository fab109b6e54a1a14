"""Label Studio's result JSON to values per control, and back: the only place that does it.

Where things sit in a prediction: the prediction's `score` is the calibrated confidence of its
primary control; each result item has its own `score`, and under `meta` the probabilities of the
labels (`meta["probabilities"]`) and, on the first item, how novel the image is (`meta["novelty"]`).
A label whose probability rounds to 0 is left out: Label Studio indexes and searches every letter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from label_studio_config.controls import Condition, Control
from label_studio_config.schema import PATH_SEPARATOR, LabelSchema

Result = list[dict[str, Any]]
Point = tuple[float, float]

DECIMALS = 4
"""Of probabilities, confidences and novelty: more would only make predictions longer."""


class ResultError(ValueError):
    """A result that does not fit the schema; names the control, the label and the remedy."""


@dataclass(frozen=True)
class Region:
    """Something marked on the image. `points` are (x, y) in percent of width and height.

    A box has two points (upper left, lower right, before rotation), a key point one, a polygon
    or a line as many as it has vertices, a mask none (its run lengths stand in `value`).
    """

    id: str
    type: str
    labels: tuple[str, ...]
    points: tuple[Point, ...]
    original_width: int
    original_height: int
    value: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Answer:
    """What one result says about one control.

    `assessable` is False where the annotator said that it cannot be judged. `by_region` holds the
    labels of per-region controls by region id; `items` are the result's own items, unchanged.
    """

    control: str
    labels: tuple[str, ...] = ()
    number: float | None = None
    regions: tuple[Region, ...] = ()
    assessable: bool = True
    by_region: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    items: tuple[dict[str, Any], ...] = field(default=(), hash=False)


def read_result(
    schema: LabelSchema, result: Iterable[dict[str, Any]], problems: list[str] | None = None
) -> dict[str, Answer]:
    """The answers of an annotation's or a prediction's `result`, by control.

    Parameters
    ----------
    problems
        If given, what does not fit is described there and left out; otherwise it raises.

    Raises
    ------
    ResultError
        A control or label that the schema does not know, or a value that is malformed.
    """
    items_by_control: dict[str, list[dict[str, Any]]] = {}
    if isinstance(result, (str, dict)):
        _report(problems, f"the result is {str(result)[:40]!r}, not a list")
        return {}
    for item in result:
        if not isinstance(item, dict):
            _report(problems, f"an item of the result is {item!r}, not an object")
            continue
        if item.get("type") == "relation":
            continue
        name = item.get("from_name", "")
        if name not in schema:
            _report(problems, f"the config has no control {name!r}")
            continue
        items_by_control.setdefault(name, []).append(item)
    answers = {
        name: _answer(schema.control(name), items, problems)
        for name, items in items_by_control.items()
    }
    return _without_hidden_numbers(schema, _with_companions(schema, answers))


def write_result(
    schema: LabelSchema,
    values: Mapping[str, str | Iterable[str] | float],
    *,
    probabilities: Mapping[str, Mapping[str, float]] | None = None,
    novelty: float | None = None,
    rounded: bool = False,
) -> Result:
    """A result that is valid for the config: one item a control that has a value and is asked.

    Parameters
    ----------
    values
        By control: a label, labels (any of), or a number. Where the conditions of a control do
        not hold for the other values, the control is left out.
    probabilities
        By control and label, calibrated.
    rounded
        They have four decimals already and none is 0: the mappings are kept as they are.

    Raises
    ------
    ResultError
        An unknown control or label, or a control that takes no such value.
    """
    chosen = {name: _as_labels(schema, name, value) for name, value in values.items()}
    result: Result = []
    for control in schema.controls:
        if control.name not in values or not is_asked(schema, control, chosen):
            continue
        value = _value(control, values[control.name], chosen[control.name])
        if value is None:
            continue
        item: dict[str, Any] = {
            "id": hashlib.sha256(control.name.encode()).hexdigest()[:10],
            "from_name": control.name,
            "to_name": control.to_name,
            "type": control.tag.lower(),
            "value": value,
        }
        shares = (probabilities or {}).get(control.name, {})
        if shares:
            if not rounded:
                shares = {k: said for k, p in shares.items() if (said := round(float(p), DECIMALS))}
            item["meta"] = {"probabilities": shares}
            likely = [shares[label] for label in chosen[control.name] if label in shares]
            if likely:
                item["score"] = min(likely)
        result.append(item)
    if result and novelty is not None:
        result[0].setdefault("meta", {})["novelty"] = round(float(novelty), DECIMALS)
    return result


def read_probabilities(result: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The probabilities of a prediction's `result`, by control and label."""
    found = {}
    for item in result:
        shares = (item.get("meta") or {}).get("probabilities")
        if shares:
            found[item["from_name"]] = dict(shares)
    return found


def read_novelty(result: Iterable[dict[str, Any]]) -> float | None:
    """How novel the image is, if the prediction says so."""
    for item in result:
        novelty = (item.get("meta") or {}).get("novelty")
        if novelty is not None:
            return float(novelty)
    return None


def is_asked(schema: LabelSchema, control: Control, chosen: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether the control is shown for these labels by control (its conditions, recursively)."""
    for condition in control.conditions:
        if not condition.holds(dict(chosen)):
            return False
        if condition.control in schema and not is_asked(
            schema, schema.control(condition.control), chosen
        ):
            return False
    return True


def conditions_of(schema: LabelSchema, control: Control) -> list[Condition]:
    """All that must hold for the control to be asked, as `is_asked` looks at it; each once."""
    controls = [control]
    found: dict[Condition, None] = {}
    for one in controls:
        found |= dict.fromkeys(one.conditions)
        above = [schema.control(c.control) for c in one.conditions if c.control in schema]
        controls += [further for further in above if further not in controls]
    return list(found)


def _report(problems: list[str] | None, message: str) -> None:
    if problems is None:
        raise ResultError(message)
    problems.append(message)


def _answer(control: Control, items: list[dict[str, Any]], problems: list[str] | None) -> Answer:
    labels: list[str] = []
    number: float | None = None
    regions: list[Region] = []
    by_region: dict[str, tuple[str, ...]] = {}
    for item in items:
        value = item.get("value")
        if not isinstance(value, dict):
            _report(problems, f"{control.name!r}: an item has no value")
            continue
        found = _known_labels(control, value, problems)
        if control.kind == "number":
            number = _number(control, value, problems)
        elif control.kind in ("one of", "any of") and not control.per_region:
            labels += [label for label in found if label not in labels]
        elif control.kind in ("one of", "any of"):
            by_region[str(item.get("id", ""))] = found
            labels += [label for label in found if label not in labels]
        elif control.kind != "other":
            try:
                regions.append(_region(item, value, found))
            except (KeyError, TypeError, ValueError) as error:
                _report(problems, f"{control.name!r}: a region is malformed ({error!r})")
                continue
            labels += [label for label in found if label not in labels]
    return Answer(
        control=control.name,
        labels=tuple(label for label in labels if label not in control.not_assessable),
        number=number,
        regions=tuple(regions),
        assessable=control.not_assessable.isdisjoint(labels) or control.per_region,
        by_region=by_region,
        items=tuple(items),
    )


def _known_labels(
    control: Control, value: dict[str, Any], problems: list[str] | None
) -> tuple[str, ...]:
    key = "choices" if control.tag == "Choices" else control.tag.lower()
    raw = value.get(key)
    if control.tag in ("Number", "Rating") or not isinstance(raw, list):
        return ()
    if control.tag == "Taxonomy":
        raw = [
            PATH_SEPARATOR.join(map(str, path)) if isinstance(path, list) else path for path in raw
        ]
    if not control.labels and not control.not_assessable:
        return tuple(map(str, raw))
    known = []
    for label in raw:
        if isinstance(label, str) and control.knows(label):
            known.append(label)
        else:
            _report(
                problems,
                f"{control.name!r} has no label {label!r}: add it to the config or correct the "
                f"result; known are {', '.join(control.labels)}",
            )
    return tuple(known)


def _number(control: Control, value: dict[str, Any], problems: list[str] | None) -> float | None:
    raw = value.get(control.tag.lower())
    if isinstance(raw, (int, float)) and not isinstance(raw, bool) and isfinite(raw):
        return float(raw)
    _report(problems, f"{control.name!r}: {raw!r} is not a number")
    return None


def _region(item: dict[str, Any], value: dict[str, Any], labels: tuple[str, ...]) -> Region:
    if "points" in value:
        points = tuple((float(x), float(y)) for x, y in value["points"])
    elif "vertices" in value:
        points = tuple((float(v["x"]), float(v["y"])) for v in value["vertices"])
    elif "radiusX" in value:
        x, y, rx, ry = (float(value[k]) for k in ("x", "y", "radiusX", "radiusY"))
        points = ((x - rx, y - ry), (x + rx, y + ry))
    elif "height" in value:
        x, y, width, height = (float(value[k]) for k in ("x", "y", "width", "height"))
        points = ((x, y), (x + width, y + height))
    elif "x" in value:
        points = ((float(value["x"]), float(value["y"])),)
    else:
        points = ()
    return Region(
        id=str(item.get("id", "")),
        type=str(item.get("type", "")),
        labels=labels,
        points=points,
        original_width=int(item.get("original_width") or 0),
        original_height=int(item.get("original_height") or 0),
        value=value,
    )


def _with_companions(schema: LabelSchema, answers: dict[str, Answer]) -> dict[str, Answer]:
    for control in schema.controls:
        companion = answers.get(control.name)
        if control.masks is not None and companion is not None and not companion.assessable:
            answers[control.masks] = Answer(control=control.masks, assessable=False)
    return answers


def _without_hidden_numbers(schema: LabelSchema, answers: dict[str, Answer]) -> dict[str, Answer]:
    # Label Studio drops the choices of a panel that was hidden again, but submits its numbers.
    chosen = {name: answer.labels for name, answer in answers.items()}
    return {
        name: answer
        for name, answer in answers.items()
        if schema.control(name).kind != "number" or is_asked(schema, schema.control(name), chosen)
    }


def _as_labels(schema: LabelSchema, name: str, value: object) -> tuple[str, ...]:
    if name not in schema:
        raise ResultError(f"the config has no control {name!r}")
    control = schema.control(name)
    if control.kind not in ("one of", "any of", "number"):
        raise ResultError(f"{name!r} takes {control.kind}, which cannot be written as a value")
    if control.kind == "number":
        return ()
    labels = (value,) if isinstance(value, str) else tuple(value)  # type: ignore[arg-type]
    for label in labels:
        if not control.knows(label):
            raise ResultError(
                f"{name!r} has no label {label!r}; known are {', '.join(control.labels)}"
            )
    return labels


def number_range(control: Control) -> tuple[float, float]:
    """The smallest and the largest number that the config allows, infinite by default."""
    highest = control.attributes.get("max", control.attributes.get("maxRating", "inf"))
    return float(control.attributes.get("min", "-inf")), float(highest)


def _value(control: Control, value: object, labels: tuple[str, ...]) -> dict[str, Any] | None:
    if control.tag in ("Number", "Rating"):
        number = float(value)  # type: ignore[arg-type]
        lowest, highest = number_range(control)
        number = min(max(number, lowest), highest)
        if control.unit == "count" or control.tag == "Rating":
            number = round(number)
        return {control.tag.lower(): number}
    if not labels:
        return None
    if control.tag == "Taxonomy":
        return {"taxonomy": [label.split(PATH_SEPARATOR) for label in labels]}
    return {"choices": list(labels)}
