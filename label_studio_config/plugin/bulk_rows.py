"""Many new rows at once, several times as fast as Django's `bulk_create`: no objects, no signals.

Ids are known before the rows are written, so that rows of several tables can name each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from django.db import connection, models
from django.utils import timezone


class JsonError(ValueError):
    """A value that a database refuses as JSON; the message says what is wrong with it."""


def json_text(value: Any) -> str:
    """A value as JSON that SQLite and PostgreSQL take.

    Raises
    ------
    JsonError
        NaN or infinity, a letter that is no text (NUL, half of a surrogate pair), or an object
        that JSON has not.
    """
    try:
        text = orjson.dumps(value).decode()
        if "null" in text:
            # orjson writes NaN so.
            json.dumps(value, allow_nan=False)
    except TypeError as error:
        raise JsonError(str(error)) from error
    except ValueError as error:
        raise JsonError("a number is NaN or infinite") from error
    if "\\u0000" in text:
        raise JsonError("a text holds a NUL character")
    return text


def new_ids(model: type[models.Model], count: int) -> range | list[int]:
    """Ids that nobody else is given, ascending; within a transaction that writes."""
    table, column = model._meta.db_table, model._meta.pk.column
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)",
                [f'"{table}"', column, count],
            )
            return sorted(row[0] for row in cursor.fetchall())
        # The transaction holds the only lock to write.
        cursor.execute(f'SELECT coalesce(max("{column}"), 0) FROM "{table}"')
        highest = cursor.fetchone()[0]
        cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
        given = cursor.fetchone()
    start = max(highest, given[0] if given else 0) + 1
    return range(start, start + count)


def insert(
    model: type[models.Model], columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Insert rows; the columns that are not given have the model's defaults.

    Parameters
    ----------
    columns : names of the model's fields as in the database (`task_id`)
    rows : values in the order of `columns`, as the database takes them: JSON as text, a moment as
        `moment` makes it
    """
    fields = {field.attname: field for field in model._meta.concrete_fields}
    others = [field for name, field in fields.items() if name not in columns and not _is_own(field)]
    rest = tuple(_default(field) for field in others)
    names = [fields[name].column for name in columns] + [field.column for field in others]
    listed = ", ".join(f'"{name}"' for name in names)
    table = model._meta.db_table
    full = ((*row, *rest) for row in rows)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f'COPY "{table}" ({listed}) FROM STDIN') as copy:
                for row in full:
                    copy.write_row(row)
        else:
            values = ", ".join(["%s"] * len(names))
            cursor.executemany(f'INSERT INTO "{table}" ({listed}) VALUES ({values})', full)


def moment(when: Any) -> Any:
    """A time as `insert` and `executemany` take it."""
    return connection.ops.adapt_datetimefield_value(when)


def _is_own(field: Any) -> bool:
    """Whether the database itself fills the column."""
    return bool(field.primary_key and isinstance(field, models.AutoField | models.BigAutoField))


def _default(field: Any) -> Any:
    if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
        return moment(timezone.now())
    value = field.get_default()
    if isinstance(field, models.JSONField):
        return None if value is None else json_text(value)
    return field.get_db_prep_save(value, connection)
