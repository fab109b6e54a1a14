"""Work that PostgreSQL broke off to end a deadlock is begun again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection

_MOST_TRIES = 3
_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def persistent(work: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """Work of one transaction, tried three times where it is the victim of a deadlock."""

    @wraps(work)
    def again(*args: _Given.args, **kwargs: _Given.kwargs) -> _Found:
        for _ in range(_MOST_TRIES - 1):
            try:
                return work(*args, **kwargs)
            except OperationalError as error:
                # SQLite has waited for a minute by then.
                if connection.vendor != "postgresql" or "deadlock" not in str(error):
                    raise
        return work(*args, **kwargs)

    return again
