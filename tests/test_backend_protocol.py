"""The backend's protocol: what Label Studio asks, what it is answered, and who may ask."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

import hpc_jobs
from benchmarks import health_latency
from hpc_jobs.files import write_json
from hpc_jobs.job_folder import JOB_FILE, OUTCOME_FILE
from label_studio_config.home import Home
from label_studio_config.results import read_result
from label_studio_config.schema import LabelSchema
from ml_backend.annotation_counter import AnnotationCounter
from ml_backend.backend import PlanktraitBackend
from ml_backend.job_keys import train_key
from ml_backend.live_model import LiveModels
from ml_backend.model import TraitModel
from ml_backend.registry import Registry
from ml_backend.server import create_app
from tests.backend_fixtures import (
    CONFIG,
    GROUPS,
    PROJECT,
    UID,
    add_version,
    await_jobs,
    draw_images,
    end_jobs,
    home,
    image_task,
    serve_backend,
)

__all__ = ["home"]


class Client:
    """Calls the application in this process, with the right password unless told otherwise."""

    def __init__(self, home: Home) -> None:
        self.app = create_app(home)
        self.client = self.app.test_client()
        self.auth = (home.secrets.backend_username, home.secrets.backend_password)

    def get(self, path, **options):
        return self.client.get(path, **{"auth": self.auth, **options})

    def post(self, path, body=None, **options):
        return self.client.post(path, json=body, **{"auth": self.auth, **options})

    def predict(self, *tasks, config=CONFIG, **more):
        body = {"tasks": list(tasks), "project": UID, "label_config": config, **more}
        return self.post("/predict", body)


@pytest.fixture
def client(home):
    yield Client(home)
    end_jobs(home)


def test_every_address_wants_the_password(client, home):
    wrong = [None, ("label-studio", "wrong"), ("wrong", home.secrets.backend_password), ("", "")]
    wrong.append((home.secrets.backend_username, home.secrets.backend_password + "x"))
    wrong.append((home.secrets.backend_username, "ü"))
    paths = {str(rule.rule).replace("<job_id>", "x") for rule in client.app.url_map.iter_rules()}
    assert {"/health", "/setup", "/predict", "/webhook", "/versions", "/jobs"} <= paths
    for path in [*paths, "/nothing"]:
        for auth in wrong:
            for method in ("get", "post"):
                answer = getattr(client.client, method)(path, auth=auth)
                assert answer.status_code == 401, (method, path, auth)
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
                assert "error" in answer.json
    bearer = client.client.get("/health", headers={"Authorization": "Bearer x"})
    assert bearer.status_code == 401


def test_health(client):
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json["status"] == "UP"


def test_setup_names_the_live_version_and_never_loads_it(client, home, monkeypatch):
    body = {"project": UID, "schema": CONFIG, "hostname": "http://x", "access_token": "secret"}
    assert client.post("/setup", body).json == {"model_version": ""}
    version = add_version(home)
    monkeypatch.setattr(TraitModel, "load", lambda folder: pytest.fail("setup loaded weights"))
    assert client.post("/setup", body).json == {"model_version": version.name}
    assert client.post("/setup", {"project": "8.1"}).json == {"model_version": ""}


def test_versions(client, home):
    names = [add_version(home).name, add_version(home).name][::-1]
    assert client.get("/versions").json == {"versions": names}
    assert client.get(f"/versions?project={UID}").json == {"versions": names}
    assert client.get("/versions?project=8").json == {"versions": []}
    assert client.get("/versions?project=x").status_code == 422


def test_no_model_no_suggestions(client, caplog):
    caplog.set_level("INFO")
    answer = client.predict(image_task(1, "image-00000.png"), image_task(2, "image-00001.png"))
    assert answer.json == {"results": [[], []]}
    assert "no model is live yet" in caplog.text


def test_suggestions_are_valid_for_the_config(client, home):
    version = add_version(home)
    tasks = [image_task(number, f"image-{number:05d}.png") for number in range(12)]
    results = client.predict(*tasks).json["results"]
    assert len(results) == 12
    interface, schema = LabelInterface(CONFIG), LabelSchema.from_xml(CONFIG)
    for suggestion in results:
        assert suggestion["model_version"] == version.name
        assert 1 / 3 <= suggestion["score"] <= 1
        assert interface.validate_prediction(suggestion, return_errors=True) == []
        answers = read_result(schema, suggestion["result"])
        assert answers["group"].labels[0] in GROUPS
        # Cells are asked of bars only.
        assert ("cells" in answers) == (answers["group"].labels == ("bar",))
    # In the order of the tasks, whatever is asked beside.
    again = client.predict(*tasks[::-1]).json["results"]
    assert [r["score"] for r in again] == pytest.approx([r["score"] for r in results[::-1]])


def test_bad_tasks_get_nothing_and_the_others_theirs(client, home, caplog):
    add_version(home)
    root = home.images_root
    (root / "broken.png").write_bytes(b"not an image")
    (root / "empty.png").touch()
    (root.parent / "secret.png").write_bytes((root / "image-00000.png").read_bytes())
    (root / "link.png").symlink_to(root.parent / "secret.png")
    bad = {
        "is blind": image_task(10, "image-00001.png", blind="yes"),
        "broken.png": image_task(11, "broken.png"),
        "empty.png": image_task(12, "empty.png"),
        "task 13": image_task(13, "gone.png"),
        "task 14": image_task(14, "../secret.png"),
        "task 15": image_task(15, "link.png"),
        "task 16": image_task(16, str(root.parent / "secret.png")),
        "task 17": {"id": 17, "data": {"image": "https://example.org/x.png"}},
        "task 18": {"id": 18, "data": {"text": "no image"}},
        "task 19": {"id": 19, "data": {"image": ["a", "list"]}},
        "task 20": {"id": 20, "data": {"image": f"{root}/image-00000.png"}},
    }
    good = [image_task(1, "image-00000.png"), image_task(2, "image-00002.png")]
    # The same image twice, and a pixel size that is none, harm nobody.
    good += [image_task(3, "image-00000.png"), image_task(4, "image-00003.png", pixel_size_um="?")]
    caplog.set_level("INFO")
    answer = client.predict(good[0], *bad.values(), *good[1:])
    assert answer.status_code == 200
    results = answer.json["results"]
    assert [bool(result) for result in results] == [True] + [False] * len(bad) + [True] * 3
    assert all(result == [] for result in results if not result)
    assert results[0]["score"] == results[-2]["score"]
    for reason in bad:
        assert reason in caplog.text


def test_no_tasks(client, home):
    add_version(home)
    assert client.predict().json == {"results": []}


def test_interactive_mode(client, home):
    add_version(home)
    params = {"login": None, "password": None, "context": {"result": []}}
    (suggestion,) = client.predict(image_task(1, "image-00000.png"), params=params).json["results"]
    assert suggestion["result"]


def test_config_changed_after_training(client, home):
    add_version(home)
    changed = CONFIG.replace('<Choice value="disc"/>', "").replace('name="cells"', 'name="other"')
    tasks = [image_task(number, f"image-{number:05d}.png") for number in range(12)]
    for suggestion in client.predict(*tasks, config=changed).json["results"]:
        (item,) = suggestion["result"]
        assert item["value"]["choices"][0] in {"bar", "cross"}
        assert LabelInterface(changed).validate_prediction(suggestion, return_errors=True) == []
    renamed = CONFIG.replace('"group"', '"class"').replace('"cells"', '"other"')
    assert client.predict(*tasks, config=renamed).json["results"] == [[]] * 12
    assert all(client.predict(*tasks, config="").json["results"])


def test_config_that_cannot_be_read_is_named(client, home):
    add_version(home)
    answer = client.predict(image_task(1, "image-00000.png"), config="<View><Image")
    assert answer.status_code == 422
    assert answer.json["problems"][0]["item"] == "label_config"


@pytest.mark.parametrize(
    ("path", "body", "item"),
    [
        ("/predict", {"project": UID}, "tasks"),
        ("/predict", {"project": "x", "tasks": []}, "project"),
        ("/predict", {"project": "0.1", "tasks": []}, "project"),
        ("/predict", {"project": UID, "tasks": [{"data": {}}, {"id": 2}]}, "tasks.1.data"),
        ("/predict", {"project": UID, "tasks": [{"id": "a", "data": {}}]}, "tasks.0.id"),
        ("/predict", {"project": UID, "tasks": [], "label_config": 3}, "label_config"),
        ("/predict", [], "request"),
        ("/setup", {}, "project"),
        ("/setup", {"project": "../../etc"}, "project"),
        ("/webhook", {"action": "START_TRAINING"}, "project"),
        ("/webhook", {"project": {"id": 1}}, "action"),
        ("/webhook", {"action": "X", "project": {"id": -1}}, "project.id"),
        ("/train", {"project": True}, "project"),
        ("/pretrain", {"project": 1, "epochs": 0}, "epochs"),
        ("/pretrain", {"project": 1, "epoch": 5}, "epoch"),
        ("/job_status", {}, "job"),
    ],
)
def test_bad_requests_name_the_item(client, path, body, item):
    answer = client.post(path, body)
    assert answer.status_code == 422
    assert item in [problem["item"] for problem in answer.json["problems"]]
    assert answer.json["error"]


def test_no_json_and_wrong_addresses(client):
    answer = client.client.post("/predict", data="{", auth=client.auth)
    assert (answer.status_code, answer.json["error"]) == (400, "the body is not JSON")
    assert client.get("/predict").status_code == 405
    assert client.get("/nothing").status_code == 404
    assert client.post("/jobs/..%2f..%2fx/cancel").status_code == 404
    assert client.post("/jobs/x/cancel").status_code == 404
    assert client.post("/job_status", {"job": "../../x"}).json == {"job_status": "removed"}


def test_promotion_is_noticed(client, home):
    task = image_task(1, "image-00000.png")
    first = add_version(home)
    assert client.predict(task).json["results"][0]["model_version"] == first.name
    second = add_version(home, promote=False, seed=1)
    assert client.predict(task).json["results"][0]["model_version"] == first.name
    registry = Registry(home.models_folder(PROJECT))
    registry.promote(second.name)
    assert client.predict(task).json["results"][0]["model_version"] == second.name
    registry.promote(first.name)
    assert client.predict(task).json["results"][0]["model_version"] == first.name


def test_version_that_cannot_be_loaded_leaves_the_one_before(client, home, caplog):
    task = image_task(1, "image-00000.png")
    first = add_version(home)
    client.predict(task)
    second = add_version(home, promote=False)
    (second.folder / "heads.safetensors").chmod(0o644)
    (second.folder / "heads.safetensors").write_bytes(b"\0" * 10)
    Registry(home.models_folder(PROJECT)).promote(second.name)
    assert client.predict(task).json["results"][0]["model_version"] == first.name
    assert "cannot be loaded" in caplog.text
    (home.models_folder(PROJECT) / "live.json").write_text("{")
    assert client.post("/setup", {"project": UID}).json == {"model_version": ""}
    assert client.predict(task).json["results"][0]["model_version"] == first.name


def test_one_load_for_many_threads(home, monkeypatch):
    add_version(home)
    loads = []
    load = TraitModel.load
    monkeypatch.setattr(TraitModel, "load", lambda folder: loads.append(folder) or load(folder))
    models = LiveModels(home)
    with ThreadPoolExecutor(8) as pool:
        live = list(pool.map(lambda _: models.get(PROJECT), range(32)))
    assert len(loads) == 1
    assert len(set(map(id, live))) == 1


def test_few_models_are_kept(home, monkeypatch):
    monkeypatch.setattr("ml_backend.live_model.MODELS_KEPT", 1)
    add_version(home)
    models = LiveModels(home)
    first = models.get(PROJECT)
    other = home.models_folder(PROJECT + 1)
    Registry(other).promote(Registry(other).add(first.model.save).name)
    assert models.get(PROJECT + 1) is not None
    assert models.get(PROJECT) is not first


def test_events_that_train_nothing(client, home):
    project = {"id": PROJECT, "title": "x"}
    for action in ("PROJECT_UPDATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "LABEL_LINK"):
        answer = client.post("/webhook", {"action": action, "project": project})
        assert (answer.status_code, answer.json) == (200, {})
    skipped = {"action": "ANNOTATION_CREATED", "project": project}
    for _ in range(60):
        client.post("/webhook", skipped | {"annotation": {"id": 1, "was_cancelled": True}})
    assert client.get("/jobs").json == {"jobs": []}


@pytest.mark.parametrize("many", [False, True])
def test_every_nth_annotation_starts_a_training(client, home, monkeypatch, many):
    monkeypatch.setenv("PLANKTRAIT_TRAIN_EVERY", "4")
    annotation = {"id": 1, "result": []}
    one = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}, "annotation": annotation}
    if many:
        one = {**one, "action": "ANNOTATIONS_CREATED", "annotation": [annotation] * 2}
    answers = [client.post("/webhook", one).json for _ in range(2 if many else 4)]
    assert [bool(answer) for answer in answers] == [False] * (len(answers) - 1) + [True]
    (job,) = client.get(f"/jobs?project={PROJECT}").json["jobs"]
    assert job["id"] == answers[-1]["job"]
    assert (job["key"], job["state"]) == (f"train project {PROJECT}", "queued")
    assert client.get("/jobs?project=8").json == {"jobs": []}


def test_jobs_of_a_project_are_found_behind_many_of_another(client, home, monkeypatch):
    monkeypatch.setattr("ml_backend.server.JOBS_LISTED", 2)
    for key in (train_key(PROJECT), train_key(8), train_key(8), train_key(8)):
        hpc_jobs.submit(
            sum, [1], name="x", folder=home.jobs_folder, key=key, executor="debug"
        ).result()
    (job,) = client.get(f"/jobs?project={PROJECT}").json["jobs"]
    assert job["key"] == train_key(PROJECT)
    assert len(client.get("/jobs?project=8").json["jobs"]) == 2
    assert len(client.get("/jobs").json["jobs"]) == 2


def test_a_job_of_another_machine_is_not_cancelled(client, home):
    folder = home.jobs_folder / "20260101T000000.000-x-0000"
    folder.mkdir(parents=True)
    process = {"pid": os.getpid(), "started_ticks": 1, "host": "another-machine"}
    job = {"id": folder.name, "name": "x", "key": None, "executor": "local", "submitted": 0.0}
    write_json(folder / JOB_FILE, job | {"process": process})
    answer = client.post(f"/jobs/{folder.name}/cancel")
    assert answer.status_code == 409
    assert "another-machine" in answer.json["error"]
    write_json(folder / OUTCOME_FILE, {"state": "finished", "time": 0.0, "error": None})


def test_large_predictions_leave_a_thread_free(client, monkeypatch):
    release, started = threading.Event(), threading.Semaphore(0)

    def predict(backend, tasks, context=None):
        started.release()
        if len(tasks) > 1:
            assert release.wait(60)
        return [[] for _ in tasks]

    monkeypatch.setattr(PlanktraitBackend, "predict", predict)
    many = [image_task(number, "image-00000.png") for number in range(20)]

    def ask(*tasks):
        body = {"tasks": list(tasks), "project": UID, "label_config": CONFIG}
        return client.app.test_client().post("/predict", json=body, auth=client.auth)

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, *many) for _ in range(4)]
        try:
            assert started.acquire(timeout=30)
            assert started.acquire(timeout=30)
            done, open_ = wait(answers, 30, return_when=FIRST_COMPLETED)
            (refused,) = (answer.result() for answer in done)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert "ask again later" in refused.json["error"]
            assert not started.acquire(timeout=0.2), "three ran at a time"
            assert ask(many[0]).status_code == 200
        finally:
            release.set()
        assert [answer.result(30).status_code for answer in open_] == [200] * 3
    assert ask(*many).status_code == 200


def test_zero_means_never(client, monkeypatch):
    monkeypatch.setenv("PLANKTRAIT_TRAIN_EVERY", "0")
    event = {"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}, "annotation": {"id": 1}}
    assert [client.post("/webhook", event).json for _ in range(60)] == [{}] * 60


def _count(path):
    return sum(AnnotationCounter(path).add(1, 10) for _ in range(100))


def test_counter_across_processes(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert sum(pool.map(_count, [tmp_path / "count"] * 4)) == 40
    (tmp_path / "count").write_text("?")
    assert AnnotationCounter(tmp_path / "count").add(10, 10)


@pytest.mark.slow
def test_start_training_is_coalesced_and_its_failure_seen(client, home):
    start = {"action": "START_TRAINING", "project": {"id": PROJECT, "title": "x"}}
    first = client.post("/webhook", start).json
    assert not first["coalesced"]
    for path, body in (("/webhook", start), ("/train", {"project": PROJECT})):
        assert client.post(path, body).json == {"job": first["job"], "coalesced": True}
    (job,) = client.get("/jobs").json["jobs"]
    assert job["follow_up"]
    assert client.post("/job_status", {"job": job["id"]}).json["job_status"] in {
        "queued",
        "started",
    }
    # There is no Label Studio: both runs fail, one after the other, and say so.
    await_jobs(home)
    jobs = client.get("/jobs").json["jobs"]
    assert [job["state"] for job in jobs] == ["failed", "failed"]
    assert all("planktrait serve" in job["error"] for job in jobs)
    assert client.post("/job_status", {"job": first["job"]}).json == {"job_status": "failed"}


def test_cancel(client):
    job = client.post("/train", {"project": PROJECT})
    assert job.status_code == 202
    answer = client.post(f"/jobs/{job.json['job']}/cancel")
    assert answer.json["state"] == "cancelled"


def test_importing_label_studio_ml_changes_nothing(home):
    assert multiprocessing.get_start_method(allow_none=True) != "spawn" or os.name != "posix"
    backend = PlanktraitBackend(home, PROJECT, LiveModels(home))
    assert backend.get_local_path("/data/local-files/?d=image-00000.png") == str(
        home.images_root / "image-00000.png"
    )
    with pytest.raises(ValueError, match="expected"):
        backend.get_local_path("http://127.0.0.1/latest/meta-data")


@pytest.mark.slow
def test_every_worker_notices_a_promotion(home):
    task = image_task(1, "image-00000.png")
    body = {"tasks": [task], "project": UID, "label_config": CONFIG}
    with serve_backend(home) as backend:

        def versions() -> set[str]:
            answers = [backend.call("POST", "/predict", json=body).json() for _ in range(24)]
            return {a["results"][0]["model_version"] if a["results"][0] else "" for a in answers}

        assert versions() == {""}
        for seed in (0, 1):
            version = add_version(home, seed=seed)
            assert versions() == {version.name}
    log = backend.process.log_file.read_text()
    assert log.count(f"{version.name} loaded") == 2, "one of the two workers was never asked"


@pytest.mark.slow
def test_health_stays_quick(home):
    """Within 0.2 s while 500 tasks are predicted, and while a training runs."""
    draw_images(home.images_root, 120)
    add_version(home, image_size_px=64)
    with serve_backend(home) as backend:
        # However quick the machine, there are enough calls to judge by.
        predicting, took_s = health_latency.during_predict(backend, 500)
        while len(predicting) < 50:
            more, more_s = health_latency.during_predict(backend, 500)
            predicting, took_s = np.append(predicting, more), took_s + more_s
        training = health_latency.during_training(backend, most_s=60)
    print(f"during /predict of 500, {took_s:.1f} s in all: {health_latency.describe(predicting)}")
    print(f"during a training: {health_latency.describe(training)}")
    for latencies in (predicting, training):
        assert len(latencies) > 10
        # One in a hundred may be late on a machine that does something else besides.
        assert np.percentile(latencies, 99) < 0.2
