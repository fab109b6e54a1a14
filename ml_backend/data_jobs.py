"""What the page "Data" has done, as jobs: set up, look at a source, import it, export, count.

Plain functions around what the command line calls too; their answers are kept in the record of the
job, so they are short.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_jobs import progress
from label_studio_config.folders import folder_below, table_below
from label_studio_config.home import Home
from label_studio_config.kept_files import keep
from label_studio_config.manifest import Skipped
from label_studio_config.project import set_up_project
from label_studio_config.source_import import SourceReport, import_source
from ml_backend.registry import Registry

logger = logging.getLogger(__name__)

EXPORTS_FOLDER = "exports"
TABLES_FOLDER = "tables"
FORMATS = ("csv", "json", "coco", "parquet")
LISTED = 30
LONGEST_REASON = 160
COLUMNS_LISTED = 40


class DataJobError(ValueError):
    """What was asked for cannot be done; the message names the item and the remedy."""


def set_up_key(project_id: int) -> str:
    """The job key under which a project is set up one at a time."""
    return f"set up project {project_id}"


def look_key(project_id: int) -> str:
    """The job key under which a source of images is looked at one at a time."""
    return f"look for project {project_id}"


def import_key(project_id: int) -> str:
    """The job key under which images come into a project one import at a time."""
    return f"import project {project_id}"


def export_key(project_id: int, format: str) -> str:
    """The job key under which a project is exported to a format one at a time."""
    return f"export project {project_id} {format}"


def count_key(project_id: int) -> str:
    """The job key under which a project is counted one at a time."""
    return f"count project {project_id}"


def data_keys(project_id: int) -> set[str]:
    """The keys of all jobs that the page "Data" of a project starts."""
    keys = {key(project_id) for key in (set_up_key, look_key, import_key, count_key)}
    return keys | {export_key(project_id, format) for format in FORMATS}


def set_up_data(
    home_folder: str | Path, project_id: int, config: str | None, sampling: str | None
) -> dict[str, Any]:
    """As `set_up_project`; what it connected, for the record of the job."""
    progress.report("set up", 0, 0)
    home = Home(home_folder)
    found = set_up_project(home, project_id, config, sampling=sampling)
    if found.backend_id is not None:
        live = Registry(home.models_folder(project_id)).live
        if live is not None:
            # Adding a backend makes its title the version by which Label Studio sorts.
            from label_studio_config.api import Api

            path = f"/api/planktrait/projects/{project_id}/model-version"
            Api(home).post(path, {"model_version": live.name})
    return {
        "controls": [control.name for control in found.schema.controls],
        "images_folder": found.storage_id is not None,
        "backend": found.backend_id is not None,
        "tabs": len(found.tab_ids),
    }


def import_data(
    home_folder: str | Path,
    project_id: int,
    folder: str,
    table: str | None = None,
    uploaded: str | None = None,
    blind_share: float = 0.0,
    pixel_size_um: float | None = None,
    only_look: bool = False,
) -> dict[str, Any]:
    """Import a folder below the images root, as `import_source`; or look what that would add.

    Parameters
    ----------
    folder : relative to the images root
    table : metadata in the folder, by its name relative to it
    uploaded : instead, the name of a table among those that were uploaded for the project

    Raises
    ------
    FolderError
        The folder or the table lies outside the root, or is not there.
    DataJobError
        As `import_source`, without the server's own paths.
    """
    home = Home(home_folder)
    source = folder_below(home.images_root, folder)
    tables = home.kept_folder(TABLES_FOLDER, project_id)
    metadata = None
    if uploaded is not None:
        metadata = table_below(tables, tables, uploaded)
    elif table is not None:
        metadata = table_below(source, home.images_root, table)
    with _without_paths(home.images_root.resolve(), tables.resolve()):
        found = import_source(
            home,
            project_id,
            source,
            metadata,
            pixel_size_um=pixel_size_um,
            blind_share=blind_share,
            only_look=only_look,
            report=progress.report,
        )
    for skip in found.skipped:
        logger.warning("skipped %s: %s", skip.path, skip.reason)
    return _told(folder, found)


def export_data(
    home_folder: str | Path, project_id: int, format: str, ids: list[int] | None = None
) -> dict[str, Any]:
    """Export a project, as `export_project`, into a folder of the home that people fetch it from.

    Parameters
    ----------
    ids : list of int, optional
        Only these tasks.

    Raises
    ------
    ExportError, SchemaError, ApiError
        As `export_project`.
    """
    from export_tools import export_project

    home = Home(home_folder)
    progress.report("export", 0, 0)

    def make(folder: Path) -> dict[str, Any]:
        extension = "coco.json" if format == "coco" else format
        out = folder / f"project-{project_id}.{extension}"
        report = export_project(home, project_id, format, out, ids=ids, report=progress.report)
        return {
            "format": format,
            "images": report.images,
            "rows": report.rows,
            "skipped": len(report.skipped),
            "problems": report.problems[:LISTED],
            "notes": report.notes,
        }

    kept = keep(home.kept_folder(EXPORTS_FOLDER, project_id), format, make)
    return {"kept": kept, "format": format}


def _told(folder: str, found: SourceReport) -> dict[str, Any]:
    report, skipped = found.report, found.skipped
    return {
        "folder": folder,
        "new": report.added,
        "present": report.present,
        "blind": report.blind,
        "skipped": len(skipped),
        "listed": [_in_short(skip) for skip in skipped[:LISTED]],
        "known_columns": found.known_columns,
        "other_columns": found.other_columns[:COLUMNS_LISTED],
    }


def _in_short(skip: Skipped) -> list[str]:
    return [skip.path[-LONGEST_REASON:], skip.reason[:LONGEST_REASON]]


@contextmanager
def _without_paths(*folders: Path) -> Iterator[None]:
    """Errors that name what is below these folders by their path from there."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        for folder in folders:
            text = text.replace(f"{folder}/", "")
        raise DataJobError(text) from error
