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
GROUP_COLUMNS = ("functional_group", "group", "label", "source_class")
Truth = dict[str, dict[str, str | float]]


def read_truth(folder: Path, schema: LabelSchema) -> Truth:
    """By image id, the values of the schema's controls that a table in the folder gives.

    An empty cell is not a value; a control that the table marks in `not_assessable` is answered
    with the config's own "not assessable" label. Empty where no table fits.
    """
    table = _read_table(folder)
    primary = schema.primary
    if table is None or primary is None:
        return {}
    if primary.name not in table:
        table = table.rename(columns={_group_column(table): primary.name})
    truth: Truth = {}
    for row in table.to_dict("records"):
        values = _values(schema, {str(key): str(value) for key, value in row.items()})
        if primary.name in values:
            truth[str(row["image_id"])] = values
    return truth


def read_groups(folder: Path, manifest: Manifest) -> dict[str, str] | None:
    """One label an image: from a table in the folder, else the names of its sub-folders.

    None where there are not at least two labels.
    """
    table = _read_table(folder)
    if table is not None:
        group = _group_column(table)
        named = dict(zip(table["image_id"], table[group], strict=True))
        groups = {i: named[i] for i in manifest.image_ids if named.get(i)}
    else:
        parents = zip(manifest.image_ids, map(Path, manifest.table["path"]), strict=True)
        groups = {image_id: path.parent.name for image_id, path in parents if path.parent.name}
    return groups if len(set(groups.values())) > 1 else None


def config_of_labels(labels: list[str]) -> str:
    """A labeling config that asks for one of these labels."""
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    return (
        '<View><Image name="image" value="$image" zoom="true" zoomControl="true"/>'
        '<Choices name="group" toName="image" choice="single" required="true">'
        f'{choices}<Choice value="Not assessable" role="not_assessable"/></Choices></View>'
    )


def _read_table(folder: Path) -> pd.DataFrame | None:
    """The first table that names images and groups, its image column renamed to `image_id`."""
    for name in TABLES:
        if not (folder / name).is_file():
            continue
        table = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        image_column = next((c for c in IMAGE_COLUMNS if c in table), None)
        if image_column is not None and _group_column(table):
            return table.rename(columns={image_column: "image_id"})
    return None


def _group_column(table: pd.DataFrame) -> str:
    return next((column for column in GROUP_COLUMNS if column in table), "")


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
