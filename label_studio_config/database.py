"""What a home's database can do for a backup; SQLite. PostgreSQL is in `postgresql.py`.

Dumps are of one moment, also while people annotate.
"""

from __future__ import annotations

import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Report = Callable[[str, int, int], None]
"""Told of the progress as `report(stage, done, total)`."""

COUNTED = {
    "projects": "project",
    "images": "task",
    "annotations": "task_completion",
    "suggestions": "prediction",
    "people": "htx_user",
}
_PAGES_A_STEP = 4096


class DatabaseError(ValueError):
    """A database that cannot be reached, dumped or filled; the message says what to do."""


class Database(ABC):
    """One home's database.

    Attributes
    ----------
    kind : "SQLite" or "PostgreSQL"
    dump_name : file name of its dump
    """

    kind: str
    dump_name: str

    @abstractmethod
    def __str__(self) -> str:
        """Kind and place, without the password."""

    @abstractmethod
    def require_reachable(self) -> None:
        """Raise `DatabaseError` if it cannot be opened."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Whether it holds no table."""

    @abstractmethod
    def dump(self, file: Path, report: Report) -> dict[str, int]:
        """Write a dump; how many projects, images, … are in it.

        Raises
        ------
        DatabaseError
            It cannot be dumped, or is not Label Studio's.
        """

    @abstractmethod
    def fill(self, dump: Path, report: Report) -> None:
        """Hold what a dump holds, and nothing else; all of it or, after an error, as before."""

    def owns(self, file: Path) -> bool:
        """Whether a file is the database's own, and is copied by `dump` only."""
        return False

    @abstractmethod
    def count(self) -> dict[str, int]:
        """How many projects, images, annotations, suggestions and people there are."""


@dataclass(frozen=True)
class Sqlite(Database):
    """A file of the home."""

    file: Path
    kind = "SQLite"
    dump_name = "database.sqlite3"

    def __str__(self) -> str:
        return f"SQLite in {self.file}"

    def require_reachable(self) -> None:
        """It is made where it is missing."""

    def is_empty(self) -> bool:
        return not self.file.exists()

    def dump(self, file: Path, report: Report) -> dict[str, int]:
        if not self.file.exists():
            raise DatabaseError(
                f"there is no database {self.file}: for PostgreSQL set DJANGO_DB and POSTGRE_* as "
                "for `planktrait serve`, for another home give --home"
            )
        with _sqlite(self.file) as source, _sqlite(file) as copy:
            # A reader's snapshot: without it each write of the server starts the copy anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(
                copy,
                pages=_PAGES_A_STEP,
                progress=lambda _, left, total: report("database", total - left, total),
            )
            # One file, without a write-ahead log beside it.
            copy.execute("PRAGMA journal_mode=DELETE")
            return counts_of(copy, self)

    def owns(self, file: Path) -> bool:
        return file.parent == self.file.parent and file.name.startswith(self.file.name)

    def fill(self, dump: Path, report: Report) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(f".{self.file.name}.partial")
        shutil.copyfile(dump, partial)
        partial.chmod(0o600)
        for suffix in ("-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        partial.replace(self.file)
        report("database", 1, 1)

    def count(self) -> dict[str, int]:
        with _sqlite(self.file) as opened:
            return counts_of(opened, self)


@contextmanager
def _sqlite(file: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(file, isolation_level=None, timeout=60)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise DatabaseError(f"SQLite in {file} cannot be read or copied: {error}") from error


def counts_of(connection: Any, database: Database) -> dict[str, int]:
    """How many rows each table of `COUNTED` has; the connection is sqlite3's or psycopg's."""
    try:
        return {
            name: int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
            for name, table in COUNTED.items()
        }
    except Exception as error:
        raise DatabaseError(
            f"{database} is not Label Studio's, or `planktrait serve` never ran on it ({error})"
        ) from error
