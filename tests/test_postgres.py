"""The same Label Studio on PostgreSQL, in a cluster of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import psycopg
import pytest

from label_studio_config.api import Api
from label_studio_config.database import DatabaseError
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest
from label_studio_config.postgresql import PostgreSql
from label_studio_config.project import create_project
from label_studio_config.task_import import import_manifest
from label_studio_config.users import add_user
from tests.label_studio_fixtures import serve_for_tests
from tests.postgres_fixtures import (
    PostgresForTests,
    comes_to_wait,
    open_connection,
    postgres_server,
)
from tests.push_fixtures import in_django

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
<Choice value="Copepod"/><Choice value="Detritus"/></Choices></View>"""


def test_everything_works_on_postgresql(tmp_path, monkeypatch):
    with postgres_server() as cluster:
        variables = cluster.owned_database("planktrait")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with serve_for_tests(tmp_path) as server:
            home = server.home
            assert not (home.label_studio_folder / "label_studio.sqlite3").exists()
            project = create_project(home, "On PostgreSQL", CONFIG, annotators_per_image=2)
            assert create_project(home, "On PostgreSQL").id == project.id
            folder = server.images_root / "cruise"
            folder.mkdir()
            names = [f"{i}.png" for i in range(300)]
            for name in names:
                (folder / name).touch()
            manifest = Manifest(
                pd.DataFrame({"image_id": names, "path": [f"cruise/{name}" for name in names]}),
                server.images_root,
            )
            assert import_manifest(home, project.id, manifest, blind_share=0.1).added == 300
            assert import_manifest(home, project.id, manifest, blind_share=0.1).added == 0
            assert add_user(home, "anna@example.org").token

            api = Api(home)
            page = api.get("/api/tasks", project=project.id, page_size=1000)["tasks"]
            blind = [task for task in page if task["data"]["blind"] == "yes"]
            suggestions = [
                {"task": task["id"], "result": [], "score": 0.5, "model_version": "v1"}
                for task in page
            ]
            path = f"/api/planktrait/projects/{project.id}/suggestions"
            for _ in range(2):
                assert api.post(path, suggestions) == {"saved": 300 - len(blind)}
            tab = dict(zip(("all", "least", "suggested"), project.tab_ids, strict=False))
            shown = api.get("/api/tasks", view=tab["suggested"], project=project.id)
            assert shown["total"] == 300 - len(blind)
            assert shown["total_predictions"] == 300 - len(blind)

            # Two refreshes of one version at once: neither doubles what the other saves.
            at_once = [one | {"model_version": "v2"} for one in suggestions]
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(lambda _: Api(home).post(path, at_once), range(6)))
            shown = api.get("/api/tasks", view=tab["suggested"], project=project.id)
            assert shown["total_predictions"] == 2 * (300 - len(blind))
            with open_connection(variables) as other:
                check_locks(home, project.id, suggestions, other)
            check_many_awaited(home, project.id)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresForTests]:
    with postgres_server() as server:
        yield server


def database_named(cluster: PostgresForTests, name: str) -> PostgreSql:
    variables = cluster.new_database(name)
    host, port, user = (variables[f"POSTGRE_{key}"] for key in ("HOST", "PORT", "USER"))
    return PostgreSql(host, port, user, "", name)


@pytest.mark.parametrize("fault", ["whole", "truncated", "killed", "refused"])
def test_a_restore_that_breaks_off_leaves_what_was_there(
    cluster, tmp_path, monkeypatch, fault
) -> None:
    """Also half way through the rows of the second table, when the first is whole."""
    source, target = (database_named(cluster, f"{name}_{fault}") for name in ("source", "target"))
    dump = tmp_path / "dump"
    with source.connected() as connection:
        for name in ("a", "b"):
            # Random, so that the dump is large and the end of the file is the middle of a table.
            rows = "SELECT n, md5(random()::text) FROM generate_series(1, 50000) n"
            connection.execute(f"CREATE TABLE {name} AS {rows}")
    with target.connected() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        if fault == "refused":
            # What is not a table stays, and is in the way of one.
            connection.execute("CREATE SEQUENCE b")
    command = ["pg_dump", "-Fc", "-h", source.host, "-p", source.port, "-U", source.user]
    subprocess.run([*command, "-f", str(dump), source.name], check=True)
    if fault == "truncated":
        os.truncate(dump, dump.stat().st_size * 3 // 4)
    if fault == "killed":
        dies = tmp_path / "pg_restore"
        real = shutil.which("pg_restore")
        dies.write_text(
            f'#!/bin/sh\ncase "$*" in *--list*) exec {real} "$@";; esac\n'
            f'{real} "$@" | head -c 2000000\nkill -9 $$\n'
        )
        dies.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if fault == "whole":
        target.fill(dump, lambda *told: None)
    else:
        with pytest.raises(DatabaseError, match="What was there before stays"):
            target.fill(dump, lambda *told: None)
    with target.connected() as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        names = {name for (name,) in tables.fetchall()}
        if fault == "whole":
            assert names == {"a", "b"}
            assert connection.execute("SELECT count(*) FROM b").fetchall() == [(50000,)]
        else:
            assert names == {"kept"}
            assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]


def check_many_awaited(home: Home, project_id: int) -> None:
    """Tasks are told from those that wait for a second opinion by a join, not one after another."""
    plans = in_django(
        home,
        "from label_studio_config.plugin.awaited import Awaited\n"
        "from label_studio_config.plugin.models import Crop\n"
        f"awaited, crops = Awaited({project_id}, None).condition(), Crop.objects.all()\n"
        "print(crops.filter(~awaited).explain(), crops.filter(awaited).explain())",
    )
    assert "Anti Join" in plans, plans
    assert "SubPlan" not in plans, plans


def check_locks(
    home: Home, project_id: int, suggestions: list[Any], other: psycopg.Connection[Any]
) -> None:
    """Saving suggestions while somebody else's transaction is open."""
    api = Api(home, timeout_s=20)
    path = f"/api/planktrait/projects/{project_id}/suggestions"
    # As an annotation holds its project while it is committed: nobody waits for it.
    other.execute("SELECT 1 FROM project WHERE id = %s FOR KEY SHARE", (project_id,))
    saved = api.post(path, [one | {"model_version": "v3"} for one in suggestions])["saved"]
    assert saved > 0
    other.rollback()

    # A task is marked blind meanwhile: it alone gets none.
    found = other.execute(
        "SELECT min(task_id) FROM prediction WHERE project_id = %s", (project_id,)
    )
    ((task_id,),) = found.fetchall()
    mark = "UPDATE task SET data = data || jsonb_build_object('blind', 'yes') WHERE id = %s"
    other.execute(mark, (task_id,))
    with ThreadPoolExecutor(1) as pool:
        newest = [one | {"model_version": "v4"} for one in suggestions]
        answer = pool.submit(api.post, path, newest)
        waits = comes_to_wait(answer, other, 20)
        other.commit()
        assert waits
        assert answer.result() == {"saved": saved - 1}
    versions = {one["model_version"] for one in api.get(f"/api/tasks/{task_id}/")["predictions"]}
    assert "v3" in versions
    assert "v4" not in versions
