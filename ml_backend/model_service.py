"""What people want to see of a project's model in the browser: versions, reports, jobs and logs.

| address | body | answer |
|---|---|---|
| GET `/models` | `?project=` | `{"live", "promoted_at", "versions"}`, newest first |
| GET `/models/<version>/report` | `?project=` | its page, HTML |
| POST `/models/<version>/promote` | project | `{"live", "job"}`: its suggestions come as a job |
| POST `/suggest` | project, perhaps `tasks` (ids) | 202 `{"job", "coalesced"}` |
| POST `/act` | project, order, tasks (ids), verb | 202 `{"job"}`: work on many tasks |
| GET `/jobs/<id>/log` | `?lines=` | `{"log"}`: its last lines |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request, send_file

import hpc_jobs
from label_studio_config.home import Home
from ml_backend.bulk_actions import act_key, act_on_tasks
from ml_backend.job_keys import suggest_key
from ml_backend.registry import REPORT_FILE, ModelVersion, Registry, RegistryError
from ml_backend.taught import images_that_taught
from ml_backend.training_jobs import suggest_project
from ml_backend.wire import ActRequest, SetupRequest, SuggestRequest, TrainRequest, read_message

MOST_LOG_LINES = 2000
LOG_LINES = 200
BYTES_A_LINE = 400
Answer = Response | tuple[Response, int]
_FIGURES = (
    *("n_images", "macro_recall", "micro_accuracy", "ece"),
    *("mae", "interval_95_coverage"),
)


def add_model_service(app: Flask, home: Home) -> None:
    """Register the addresses; they need the user name and password as the others do."""

    @app.get("/models")
    def models() -> Answer:
        registry = _registry(home)
        live = registry.live_record
        versions = [summary(version) for version in reversed(registry.readable())]
        return jsonify(
            live=live.get("version"),
            promoted_at=live.get("promoted_at"),
            promoted_because=live.get("reason"),
            versions=versions,
        )

    @app.get("/models/<name>/report")
    def report(name: str) -> Response:
        page = _version(_registry(home), name).folder / REPORT_FILE
        if not page.is_file():
            abort(404, f"{name} has no page yet: `planktrait report {name}` writes it")
        return send_file(page, mimetype="text/html", max_age=0)

    @app.post("/models/<name>/promote")
    def promote(name: str) -> Answer:
        project_id = _asked_project()
        registry = Registry(home.models_folder(project_id))
        registry.promote(_version(registry, name).name, reason="by hand, in the browser")
        return jsonify(live=name, **submit_suggestions(home, project_id))

    @app.post("/suggest")
    def suggest() -> Answer:
        content = request.get_json(force=True, silent=True)
        asked = read_message(SuggestRequest, {} if content is None else content)
        if Registry(home.models_folder(asked.project)).live is None:
            abort(409, "there is no model yet: annotate some images and start a training")
        return jsonify(submit_suggestions(home, asked.project, asked.tasks)), 202

    @app.post("/act")
    def act() -> Answer:
        content = request.get_json(force=True, silent=True)
        asked = read_message(ActRequest, {} if content is None else content)
        job = hpc_jobs.submit(
            act_on_tasks,
            home.folder,
            asked.project,
            asked.order,
            asked.tasks,
            asked.verb,
            name=f"{asked.verb} {len(asked.tasks)} images of project {asked.project}",
            folder=home.jobs_folder,
            key=act_key(asked.project),
        )
        return jsonify(job=job.id), 202

    @app.get("/jobs/<job_id>/log")
    def log(job_id: str) -> Answer:
        lines = request.args.get("lines", str(LOG_LINES))
        if not lines.isdigit() or not 0 < int(lines) <= MOST_LOG_LINES:
            abort(400, f"lines={lines!r}: a whole number from 1 to {MOST_LOG_LINES}")
        record = find_job(home, job_id)
        if record is None:
            abort(404, f"there is no job {job_id!r}: GET /jobs lists them")
        return jsonify(log=_tail(record.log, int(lines)), state=record.state)


def find_job(home: Home, job_id: str) -> hpc_jobs.JobRecord | None:
    """The job of that id; None where there is none."""
    # Only a name that is listed: the id comes from outside and must not walk the file system.
    if job_id not in {path.name for path in home.jobs_folder.iterdir()}:
        return None
    return hpc_jobs.read_job(home.jobs_folder / job_id)


def submit_suggestions(home: Home, project_id: int, ids: list[int] | None = None) -> dict[str, Any]:
    """Start giving tasks a suggestion of the live version: all, or those of some ids.

    That for all follows a running one.
    """
    if ids is not None:
        job = hpc_jobs.submit(
            suggest_project,
            home.folder,
            project_id,
            ids,
            name=f"suggest for {len(ids)} images of project {project_id}",
            folder=home.jobs_folder,
            key=suggest_key(project_id),
        )
        return {"job": job.id, "coalesced": False}
    submission = hpc_jobs.submit_once(
        suggest_project,
        home.folder,
        project_id,
        name=f"suggest for project {project_id}",
        folder=home.jobs_folder,
        key=suggest_key(project_id),
    )
    return {"job": submission.job.id, "coalesced": submission.coalesced}


def summary(version: ModelVersion) -> dict[str, Any]:
    """What a table of versions shows of one: how it was made, and how good it is, by control."""
    record = version.metrics
    return {
        "name": version.name,
        "made_at": record.get("made_at"),
        "encoder": record.get("encoder"),
        "trained": record.get("trained"),
        "images": record.get("images", {}),
        "taught": images_that_taught(record),
        "annotators": record.get("annotators"),
        "votes": record.get("votes"),
        "seconds": record.get("seconds"),
        "notes": record.get("notes", []),
        "promotion": {
            name: record.get("promotion", {}).get(name) for name in ("promoted", "reason")
        },
        "metrics": {
            side: {
                control: {name: figures[name] for name in _FIGURES if figures.get(name) is not None}
                for control, figures in controls.items()
            }
            for side, controls in record.get("metrics", {}).items()
        },
        "agreement": record.get("agreement", {}),
        "report": (version.folder / REPORT_FILE).is_file(),
    }


def _registry(home: Home) -> Registry:
    text = request.args.get("project")
    if text is None:
        abort(400, "say which project: ?project=ID")
    return Registry(home.models_folder(read_message(SetupRequest, {"project": text}).project))


def _asked_project() -> int:
    content = request.get_json(force=True, silent=True)
    return read_message(TrainRequest, {} if content is None else content).project


def _version(registry: Registry, name: str) -> ModelVersion:
    try:
        return registry.version(name)
    except RegistryError as error:
        abort(404, str(error))


def _tail(path: Path | None, lines: int) -> str:
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - lines * BYTES_A_LINE))
        text = file.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])
