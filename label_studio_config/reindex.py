"""Making the gallery's index anew from Label Studio's own tables, whether the server runs or not.

>>> from label_studio_config.home import Home
>>> reindex(Home("home"), "Cruise 7")["projects"]  # doctest: +SKIP
[{'id': 7, 'title': 'Cruise 7', 'tasks': 20000, 'suggestions': 19000}]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from label_studio_config.django_command import DjangoCommandError, run_django
from label_studio_config.home import Home


class ReindexError(RuntimeError):
    """The index was not made anew to its end; the next visit of a gallery goes on with it."""


def reindex(
    home: Home,
    project: str | None = None,
    report: Callable[[str, int, int], object] = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Make the index of one project anew, or of all, and forget projects that are gone.

    Parameters
    ----------
    project : number or title
    report : called as `report(stage, done, total)`, in rows

    Returns
    -------
    dict
        `projects`: of each its id, title, and how many tasks and suggestions are indexed.

    Raises
    ------
    DatabaseError
        As `run_django`.
    ReindexError
    """
    arguments = ["planktrait_reindex", *([f"--project={project}"] if project is not None else [])]
    try:
        return run_django(home, arguments, report)
    except DjangoCommandError as error:
        rest = "" if error.refused else ": the rest follows when the command is repeated"
        raise ReindexError(f"{error}{rest}") from error
