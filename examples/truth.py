"""What the simulated annotators know: a table beside the images, or the folders they lie in."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import pandas as pd

from label_studio_config.manifest import Manifest
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema

TABLES = ("truth.csv", "labels.csv")
IMAGE_COLUMNS = ("image_id", "image", "filename", "path")
GROUP_COLUMNS = ("functional_group", "group")
Truth = dict[str, dict[str, str | float]]


def read_truth(folder: Path, schema: LabelSchema) -> Truth | None:
    """By image id, the values of the schema's trained controls; None where no table says them.

    An empty cell is not a value; a control that the table marks in `not_assessable` is answered
    with the config's own "not assessable" label.
    """
    for name in TABLES:
        path = folder / name
        if path.is_file():
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            return _read_table(table, schema)
    return None


def labels_from_folders(manifest: Manifest) -> Truth | None:
    """The name of the folder that an image lies in, where there are at least two folders."""
    parents = {
        image_id: Path(path).parent.name
        for image_id, path in zip(manifest.image_ids, manifest.table["path"], strict=True)
    }
    if len(set(parents.values())) < 2:
        return None
    return {image_id: {"group": parent} for image_id, parent in parents.items()}


def config_of_labels(labels: list[str]) -> str:
    """A labeling config that asks for one of these labels."""
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    return (
        '<View><Image name="image" value="$image" zoom="true" zoomControl="true"/>'
        '<Choices name="group" toName="image" choice="single" required="true">'
        f'{choices}<Choice value="Not assessable" role="not_assessable"/></Choices></View>'
    )


def _read_table(table: pd.DataFrame, schema: LabelSchema) -> Truth | None:
    image_column = next((c for c in IMAGE_COLUMNS if c in table), None)
    if image_column is None or schema.primary is None:
        return None
    if schema.primary.name not in table:
        group = next((c for c in GROUP_COLUMNS if c in table), None)
        if group is None:
            return None
        table = table.rename(columns={group: schema.primary.name})
    truth: Truth = {}
    for row in table.to_dict("records"):
        values = _values(schema, {str(key): str(value) for key, value in row.items()})
        if schema.primary.name in values:
            truth[str(row[image_column])] = values
    return truth or None


def _values(schema: LabelSchema, row: dict[str, str]) -> dict[str, str | float]:
    hidden = set(row.get("not_assessable", "").replace(";", " ").replace(",", " ").split())
    values: dict[str, str | float] = {}
    for control in schema.controls:
        text = row.get(control.name, "")
        if control.name in hidden:
            values |= _not_assessable(schema, control.name)
        elif not text:
            continue
        elif control.kind == "number":
            values[control.name] = float(text)
        elif control.kind == "one of" and control.knows(text):
            values[control.name] = text
    # Only what Label Studio would have asked, so that truth and annotation can be compared.
    asked = {item["from_name"] for item in write_result(schema, values)}
    return {name: value for name, value in values.items() if name in asked}


def _not_assessable(schema: LabelSchema, name: str) -> dict[str, str | float]:
    control = schema.control(name)
    if control.not_assessable:
        return {name: min(control.not_assessable)}
    for companion in schema.controls:
        if companion.masks == name and companion.not_assessable:
            return {companion.name: min(companion.not_assessable)}
    return {}
