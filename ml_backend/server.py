"""The ML backend over HTTP: Label Studio's protocol, and our jobs.

| address | body | answer |
|---|---|---|
| GET `/health` | | `{"status": "UP"}` |
| POST `/setup` | project, … | `{"model_version"}`: the live one, "" before the first |
| POST `/predict` | tasks, project, label_config | `{"results"}`: one a task, `[]` for none |
| POST `/webhook` | action, project, … | `{}`, or `{"job"}` where a training was started |
| GET `/versions` | `?project=` | `{"versions"}` |
| POST `/job_status` | job | `{"job_status"}` |
| GET `/jobs` | `?project=` | `{"jobs"}`, newest first |
| POST `/jobs/<id>/cancel` | | the job |
| POST `/train`, `/pretrain` | project | 202 `{"job", "coalesced"}` |

`model_service.py` adds what the model's page in the browser shows, `feature_service.py` more like
this, clusters and the map, `data_service.py` import, export and counts. All need the user name and
password of the home's `secrets.json`. What is wrong with a request is answered as
`{"error", "problems": [{"item", "problem"}]}` with 400 (no JSON) or 422; with 503
where too many large predictions run already.

Run: `gunicorn --worker-class gthread --workers 2 --threads 4 "ml_backend.server:create_app()"`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException, ServiceUnavailable

import hpc_jobs
from label_studio_config.home import Home
from label_studio_config.schema import SchemaError
from ml_backend.auth import require_basic_auth
from ml_backend.backend import PlanktraitBackend
from ml_backend.bulk_actions import act_key
from ml_backend.data_jobs import data_keys
from ml_backend.data_service import add_data_service
from ml_backend.feature_service import add_feature_service
from ml_backend.job_keys import pretrain_key, suggest_key, train_key
from ml_backend.live_model import LiveModels
from ml_backend.model_service import add_model_service, find_job
from ml_backend.project_features import clusters_key, features_key, map_key
from ml_backend.wire import (
    JobStatus,
    JobStatusRequest,
    Message,
    PredictRequest,
    PretrainRequest,
    RequestError,
    SetupRequest,
    TrainRequest,
    WebhookRequest,
    read_message,
)

logger = logging.getLogger(__name__)

LARGEST_REQUEST_BYTES = 512 * 1024 * 1024
JOBS_LISTED = 50
# Of the four threads of a worker, one stays free for what is answered at once.
LARGE_PREDICTION_TASKS = 16
LARGE_PREDICTIONS_RUNNING = 2
LARGE_PREDICTIONS_WAITING = 1
RETRY_AFTER_S = 5
JOB_STATUS: dict[str, JobStatus] = {
    "queued": "queued",
    "running": "started",
    "finished": "finished",
    "failed": "failed",
    "cancelled": "failed",
    "killed": "failed",
}

Answer = Response | tuple[Response, int]


def create_app(home: Home | str | os.PathLike[str] | None = None) -> Flask:
    """The backend of one home as a WSGI application.

    Parameters
    ----------
    home : Home or path, optional
        By default `$PLANKTRAIT_HOME`.
    """
    _log_to_stderr()
    home = home if isinstance(home, Home) else Home(home)
    app = Flask("planktrait-ml-backend", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST_BYTES
    require_basic_auth(app, home.secrets.backend_username, home.secrets.backend_password)
    _answer_errors_in_json(app)
    live_models = LiveModels(home)
    _add_protocol(app, home, live_models)
    _add_jobs(app, home, live_models)
    add_model_service(app, home)
    add_feature_service(app, home)
    add_data_service(app, home)
    # A server that was killed together with a job leaves a follow-up that nobody would start.
    for job in hpc_jobs.start_pending(home.jobs_folder):
        logger.info("started %s, left over from before", job.id)
    return app


class _LargePredictions:
    """Keeps threads of a worker free: large predictions beyond a few are refused, not queued."""

    def __init__(self) -> None:
        self._running = threading.Semaphore(LARGE_PREDICTIONS_RUNNING)
        self._here = threading.Semaphore(LARGE_PREDICTIONS_RUNNING + LARGE_PREDICTIONS_WAITING)

    @contextmanager
    def one(self, task_count: int) -> Iterator[None]:
        if task_count < LARGE_PREDICTION_TASKS:
            yield
            return
        if not self._here.acquire(blocking=False):
            raise ServiceUnavailable(
                f"this worker predicts for {LARGE_PREDICTIONS_RUNNING} large requests already: "
                "ask again later",
                retry_after=RETRY_AFTER_S,
            )
        try:
            with self._running:
                yield
        finally:
            self._here.release()


def _add_protocol(app: Flask, home: Home, live_models: LiveModels) -> None:
    large_predictions = _LargePredictions()

    def backend(project_id: int, label_config: str | None = None) -> PlanktraitBackend:
        return PlanktraitBackend(home, project_id, live_models, label_config)

    @app.get("/")
    @app.get("/health")
    def health() -> Answer:
        return jsonify(status="UP", model_class=PlanktraitBackend.__name__)

    @app.post("/setup")
    def setup() -> Answer:
        message = _message(SetupRequest)
        return jsonify(model_version=backend(message.project).live_version)

    @app.post("/predict")
    def predict() -> Answer:
        message = _message(PredictRequest)
        context = message.params.context if message.params else None
        tasks = [task.as_task() for task in message.tasks]
        project = backend(message.project, message.label_config)
        with large_predictions.one(len(tasks)):
            return jsonify(results=project.predict(tasks, context=context))

    @app.post("/webhook")
    def webhook() -> Answer:
        message = _message(WebhookRequest)
        return jsonify(
            backend(message.project.id).process_event(message.action, message.annotations)
        )

    @app.get("/versions")
    def versions() -> Answer:
        project_id = _project_argument()
        if project_id is not None:
            return jsonify(versions=backend(project_id).versions)
        return jsonify(
            versions=[
                version
                for known in sorted(home.folder.glob("models/project-*"))
                if known.name.removeprefix("project-").isdigit()
                for version in backend(int(known.name.removeprefix("project-"))).versions
            ]
        )


def _add_jobs(app: Flask, home: Home, live_models: LiveModels) -> None:
    @app.post("/train")
    def train() -> Answer:
        message = _message(TrainRequest)
        return jsonify(PlanktraitBackend(home, message.project, live_models).fit()), 202

    @app.post("/pretrain")
    def pretrain() -> Answer:
        message = _message(PretrainRequest)
        backend = PlanktraitBackend(home, message.project, live_models)
        return jsonify(backend.pretrain(message.epochs)), 202

    @app.get("/jobs")
    def jobs() -> Answer:
        project_id = _project_argument()
        kinds = (
            *(train_key, pretrain_key, suggest_key, act_key),
            *(features_key, clusters_key, map_key),
        )
        keys = (
            None
            if project_id is None
            else {key(project_id) for key in kinds} | data_keys(project_id)
        )
        records = hpc_jobs.list_jobs(home.jobs_folder, newest=JOBS_LISTED, keys=keys)
        return jsonify(jobs=[_as_json(home, record) for record in records])

    @app.post("/jobs/<job_id>/cancel")
    def cancel(job_id: str) -> Answer:
        record = find_job(home, job_id)
        if record is None:
            return _problem("job", f"there is no job {job_id!r}: GET /jobs lists them", 404)
        try:
            return jsonify(hpc_jobs.cancel(record).as_json())
        except hpc_jobs.JobError as error:
            return _problem("job", str(error), 409)

    @app.post("/job_status")
    def job_status() -> Answer:
        record = find_job(home, _message(JobStatusRequest).job)
        return jsonify(job_status="removed" if record is None else JOB_STATUS[record.state])


def _as_json(home: Home, record: hpc_jobs.JobRecord) -> dict[str, Any]:
    waits = record.active and record.key is not None
    follow_up = waits and hpc_jobs.has_pending(home.jobs_folder, str(record.key))
    return record.as_json() | {"follow_up": follow_up}


def _message(kind: type[Message]) -> Message:
    content = request.get_json(force=True, silent=True)
    if content is None:
        raise BadRequest("the body is not JSON")
    return read_message(kind, content)


def _project_argument() -> int | None:
    text = request.args.get("project")
    if text is None:
        return None
    return read_message(SetupRequest, {"project": text}).project


def _answer_errors_in_json(app: Flask) -> None:
    @app.errorhandler(RequestError)
    def _(error: RequestError) -> Answer:
        logger.warning("%s %s refused: %s", request.method, request.path, error)
        return jsonify(error=str(error), problems=error.problems), 422

    @app.errorhandler(SchemaError)
    def _(error: SchemaError) -> Answer:
        logger.warning("%s %s refused: %s", request.method, request.path, error)
        return _problem("label_config", str(error), 422)

    @app.errorhandler(hpc_jobs.SiteError)
    @app.errorhandler(hpc_jobs.JobError)
    def _(error: Exception) -> Answer:
        logger.error("%s %s: no job: %s", request.method, request.path, error)
        return _problem("job", str(error), 503)

    @app.errorhandler(HTTPException)
    def _(error: HTTPException) -> Answer:
        answer, status = _problem("request", str(error.description), error.code or 500)
        if isinstance(error, ServiceUnavailable):
            answer.headers["Retry-After"] = str(RETRY_AFTER_S)
        return answer, status

    @app.errorhandler(Exception)
    def _(error: Exception) -> Answer:
        logger.exception("%s %s failed", request.method, request.path)
        return _problem("server", f"{type(error).__name__}: see the log of the ML backend", 500)


def _problem(item: str, problem: str, status: int) -> tuple[Response, int]:
    content: dict[str, Any] = {"error": problem, "problems": [{"item": item, "problem": problem}]}
    return jsonify(content), status


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
