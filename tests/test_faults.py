"""kill -9 of backend, Label Studio and PostgreSQL in the middle of a push, a job, a training.

The job goes on, or ends with a word that helps; doing it again completes it. What people saved is
there once, and so is every suggestion.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import requests

import hpc_jobs
from hpc_jobs import cancel_all
from label_studio_config.api import Api, ApiError
from label_studio_config.database_choice import database_of
from label_studio_config.postgresql import PostgreSql
from label_studio_config.project import create_project
from label_studio_config.results import write_result
from ml_backend.job_keys import suggest_key
from ml_backend.push import PushError, push_project
from ml_backend.registry import Registry
from ml_backend.training_jobs import suggest_project
from tests.backend_fixtures import CONFIG, add_version, draw_images, start_small
from tests.gallery_fixtures import GalleryForTests
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests
from tests.postgres_fixtures import PostgresForTests, postgres_server
from tests.push_fixtures import CONFIG as PUSHED
from tests.push_fixtures import manifest_of, shard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TASKS, IMAGES, TAUGHT = 3000, 400, 60
VICTIMS = ("backend", "Label Studio", "PostgreSQL")


@dataclass
class Stand:
    """A project whose images all have a suggestion, on servers that may be killed."""

    server: LabelStudioForTests
    postgres: PostgresForTests
    gallery: GalleryForTests

    @property
    def registry(self) -> Registry:
        return Registry(self.server.home.models_folder(self.gallery.project.id))

    def kill(self, victim: str) -> None:
        if victim == "PostgreSQL":
            self.postgres.kill()
            return
        process = self.server.servers.processes[VICTIMS.index(victim) ^ 1]
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.stop()

    def start_again(self, victim: str) -> None:
        if victim == "PostgreSQL":
            self.postgres.start()
            return
        process = self.server.servers.processes[VICTIMS.index(victim) ^ 1]
        process.start()
        process.await_health(120, lambda line: None)

    def new_version(self) -> str:
        """A live model of which nothing has a suggestion yet."""
        return add_version(self.server.home, project_id=self.gallery.project.id).name

    def suggest(self) -> hpc_jobs.JobRecord:
        """The job that gives every image a suggestion of the live version."""
        home, project = self.server.home, self.gallery.project.id
        submission = hpc_jobs.submit_once(
            suggest_project,
            str(home.folder),
            project,
            name=f"suggest for project {project}",
            folder=home.jobs_folder,
            key=suggest_key(project),
        )
        return submission.job.record()

    def train(self) -> hpc_jobs.JobRecord:
        """The button "Start training": its job."""
        Api(self.server.home).post(f"/api/ml/{self.gallery.project.backend_id}/train", {})
        return hpc_jobs.list_jobs(self.server.home.jobs_folder, newest=1)[0]

    def query(self, sql: str, *values: Any) -> list[Any]:
        database = database_of(self.server.home)
        assert isinstance(database, PostgreSql)
        with database.connected() as connection:
            return connection.execute(sql, values).fetchall()

    def require_each_suggested_once(self, version: str) -> None:
        counted = "SELECT task_id, count(*) FROM prediction WHERE model_version = %s GROUP BY 1"
        times = dict(self.query(counted, version))
        assert set(times) == set(self.gallery.tasks)
        assert set(times.values()) == {1}
        details = self.gallery.api.get(f"/api/projects/{self.gallery.project.id}/")
        assert details["model_version"] == version
        index = self.gallery.get("gallery/index")
        assert index == {"tasks": TASKS, "suggestions": TASKS, "complete": True, "mended": 0}

    def require_saved_once(self, saved: list[int]) -> None:
        ids = [row[0] for row in self.query("SELECT id FROM task_completion")]
        assert set(saved) <= set(ids)
        wrong = self.query(
            "SELECT t.id FROM task t LEFT JOIN task_completion c ON c.task_id = t.id "
            "GROUP BY t.id HAVING count(c.id) <> t.total_annotations"
        )
        assert not wrong


@pytest.fixture(scope="module")
def stand(tmp_path_factory, postgres_template) -> Iterator[Stand]:
    with pytest.MonkeyPatch.context() as patch, postgres_server(postgres_template) as postgres:
        for name, value in postgres.variables.items():
            patch.setenv(name, value)
        patch.setenv("PLANKTRAIT_TRAIN_EVERY", "1000000")
        folder = tmp_path_factory.mktemp("faults")
        with serve_for_tests(folder, with_backend=True) as server:
            drawn = draw_images(server.images_root / "cruise", IMAGES)
            gallery = GalleryForTests(server, create_project(server.home, "Faults", CONFIG))
            gallery.load(
                [
                    {
                        "image": f"/data/local-files/?d=cruise/{drawn[i % IMAGES][0]}",
                        "image_id": f"crop-{i:05d}",
                        "blind": "no",
                    }
                    for i in range(TASKS)
                ]
            )
            truth = {task: drawn[i % IMAGES][1] for i, task in enumerate(gallery.tasks)}
            for task_id in gallery.tasks[:TAUGHT]:
                gallery.annotate(task_id, {"group": truth[task_id]})
            start_small(server.home, gallery.project.id)
            yield Stand(server, postgres, gallery)
            cancel_all(server.home.jobs_folder)


@contextmanager
def somebody_annotating(stand: Stand) -> Iterator[list[int]]:
    """A person who annotates all the time, whatever is killed; the ids of what was acknowledged."""
    over, saved = threading.Event(), []
    result = write_result(stand.gallery.project.schema, {"group": "disc"})
    token = {"Authorization": f"Token {stand.server.home.secrets.api_token}"}

    def annotate() -> None:
        waiting = iter(stand.gallery.tasks[-1:TAUGHT:-1])
        while not over.is_set():
            url = f"{stand.server.url}/api/tasks/{next(waiting)}/annotations/"
            try:
                answer = requests.post(url, json={"result": result}, headers=token, timeout=30)
            except requests.RequestException:
                over.wait(0.2)
                continue
            if answer.status_code == 201:
                saved.append(answer.json()["id"])
            over.wait(0.1)

    thread = threading.Thread(target=annotate)
    thread.start()
    try:
        yield saved
    finally:
        over.set()
        thread.join()


def await_stage(job: hpc_jobs.JobRecord, stage: str, done: int) -> None:
    """Wait until the job has done so much of a stage."""
    end = time.monotonic() + 120
    while True:
        progress = hpc_jobs.progress.read(job.folder)
        if progress and progress.stage == stage and progress.done >= done:
            return
        assert time.monotonic() < end, f"{job.name} never came to {stage!r}: {progress}"
        time.sleep(0.01)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_while_suggestions_are_saved(stand, victim):
    version = stand.new_version()
    with somebody_annotating(stand) as saved:
        job = stand.suggest()
        await_stage(job, "suggest", 1000)
        stand.kill(victim)
        ended = hpc_jobs.Job(job.folder).wait(120)
        stand.start_again(victim)
        if victim == "backend":
            assert (ended.state, ended.error) == ("finished", None)
        else:
            assert ended.state == "failed"
            assert ended.error is not None
            assert (
                "planktrait serve" if victim == "Label Studio" else "database running"
            ) in ended.error
            before = len(saved)
            end = time.monotonic() + 60
            while len(saved) == before:
                assert time.monotonic() < end, f"nothing can be saved since {victim} came back"
                time.sleep(0.05)
        assert hpc_jobs.Job(stand.suggest().folder).wait(120).state == "finished"
    stand.require_each_suggested_once(version)
    if victim == "PostgreSQL":  # what was being saved is counted at Label Studio's next start
        stand.kill("Label Studio")
        stand.start_again("Label Studio")
    stand.require_saved_once(saved)


@pytest.mark.parametrize(
    ("victim", "count", "word"),
    [("PostgreSQL", 7000, "database running"), ("Label Studio", 2500, "planktrait serve")],
)
def test_killed_while_images_are_pushed(stand, tmp_path, monkeypatch, victim, count, word):
    home, report = stand.server.home, hpc_jobs.progress.report
    project = create_project(home, f"{victim} is killed", PUSHED)
    manifest = manifest_of(home.images_root, count)
    path = manifest.write(tmp_path / "m.parquet")
    shard(tmp_path / "shards" / "part-00000.parquet", manifest.image_ids, "killed-v1")
    over_http = {"url": stand.server.url, "token": home.secrets.api_token}
    where = over_http if victim == "Label Studio" else {}

    def push() -> dict[str, Any]:
        return push_project(home.folder, project.id, path, tmp_path / "shards", **where)

    def kill_while_writing() -> None:
        """While a transaction has written something that is not committed."""
        writing = (
            "SELECT 1 FROM pg_locks JOIN pg_class ON pg_class.oid = relation WHERE relname = 'task'"
            " AND mode = 'RowExclusiveLock'"
        )
        while not stand.query(writing) and not over.is_set():
            pass
        stand.kill(victim)

    def after_the_first_images(stage: str, done: int, *more: Any) -> None:
        report(stage, done, *more)
        if stage == "push" and done and not killers:
            killers.append(threading.Thread(target=kill_while_writing))
            killers[0].start()

    killers: list[threading.Thread] = []
    over = threading.Event()
    monkeypatch.setattr(hpc_jobs.progress, "report", after_the_first_images)
    try:
        with pytest.raises((PushError, ApiError), match=word):
            push()
    finally:
        over.set()
        for killer in killers:
            killer.join()
    stand.start_again(victim)
    told = push()
    assert 0 < told["present"] < count
    assert (told["present"] + told["added"], told["bad"]) == (count, [])
    assert told["suggested"] + told["unchanged"] == count
    tasks = (
        "SELECT count(*), count(DISTINCT data->>'image_id'), count(DISTINCT inner_id), "
        "count(*) FILTER (WHERE total_predictions = 1) FROM task WHERE project_id = %s"
    )
    assert stand.query(tasks, project.id) == [(count,) * 4]
    suggestions = "SELECT count(*), count(DISTINCT task_id) FROM prediction WHERE project_id = %s"
    assert stand.query(suggestions, project.id) == [(count,) * 2]
    index = Api(home).get(f"/api/planktrait/projects/{project.id}/gallery/index")
    assert (index["tasks"], index["suggestions"], index["complete"]) == (count, count, True)
    details = Api(home).get(f"/api/projects/{project.id}/")
    assert (details["model_version"], details["task_number"]) == ("killed-v1", count)


def test_a_training_survives_them_all(stand):
    versions = len(stand.registry.list())
    job = stand.train()
    await_stage(job, "fine-tune", 1)
    for victim in VICTIMS:
        stand.kill(victim)
    progress = hpc_jobs.progress.read(job.folder)
    assert progress is not None
    # Before it asks Label Studio for anything again.
    assert hpc_jobs.Job(job.folder).record().active
    assert progress.stage != "suggest"
    ended = hpc_jobs.Job(job.folder).wait(600)
    for victim in reversed(VICTIMS):
        stand.start_again(victim)
    # It needs none of them once it has read the annotations.
    assert len(stand.registry.list()) == versions + 1
    assert ended.state == "failed"
    assert ended.error is not None
    assert "its suggestions are not in Label Studio" in ended.error
    assert "Suggest labels" in ended.error
    live = stand.registry.live
    assert live is not None
    assert hpc_jobs.Job(stand.suggest().folder).wait(120).state == "finished"
    stand.require_each_suggested_once(live.name)
