"""Rows as a flat table: its columns, its data dictionary, and how it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from export_tools.measures import NO_PIXEL_SIZE, measures_of
from export_tools.rows import STATUSES, Row
from export_tools.traits import STATES, TraitValue, Value
from label_studio_config.controls import Control
from label_studio_config.manifest import KNOWN_COLUMNS, NUMBER_COLUMNS
from label_studio_config.schema import LabelSchema

SEPARATOR = "|"
"""Joins several labels in one cell of a CSV file."""

_NOT_EXTRA = frozenset({*KNOWN_COLUMNS, "blind", "task_id"})

_ROW_COLUMNS: dict[str, tuple[pa.DataType, str, str]] = {
    "image_id": (pa.string(), "", "the image's stable id"),
    "image": (pa.string(), "", "address of the image in Label Studio"),
    "task_id": (pa.int64(), "", "Label Studio's task"),
    "sample_id": (pa.string(), "", "sample, deployment or profile"),
    "captured_at": (pa.string(), "ISO 8601", "when the image was taken"),
    "lat": (pa.float64(), "degree_north", "latitude"),
    "lon": (pa.float64(), "degree_east", "longitude"),
    "depth_m": (pa.float64(), "m", "depth"),
    "pixel_size_um": (pa.float64(), "um", "size of a pixel"),
    "instrument": (pa.string(), "", "camera"),
    "blind": (pa.bool_(), "", "marked blind: never suggested, never learned from"),
    "status": (
        pa.string(),
        "",
        "; ".join(f"{name}: {meaning}" for name, meaning in STATUSES.items()),
    ),
    "annotator": (pa.string(), "", "who annotated; empty in a row of the model"),
    "annotation_id": (pa.int64(), "", "Label Studio's annotation"),
    "annotated_at": (pa.string(), "ISO 8601", "when the annotation was last changed"),
    "lead_time_s": (pa.float64(), "s", "how long the annotation took"),
    "ground_truth": (pa.bool_(), "", "marked as ground truth in Label Studio"),
    "suggestion_shown": (
        pa.bool_(),
        "",
        "whether the annotator saw a suggestion; empty in a row of the model",
    ),
    "suggestion_version": (pa.string(), "", "model version of the suggestion that was shown"),
    "model_version": (pa.string(), "", "model version of the predictions in this row"),
    "confidence": (pa.float64(), "1", "calibrated confidence of the prediction"),
    "novelty": (pa.float64(), "1", "how unlike the training images the image is"),
    "measure_note": (
        pa.string(),
        "",
        f"why something that was marked has no value in um, e.g. {NO_PIXEL_SIZE}",
    ),
}

DICTIONARY_COLUMNS = ("column", "type", "unit", "meaning", "labels", "vocabulary")


def arrow_fields(schema: LabelSchema) -> list[pa.Field]:
    """The columns that every table of this config has; each with its unit and meaning."""
    fields = [
        _field(name, type_, unit, meaning) for name, (type_, unit, meaning) in _ROW_COLUMNS.items()
    ]
    for control in schema.controls:
        fields += _control_fields(control)
    fields += [_field(m.name, pa.float64(), m.unit, m.meaning) for m in measures_of(schema)]
    return fields


def arrow_table(schema: LabelSchema, rows: Iterable[Row]) -> pa.Table:
    """Rows as an Arrow table; further columns of the source come last, as `source_<name>`."""
    rows = list(rows)
    columns: dict[str, list[Any]] = {}
    for index, row in enumerate(rows):
        for name, cell in _flat(schema, row).items():
            if cell is not None:
                columns.setdefault(name, [None] * len(rows))[index] = cell
    fields = arrow_fields(schema)
    taken = {field.name for field in fields}
    fields += [
        _field(name, pa.string(), "", f"{name.removeprefix('source_')}, as imported")
        for name in columns
        if name.startswith("source_") and name not in taken
    ]
    arrays = [pa.array(columns.get(f.name, [None] * len(rows)), f.type) for f in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def data_dictionary(schema: LabelSchema, table: pa.Table) -> list[dict[str, str]]:
    """What each column of a table holds: type, unit, meaning, labels and their vocabulary ids."""
    by_column = {column_of(control): control for control in schema.controls}
    dictionary = []
    for column in table.schema:
        note = column.metadata or {}
        control = by_column.get(column.name)
        dictionary.append(
            {
                "column": column.name,
                "type": str(column.type),
                "unit": note.get(b"unit", b"").decode(),
                "meaning": note.get(b"meaning", b"").decode(),
                "labels": SEPARATOR.join(control.labels) if control else "",
                "vocabulary": _vocabulary(control) if control else "",
            }
        )
    return dictionary


def write_csv(table: pa.Table, path: Path) -> None:
    """Write as CSV in UTF-8; several labels in one cell are joined by `SEPARATOR`."""
    columns = [_as_text(column) for column in table.columns]
    flat = pa.Table.from_arrays(columns, names=table.column_names)
    pa_csv.write_csv(flat, path, pa_csv.WriteOptions(quoting_style="needed"))


def write_parquet(table: pa.Table, path: Path, note: dict[str, Any]) -> None:
    """Write as Parquet; units and meanings stand in the fields, `note` in the file's metadata."""
    metadata = {**(table.schema.metadata or {}), b"planktrait": json.dumps(note).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def json_row(schema: LabelSchema, row: Row) -> dict[str, Any]:
    """A row as nested JSON: what is known of the image, `traits`, `measures`, `source`."""
    cells = _flat(schema, row)
    record: dict[str, Any] = {name: cells.get(name) for name in _ROW_COLUMNS}
    record["traits"] = {
        control.name: _json_trait(control, row.traits[control.name]) for control in schema.controls
    }
    record["measures"] = {m.name: row.measures.get(m.name) for m in measures_of(schema)}
    record["source"] = {
        name: value
        for name, value in row.data.items()
        if name not in _NOT_EXTRA and name != schema.image_key
    }
    return record


def _json_trait(control: Control, trait: TraitValue) -> dict[str, Any]:
    return {
        "value": _json_value(control, trait.value),
        "unit": control.unit,
        "state": trait.state,
        "status": trait.status or None,
        "predicted": _json_value(control, trait.predicted),
        "confidence": trait.confidence,
        "regions": list(trait.regions),
    }


def _json_value(control: Control, value: Value) -> Any:
    if isinstance(value, tuple):
        return value[0] if control.kind == "one of" and len(value) == 1 else list(value)
    return value


def column_of(control: Control) -> str:
    """The control's column: its name, unless a column of every row has that name."""
    return control.name if control.name not in _ROW_COLUMNS else f"control_{control.name}"


def _control_fields(control: Control) -> list[pa.Field]:
    name = column_of(control)
    type_ = _value_type(control)
    asked = f"{control.kind} ({control.tag})"
    if control.attributes.get("trait"):
        asked = f"{control.attributes['trait']}; {asked}"
    fields = [
        _field(name, type_, control.unit or "", f"{asked}; what the row's author says"),
        _field(
            f"{name}__state",
            pa.string(),
            "",
            "; ".join(f"{state}: {meaning}" for state, meaning in STATES.items()),
        ),
        _field(f"{name}__status", pa.string(), "", "human, predicted or both; empty if no answer"),
        _field(f"{name}__predicted", type_, control.unit or "", "what the model says"),
        _field(f"{name}__confidence", pa.float64(), "1", "calibrated probability of that"),
    ]
    if control.kind == "number":
        fields.insert(1, _field(f"{name}__unit", pa.string(), "", "unit of the value"))
    elif control.kind not in ("one of", "any of", "other") or control.per_region:
        meaning = "JSON: regions with labels and points in pixels of the image"
        fields.insert(1, _field(f"{name}__regions", pa.string(), "px", meaning))
    return fields


def _value_type(control: Control) -> pa.DataType:
    if control.kind == "number":
        return pa.float64()
    is_single = control.kind == "one of" and not control.per_region
    return pa.string() if is_single else pa.list_(pa.string())


def _field(name: str, type_: pa.DataType, unit: str, meaning: str) -> pa.Field:
    return pa.field(name, type_, metadata={"unit": unit, "meaning": meaning})


def _flat(schema: LabelSchema, row: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {
        name: _text(row.data.get(name))
        for name in KNOWN_COLUMNS
        if name not in NUMBER_COLUMNS and name in _ROW_COLUMNS
    }
    cells |= {name: _float(row.data.get(name)) for name in NUMBER_COLUMNS}
    cells |= {name: getattr(row, name) for name in _ROW_COLUMNS if hasattr(row, name)}
    cells["task_id"], cells["annotation_id"] = _int(row.task_id), _int(row.annotation_id)
    cells = {name: None if value == "" else value for name, value in cells.items()}
    for control in schema.controls:
        cells |= _trait_cells(control, row.traits[control.name])
    cells |= row.measures
    for name, value in row.data.items():
        if name not in _NOT_EXTRA and name != schema.image_key:
            cells[f"source_{name}"] = _text(value)
    return cells


def _trait_cells(control: Control, trait: TraitValue) -> dict[str, Any]:
    name = column_of(control)
    cells: dict[str, Any] = {f"{name}__state": trait.state}
    if control.kind == "number":
        cells[f"{name}__unit"] = control.unit
    if trait.status == "" and trait.predicted is None:
        return cells
    cells |= {
        name: _cell(control, trait.value),
        f"{name}__status": trait.status or None,
        f"{name}__predicted": _cell(control, trait.predicted),
        f"{name}__confidence": trait.confidence,
    }
    if trait.regions:
        cells[f"{name}__regions"] = json.dumps(trait.regions, ensure_ascii=False)
    return cells


def _cell(control: Control, value: Value) -> Any:
    if isinstance(value, tuple):
        if _value_type(control) == pa.string():
            return SEPARATOR.join(value)
        return list(value)
    return value


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_list(column.type):
        return column
    joined = [None if cell is None else SEPARATOR.join(cell) for cell in column.to_pylist()]
    return pa.chunked_array([pa.array(joined, pa.string())])


def _vocabulary(control: Control) -> str:
    known = {
        label: {key: text for key, text in attributes.items() if key not in ("maxUsages",)}
        for label, attributes in control.vocabulary.items()
    }
    known = {label: attributes for label, attributes in known.items() if attributes}
    return json.dumps(known, ensure_ascii=False) if known else ""


def _float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _int(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
