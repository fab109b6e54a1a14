"""Tasks of a running Label Studio, with annotations and predictions, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from label_studio_config.api import Api
from label_studio_config.home import Home

PAGE_SIZE = 500
IDS_A_PAGE = 300
"""They stand in the address, which a web server cuts off at 4,000 characters."""
_TIMEOUT_S = 300


def fetch_tasks(
    home: Home,
    project_id: int,
    *,
    annotated_only: bool = False,
    unannotated_only: bool = False,
    missing_version: str | None = None,
    page_size: int = PAGE_SIZE,
    full: bool = True,
) -> Iterator[dict[str, Any]]:
    """The tasks of a project in the order of their ids, as in a JSON export.

    Each has `data`, `annotations` (`completed_by` with id and email, `prediction` a copy of the
    suggestion that was shown) and `predictions` in full, which Label Studio's JSON export gives as
    ids only. Tasks that are added meanwhile neither shift nor repeat others.

    Parameters
    ----------
    annotated_only, unannotated_only
        Only tasks with annotations, or without; a skip is none.
    missing_version
        Only tasks that have no suggestion of this model version.
    full
        False for `data` and counters only: much quicker, `annotations` and `predictions` are empty.

    Raises
    ------
    ApiError
        The server cannot be reached, or there is no such project.
    """
    api = Api(home, _TIMEOUT_S)
    parameters: dict[str, Any] = {"limit": page_size, "full": int(full), "after": 0}
    if annotated_only or unannotated_only:
        parameters["annotated"] = int(annotated_only)
    if missing_version is not None:
        parameters["missing_version"] = missing_version
    while True:
        page = api.get(f"/api/planktrait/projects/{project_id}/tasks", **parameters)["tasks"]
        yield from page
        if len(page) < page_size:
            return
        parameters["after"] = page[-1]["id"]


def fetch_some_tasks(
    home: Home,
    project_id: int,
    ids: Sequence[int],
    *,
    missing_version: str | None = None,
    full: bool = True,
) -> Iterator[dict[str, Any]]:
    """Some tasks of a project, as from `fetch_tasks`, in the order of their ids.

    Parameters
    ----------
    missing_version
        Only those that have no suggestion of this model version.

    Raises
    ------
    ApiError
        The server cannot be reached, or there is no such project.
    """
    api = Api(home, _TIMEOUT_S)
    wanted = sorted(set(ids))
    more = {} if missing_version is None else {"missing_version": missing_version}
    for start in range(0, len(wanted), IDS_A_PAGE):
        asked = ",".join(map(str, wanted[start : start + IDS_A_PAGE]))
        path = f"/api/planktrait/projects/{project_id}/tasks"
        yield from api.get(path, ids=asked, limit=IDS_A_PAGE, full=int(full), **more)["tasks"]


def fetch_project(home: Home, project_id: int) -> dict[str, Any]:
    """A project as Label Studio's API gives it (`label_config`, `title`, `model_version`, …)."""
    project: dict[str, Any] = Api(home, _TIMEOUT_S).get(f"/api/projects/{project_id}/")
    return project
