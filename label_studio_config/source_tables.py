"""Tables that come with images (CSV, EcoTaxa's TSV), read as text and checked cell by cell."""

from __future__ import annotations

import csv
import io
import logging
import math
import re
import unicodedata
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd

from label_studio_config.manifest import ManifestError

logger = logging.getLogger(__name__)

ROW = "__row"
"""Column that holds the line of the file, so that a message can name it."""

_TIME = re.compile(r"(\d{1,2}):?(\d{2}):?(\d{2})(?:\.\d+)?Z?")


def read_text_table(path: Path, delimiter: str | None = None) -> pd.DataFrame:
    """Read a delimited file with every cell as stripped text, None where it is empty.

    Parameters
    ----------
    delimiter
        None finds it among comma, semicolon and tab in the header.

    Raises
    ------
    ManifestError
        The file is absent or empty, a column stands twice, or a row has too many cells.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        logger.warning("%s is not UTF-8; read as Latin-1", path)
        text = raw.decode("latin-1")
    if "\0" in text:
        raise ManifestError(f"{path} is not a text file: save the table as CSV in UTF-8")
    if delimiter is None:
        header_line = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=header_line.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(lines, [])]
    if not any(header):
        raise ManifestError(f"{path} is empty: its first line must name the columns")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise ManifestError(f"{path}: column {twice!r} stands twice: rename or drop one")
    rows = []
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            raise ManifestError(
                f"{path}, line {lines.line_num}: {len(cells)} cells under {len(header)} columns; "
                "quote cells that hold the separator"
            )
        cells = [cell.strip() or None for cell in cells[: len(header)]]  # type: ignore[misc]
        rows.append(cells + [None] * (len(header) - len(cells)) + [lines.line_num])
    table = pd.DataFrame(rows, columns=[*header, ROW], dtype=object)
    return table.drop(columns=[name for name in table.columns if not name])


def same_name(name: str) -> str:
    """A file name in one form: POSIX separators, composed Unicode (macOS decomposes it)."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    return name.removeprefix("./")


def number_column(table: pd.DataFrame, column: str, where: Path) -> pd.Series:
    """A column as numbers; empty cells become NaN.

    Raises
    ------
    ManifestError
        A cell is not a number, or cannot be one (latitude 95, pixel size 0); names the line.
    """
    return pd.Series(
        [
            _number(cell, column, where, line)
            for cell, line in zip(table[column], table[ROW], strict=True)
        ],
        index=table.index,
        dtype=float,
    )


_LIMITS = {"lat": (-90.0, 90.0), "lon": (-180.0, 360.0)}


def _number(cell: str | None, column: str, where: Path, line: int) -> float:
    if cell is None or cell.lower() in {"na", "nan", "null"}:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        raise ManifestError(
            f"{where}, line {line}: {column} is {cell!r}, not a number (decimal point, no unit)"
        ) from None
    low, high = _LIMITS.get(column, (-math.inf, math.inf))
    if not math.isfinite(value):
        raise ManifestError(f"{where}, line {line}: {column} is {cell}, not a finite number")
    if not low <= value <= high:
        raise ManifestError(f"{where}, line {line}: {column} is {cell}, outside {low} to {high}")
    if column == "pixel_size_um" and value <= 0:
        raise ManifestError(
            f"{where}, line {line}: pixel_size_um is {cell}; leave it empty where it is unknown"
        )
    return value


def iso_time(cell: str | None, where: Path, line: int) -> str | None:
    """A moment in ISO 8601 as it is given (`2016-06-09T21:32:13+00:00`, `2016-06-09`).

    Raises
    ------
    ManifestError
        Any other form: 09/06/2016 is June for some and September for others.
    """
    if cell is None:
        return None
    try:
        if len(cell) in (8, 10):
            return date.fromisoformat(cell).isoformat()
        return datetime.fromisoformat(cell).isoformat()
    except ValueError:
        raise ManifestError(
            f"{where}, line {line}: captured_at is {cell!r}; write it in ISO 8601, "
            "e.g. 2016-06-09T21:32:13Z or 2016-06-09"
        ) from None


def ecotaxa_time(day: str | None, time: str | None, where: Path, line: int) -> str | None:
    """EcoTaxa's `object_date` (YYYYMMDD) and `object_time` (HHMMSS, UTC) in ISO 8601.

    A time without its leading zeros (`93015`, from a spreadsheet) is understood.

    Raises
    ------
    ManifestError
        No such day or time; names the line.
    """
    if day is None:
        return None
    try:
        captured = date.fromisoformat(day)
        if time is None:
            return captured.isoformat()
        digits = time.zfill(6) if time.isdigit() else time
        match = _TIME.fullmatch(digits)
        if match is None:
            raise ValueError(time)
        hour, minute, second = (int(part) for part in match.groups())
        moment = datetime(
            captured.year, captured.month, captured.day, hour, minute, second, tzinfo=UTC
        )
    except ValueError:
        raise ManifestError(
            f"{where}, line {line}: object_date {day!r} and object_time {time!r} are no moment; "
            "EcoTaxa writes YYYYMMDD and HHMMSS"
        ) from None
    return moment.isoformat()
