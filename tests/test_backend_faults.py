"""The loop with a real Label Studio, and what happens to it when something breaks."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

import hpc_jobs
from hpc_jobs.files import read_json
from hpc_jobs.job_folder import STARTED_FILE
from label_studio_config.api import Api
from label_studio_config.backend_connection import authorization
from label_studio_config.project import create_project
from label_studio_config.results import read_result, write_result
from label_studio_config.schema import LabelSchema
from ml_backend.encoders import newest_encoder
from ml_backend.live_model import LiveModels
from ml_backend.registry import Registry
from ml_backend.suggestions import refresh_suggestions
from ml_backend.training_jobs import fetch_for_training, fetch_images, pretrain_project
from tests.backend_fixtures import CONFIG, GROUPS, await_jobs, draw_images, end_jobs
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SCHEMA = LabelSchema.from_xml(CONFIG)


@dataclass
class Project:
    """A project with drawn images: every tenth is blind; `truth` by task id."""

    server: LabelStudioForTests
    id: int
    backend_id: int
    truth: dict[int, str]
    blind: set[int]

    @property
    def registry(self) -> Registry:
        return Registry(self.server.home.models_folder(self.id))

    @property
    def live_file(self) -> Path:
        return self.registry.folder / "live.json"

    def annotate(self, task_ids: list[int]) -> None:
        for task_id in task_ids:
            values: dict[str, Any] = {"group": self.truth[task_id]}
            if values["group"] == "bar":
                values["cells"] = 4
            body = {"result": write_result(SCHEMA, values), "lead_time": 1.5}
            answer = self.server.request("POST", f"/api/tasks/{task_id}/annotations/", json=body)
            assert answer.status_code == 201, answer.text

    def start_training(self) -> None:
        answer = self.server.request("POST", f"/api/ml/{self.backend_id}/train", json={})
        assert answer.ok, answer.text

    def jobs(self) -> list[dict[str, Any]]:
        answer = call_backend(self.server, "GET", f"/jobs?project={self.id}")
        return answer.json()["jobs"]

    def train(self) -> dict[str, Any]:
        """Train through Label Studio and wait; the newest job as /jobs has it."""
        self.start_training()
        await_jobs(self.server.home)
        return self.jobs()[0]

    def tasks(self) -> list[dict[str, Any]]:
        return self.server.get("/api/tasks/", params={"project": self.id, "fields": "all"})["tasks"]


def call_backend(
    server: LabelStudioForTests, method: str, path: str, **options: Any
) -> requests.Response:
    secrets = server.home.secrets
    options.setdefault("auth", (secrets.backend_username, secrets.backend_password))
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, server.servers.backend_url + path, timeout=60, **options)


def make_project(server: LabelStudioForTests, name: str, count: int = 90) -> Project:
    folder = server.images_root / name
    drawn = draw_images(folder, count)
    info = create_project(server.home, name, CONFIG)
    assert info.backend_id is not None
    # The page of a project's tasks holds 100 by default.
    rows = [
        {
            "image": f"/data/local-files/?d={name}/{file}",
            "image_id": file,
            "blind": "yes" if number % 10 == 9 else "no",
        }
        for number, (file, _) in enumerate(drawn)
    ]
    Api(server.home).post(f"/api/projects/{info.id}/import", [{"data": row} for row in rows])
    tasks = server.get("/api/tasks/", params={"project": info.id, "page_size": 1000})["tasks"]
    group_of = dict(drawn)
    return Project(
        server,
        info.id,
        info.backend_id,
        {task["id"]: group_of[task["data"]["image_id"]] for task in tasks},
        {task["id"] for task in tasks if task["data"]["blind"] == "yes"},
    )


@pytest.fixture(scope="module")
def own_server(tmp_path_factory, database_template) -> Iterator[LabelStudioForTests]:
    """Label Studio and our backend; trainings start when they are asked for, not by counting."""
    folder = tmp_path_factory.mktemp("backend-faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANKTRAIT_TRAIN_EVERY", "1000")
        with serve_for_tests(folder, template=database_template, with_backend=True) as server:
            yield server
            end_jobs(server.home)


@pytest.fixture
def server(own_server) -> Iterator[LabelStudioForTests]:
    yield own_server
    end_jobs(own_server.home)


@pytest.fixture(scope="module")
def trained(own_server) -> Project:
    """A project whose features were learned, and that was annotated and trained once."""
    project = make_project(own_server, "backend-loop")
    project.annotate(sorted(set(project.truth) - project.blind)[:60])
    project.annotate(sorted(project.blind)[:3])
    # As `planktrait pretrain --project` does it, of a network whose trainings take seconds.
    home = own_server.home.folder
    pretrain_project(home, project.id, 4, backbone="test_resnet", image_size_px=32)
    job = project.train()
    assert job["state"] == "finished", job
    return project


def test_every_annotation_was_counted(trained, server):
    count = server.home.jobs_folder / ".annotation-counts" / f"project-{trained.id}"
    assert count.read_text() == "0", "a training starts the count again"
    trained.annotate(sorted(trained.blind)[3:5])
    assert count.read_text() == "2"


def test_training_starts_from_the_learned_features(trained, server):
    newest = newest_encoder(server.home.encoders_folder(trained.id))
    assert newest is not None
    begun = trained.registry.live.metrics["encoder"]
    assert begun == f"the encoder {newest.parent.name}/{newest.name} (test_resnet)"


def test_features_are_learned_once(server):
    project = make_project(server, "backend-features")
    folder = server.home.encoders_folder(project.id)
    learned, jobs = set(), set()
    for _ in range(2):
        body = {"project": project.id, "epochs": 1}
        answer = call_backend(server, "POST", "/pretrain", json=body)
        assert answer.status_code == 202, answer.text
        await_jobs(server.home)
        job = project.jobs()[0]
        assert job["id"] == answer.json()["job"]
        assert (job["state"], job["result"]["images"]) == ("finished", 81)
        jobs.add(job["id"])
        encoder = newest_encoder(folder)
        assert encoder is not None
        learned.add((encoder, (encoder / "model.safetensors").stat().st_mtime_ns))
    assert len(jobs) == 2
    assert len(learned) == 1, "a finished one is not repeated"


def test_the_loop(trained):
    version = trained.registry.live
    assert version is not None
    details = trained.server.get(f"/api/projects/{trained.id}/")
    assert details["model_version"] == version.name
    (backend,) = trained.server.get(f"/api/ml?project={trained.id}")
    assert trained.server.get(f"/api/ml/{backend['id']}/versions") == {"versions": [version.name]}
    tasks = trained.tasks()
    assert len(tasks) == 90
    for task in tasks:
        if task["id"] in trained.blind:
            assert task["predictions"] == []
            continue
        (suggestion,) = task["predictions"]
        assert suggestion["model_version"] == version.name
        assert 0 < suggestion["score"] <= 1
        answer = read_result(SCHEMA, suggestion["result"])["group"]
        assert answer.labels[0] in GROUPS
    unseen = [t for t in tasks if t["id"] not in trained.blind and not t["total_annotations"]]
    right = [
        read_result(SCHEMA, task["predictions"][0]["result"])["group"].labels[0]
        == trained.truth[task["id"]]
        for task in unseen
    ]
    print(f"{sum(right)} of {len(right)} suggestions on unseen drawings are right")
    assert len(unseen) == 21
    assert sum(right) >= 12
    job = next(job for job in trained.jobs() if job["key"].startswith("train"))
    assert job["progress"]["done"] > 0
    assert job["result"]["version"] == version.name
    assert job["result"]["promoted"] is True


def test_refreshing_again_changes_nothing(trained):
    home = trained.server.home
    before = [[p["id"] for p in task["predictions"]] for task in trained.tasks()]
    live = LiveModels(home).get(trained.id)
    refreshed = refresh_suggestions(home, trained.id, live)
    assert (refreshed.suggested, refreshed.blind, refreshed.deleted) == (0, 9, 0)
    assert [[p["id"] for p in task["predictions"]] for task in trained.tasks()] == before


def test_label_studio_saves_nothing_for_an_empty_answer(trained):
    """`[]` in a task's place, from a real backend to a real Label Studio, leaves no row."""
    everything = {"selectedItems": {"all": True, "excluded": []}}
    before = {task["id"]: len(task["predictions"]) for task in trained.tasks()}
    answer = trained.server.request(
        "POST",
        f"/api/dm/actions?id=retrieve_tasks_predictions&project={trained.id}",
        json=everything,
    )
    assert answer.ok, answer.text
    assert {task["id"]: len(task["predictions"]) for task in trained.tasks()} == before
    assert all(before[task_id] == 0 for task_id in trained.blind)


def test_what_is_fetched_is_complete(trained):
    schema, tasks = fetch_for_training(trained.server.home, trained.id)
    assert schema.fingerprint == SCHEMA.fingerprint
    assert {task["id"] for task in tasks} == set(trained.truth)
    annotations = [a for task in tasks for a in task.get("annotations") or []]
    assert len(annotations) in {63, 65}
    for annotation in annotations:
        assert annotation["completed_by"]["email"] == trained.server.home.secrets.user_email
        assert annotation["lead_time"] == 1.5
        assert annotation["was_cancelled"] is False
        assert {"prediction", "parent_prediction", "updated_at"} <= set(annotation)
    images, labels = fetch_images(trained.server.home, trained.id)
    assert len(images) == 81, "SimCLR sees every image but the blind ones"
    group_of = {f"image-{n:05d}.png": GROUPS[n % 3] for n in range(90)}
    assert labels == {image_id: group_of[image_id] for image_id in labels}
    assert len(labels) == 60


def test_killed_half_way_leaves_the_live_model_and_a_restart_works(trained, server):
    live = trained.live_file.read_bytes()
    versions = [version.name for version in trained.registry.list()]
    trained.annotate(sorted(set(trained.truth) - trained.blind)[60:63])
    trained.start_training()
    job = trained.jobs()[0]
    folder = server.home.jobs_folder / job["id"]
    await_stage(folder, "fine-tune", 2)
    os.kill(read_json(folder / STARTED_FILE)["process"]["pid"], signal.SIGKILL)
    await_jobs(server.home)
    killed = trained.jobs()[0]
    assert (killed["id"], killed["state"]) == (job["id"], "killed")
    assert "killed" in killed["error"]
    assert trained.live_file.read_bytes() == live
    assert [version.name for version in trained.registry.list()] == versions
    again = trained.train()
    assert again["state"] == "finished", again
    assert len(trained.registry.list()) == len(versions) + 1
    assert trained.server.get(f"/api/projects/{trained.id}/")["model_version"] == (
        trained.registry.live.name
    )


def await_stage(job_folder: Path, stage: str, done: int) -> None:
    """Wait until the job has done so much of a stage."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        progress = hpc_jobs.progress.read(job_folder)
        if progress and progress.stage == stage and progress.done >= done:
            return
        time.sleep(0.02)
    raise AssertionError(f"the job never came to {stage!r}")


@pytest.mark.parametrize("classes", [0, 1])
def test_too_few_classes_are_refused_and_the_live_model_stays(server, trained, classes):
    project = make_project(server, f"backend-{classes}-classes", count=45)
    live = trained.registry.live
    project.registry.promote(
        project.registry.add(
            lambda folder: (
                [
                    (folder / path.name).write_bytes(path.read_bytes())
                    for path in live.folder.iterdir()
                    if path.is_file()
                ]
                and None
            )
        ).name
    )
    before = project.live_file.read_bytes()
    if classes:
        discs = [task_id for task_id, group in project.truth.items() if group == "disc"]
        project.annotate([task_id for task_id in discs if task_id not in project.blind])
    job = project.train()
    assert job["state"] == "failed"
    assert job["error"].startswith("TrainingRefused: ")
    assert len(job["error"]) > 40
    print(job["error"])
    assert project.live_file.read_bytes() == before
    assert call_backend(server, "GET", "/health").ok


def test_backend_killed_while_annotating(server):
    project = make_project(server, "backend-killed", count=6)
    backend = server.servers.processes[1]
    os.killpg(backend.pid, signal.SIGKILL)
    time.sleep(0.5)
    try:
        started = time.monotonic()
        project.annotate(sorted(project.truth)[:3])
        seconds = (time.monotonic() - started) / 3
        task_id = sorted(project.truth)[4]
        assert server.request("GET", f"/api/tasks/{task_id}/").ok
        assert server.request("GET", f"/api/projects/{project.id}/next/").ok
        (row,) = server.get(f"/api/ml?project={project.id}")
        assert row["readable_state"] == "Disconnected"
    finally:
        backend.stop()
        backend.start()
        backend.await_health(120, lambda line: None)
    print(f"{seconds:.2f} s for an annotation without a backend")
    assert seconds < 2
    assert sum(task["total_annotations"] for task in project.tasks()) == 3
    (row,) = server.get(f"/api/ml?project={project.id}")
    assert row["readable_state"] == "Connected"


def test_wrong_password(server):
    project = make_project(server, "backend-password", count=6)
    body = {
        "project": project.id,
        "url": server.servers.backend_url,
        "title": "with a wrong password",
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": server.home.secrets.backend_username,
        "basic_auth_pass": "wrong",
    }
    answer = server.request("POST", "/api/ml/", json=body)
    assert answer.status_code == 400, answer.text
    assert "authentication parameters" in answer.text
    webhooks = server.get("/api/webhooks/", params={"project": project.id})
    (webhook,) = [w for w in webhooks if w["project"] == project.id]
    wrong = authorization(server.home.secrets)[:-4] + "xxxx"
    # Label Studio's PATCH forgets the actions that are not named again.
    changed = {"headers": {"Authorization": wrong}, "actions": webhook["actions"]}
    assert server.request("PATCH", f"/api/webhooks/{webhook['id']}/", json=changed).ok
    project.annotate(sorted(project.truth)[:2])
    assert sum(task["total_annotations"] for task in project.tasks()) == 2
    log = server.servers.processes[1].log_file.read_text()
    assert "POST /webhook refused: wrong or no password" in log
    refused = call_backend(server, "POST", "/train", json={"project": 1}, auth=("x", "y"))
    assert refused.status_code == 401
    assert json.loads(refused.text)["error"]


def test_label_studio_gone_during_a_training_is_said(home_without_server):
    job = hpc_jobs.submit(
        refresh_without_server, home_without_server, name="x", folder=home_without_server / "jobs"
    )
    record = job.wait(60)
    assert record.state == "failed"
    assert record.error is not None
    assert "planktrait serve" in record.error


@pytest.fixture
def home_without_server(tmp_path: Path) -> Path:
    from label_studio_config.home import Home
    from label_studio_config.processes import free_port

    home = Home(tmp_path / "home")
    home.change_settings(label_studio_url=f"http://127.0.0.1:{free_port()}")
    return home.folder


def refresh_without_server(folder: Path) -> None:
    from label_studio_config.home import Home

    fetch_for_training(Home(folder), 1)
