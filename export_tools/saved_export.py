"""Read a JSON export that somebody saved from Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class ExportError(ValueError):
    """A file that is no usable export, or an export that cannot be written; says the remedy."""


_REMEDY = "in Label Studio choose Export > JSON (not JSON-MIN)"


def read_export(path: Path | str) -> list[dict[str, Any]]:
    """The tasks of a Label Studio JSON export.

    Label Studio's own export gives predictions as ids only; `planktrait export` from the server,
    or a snapshot with predictions, has them in full.

    Raises
    ------
    ExportError
        Absent, empty, cut off, or another format (JSON-MIN, CSV, COCO, a zip file).
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error
    if raw[:2] == b"PK":
        raise ExportError(f"{path} is a zip file: unpack it and give the JSON file inside")
    if not raw.strip():
        raise ExportError(f"{path} is empty: export the project again ({_REMEDY})")
    try:
        content = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: {_why_not_json(raw, error)} ({_REMEDY})") from error
    if isinstance(content, dict):
        if "annotations" in content and "images" in content:
            raise ExportError(f"{path} is a COCO file, not a Label Studio export: {_REMEDY}")
        raise ExportError(f"{path} holds one object, expected a list of tasks: {_REMEDY}")
    if not isinstance(content, list):
        raise ExportError(f"{path} holds no list of tasks: {_REMEDY}")
    if content and not any(_is_task(task) for task in content):
        if any(isinstance(task, dict) and "annotator" in task for task in content):
            raise ExportError(
                f"{path} is a JSON-MIN export, which drops regions, predictions and several "
                f"annotators: {_REMEDY}"
            )
        raise ExportError(f"{path}: none of its {len(content)} items is a task: {_REMEDY}")
    return content


def _is_task(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("data"), dict)


def _why_not_json(raw: bytes, error: Exception) -> str:
    start = raw.lstrip()[:1]
    if isinstance(error, UnicodeDecodeError) or start not in (b"[", b"{"):
        return "not JSON"
    if isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip()) - 1:
        return "the file is cut off; export it again"
    if isinstance(error, json.JSONDecodeError) and not raw.rstrip().endswith((b"]", b"}")):
        return "the file is cut off; export it again"
    return f"not valid JSON: {error}"
