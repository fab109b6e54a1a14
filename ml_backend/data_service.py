"""What the page "Data" asks for, over HTTP: each a job whose record holds the outcome.

| address | body | answer |
|---|---|---|
| POST `/data/set-up` | `SetUpRequest` | 202 `{"job"}` |
| POST `/data/look`, `/data/import` | `ImportRequest` | 202 `{"job"}` |
| POST `/data/export` | `ExportRequest` | 202 `{"job"}` |
| POST `/data/count` | `CountRequest` | 202 `{"job"}` |

A second one while the first runs is refused with 409.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, Response, abort, jsonify, request

import hpc_jobs
from label_studio_config.folders import folder_below, table_below
from label_studio_config.home import Home, HomeError
from ml_backend.count_project import NO_MODEL, count_project
from ml_backend.data_jobs import (
    TABLES_FOLDER,
    count_key,
    export_data,
    export_key,
    import_data,
    import_key,
    look_key,
    set_up_data,
    set_up_key,
)
from ml_backend.data_messages import CountRequest, ExportRequest, ImportRequest, SetUpRequest
from ml_backend.registry import Registry
from ml_backend.wire import read_message

Answer = tuple[Response, int]


def add_data_service(app: Flask, home: Home) -> None:
    """Register the addresses; they need the user name and password as the others do."""

    @app.post("/data/set-up")
    def set_up() -> Answer:
        asked = read_message(SetUpRequest, _content())
        project = asked.project
        name, key = f"set up project {project}", set_up_key(project)
        return _start(home, set_up_data, project, asked.config, asked.sampling, name=name, key=key)

    @app.post("/data/look")
    def look() -> Answer:
        asked = read_message(ImportRequest, _content())
        name = f"look into {asked.folder or 'the images root'}"
        key = look_key(asked.project)
        return _start_import(home, asked, name=name, key=key, only_look=True)

    @app.post("/data/import", endpoint="import_images")
    def import_images() -> Answer:
        asked = read_message(ImportRequest, _content())
        name = f"import {asked.folder or 'the images root'} into project {asked.project}"
        return _start_import(home, asked, name=name, key=import_key(asked.project))

    @app.post("/data/export")
    def export() -> Answer:
        asked = read_message(ExportRequest, _content())
        some = "" if asked.tasks is None else f"{len(asked.tasks)} images of "
        name = f"export {some}project {asked.project} as {asked.format}"
        key = export_key(asked.project, asked.format)
        work = (asked.project, asked.format, asked.tasks)
        return _start(home, export_data, *work, name=name, key=key)

    @app.post("/data/count")
    def count() -> Answer:
        asked = read_message(CountRequest, _content())
        if Registry(home.models_folder(asked.project)).live is None:
            abort(409, NO_MODEL)
        return _start(
            home,
            count_project,
            asked.project,
            asked.by,
            asked.depth_bin_m,
            asked.control,
            name=f"count project {asked.project} by {asked.by}",
            key=count_key(asked.project),
        )


def _start_import(home: Home, asked: ImportRequest, **options: Any) -> Answer:
    """Refuse at once what a job would refuse after a while."""
    tables = home.kept_folder(TABLES_FOLDER, asked.project)
    try:
        source = folder_below(home.images_root, asked.folder)
        if asked.uploaded is not None:
            table_below(tables, tables, asked.uploaded)
        elif asked.table is not None:
            table_below(source, home.images_root, asked.table)
    except HomeError as error:
        abort(422, str(error))
    return _start(
        home,
        import_data,
        asked.project,
        asked.folder,
        asked.table,
        asked.uploaded,
        asked.blind_share,
        asked.pixel_size_um,
        **options,
    )


def _start(
    home: Home, work: Callable[..., Any], *args: Any, name: str, key: str, **options: Any
) -> Answer:
    running = hpc_jobs.list_jobs(home.jobs_folder, newest=1, keys={key})
    if running and running[0].active:
        abort(409, f"“{running[0].name}” is {running[0].state}: wait for its end, or cancel it")
    submission = hpc_jobs.submit_once(
        work, home.folder, *args, name=name, folder=home.jobs_folder, key=key, **options
    )
    return jsonify(job=submission.job.id), 202


def _content() -> Any:
    content = request.get_json(force=True, silent=True)
    return {} if content is None else content
