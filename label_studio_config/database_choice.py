"""Which database a home has, from the variables that Label Studio reads.

PostgreSQL with `DJANGO_DB=default` and `POSTGRE_HOST`, `POSTGRE_PORT`, `POSTGRE_USER`,
`POSTGRE_PASSWORD`, `POSTGRE_NAME`; SQLite in the home without them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from label_studio_config.database import Database, DatabaseError, Sqlite
from label_studio_config.home import Home
from label_studio_config.postgresql import PostgreSql

# In the order in which Label Studio looks for them.
_PREFIXES = ("LABEL_STUDIO_", "HEARTEX_", "")


def database_of(home: Home, environment: Mapping[str, str] = os.environ) -> Database:
    """The database that Label Studio would use in this environment.

    Raises
    ------
    DatabaseError
        For another kind of database.
    """
    kind = _setting(environment, "DJANGO_DB", "sqlite")
    if kind == "sqlite":
        name = _setting(environment, "DATABASE_NAME", "label-studio/label_studio.sqlite3")
        return Sqlite(home.folder / name)  # where the servers run
    if kind in ("default", "postgresql"):
        names = ("HOST", "PORT", "USER", "PASSWORD", "NAME")
        defaults = ("localhost", "5432", "postgres", "postgres", "postgres")
        values = zip(names, defaults, strict=True)
        return PostgreSql(*(_setting(environment, f"POSTGRE_{name}", or_) for name, or_ in values))
    raise DatabaseError(
        f"DJANGO_DB={kind} is not supported: set DJANGO_DB=default for PostgreSQL, or unset it "
        "for SQLite"
    )


def require_same_kind(home: Home, database: Database) -> None:
    """Refuse the environment of another kind of database than the home was served with.

    Raises
    ------
    DatabaseError
        A variable that was forgotten would otherwise look like a home without annotations.
    """
    served = home.settings.database
    if served is not None and served != database.kind:
        raise DatabaseError(
            f"the annotations of {home.folder} are in {served}, but the environment says "
            f"{database}: set DJANGO_DB and POSTGRE_* as before, or name another home with --home"
        )


def require_database(home: Home) -> Database:
    """The database of this environment, which must be there and of the kind that the home has.

    Raises
    ------
    DatabaseError
        Whoever opened it would otherwise make an empty one.
    """
    database = database_of(home)
    require_same_kind(home, database)
    if isinstance(database, Sqlite) and not database.file.exists():
        raise DatabaseError(
            f"{home.folder} has no database yet: start it once with `planktrait serve --images "
            "FOLDER`, or name another home with --home"
        )
    return database


def _setting(environment: Mapping[str, str], name: str, default: str) -> str:
    found = (environment.get(prefix + name) for prefix in _PREFIXES)
    return next((value for value in found if value is not None), default)
