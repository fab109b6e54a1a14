"""From tasks of Label Studio back to a manifest of their images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from label_studio_config.manifest import (
    KNOWN_COLUMNS,
    NUMBER_COLUMNS,
    Manifest,
    Skipped,
    pixel_size,
)
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import image_id_of, is_blind


def manifest_of_tasks(
    schema: LabelSchema,
    tasks: Iterable[dict[str, Any]],
    resolve_image: Callable[[str], Path],
    root: Path,
    *,
    other_columns: bool = False,
) -> tuple[Manifest, list[Skipped]]:
    """The images of tasks, labelled or not, each once.

    Parameters
    ----------
    resolve_image
        From the address in a task to an absolute path; raises ValueError for one that is refused.
    root
        The folder that all resolved paths lie under.
    other_columns
        Whether to keep, as text, what else the data of the tasks holds.

    Returns
    -------
    manifest
        Known columns as in the task data, plus `task_id` and `blind` (bool: one of the tasks of the
        image is).
    skipped
        Tasks whose image has no address, is outside the root, or is not there.
    """
    rows: dict[str, dict[str, Any]] = {}
    skipped: list[Skipped] = []
    root = root.resolve()
    for task in tasks:
        data = task.get("data") or {}
        address = str(data.get(schema.image_key) or "")
        try:
            if not address:
                raise ValueError(f"the task has no {schema.image_key!r} in its data")
            path = resolve_image(address)
            if not path.is_file():
                raise ValueError("the file is not there")
            relative = path.relative_to(root).as_posix()
        except ValueError as error:
            skipped.append(Skipped(address or f"task {task.get('id')}", str(error)))
            continue
        image_id = image_id_of(schema, task)
        known = {
            column: _number(column, data[column]) if column in NUMBER_COLUMNS else data[column]
            for column in KNOWN_COLUMNS
            if column in data
        }
        if other_columns:
            known |= {name: str(data[name]) for name in data if _is_other(name, data[name])}
        rows[image_id] = known | {
            "image_id": image_id,
            "path": relative,
            "task_id": task.get("id"),
            "blind": is_blind(task) or rows.get(image_id, {}).get("blind", False),
        }
    columns = ["image_id", "path", "task_id", "blind"]
    table = pd.DataFrame(list(rows.values())) if rows else pd.DataFrame(columns=columns)
    return Manifest(table, root), skipped


def _is_other(name: str, value: Any) -> bool:
    plain = isinstance(value, (str, int, float)) and str(value).strip() != ""
    return plain and name not in (*KNOWN_COLUMNS, "task_id", "blind")


def _number(column: str, value: Any) -> float | None:
    # Task data may come from anywhere: a depth of "5-10" is not known, and stops nothing.
    if column == "pixel_size_um":
        return pixel_size(value)
    number = pd.to_numeric(value, errors="coerce")
    return float(number) if pd.notna(number) else None
