"""One question of a labeling config, and when it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "one of", "any of", "number", "boxes", "key points", "line", "polygon", "mask", "other"
]


class SchemaError(ValueError):
    """A labeling config that cannot be learned from; names the tag and the reason."""


@dataclass(frozen=True)
class Condition:
    """A control is shown only while `control` is answered with one of `labels` (any, if empty).

    With `unselected`, only while it is not.
    """

    control: str
    labels: frozenset[str]
    unselected: bool = False

    def holds(self, answered: dict[str, tuple[str, ...]]) -> bool:
        """Whether the labels chosen so far, by control, make the condition true."""
        chosen = answered.get(self.control, ())
        selected = bool(chosen) if not self.labels else not self.labels.isdisjoint(chosen)
        return selected is not self.unselected


@dataclass(frozen=True)
class Control:
    """One question of the config.

    Attributes
    ----------
    name, tag, to_name
        As in the XML.
    kind
        What kind of answer it takes.
    labels
        Assessable labels in the order of the XML (for a Taxonomy, full paths).
    not_assessable, absent
        Labels that mean "cannot be judged on this image", and "looked for, not there". An any-of
        control without an absent label cannot be answered with "none of them": left open, it says
        nothing.
    conditions
        All must hold for the control to be asked.
    trained
        Whether a model learns it; `why_not_trained` says why not.
    masks
        For a companion control: the number control that it declares not assessable.
    vocabulary
        Per label the further attributes of its tag, such as `aphia` and `nerc`.
    """

    name: str
    tag: str
    to_name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    not_assessable: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    conditions: tuple[Condition, ...] = ()
    unit: str | None = None
    ordinal: bool = False
    per_region: bool = False
    masks: str | None = None
    why_not_trained: str | None = None
    attributes: dict[str, str] = field(default_factory=dict, hash=False)
    vocabulary: dict[str, dict[str, str]] = field(default_factory=dict, hash=False)

    @property
    def trained(self) -> bool:
        """Whether a model has a head for it."""
        return self.why_not_trained is None

    def knows(self, label: str) -> bool:
        """Whether the label is one of the control's, "not assessable" included."""
        return label in self.labels or label in self.not_assessable
