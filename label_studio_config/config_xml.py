"""From the XML of a labeling config to its controls."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from label_studio_config.controls import Condition, Control, Kind, SchemaError
from label_studio_config.imported_later import imported_later

# Sample tasks are drawn with it; with it come the clients of three clouds.
with imported_later({"jsf": ["JSF"]}):
    from label_studio_sdk.label_interface import LabelInterface

PATH_SEPARATOR = " / "
"""Joins the levels of a Taxonomy label: "Crustacea / Copepoda"."""

RESERVED_NAMES = frozenset(
    {"image_id", "sample_id", "path", "model_version", "confidence", "novelty", "embedding"}
)
"""Columns of every prediction table, which no control may be named after."""

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


def read_controls(xml: str) -> tuple[tuple[Control, ...], str, str]:
    """The controls in the order of the XML, the name of the image tag, and its data key.

    Raises
    ------
    SchemaError
        Not XML, not one image, a name or label used twice, or labels that stand in the task data.
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
    elements: dict[str, ET.Element] = {}
    for element in root.iter():
        name = element.get("name")
        if not name or not element.get("toName"):
            continue
        if name in elements:
            raise SchemaError(f"two controls are named {name!r}: give each its own name")
        elements[name] = element
    controls = tuple(
        _control(tag, elements[tag.name], parents, image_tag)
        for tag in interface.controls
        if tag.name in elements
    )
    names = {control.name for control in controls}
    for control in controls:
        if control.name in RESERVED_NAMES or "__" in control.name:
            raise SchemaError(
                f"<{control.tag} name={control.name!r}>: this name is a column of the exports and "
                "predictions; give the control another one (without two underscores in a row)"
            )
    for control in controls:
        if control.masks is not None and control.masks not in names:
            raise SchemaError(
                f"<{control.tag} name={control.name!r}>: notAssessableFor names "
                f"{control.masks!r}, which is no control of this config"
            )
    return controls, image_tag, image_key


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
        if when in ("choice-selected", "choice-unselected") and node.get("whenTagName"):
            values = [v.strip() for v in node.get("whenChoiceValue", "").split(",") if v.strip()]
            unselected = when == "choice-unselected"
            conditions.append(Condition(node.get("whenTagName", ""), frozenset(values), unselected))
        elif when == "region-selected":
            needs_region = True
        node = parents.get(node)
    return tuple(reversed(conditions)), needs_region
