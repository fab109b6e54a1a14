"""What a labeling config asks, read from its XML: the one place a label list comes from."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from label_studio_sdk.label_interface import LabelInterface

Kind = Literal[
    "one of", "any of", "number", "boxes", "key points", "line", "polygon", "mask", "other"
]

PATH_SEPARATOR = " / "
"""Joins the levels of a Taxonomy label: "Crustacea / Copepoda"."""

_GEOMETRY_KINDS: dict[str, Kind] = {
    "RectangleLabels": "boxes",
    "Rectangle": "boxes",
    "EllipseLabels": "boxes",
    "Ellipse": "boxes",
    "KeyPointLabels": "key points",
    "KeyPoint": "key points",
    "VectorLabels": "line",
    "Vector": "line",
    "PolygonLabels": "polygon",
    "Polygon": "polygon",
    "BrushLabels": "mask",
    "Brush": "mask",
    "BitmaskLabels": "mask",
    "Bitmask": "mask",
}
_LABEL_TAGS = ("Choice", "Label")
_PLAIN_LABEL_ATTRIBUTES = {"value", "alias", "hotkey", "background", "selected", "hint", "html"}


class SchemaError(ValueError):
    """A labeling config that cannot be learned from; names the tag and the reason."""


@dataclass(frozen=True)
class Condition:
    """A control is shown only while `control` is answered with one of `labels` (any, if empty)."""

    control: str
    labels: frozenset[str]

    def holds(self, answered: dict[str, tuple[str, ...]]) -> bool:
        """Whether the labels chosen so far, by control, make the condition true."""
        chosen = answered.get(self.control, ())
        return bool(chosen) if not self.labels else not self.labels.isdisjoint(chosen)


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
        Labels that mean "cannot be judged on this image", and "looked for, not there".
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


class LabelSchema:
    """The controls of a labeling config.

    Examples
    --------
    >>> schema = LabelSchema.from_xml('''<View><Image name="image" value="$image"/>
    ...   <Choices name="group" toName="image"><Choice value="Copepod" aphia="1080"/>
    ...   <Choice value="Noctiluca scintillans" aphia="109921"/></Choices></View>''')
    >>> schema.control("group").labels
    ('Copepod', 'Noctiluca scintillans')
    """

    def __init__(self, xml: str, controls: tuple[Control, ...], image_tag: str, image_key: str):
        self.xml = xml
        self.controls = controls
        self.image_tag = image_tag
        self.image_key = image_key
        self._by_name = {control.name: control for control in controls}

    @classmethod
    def from_xml(cls, xml: str) -> LabelSchema:
        """Read a labeling config.

        Raises
        ------
        SchemaError
            Not XML, no image, a name or label used twice, or labels that stand in the task data.
        """
        try:
            root = ET.fromstring(xml)
        except ET.ParseError as error:
            raise SchemaError(f"the labeling config is not valid XML: {error}") from error
        image_tag, image_key = _image(root)
        try:
            interface = LabelInterface(xml)
        except Exception as error:
            raise SchemaError(f"Label Studio cannot read the labeling config: {error}") from error
        parents = {child: parent for parent in root.iter() for child in parent}
        elements = {
            element.get("name"): element for element in root.iter() if element.get("toName")
        }
        names = [element.get("name") for element in root.iter() if element.get("toName")]
        for name in names:
            if names.count(name) > 1:
                raise SchemaError(f"two controls are named {name!r}: give each its own name")
        controls = tuple(
            _control(tag, elements[tag.name], parents, image_tag)
            for tag in interface.controls
            if tag.name in elements
        )
        schema = cls(xml, controls, image_tag, image_key)
        for control in controls:
            if control.masks is not None and control.masks not in schema:
                raise SchemaError(
                    f"<{control.tag} name={control.name!r}>: notAssessableFor names "
                    f"{control.masks!r}, which is no control of this config"
                )
        return schema

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def control(self, name: str) -> Control:
        """The control of that name.

        Raises
        ------
        SchemaError
            There is none.
        """
        if name not in self._by_name:
            raise SchemaError(f"no control {name!r} in the config; it has {sorted(self._by_name)}")
        return self._by_name[name]

    @cached_property
    def trainable(self) -> tuple[Control, ...]:
        """The controls that a model has heads for."""
        return tuple(control for control in self.controls if control.trained)

    @property
    def primary(self) -> Control | None:
        """The first one-of control that is trained and always asked, or the first trained one."""
        for control in self.trainable:
            if control.kind == "one of" and not control.conditions:
                return control
        return self.trainable[0] if self.trainable else None

    def require_trainable(self) -> None:
        """Raise SchemaError if there is nothing to learn, with each control's reason."""
        if not self.trainable:
            reasons = "; ".join(
                f"<{control.tag} name={control.name!r}>: {control.why_not_trained}"
                for control in self.controls
            )
            raise SchemaError(
                "nothing in this config can be learned: add Choices or a Number for the whole "
                f"image ({reasons or 'it has no controls'})"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what is asked (names, kinds, labels, conditions), not over its looks."""
        digest = hashlib.sha256()
        for control in self.controls:
            conditions = sorted((c.control, *sorted(c.labels)) for c in control.conditions)
            asked = (control.name, control.kind, control.labels, conditions)
            digest.update(repr((asked, sorted(control.not_assessable))).encode())
        return digest.hexdigest()


def _image(root: ET.Element) -> tuple[str, str]:
    images = list(root.iter("Image"))
    if len(images) != 1:
        raise SchemaError(f"the config has {len(images)} <Image> tags: exactly one is needed")
    name, value = images[0].get("name"), images[0].get("value", "")
    if not name:
        raise SchemaError("<Image> has no name: add name='image'")
    if not value.startswith("$") or len(value) < 2:
        raise SchemaError(
            f"<Image name={name!r}>: value is {value!r}, expected a field like $image"
        )
    return name, value[1:]


def _control(tag, element: ET.Element, parents: dict, image_tag: str) -> Control:
    where = f"<{tag.tag} name={tag.name!r}>"
    attributes = dict(tag.attr)
    labels, vocabulary, roles = _labels(element, where)
    kind = _kind(tag.tag, attributes)
    conditions, needs_region = _conditions(element, parents)
    to_name = tag.to_name[0] if isinstance(tag.to_name, list) else tag.to_name
    if tag.tag in ("Choices", "Taxonomy") and attributes.get("value", "").startswith("$"):
        raise SchemaError(
            f"{where}: its labels stand in the task data ({attributes['value']}); "
            "write them into the config as <Choice> tags"
        )
    not_assessable = frozenset(label for label in labels if roles[label] == "not_assessable")
    assessable = tuple(label for label in labels if label not in not_assessable)
    per_region = attributes.get("perRegion", "false").lower() == "true" or needs_region
    masks = attributes.get("notAssessableFor")
    return Control(
        name=tag.name,
        tag=tag.tag,
        to_name=to_name,
        kind=kind,
        labels=assessable,
        not_assessable=not_assessable,
        absent=frozenset(label for label in labels if roles[label] == "absent"),
        conditions=conditions,
        unit=attributes.get("unit"),
        ordinal=attributes.get("ordinal", "false").lower() == "true",
        per_region=per_region,
        masks=masks,
        why_not_trained=_why_not_trained(kind, assessable, per_region, masks, to_name, image_tag),
        attributes=attributes,
        vocabulary=vocabulary,
    )


def _kind(tag: str, attributes: dict[str, str]) -> Kind:
    if tag == "Choices":
        return "any of" if attributes.get("choice", "single") == "multiple" else "one of"
    if tag == "Taxonomy":
        return "one of"
    if tag in ("Number", "Rating"):
        return "number"
    return _GEOMETRY_KINDS.get(tag, "other")


def _why_not_trained(
    kind: Kind,
    labels: tuple[str, ...],
    per_region: bool,
    masks: str | None,
    to_name: str,
    image_tag: str,
) -> str | None:
    if kind not in ("one of", "any of", "number"):
        return f"{kind} are kept and exported, not learned"
    if per_region:
        return "it is asked per region, and only whole images are learned"
    if to_name != image_tag:
        return f"it is about {to_name!r}, not about the image"
    if masks is not None:
        return f"it only says whether {masks!r} can be judged"
    if kind == "one of" and len(labels) < 2:
        return "it has fewer than two labels to tell apart"
    if kind == "any of" and not labels:
        return "it has no labels"
    return None


def _labels(
    element: ET.Element, where: str
) -> tuple[tuple[str, ...], dict[str, dict[str, str]], dict[str, str]]:
    labels: list[str] = []
    vocabulary: dict[str, dict[str, str]] = {}
    roles: dict[str, str] = {}
    taxonomy = element.tag == "Taxonomy"

    def walk(parent: ET.Element, path: tuple[str, ...]) -> None:
        for child in parent:
            if child.tag not in _LABEL_TAGS:
                walk(child, path)
                continue
            value = child.get("alias") or child.get("value")
            if not value:
                raise SchemaError(f"{where}: a <{child.tag}> has no value")
            label = PATH_SEPARATOR.join((*path, value)) if taxonomy else value
            if label in roles:
                raise SchemaError(f"{where}: the label {label!r} stands twice")
            labels.append(label)
            roles[label] = child.get("role", "")
            vocabulary[label] = {
                key: text
                for key, text in child.attrib.items()
                if key not in _PLAIN_LABEL_ATTRIBUTES
            }
            walk(child, (*path, value) if taxonomy else path)

    walk(element, ())
    return tuple(labels), vocabulary, roles


def _conditions(element: ET.Element, parents: dict) -> tuple[tuple[Condition, ...], bool]:
    conditions: list[Condition] = []
    needs_region = False
    node: ET.Element | None = element
    while node is not None:
        when = node.get("visibleWhen", "")
        if when == "choice-selected" and node.get("whenTagName"):
            values = [v.strip() for v in node.get("whenChoiceValue", "").split(",") if v.strip()]
            conditions.append(Condition(node.get("whenTagName", ""), frozenset(values)))
        elif when == "region-selected":
            needs_region = True
        node = parents.get(node)
    return tuple(reversed(conditions)), needs_region
