"""A small journey on SQLite and on PostgreSQL, backed up while it goes on, and restored."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from export_tools import export_project
from label_studio_config.api import Api
from label_studio_config.database import Sqlite
from label_studio_config.database_choice import database_of
from label_studio_config.home import Home
from label_studio_config.postgresql import PostgreSql
from label_studio_config.project import create_project
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.users import UserInfo
from ml_backend.registry import Registry
from tests.backend_fixtures import CONFIG, await_jobs, draw_images, start_small
from tests.gallery_fixtures import GalleryForTests
from tests.label_studio_fixtures import serve_for_tests
from tests.postgres_fixtures import PostgresForTests, postgres_server
from tests.test_backup import planktrait

pytestmark = pytest.mark.slow

IMAGES, ANSWERED = 60, 45


@dataclass
class Journey:
    """What was there when the backup was made."""

    folder: Path
    home: Home
    backup: Path
    anna: UserInfo
    project_id: int
    answers: dict[int, list[str]]
    suggestions: dict[int, list[Any]]
    page: Any
    written_meanwhile: int
    postgres: PostgresForTests | None


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def journey(request, tmp_path_factory) -> Iterator[Journey]:
    folder = tmp_path_factory.mktemp("journey")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANKTRAIT_TRAIN_EVERY", "1000")
        with cluster_of(request, patch) as postgres:
            template = None if postgres else request.getfixturevalue("database_template")
            yield travel(folder, template, postgres)


@contextmanager
def cluster_of(request, patch) -> Iterator[PostgresForTests | None]:
    if request.param == "SQLite":
        yield None
        return
    template = request.getfixturevalue("postgres_template")
    with postgres_server() as server:
        for name, value in server.owned_database("planktrait", template).items():
            patch.setenv(name, value)
        yield server


def travel(folder: Path, template: Path | None, postgres: PostgresForTests | None) -> Journey:
    images = folder / "images"
    truth = dict(draw_images(images / "cruise", IMAGES))
    with serve_for_tests(
        folder, template=template, images_root=images, with_backend=True
    ) as server:
        assert (server.home.label_studio_folder / "label_studio.sqlite3").exists() is not bool(
            postgres
        )
        info = create_project(server.home, "Journey", CONFIG)
        gallery = GalleryForTests(server, info)
        rows = [
            {"image": f"/data/local-files/?d=cruise/{name}", "image_id": name, "blind": "no"}
            for name in truth
        ]
        gallery.load(rows)
        anna, ben = gallery.person("anna"), gallery.person("ben")
        name_of = dict(zip(gallery.tasks, truth, strict=True))
        for task_id in gallery.tasks[:ANSWERED]:
            gallery.annotate(task_id, {"group": truth[name_of[task_id]]}, anna)
        start_small(server.home, info.id)
        Api(server.home).post(f"/api/ml/{info.backend_id}/train", {})
        (job,) = await_jobs(server.home)
        assert job.state == "finished", job.error
        tasks = list(fetch_tasks(server.home, info.id))
        assert export_project(server.home, info.id, "csv", folder / "traits.csv").facts
        page = gallery.page(limit=10, order="certain")
        meanwhile = annotate_while(
            gallery,
            ben,
            lambda: planktrait("backup", folder / "backup", "--home", server.home.folder),
        )
        return Journey(
            folder,
            server.home,
            folder / "backup",
            anna,
            info.id,
            {t["id"]: [a["completed_by"]["email"] for a in t["annotations"]] for t in tasks},
            {t["id"]: [(p["model_version"], p["score"]) for p in t["predictions"]] for t in tasks},
            page,
            meanwhile,
            postgres,
        )


def annotate_while(gallery: GalleryForTests, person: UserInfo, work: Any) -> int:
    """Run `work` while a person annotates the rest again and again; how many were written."""
    over = threading.Event()
    written = []

    def annotate() -> None:
        while not over.is_set():
            task_id = gallery.tasks[ANSWERED + len(written) % (IMAGES - ANSWERED)]
            written.append(gallery.annotate(task_id, {"group": "disc"}, person)["id"])

    thread = threading.Thread(target=annotate)
    thread.start()
    try:
        status, said = work()
    finally:
        over.set()
        thread.join()
    assert status == 0, said
    assert len(written) == len(set(written)) > 0
    return len(written)


def test_the_record_says_what_is_in_the_backup(journey):
    record = json.loads((journey.backup / "backup.json").read_text())
    counts = record["counts"]
    assert counts["projects"] == 1
    assert counts["images"] == counts["suggestions"] == IMAGES
    assert counts["people"] == 3
    assert ANSWERED <= counts["annotations"] <= ANSWERED + journey.written_meanwhile
    assert record["images_root"] == str(journey.folder / "images")
    assert journey.backup.stat().st_mode & 0o777 == 0o700
    assert (journey.backup / "home" / "secrets.json").stat().st_mode & 0o777 == 0o600
    names = {name.split("/")[1] for name in record["sha256"] if name.startswith("home/")}
    assert {"models", "secrets.json", "settings.json", "jobs"} <= names
    assert not {"cache", "logs", "serve.lock"} & names
    assert not list(journey.backup.rglob("*.png"))


def test_a_backup_into_a_place_that_is_taken_or_served_is_refused(journey):
    home = journey.home
    status, said = planktrait("backup", journey.backup, "--home", home.folder)
    assert (status, "exists already" in said) == (1, True)
    for place in (home.folder, home.images_root):
        status, said = planktrait("backup", place / "backup", "--home", home.folder)
        assert (status, "choose a place outside" in said) == (1, True)


def test_restored_into_a_new_home_everything_is_there(journey, monkeypatch):
    if journey.postgres:
        restored = journey.postgres.owned_database("restored")
        monkeypatch.setenv("POSTGRE_NAME", restored["POSTGRE_NAME"])
    folder = journey.folder / "restored"
    status, said = planktrait("restore", journey.backup, "--home", folder / "home")
    assert status == 0, said
    # Once more: refused, unless it is told; then what was there is kept, or replaced as a whole.
    status, said = planktrait("restore", journey.backup, "--home", folder / "home")
    assert (status, "is not empty" in said, "--replace" in said) == (1, True, True)
    if journey.postgres:
        status, said = planktrait("restore", journey.backup, "--home", folder / "other")
        assert (status, "restored is not empty" in said) == (1, True)
    status, said = planktrait("restore", journey.backup, "--home", folder / "home", "--replace")
    assert status == 0, said
    (kept,) = (folder / "home").glob(".replaced-*")
    assert (kept / "secrets.json").exists()
    home = Home(folder / "home")
    assert home.secrets == journey.home.secrets
    # As if the backup had come between an annotation and its being counted.
    execute(home, "UPDATE task SET total_annotations = 0, is_labeled = FALSE WHERE id % 2 = 0")
    with serve_for_tests(folder, images_root=journey.home.images_root, with_backend=True) as server:
        gallery = GalleryForTests(
            server, create_project(home, "Journey"), tasks=list(journey.answers)
        )
        assert gallery.project.id == journey.project_id
        gallery.log_in(journey.anna)
        assert gallery.page(journey.anna, limit=1)["crops"]
        assert server.request("GET", journey.page["crops"][0]["image"]).ok
        tasks = list(fetch_tasks(home, journey.project_id))
        for task in tasks:
            people = [one["completed_by"]["email"] for one in task["annotations"]]
            assert people[: len(journey.answers[task["id"]])] == journey.answers[task["id"]]
            assert (task["total_annotations"], task["is_labeled"]) == (len(people), bool(people))
            said = [(one["model_version"], one["score"]) for one in task["predictions"]]
            assert said == journey.suggestions[task["id"]]
        versions = Registry(home.models_folder(journey.project_id))
        live = versions.live
        assert live.name == server.get(f"/api/projects/{journey.project_id}")["model_version"]
        index = gallery.get("gallery/index")
        assert (index["tasks"], index["suggestions"], index["complete"]) == (IMAGES, IMAGES, True)
        # What anybody wrote while the backup was taken is in it or not, but nothing else differs.
        tasks_of = {crop["task"]: crop["suggestion"] for crop in journey.page["crops"]}
        page = gallery.page(tasks=",".join(map(str, tasks_of)))
        assert {crop["task"]: crop["suggestion"] for crop in page["crops"]} == tasks_of
        # It goes on: the model suggests, and a training makes the next version.
        Api(home).post(f"/api/ml/{gallery.project.backend_id}/train", {})
        assert all(job.state == "finished" for job in await_jobs(home))
        assert len(versions.list()) == 2


def execute(home: Home, sql: str) -> None:
    """Change a home's database, which nobody serves."""
    database = database_of(home)
    if isinstance(database, Sqlite):
        with closing(sqlite3.connect(database.file, isolation_level=None)) as connection:
            connection.execute(sql)
    else:
        assert isinstance(database, PostgreSql)
        with database.connected() as connection:
            connection.execute(sql)


def test_another_kind_of_database_than_before_is_refused(journey, monkeypatch):
    if journey.postgres:
        monkeypatch.delenv("DJANGO_DB")
    else:
        monkeypatch.setenv("DJANGO_DB", "default")
    home = journey.home.folder
    for words in (["backup", journey.folder / "b2"], ["serve"]):
        status, said = planktrait(*words, "--home", home)
        assert status == 1
        assert "set DJANGO_DB and POSTGRE_* as before" in " ".join(said.split())
    status, said = planktrait("restore", journey.backup, "--home", journey.folder / "fresh")
    assert (status, "holds a dump of" in said) == (1, True)
