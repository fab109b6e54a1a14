"""Data Manager action: the selected images, with what was said about them, as a file."""

from __future__ import annotations

from typing import Any

from core.permissions import AllPermissions
from data_manager.actions import register_action
from django.db.models import QuerySet
from projects.models import Project

from label_studio_config.plugin import backend
from label_studio_config.words import counted

FORMATS = {
    "CSV table": "csv",
    "JSON": "json",
    "COCO": "coco",
    "Parquet table": "parquet",
}


def register() -> None:
    """Offer the action in every project's Data Manager."""
    names = list(FORMATS)
    field = {"type": "select", "name": "format", "label": "Format", "options": names}
    register_action(
        export_selection,
        "Export selection …",
        order=97,
        # As the page "Data": what is exported is kept on the server.
        permission=AllPermissions().projects_change,
        dialog={
            "title": "Export selection",
            "text": "Traits, votes and suggestions of the selected images, one row an image and "
            "annotator, as a job. The file is fetched from the page Data.",
            "type": "confirm",
            "form": [{"columnCount": 1, "fields": [{**field, "value": names[0]}]}],
        },
    )


def export_selection(project: Project, queryset: QuerySet, **kwargs: Any) -> dict[str, Any]:
    """Start the export of the selected tasks; the action of that name."""
    asked = str(kwargs["request"].data.get("format") or next(iter(FORMATS)))
    format = FORMATS.get(asked, asked)
    if format not in FORMATS.values():
        detail = f"{asked!r} is no format: choose one of {', '.join(FORMATS)}"
        return {"processed_items": 0, "detail": detail, "response_code": 422}
    ids = list(queryset.order_by("id").values_list("id", flat=True))
    body = {"project": project.id, "format": format, "tasks": ids}
    try:
        job = backend.ask("POST", "data/export", json=body)["job"]
    except backend.BackendError as error:
        return {"processed_items": 0, "detail": str(error), "response_code": error.status}
    address = f"/planktrait/projects/{project.id}/data#export"
    images = counted(len(ids), "image")
    return {
        "processed_items": len(ids),
        "detail": f"The export of {images} has started (job {job}): see {address}",
        "reload": False,
        "address": address,
    }
