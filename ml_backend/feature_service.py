"""Features over HTTP: more like this, clusters and the map.

| address | body | answer |
|---|---|---|
| GET `/features` | `?project=` | `{"n", "last_task", "stale", "job"}` |
| POST `/features` | project | 202 `{"job", "coalesced"}` |
| POST `/neighbours` | `NeighboursRequest` | `{"tasks": [{"task", "similarity"}], "features"}` |
| POST `/next` | `NextRequest` | `{"tasks": [task]}`, the most useful to label first |
| GET `/clusters` | `?project=` | `{"made_at", "n_images", "clusters", "aside", "outliers"}`, job |
| GET `/clusters/<id>` | `?project=&after=&limit=&made_at=` | `{"made_at", "tasks", "next"}` |
| GET `/clusters/outliers` | as for a cluster | as of a cluster: the images that are in none |
| GET `/map` | `?project=` | `{"made_at", "n", "last_task", "job"}` |
| GET `/map/points` | `?project=` | n float32 x, n float32 y, n int64 task ids, little-endian |
| POST `/clusters` | `ClustersRequest` | 202 `{"job", "coalesced"}` |
| POST `/map` | project | 202 `{"job", "coalesced"}` |

Blind tasks are in no answer that they were blind in when their job ran or they were added; whoever
asks leaves out those that have become blind since. The tasks of a cluster are nearest to its centre
first; `/clusters?members=1` has all of them, too. `aside` are the outliers, null where the clusters
were made before their tasks were kept. `made_at` refuses clusters of another time (409).
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask, Response, abort, jsonify, request

import hpc_jobs
from label_studio_config.home import Home
from label_studio_config.schema import LabelSchema
from ml_backend.loaded_features import FeatureCache, LoadedFeatures, UnknownTaskError
from ml_backend.project_features import (
    CLUSTERS_FILE,
    MAP_FILE,
    NoFeaturesError,
    cluster_project,
    clusters_key,
    features_folder,
    features_key,
    map_key,
    map_project,
    update_features,
    wanted_encoder,
)
from ml_backend.site_jobs import site_options
from ml_backend.stored_clusters import StoredClusters
from ml_backend.wire import (
    ClustersRequest,
    NeighboursRequest,
    NextRequest,
    SetupRequest,
    TrainRequest,
    read_message,
)
from simclr.encoder import EncoderError
from simclr.neighbours import MOST_QUERIES
from simclr.preprocessing import PreprocessingError

SHOWN_OF_A_CLUSTER = 40
SHOWN_OF_ALL_CLUSTERS = 10_000
"""Where there are many clusters fewer of each are shown, so that the answer stays quick."""

MOST_OF_A_CLUSTER = 10_000
LARGEST_IMAGE_BYTES = 20 * 1024 * 1024
PAUSE_AFTER_FAILURE_S = 600.0
Answer = Response | tuple[Response, int]
Job = Callable[..., dict[str, Any]]
_WORK: dict[str, tuple[Job, Callable[[int], str]]] = {
    "features": (update_features, features_key),
    "clusters": (cluster_project, clusters_key),
    "map": (map_project, map_key),
}


def add_feature_service(app: Flask, home: Home) -> None:
    """Register the addresses; they need the user name and password as the others do."""
    cache = FeatureCache(home)

    @app.errorhandler(NoFeaturesError)
    def no_features(error: NoFeaturesError) -> Answer:
        return _refused(str(error), 409)

    @app.errorhandler(UnknownTaskError)
    def unknown_task(error: UnknownTaskError) -> Answer:
        return _refused(str(error), 404)

    @app.errorhandler(EncoderError)
    def no_encoder(error: EncoderError) -> Answer:
        return _refused(str(error), 409)

    @app.errorhandler(PreprocessingError)
    def no_image(error: PreprocessingError) -> Answer:
        return _refused(f"the image {error}", 422)

    @app.get("/features")
    def features() -> Answer:
        project_id = _project()
        loaded = cache.get(project_id)
        return jsonify(
            n=_with_features(loaded),
            last_task=loaded.table.last_task,
            stale=cache.is_stale(project_id, loaded.store),
            job=_newest_job(home, features_key(project_id)),
        )

    @app.post("/neighbours")
    def neighbours() -> Answer:
        message = read_message(NeighboursRequest, _content())
        if bool(message.tasks) == (message.image is not None):
            abort(422, "give tasks, or an image")
        loaded = cache.get(message.project)
        if message.new_tasks:
            schema = LabelSchema.from_xml(message.label_config)
            new = [task.as_task() for task in message.new_tasks if task.id is not None]
            loaded = cache.add(message.project, schema, new)
        told: dict[str, Any] = {"n": _with_features(loaded), "missing": message.newer}
        if message.newer or cache.is_stale(message.project, loaded.store):
            told["job"] = _start_once(home, "features", message.project)
        try:
            if message.image is not None:
                image = _decoded(message.image)
                found = loaded.like_image(image, message.limit, message.without)
            else:
                found = loaded.like_tasks(message.tasks, message.limit, message.without)
                readable = len(loaded.readable_rows(message.tasks))
                if readable > MOST_QUERIES:
                    told["compared"] = MOST_QUERIES
        except UnknownTaskError:
            if not message.newer:
                raise
            found = []  # the job that was started adds it
        return jsonify(tasks=found, features=told)

    @app.post("/next")
    def next_tasks() -> Answer:
        message = read_message(NextRequest, _content())
        if message.confidence and len(message.confidence) != len(message.open):
            abort(422, "confidence: give one for each open task, or none")
        loaded = cache.get(message.project)
        told: dict[str, Any] = {"n": _with_features(loaded)}
        chosen = loaded.next_tasks(
            *(message.strategy, message.open, message.confidence, message.labelled),
            message.limit,
        )
        if message.open and not chosen:
            told["job"] = _start_once(home, "features", message.project)
        return jsonify(tasks=chosen, features=told)

    @app.get("/clusters")
    def clusters() -> Answer:
        project_id = _project()
        job = _newest_job(home, clusters_key(project_id))
        made = _clusters(home, project_id)
        if made is None:
            told: dict[str, Any] = {
                "made_at": None,
                "n_images": 0,
                "clusters": [],
                "outliers": 0,
                "aside": None,
            }
            return jsonify(**told, job=job)
        most = min(SHOWN_OF_A_CLUSTER, SHOWN_OF_ALL_CLUSTERS // max(1, len(made)))
        members = request.args.get("members") == "1"
        return jsonify(
            made_at=made.made_at,
            n_images=made.n_images,
            clusters=[
                {"id": number, **_group(made.tasks_of(number), most, members)}
                for number in range(len(made))
            ],
            outliers=made.outliers,
            aside=_group(made.aside, SHOWN_OF_A_CLUSTER, members) if len(made.aside) else None,
            job=job,
        )

    @app.get("/clusters/outliers")
    @app.get("/clusters/<int:number>")
    def cluster(number: int | None = None) -> Answer:
        made = _clusters(home, _project())
        wanted = request.args.get("made_at")
        if made is not None and wanted not in (None, made.made_at):
            abort(409, "the clusters have been made anew since")
        if made is None or (number is not None and number >= len(made)):
            abort(404, f"there is no cluster {number}: GET /clusters lists them")
        after, limit = _number("after", 0), min(_number("limit", 200), MOST_OF_A_CLUSTER)
        of = made.tasks_of(number)
        tasks = of[after : after + limit].tolist()
        more = bool(tasks) and after + limit < len(of)
        following = after + len(tasks) if more else None
        return jsonify(made_at=made.made_at, tasks=tasks, next=following)

    @app.get("/map")
    def the_map() -> Answer:
        project_id = _project()
        made = _read(home, project_id, MAP_FILE)
        return jsonify(
            made_at=None if made is None else str(made["made_at"]),
            n=0 if made is None else len(made["task"]),
            last_task=0 if made is None else _last_task(made),
            job=_newest_job(home, map_key(project_id)),
        )

    @app.get("/map/points")
    def points() -> Response:
        made = _read(home, _project(), MAP_FILE)
        if made is None:
            abort(404, "there is no map yet: POST /map makes it")
        parts = (made["x"].astype("<f4"), made["y"].astype("<f4"), made["task"].astype("<i8"))
        content = b"".join(part.tobytes() for part in parts)
        response = Response(content, mimetype="application/octet-stream")
        response.headers["X-Planktrait-Made-At"] = str(made["made_at"])
        return response

    def start(work: str) -> Answer:
        asked: dict[str, Any] = {}
        if work == "clusters":
            message = read_message(ClustersRequest, _content())
            project_id, asked = message.project, {"done_too": message.done_too}
        else:
            project_id = read_message(TrainRequest, _content()).project
        wanted_encoder(home, project_id)  # refused here, not in a job that nobody looks at
        submission = _submit(home, work, project_id, **asked)
        return jsonify(job=submission.job.id, coalesced=submission.coalesced), 202

    for work in _WORK:
        app.add_url_rule(
            f"/{work}", f"start_{work}", start, methods=["POST"], defaults={"work": work}
        )


def _submit(home: Home, work: str, project_id: int, **asked: Any) -> hpc_jobs.Submission:
    function, key = _WORK[work]
    return hpc_jobs.submit_once(
        function,
        home.folder,
        project_id,
        name=f"{work} of project {project_id}",
        folder=home.jobs_folder,
        key=key(project_id),
        **asked,
        **(site_options(home, "clusters") if work == "clusters" else {}),
    )


def _start_once(home: Home, work: str, project_id: int) -> str:
    """The id of the active job, of one that failed lately, or of a new one.

    A query asks for no second run after the first, and many queries for no row of failures.
    """
    key = _WORK[work][1](project_id)
    for record in hpc_jobs.list_jobs(home.jobs_folder, newest=1, keys={key}):
        failed_s = time.time() - (record.finished or 0) if record.state == "failed" else None
        if record.active or (failed_s is not None and failed_s < PAUSE_AFTER_FAILURE_S):
            return record.id
    return _submit(home, work, project_id).job.id


def _newest_job(home: Home, key: str) -> dict[str, Any] | None:
    for record in hpc_jobs.list_jobs(home.jobs_folder, newest=1, keys={key}):
        return {name: value for name, value in record.as_json().items() if name != "log"}
    return None


def _with_features(loaded: LoadedFeatures) -> int:
    return int((loaded.table.rows >= 0).sum())


def _read(home: Home, project_id: int, name: str) -> dict[str, np.ndarray] | None:
    path: Path = features_folder(home, project_id) / name
    if not path.is_file():
        return None
    with np.load(path) as file:
        return dict(file)


def _clusters(home: Home, project_id: int) -> StoredClusters | None:
    return StoredClusters.read(features_folder(home, project_id) / CLUSTERS_FILE)


def _group(tasks: np.ndarray, most: int, members: bool) -> dict[str, Any]:
    """Tasks that are seen together: how many, the first ones, and all if they are asked for."""
    told = {"size": len(tasks), "tasks": tasks[:most].tolist()}
    return told | {"members": tasks.tolist()} if members else told


def _last_task(made: dict[str, np.ndarray]) -> int:
    """The last task that was there for the map, on it or not."""
    known = made["last_task"] if "last_task" in made else made["task"].max()
    return int(known)


def _decoded(image: str) -> bytes:
    try:
        content = base64.b64decode(image, validate=True)
    except binascii.Error:
        abort(422, "image is not base64")
    if len(content) > LARGEST_IMAGE_BYTES:
        abort(422, f"the image has more than {LARGEST_IMAGE_BYTES // 2**20} MB")
    return content


def _content() -> Any:
    content = request.get_json(force=True, silent=True)
    if content is None:
        abort(400, "the body is not JSON")
    return content


def _project() -> int:
    text = request.args.get("project")
    if text is None:
        abort(400, "say which project: ?project=ID")
    return read_message(SetupRequest, {"project": text}).project


def _number(name: str, default: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        abort(400, f"{name}={text!r}: a whole number from 0 on")
    return int(text)


def _refused(problem: str, status: int) -> Answer:
    content = {"error": problem, "problems": [{"item": "request", "problem": problem}]}
    return jsonify(content), status
