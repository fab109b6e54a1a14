"""The Data Manager's tabs: all images, least certain first, suggested, annotated, blind."""

from __future__ import annotations

from typing import Any

from label_studio_config.api import Api

_HIDDEN = [
    f"tasks:{column}"
    for column in (
        "inner_id",
        "completed_at",
        "cancelled_annotations",
        "annotations_results",
        "annotations_ids",
        "predictions_model_versions",
        "predictions_results",
        "file_upload",
        "storage_filename",
        "created_at",
        "updated_at",
        "updated_by",
        "avg_lead_time",
        "draft_exists",
        "state",
    )
]


def _tab(
    title: str, *filters: dict[str, Any], ordering: str | None = None, grid: bool = False
) -> dict[str, Any]:
    return {
        "title": title,
        "type": "grid" if grid else "list",
        "target": "tasks",
        "gridWidth": 6,
        "hiddenColumns": {"explore": _HIDDEN, "labeling": _HIDDEN},
        "ordering": [ordering] if ordering else [],
        "filters": {"conjunction": "and", "items": list(filters)},
    }


def _number(column: str, operator: str, value: int) -> dict[str, Any]:
    return {
        "filter": f"filter:tasks:{column}",
        "operator": operator,
        "type": "Number",
        "value": value,
    }


_BLIND = {
    "filter": "filter:tasks:data.blind",
    "operator": "equal",
    "type": "String",
    "value": "yes",
}


def tabs() -> list[dict[str, Any]]:
    """The definitions, in the order in which they stand."""
    suggested = _number("total_predictions", "greater", 0)
    return [
        _tab("All"),
        _tab("Least certain first", suggested, ordering="tasks:predictions_score"),
        _tab("Suggested", suggested, _number("total_annotations", "equal", 0)),
        _tab("Annotated", _number("total_annotations", "greater", 0)),
        _tab("Blind", _BLIND),
    ]


def ensure_tabs(api: Api, project_id: int) -> tuple[int, ...]:
    """Create the tabs that a project lacks, by title; people may have rearranged the others.

    Returns
    -------
    tuple of int
        Their ids, in order.
    """
    existing = {
        view["data"].get("title"): int(view["id"])
        for view in api.get("/api/dm/views/", project=project_id)
    }
    ids = []
    for order, tab in enumerate(tabs()):
        title = tab["title"]
        if title not in existing:
            body = {"project": project_id, "data": tab, "order": order}
            existing[title] = int(api.post("/api/dm/views/", body)["id"])
        ids.append(existing[title])
    return tuple(ids)
