"""Bulk loading over HTTP: into a Label Studio without our plugin, and into ours."""

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from PIL import Image

from label_studio_config.api import Api, ApiError
from label_studio_config.home import Home, OutsideRootError
from label_studio_config.project import create_project
from label_studio_config.results import write_result
from ml_backend.prune_http import prune_over_http
from ml_backend.push import push_project
from tests.label_studio_fixtures import without_plugin
from tests.push_fixtures import CONFIG, in_django, manifest_of, shard
from tests.test_push import counts


@pytest.fixture(scope="module")
def plain_label_studio(tmp_path_factory, database_template) -> Iterator[Api]:
    """Label Studio with its own settings: nothing of ours is loaded."""
    home = Home(tmp_path_factory.mktemp("plain") / "home")
    shutil.copy(database_template, home.label_studio_folder / "label_studio.sqlite3")
    in_django(
        home,
        "from label_studio_config.plugin.bootstrap import prepare_database\n"
        "from django.conf import settings\n"
        "prepare_database(settings.PLANKTRAIT_HOME)\n",
    )
    with without_plugin(home) as url:
        yield Api.at(url + "/", home.secrets.api_token)


@pytest.mark.slow
def test_into_a_label_studio_that_is_not_ours(plain_label_studio, tmp_path):
    api = plain_label_studio
    with pytest.raises(ApiError):
        api.get("/api/planktrait/projects/1/tasks")
    number = api.post("/api/projects", {"title": "Theirs", "label_config": CONFIG})["id"]
    blind = ["yes" if row == 3 else "no" for row in range(12)]
    words = ["<script>alert(1)</script>", "Čerenkov ☃", float("nan"), *[None] * 9]
    manifest = manifest_of(tmp_path, 12, blind=blind, station=words)
    path = manifest.write(tmp_path / "m.parquet")
    ids = manifest.image_ids
    shard(tmp_path / "v1" / "part-00000.parquet", ids[:10], "theirs-v1")

    token = api._session.headers["Authorization"].removeprefix("Token ")

    def push(folder: str, **options: bool) -> dict[str, int]:
        told = push_project(
            tmp_path, number, path, tmp_path / folder, url=api.url, token=token, **options
        )
        assert not told["bad"]
        return counts(told)

    assert push("v1") == {"added": 12, "blind": 1, "suggested": 9}
    assert push("v1") == {"unchanged": 9}
    assert api.get(f"/api/projects/{number}/")["model_version"] == "theirs-v1"
    tasks = api.get("/api/tasks", project=number, fields="all", page_size=100)["tasks"]
    assert sum(task["total_predictions"] for task in tasks) == 9
    assert len(tasks) == 12

    task = next(task for task in tasks if task["predictions"])
    body = {
        "result": task["predictions"][0]["result"],
        "parent_prediction": task["predictions"][0]["id"],
    }
    api.post(f"/api/tasks/{task['id']}/annotations/", body)
    # One image of the first version has none of the second: a shard was damaged, say.
    for version in ("v2", "v3"):
        shards = tmp_path / version / "part-00000.parquet"
        shard(shards, [*ids[:7], *ids[8:11]], f"theirs-{version}", shift=1)
    # The version that people see loses nothing.
    assert push("v2", show=False, prune=True) == {"suggested": 9, "shown": 9}
    assert push("v2", prune=True) == {"unchanged": 9, "shown": 9}
    assert push("v2", prune=True) == {"unchanged": 9, "shown": 9}
    earlier = {"pruned": 7, "kept": 1, "unreplaced": 1, "shown": 9}
    assert push("v3", prune=True) == {"suggested": 9, **earlier}
    shard(tmp_path / "v3" / "part-00000.parquet", ids[:11], "theirs-v3", shift=1)
    told = push("v3", prune=True)
    assert (told["suggested"], told["pruned"], told["kept"]) == (1, 1, 1)
    assert "unreplaced" not in told
    shard(tmp_path / "v3" / "part-00000.parquet", ids[:11], "theirs-v3", confidences={0: 0.97})
    told = push("v3")
    assert told["replaced"] == 10
    tasks = api.get("/api/tasks", project=number, fields="all", page_size=100)["tasks"]
    assert sorted(task["total_predictions"] for task in tasks) == [0, 0, 1, *[2] * 8, 3]
    stations = {task["data"].get("station") for task in tasks}
    assert stations == {words[0], words[1], None}

    # A page of tasks is read; while its first ones are dealt with, somebody annotates the last.
    shard(tmp_path / "v4" / "part-00000.parquet", ids[:11], "theirs-v4", shift=1)
    assert push("v4") == {"suggested": 10}
    tasks = api.get("/api/tasks", project=number, fields="all", page_size=100)["tasks"]
    *_, last = (
        (task["id"], one["id"])
        for task in tasks
        for one in task["predictions"]
        if one["model_version"] == "theirs-v2" and not task["annotations"]
    )
    made = api.post(
        f"/api/tasks/{last[0]}/annotations/",
        {"result": tasks[0]["predictions"][0]["result"], "parent_prediction": last[1]},
    )
    gone = next(task["id"] for task in tasks if not task["predictions"])
    api.call("DELETE", f"/api/tasks/{gone}/")
    told = prune_over_http(api, number, "theirs-v4", tasks)
    assert told == {"pruned": 8, "kept": 2, "shown": 10}
    annotation = api.get(f"/api/annotations/{made['id']}/")
    assert annotation["parent_prediction"] == last[1]


def test_into_ours_over_http(label_studio, tmp_path):
    home = label_studio.home
    project = create_project(home, "Pushed over HTTP", CONFIG)
    manifest = manifest_of(home.images_root, 8)
    path = manifest.write(tmp_path / "m.parquet")
    where = {"url": label_studio.url, "token": home.secrets.api_token}
    shard(tmp_path / "v1" / "part-00000.parquet", manifest.image_ids[:6], "http-v1")
    told = push_project(tmp_path, project.id, path, tmp_path / "v1", **where)
    assert counts(told) == {"added": 8, "suggested": 6}
    shard(tmp_path / "v1" / "part-00000.parquet", manifest.image_ids, "http-v1", shift=1)
    told = push_project(tmp_path, project.id, path, tmp_path / "v1", **where)
    assert counts(told) == {"suggested": 2, "replaced": 6}
    # The same images through the database: nothing is new.
    told = push_project(home.folder, project.id, path, tmp_path / "v1")
    assert counts(told) == {"unchanged": 8}
    tasks = label_studio.get(f"/api/tasks?project={project.id}&fields=all")["tasks"]
    result = tasks[0]["predictions"][0]["result"]
    label = result[0]["value"]["choices"][0]
    assert result[0]["value"] == write_result(project.schema, {"group": label})[0]["value"]
    with pytest.raises(ApiError, match="token"):
        push_project(tmp_path, project.id, path, url=label_studio.url)
    # What our own plugin says, as those before it: neither deletes without the name in its place.
    suggestions = f"/api/planktrait/projects/{project.id}/suggestions"
    for asked, said in (
        ({"after": 0}, REFUSED),
        ({"model_version": "http-v1", "newer": "http-v2"}, "replaced: name the version"),
    ):
        with pytest.raises(ApiError, match=said):
            Api(home).call("DELETE", suggestions, params=asked)


def test_images_of_a_folder_below_the_images_root_have_one_address(label_studio, tmp_path):
    home = label_studio.home
    project = create_project(home, "A folder over HTTP", CONFIG)
    folder = home.images_root / "over http"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8), 80).save(folder / name)
    shard(tmp_path / "v1" / "part-00000.parquet", ["a.png", "b.png"], "folder-v1")
    where = {"url": label_studio.url, "token": home.secrets.api_token}
    told = push_project(tmp_path, project.id, folder, tmp_path / "v1", **where)
    assert counts(told) == {"added": 2, "suggested": 2}
    tasks = label_studio.get(f"/api/tasks?project={project.id}&fields=all")["tasks"]
    assert [task["data"]["image_id"] for task in tasks] == ["over http/a.png", "over http/b.png"]
    for task in tasks:
        assert label_studio.request("GET", task["data"]["image"]).ok
    for way in ({}, where):
        told = push_project(home.folder, project.id, folder, tmp_path / "v1", **way)
        assert counts(told) == {"unchanged": 2}
    # As whoever has the images elsewhere than the server, and in a project whose members see none.
    storages = f"/api/storages/localfiles/{project.storage_id}"
    label_studio.request("DELETE", storages)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with pytest.raises(OutsideRootError, match="give with --images-address"):
        push_project(tmp_path, project.id, copy, **where)
    listed = f"/api/storages/localfiles?project={project.id}"
    assert label_studio.get(listed) == []
    there = {**where, "images_address": "/data/local-files/?d=over%20http/"}
    told = push_project(tmp_path, project.id, copy, **there)
    assert (told["present"], counts(told)) == (2, {})
    assert [one["path"] for one in label_studio.get(listed)] == [str(home.images_root)]
    with pytest.raises(OutsideRootError, match="give with --images-address what stands before"):
        push_project(tmp_path, project.id, tmp_path / "copy", **where)


REFUSED = "model_version: name the version"


class OlderPlugin(BaseHTTPRequestHandler):
    """One that knows no `newer`: it deletes all of the version that it is given."""

    deleted: list[str]

    def _answer(self, status: int, body: dict) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self) -> None:
        versions = {"c-v1": 3, "c-v2": 2, "c-v3": 2}
        whole = {"model_version": "c-v3"}
        self._answer(200, versions if "model-versions" in self.path else whole)

    def do_DELETE(self) -> None:
        if "model_version=" in self.path:
            self.deleted.append(self.path)
            self._answer(200, {"deleted": 3, "kept": 0, "next": None})
        else:
            self._answer(400, {"validation_errors": {"non_field_errors": [REFUSED]}})

    def log_message(self, *_: object) -> None:
        pass


def test_an_older_plugin_deletes_nothing_that_is_not_replaced():
    OlderPlugin.deleted = []
    with ThreadingHTTPServer(("127.0.0.1", 0), OlderPlugin) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            api = Api.at(f"http://127.0.0.1:{server.server_port}", "token")
            with pytest.raises(ApiError, match="Upgrade the plugin there"):
                prune_over_http(api, 1, "c-v3", None)
        finally:
            server.shutdown()
    assert OlderPlugin.deleted == []
