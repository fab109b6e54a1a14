"""A project on the server as a data set: its config, its tasks and its image sizes to one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from export_tools.coco import sizes_from_files
from export_tools.export import ExportReport, export_tasks
from label_studio_config.home import Home
from label_studio_config.schema import LabelSchema
from label_studio_config.server_tasks import fetch_project, fetch_some_tasks, fetch_tasks


def export_project(
    home: Home,
    project_id: int,
    format: str,
    out: Path | str,
    *,
    ids: Sequence[int] | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> ExportReport:
    """Write a project's annotations and predictions to one file, replaced when it is complete.

    Parameters
    ----------
    format : "csv", "parquet", "json" or "coco", see `export_tasks`
    ids : only these tasks
    report : told of the progress as `report(stage, done, total)`

    Raises
    ------
    ExportError
        As `export_tasks`.
    SchemaError
        The project's config cannot be read.
    ApiError
        Label Studio cannot be reached, or has no such project.
    """
    project = fetch_project(home, project_id)
    total = project.get("task_number") if ids is None else len(ids)
    return export_tasks(
        fetch_tasks(home, project_id) if ids is None else fetch_some_tasks(home, project_id, ids),
        LabelSchema.from_xml(project["label_config"]),
        format,
        out,
        suggestions_shown=bool(project.get("show_collab_predictions", True)),
        image_size=sizes_from_files(home.resolve_image),
        total=total,
        report=report,
    )
