"""Annotations and predictions of a project as a data set: JSON, CSV, Parquet or COCO."""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from export_tools.coco import CocoBuilder, ImageSize
from export_tools.geometry import FORMULAS
from export_tools.rows import Row, rows_of_task
from export_tools.saved_export import ExportError
from export_tools.tables import (
    DICTIONARY_COLUMNS,
    arrow_table,
    data_dictionary,
    json_row,
    write_csv,
    write_parquet,
)
from label_studio_config.schema import LabelSchema

logger = logging.getLogger(__name__)

FORMATS = ("json", "csv", "parquet", "coco")
_CHUNK = 2000


@dataclass(frozen=True)
class SkippedTask:
    """A task that could not be read, and why."""

    task: str
    reason: str


@dataclass
class ExportReport:
    """What was written, and what could not be.

    `problems` are parts of annotations that do not fit the config and were left out; `notes` say
    what the reader of the file should know.
    """

    path: Path
    format: str
    images: int = 0
    rows: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    not_counted: Counter[str] = field(default_factory=Counter)
    skipped: list[SkippedTask] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dictionary: Path | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """The report in a few lines, for people."""
        facts: dict[str, Any] = {"written": self.path, "images": self.images, "rows": self.rows}
        facts |= {f"rows {status}": count for status, count in sorted(self.by_status.items())}
        facts |= dict(sorted(self.not_counted.items()))
        if self.dictionary is not None:
            facts["data dictionary"] = self.dictionary
        for name in ("skipped", "problems"):
            found = getattr(self, name)
            if found:
                facts[name] = f"{len(found)}, e.g. {found[0]}"
        if self.notes:
            facts["note"] = "; ".join(self.notes)
        return facts


def export_tasks(
    tasks: Iterable[dict[str, Any]],
    schema: LabelSchema,
    format: str,
    out: Path | str,
    *,
    suggestions_shown: bool = True,
    model_version: str | None = None,
    image_size: ImageSize | None = None,
    total: int | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> ExportReport:
    """Write annotations and predictions to one file, replaced only when it is complete.

    Parameters
    ----------
    tasks
        As in a Label Studio JSON export, `predictions` in full (or as ids: then only predictions
        that annotators saw are known).
    format
        "csv" and "parquet": a row an image and annotator (see `export_tools.tables`); "json": the
        same rows, nested; "coco": see `export_tools.coco`. The tables get a data dictionary
        beside them, `<name>.dictionary.csv`.
    suggestions_shown
        Whether the project shows predictions to annotators.
    model_version
        Whose predictions to export; by default each image's newest.
    image_size
        For COCO: from an image's address to (width, height), where nothing was marked on it.
    total, report
        Number of tasks if known, and who is told of the progress as
        `report(stage, done, total)`.

    Raises
    ------
    ExportError
        An unknown format, or a file that cannot be written.
    """
    if format not in FORMATS:
        raise ExportError(f"no format {format!r}: choose one of {', '.join(FORMATS)}")
    out = Path(out)
    if total is None and isinstance(tasks, (list, tuple)):
        total = len(tasks)
    result = ExportReport(out, format)
    chunks = _read(tasks, schema, result, suggestions_shown, model_version, total, report)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.{os.getpid()}")
        try:
            _WRITERS[format](chunks, schema, temporary, result, image_size)
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror}") from error
    _tell(result)
    return result


def _read(
    tasks: Iterable[dict[str, Any]],
    schema: LabelSchema,
    result: ExportReport,
    suggestions_shown: bool,
    model_version: str | None,
    total: int | None,
    report: Callable[[str, int, int], None] | None,
) -> Iterator[list[list[Row]]]:
    """Rows of tasks in chunks; a task that cannot be read is listed and skipped."""
    chunk: list[list[Row]] = []
    shown = tqdm(tasks, total=total, desc="export", unit="task", disable=not sys.stderr.isatty())
    for done, task in enumerate(shown, start=1):
        try:
            rows = rows_of_task(
                schema,
                task,
                suggestions_shown=suggestions_shown,
                model_version=model_version,
                problems=result.problems,
            )
        except Exception as error:  # one bad task never stops the others
            name = task.get("id") if isinstance(task, dict) else task
            result.skipped.append(
                SkippedTask(str(name)[:80], f"{type(error).__name__}: {error}"[:200])
            )
            continue
        result.images += 1
        result.rows += len(rows)
        result.by_status.update(row.status for row in rows)
        _count(task, rows, result)
        chunk.append(rows)
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
            logger.info("exported %d tasks", done)
        if report is not None and (done % 100 == 0 or done == total):
            report("export", done, total or done)
    if chunk:
        yield chunk


def _count(task: dict[str, Any], rows: list[Row], result: ExportReport) -> None:
    annotations = task.get("annotations") or []
    cancelled = sum(bool(annotation.get("was_cancelled")) for annotation in annotations)
    written = sum(bool(row.annotator) for row in rows)
    for name, count in (
        ("skipped by annotators", cancelled),
        ("older annotations by the same person", len(annotations) - cancelled - written),
        ("predictions given as ids only", _id_only(task)),
    ):
        if count:
            result.not_counted[name] += count


def _id_only(task: dict[str, Any]) -> int:
    return sum(not isinstance(p, dict) for p in task.get("predictions") or [])


def _tell(result: ExportReport) -> None:
    if result.not_counted["predictions given as ids only"]:
        result.notes.append(
            "the export gives predictions as ids only: export from the server to have them"
        )
    for skipped in result.skipped[:20]:
        logger.warning("skipped task %s: %s", skipped.task, skipped.reason)
    for problem in result.problems[:20]:
        logger.warning("left out: %s", problem)
    logger.info("wrote %d rows of %d images to %s", result.rows, result.images, result.path)


def _write_json(
    chunks: Iterator[list[list[Row]]],
    schema: LabelSchema,
    path: Path,
    result: ExportReport,
    image_size: ImageSize | None,
) -> None:
    with path.open("w", encoding="utf-8") as file:
        opened = "["
        for chunk in chunks:
            for row in (row for rows in chunk for row in rows):
                file.write(opened + "\n" + json.dumps(json_row(schema, row), ensure_ascii=False))
                opened = ","
        file.write("[]\n" if opened == "[" else "\n]\n")
    _write_dictionary(data_dictionary(schema, arrow_table(schema, [])), result)


def _write_table(
    chunks: Iterator[list[list[Row]]],
    schema: LabelSchema,
    path: Path,
    result: ExportReport,
    image_size: ImageSize | None,
) -> None:
    tables = [arrow_table(schema, [])]
    tables += [arrow_table(schema, [row for rows in chunk for row in rows]) for chunk in chunks]
    # Chunks differ only in the further columns that their sources had.
    table = pa.concat_tables(tables, promote_options="default")
    if result.format == "csv":
        write_csv(table, path)
    else:
        note = {"schema_fingerprint": schema.fingerprint, "formulas": FORMULAS}
        write_parquet(table, path, note)
    _write_dictionary(data_dictionary(schema, table), result)


def _write_coco(
    chunks: Iterator[list[list[Row]]],
    schema: LabelSchema,
    path: Path,
    result: ExportReport,
    image_size: ImageSize | None,
) -> None:
    builder = CocoBuilder(schema, image_size)
    for chunk in chunks:
        for rows in chunk:
            builder.add(rows)
    result.problems += builder.problems
    if builder.without_size:
        result.notes.append(f"{builder.without_size} images without a known size: 0 × 0 px")
    with path.open("w", encoding="utf-8") as file:
        json.dump(builder.dataset(), file, ensure_ascii=False)


_WRITERS = {
    "json": _write_json,
    "csv": _write_table,
    "parquet": _write_table,
    "coco": _write_coco,
}


def _write_dictionary(dictionary: list[dict[str, str]], result: ExportReport) -> None:
    path = result.path.with_suffix(".dictionary.csv")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, DICTIONARY_COLUMNS)
        writer.writeheader()
        writer.writerows(dictionary)
    temporary.replace(path)
    result.dictionary = path
