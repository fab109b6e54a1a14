"""Tasks of a running Label Studio, with annotations and predictions, page by page."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from label_studio_config.api import Api, ApiError
from label_studio_config.home import Home

logger = logging.getLogger(__name__)

PAGE_SIZE = 500
_TIMEOUT_S = 300


class LabelStudioError(RuntimeError):
    """Label Studio did not answer as expected; names the address and the remedy."""


def fetch_tasks(
    home: Home,
    project_id: int,
    *,
    annotated_only: bool = False,
    page_size: int = PAGE_SIZE,
    full: bool = True,
    filters: Iterable[dict[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """The tasks of a project in the order of their ids, as in a JSON export.

    Each has `data`, `annotations` (`completed_by` with id and email, `prediction` the suggestion
    that was shown) and `predictions` in full, which Label Studio's JSON export gives as ids only.

    Parameters
    ----------
    full
        False for `data` and counters only: much quicker, `annotations` and `predictions` are empty.
    filters
        Further filters, as the Data Manager writes them.

    Raises
    ------
    LabelStudioError
        The server cannot be reached, or there is no such project.
    """
    emails = _emails(home) if full else {}
    last_id = 0
    while True:
        # Paging by id: a page number would skip or repeat tasks when others are added meanwhile.
        query = _query(last_id, annotated_only, filters)
        parameters = {
            "project": project_id,
            "fields": "all" if full else "task_only",
            "page_size": page_size,
            "query": json.dumps(query),
        }
        page = _get(home, "/api/tasks/", parameters)["tasks"]
        for task in page:
            suggestions = {found["id"]: found for found in task.get("predictions") or []}
            for annotation in task.get("annotations") or []:
                # What the annotator saw: a JSON export has a copy of it, this list its id only.
                shown = suggestions.get(annotation.get("parent_prediction"), {})
                annotation.setdefault("prediction", shown)
                user_id = annotation.get("completed_by")
                if isinstance(user_id, int):
                    annotation["completed_by"] = {"id": user_id, "email": emails.get(user_id, "")}
            yield task
        if len(page) < page_size:
            return
        last_id = page[-1]["id"]


def fetch_project(home: Home, project_id: int) -> dict[str, Any]:
    """A project as Label Studio's API gives it (`label_config`, `title`, `model_version`, …)."""
    return _get(home, f"/api/projects/{project_id}/", {})


def find_project(home: Home, name_or_id: str | int) -> dict[str, Any]:
    """The project of that id or title.

    Raises
    ------
    LabelStudioError
        There is none, or several have this title; the message lists what there is.
    """
    if str(name_or_id).isdigit():
        return fetch_project(home, int(name_or_id))
    projects = _get(home, "/api/projects/", {"page_size": 1000})["results"]
    found = [project for project in projects if project["title"] == name_or_id]
    if len(found) != 1:
        listed = ", ".join(f"{p['id']}: {p['title']}" for p in projects) or "none"
        several = "several projects are" if found else "no project is"
        raise LabelStudioError(f"{several} named {name_or_id!r}; give an id. Projects: {listed}")
    return fetch_project(home, found[0]["id"])


def _query(last_id: int, annotated_only: bool, filters: Iterable[dict[str, Any]]) -> dict[str, Any]:
    items = [_greater("id", last_id), *filters]
    if annotated_only:
        items.append(_greater("total_annotations", 0))
    return {"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]}


def _greater(column: str, value: int) -> dict[str, Any]:
    return {
        "filter": f"filter:tasks:{column}",
        "operator": "greater",
        "type": "Number",
        "value": value,
    }


def _emails(home: Home) -> dict[int, str]:
    return {user["id"]: user["email"] for user in _get(home, "/api/users/", {})}


def _get(home: Home, path: str, parameters: dict[str, Any]) -> Any:
    try:
        return Api(home, _TIMEOUT_S).get(path, **parameters)
    except ApiError as error:
        raise LabelStudioError(str(error)) from error
