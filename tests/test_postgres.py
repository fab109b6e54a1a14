"""The same Label Studio on PostgreSQL, in a cluster of the test's own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import psycopg
import pytest

from label_studio_config.api import Api
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest
from label_studio_config.project import create_project
from label_studio_config.task_import import import_manifest
from label_studio_config.users import add_user
from tests.label_studio_fixtures import serve_for_tests
from tests.postgres_fixtures import postgres_cluster

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
<Choice value="Copepod"/><Choice value="Detritus"/></Choices></View>"""


def test_everything_works_on_postgresql(tmp_path, monkeypatch):
    with postgres_cluster() as variables:
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


def open_connection(variables: dict[str, str]) -> psycopg.Connection[Any]:
    """For a transaction of somebody else."""
    return psycopg.connect(
        host=variables["POSTGRE_HOST"],
        port=variables["POSTGRE_PORT"],
        user=variables["POSTGRE_USER"],
        dbname=variables["POSTGRE_NAME"],
    )


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
        waits, end = False, time.monotonic() + 20
        while not waits and not answer.done() and time.monotonic() < end:
            time.sleep(0.05)
            found = other.execute("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)")
            ((waits,),) = found.fetchall()
        other.commit()
        assert waits
        assert answer.result() == {"saved": saved - 1}
    versions = {one["model_version"] for one in api.get(f"/api/tasks/{task_id}/")["predictions"]}
    assert "v3" in versions
    assert "v4" not in versions
