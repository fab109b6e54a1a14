"""What a gallery request asks for: read from its address, checked at the door."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from django.utils.dateparse import parse_date, parse_datetime
from rest_framework.exceptions import ValidationError

Order = Literal["certain", "uncertain", "novel", "task"]
State = Literal["suggested", "open", "accepted", "mine", "others", "conflicting"]

MOST_TASKS = 1000
MOST_ON_A_PAGE = 200
USUAL_ON_A_PAGE = 120
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Filters:
    """Which tasks; None and empty mean any.

    Attributes
    ----------
    label : the suggested label
    answered : a label that somebody answered; by `annotator`, where that is given
    suggested : with a suggestion (True) or without (False); None for both, in the order of tasks
    tasks : exactly these, in this order
    captured_from, captured_to : the second is exclusive
    text : in lower case
    """

    label: str | None = None
    suggested: bool | None = True
    confidence_from: float | None = None
    confidence_to: float | None = None
    novelty_from: float | None = None
    novelty_to: float | None = None
    states: frozenset[str] = frozenset()
    annotator: int | None = None
    answered: str | None = None
    sample: str | None = None
    captured_from: datetime | None = None
    captured_to: datetime | None = None
    depth_from: float | None = None
    depth_to: float | None = None
    text: str = ""
    tasks: tuple[int, ...] | None = None

    @property
    def on_answers(self) -> dict[str, Any]:
        """What is asked of one answer, by column; empty where nothing is."""
        asked = {"user_id": self.annotator, "label": self.answered}
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def on_figures(self) -> bool:
        """Whether a range of confidence or novelty is asked for."""
        ends = (self.confidence_from, self.confidence_to, self.novelty_from, self.novelty_to)
        return any(end is not None for end in ends)


@dataclass(frozen=True)
class PageAsked:
    """One page: what, in which order, after which place, how many."""

    filters: Filters
    order: Order = "certain"
    after: tuple[Any, ...] | None = field(default=None)
    limit: int = USUAL_ON_A_PAGE


def read_filters(asked: Any) -> Filters:
    """The filters of a query.

    Parameters
    ----------
    asked : `request.query_params`

    Raises
    ------
    ValidationError
        A value that is not what its name says.
    """
    tasks = task_ids(asked["tasks"], MOST_TASKS) if asked.get("tasks") else None
    label = asked.get("label") or None
    suggested: bool | None = True
    if asked.get("suggested") == "any":
        suggested, label = None, None
    elif "suggested" in asked:
        suggested = _flag(asked, "suggested")
    elif tasks is not None and label is None:
        suggested = None
    annotator = asked.get("annotator")
    captured_to = _moment(asked, "captured_to")
    if captured_to is not None and len(asked["captured_to"]) <= 10:
        captured_to += timedelta(days=1)
    return Filters(
        label=label if suggested is not False else None,
        suggested=suggested,
        confidence_from=number(asked, "confidence_from"),
        confidence_to=number(asked, "confidence_to"),
        novelty_from=number(asked, "novelty_from"),
        novelty_to=number(asked, "novelty_to"),
        states=_states(asked),
        annotator=whole_number(asked, "annotator", 0, _LARGEST_ID) if annotator else None,
        answered=asked.get("answered") or None,
        sample=asked.get("sample") or None,
        captured_from=_moment(asked, "captured_from"),
        captured_to=captured_to,
        depth_from=number(asked, "depth_from"),
        depth_to=number(asked, "depth_to"),
        text=asked.get("text", "").strip().lower().replace("\0", ""),
        tasks=tasks,
    )


def read_page(asked: Any) -> PageAsked:
    """The page that a query asks for; raises as `read_filters`."""
    order: Any = asked.get("order") or "certain"
    if order not in get_args(Order):
        raise ValidationError(f"order={order!r}: expected one of {', '.join(get_args(Order))}")
    filters = read_filters(asked)
    if filters.suggested is None and filters.tasks is None:
        # What has no suggestion has no confidence to be sorted by.
        order = "task"
    return PageAsked(
        filters=filters,
        order=order,
        after=_cursor(asked.get("after"), order),
        limit=max(1, whole_number(asked, "limit", USUAL_ON_A_PAGE, MOST_ON_A_PAGE)),
    )


def write_cursor(order: Order, place: tuple[Any, ...]) -> str:
    """The place after which the next page begins, opaque to whoever asked."""
    text = json.dumps([order, *place])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def task_ids(text: str, most: int) -> tuple[int, ...]:
    """Task ids from "1,2,3", each once, in their order.

    Raises
    ------
    ValidationError
        Something else, or more than `most`.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if len(parts) > most:
        raise ValidationError(f"{len(parts)} tasks: at most {most} in one call")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise ValidationError("tasks: expected task ids with commas between them")
    return tuple(dict.fromkeys(map(int, parts)))


def number(asked: Mapping[str, str], name: str) -> float | None:
    """A number of the query; None where it is not given."""
    text = asked.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValidationError(f"{name}={text!r}: expected a number")
    return value


def whole_number(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number of the query, from 0 to `most`."""
    text = asked.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > most:
        raise ValidationError(f"{name}={text!r}: expected a whole number from 0 to {most}")
    return int(text)


def _flag(asked: Mapping[str, str], name: str) -> bool:
    if asked[name] not in ("0", "1"):
        raise ValidationError(f"{name}={asked[name]!r}: expected 0, 1 or any")
    return asked[name] == "1"


def _states(asked: Any) -> frozenset[str]:
    states = frozenset(state for state in asked.getlist("state") if state)
    unknown = states - set(get_args(State))
    if unknown:
        raise ValidationError(
            f"state={sorted(unknown)[0]!r}: expected one of {', '.join(get_args(State))}"
        )
    return states


def _moment(asked: Mapping[str, str], name: str) -> datetime | None:
    text = asked.get(name)
    if not text:
        return None
    try:
        moment = parse_datetime(text)
        day = parse_date(text) if moment is None else None
    except ValueError:
        moment = day = None
    if day is not None:
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if moment is None:
        raise ValidationError(f"{name}={text!r}: expected a date such as 2014-06-03")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _cursor(text: str | None, order: str) -> tuple[Any, ...] | None:
    if not text:
        return None
    try:
        padded = text + "=" * (-len(text) % 4)
        said, *place = json.loads(base64.urlsafe_b64decode(padded.encode()))
        numbers = all(type(one) in (int, float) for one in place)
    except (ValueError, TypeError):
        said, place, numbers = "", [], False
    if said != order or not numbers or not 1 <= len(place) <= 2:
        raise ValidationError("after: not a place of this order; ask for the first page")
    return tuple(place)
