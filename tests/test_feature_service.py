"""More like this, clusters and the map over HTTP, with real images; the jobs, without a server."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from label_studio_config.home import Home
from ml_backend import project_features
from ml_backend.loaded_features import FeatureCache, UnknownTaskError
from ml_backend.project_features import (
    NoFeaturesError,
    cluster_project,
    clusters_key,
    current_store,
    features_folder,
    map_project,
    update_features,
    wanted_encoder,
)
from ml_backend.task_features import TaskTable
from tests.backend_fixtures import (
    CONFIG,
    PROJECT,
    BackendForTests,
    add_version,
    await_jobs,
    draw_images,
    give_encoder,
    home,
    image_task,
    serve_backend,
)

__all__ = ["home"]


def learn(home: Home, seed: int = 0, name: str = "small") -> Path:
    """As after “Learn features from all images”, with random weights."""
    return give_encoder(home, PROJECT, name=name, seed=seed)


def tasks_of(home: Home, **blind: str) -> list[dict[str, Any]]:
    names = sorted(path.name for path in home.images_root.glob("*.png"))
    return [
        image_task(number, name, blind=blind.get(f"task_{number}", "no"))
        for number, name in enumerate(names, start=1)
    ]


@pytest.fixture
def project(home: Home, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The tasks that Label Studio would give the jobs; a test may change them."""
    draw_images(home.images_root, 60)
    tasks = tasks_of(home, task_7="yes")
    monkeypatch.setattr(project_features, "fetch_tasks", lambda *_, **__: iter(tasks))
    monkeypatch.setattr(project_features, "fetch_project", lambda *_: {"label_config": CONFIG})
    return tasks


def test_without_an_encoder_it_says_what_to_do(home: Home) -> None:
    with pytest.raises(NoFeaturesError, match="Learn features from all images"):
        FeatureCache(home).get(PROJECT)
    with pytest.raises(NoFeaturesError, match="Learn features from all images"):
        update_features(home.folder, PROJECT)


def test_the_live_versions_encoder_comes_before_the_newest(home: Home) -> None:
    newest = learn(home)
    assert wanted_encoder(home, PROJECT) == newest
    version = add_version(home)
    assert wanted_encoder(home, PROJECT) == version.folder / "encoder"


def test_a_job_brings_features_up_to_date(home: Home, project: list[dict[str, Any]]) -> None:
    learn(home)
    (home.images_root / "image-00004.png").write_bytes(b"broken")
    project.append(image_task(100, "nowhere.png"))
    told = update_features(home.folder, PROJECT)
    assert (told["images"], told["added"], told["bad"]) == (59, 59, 2)
    assert any("nowhere.png" in reason for reason in told["first_bad"])
    loaded = FeatureCache(home).get(PROJECT)
    assert len(loaded.table) == 61
    assert loaded.table.last_task == 100
    assert (loaded.table.rows < 0).sum() == 2
    with pytest.raises(UnknownTaskError, match="the image of task 5 cannot be read"):
        loaded.like_tasks([5], 10)
    with pytest.raises(UnknownTaskError, match="task 101 has no features"):
        loaded.like_tasks([1, 101], 10)
    # One bad image does not stop the others.
    assert loaded.like_tasks([5, 1], 10) == loaded.like_tasks([1], 10)
    assert update_features(home.folder, PROJECT)["added"] == 0


def test_blind_and_asked_tasks_are_never_neighbours(
    home: Home, project: list[dict[str, Any]]
) -> None:
    learn(home)
    # Another task of the image of task 7, which is blind, and not marked itself.
    project.append(image_task(61, "image-00006.png"))
    update_features(home.folder, PROJECT)
    loaded = FeatureCache(home).get(PROJECT)
    found = loaded.like_tasks([1, 2], 1000)
    assert {one["task"] for one in found} == set(range(1, 61)) - {1, 2, 7}
    similarities = [one["similarity"] for one in found]
    assert similarities == sorted(similarities, reverse=True)
    assert loaded.like_tasks([1], 3) == loaded.like_tasks([1], 1000)[:3]


def test_tasks_of_one_image_are_found_together(home: Home, project: list[dict[str, Any]]) -> None:
    learn(home)
    project.append(image_task(61, "image-00010.png"))  # the image of task 11
    update_features(home.folder, PROJECT)
    found = FeatureCache(home).get(PROJECT).like_tasks([1], 1000)
    similarity = {one["task"]: one["similarity"] for one in found}
    assert similarity[11] == similarity[61]
    assert len(found) == len(similarity) == 59
    # Of one image, one task may be left out and the other one found.
    left = FeatureCache(home).get(PROJECT).like_tasks([1], 1000, without=[11, 2, 999])
    assert left == [one for one in found if one["task"] not in (11, 2)]


def test_another_encoder_answers_once_it_has_all(home: Home, project: list[dict[str, Any]]) -> None:
    learn(home)
    update_features(home.folder, PROJECT)
    cache = FeatureCache(home)
    before = cache.get(PROJECT)
    assert not cache.is_stale(PROJECT, before.store)
    learn(home, seed=1, name="better")
    assert cache.get(PROJECT) is before  # goes on answering
    assert cache.is_stale(PROJECT, before.store)
    update_features(home.folder, PROJECT)
    after = cache.get(PROJECT)
    assert after.store.fingerprint != before.store.fingerprint
    assert not cache.is_stale(PROJECT, after.store)
    assert not before.store.folder.exists()
    assert len(before.like_tasks([1], 5)) == 5  # a query that had begun


def test_clusters_are_of_open_images(home: Home, project: list[dict[str, Any]]) -> None:
    learn(home)
    for task in project[:20]:
        task["total_annotations"] = 1
    told = cluster_project(home.folder, PROJECT, 4)
    assert told["n_images"] == 40
    with np.load(features_folder(home, PROJECT) / "clusters.npz") as made:
        tasks = made["task"].tolist()
        assert made["starts"][-1] == len(tasks) == 40 - told["outliers"]
        aside = made["aside"].tolist()
    assert len(aside) == told["outliers"]
    assert sorted(tasks + aside) == list(range(21, 61))
    # Where several answers are wanted, one is not enough.
    project[0]["is_labeled"] = False
    assert cluster_project(home.folder, PROJECT, 4)["n_images"] == 41
    for task in project:
        task |= {"total_annotations": 1, "is_labeled": True}
    with pytest.raises(NoFeaturesError, match="no image left"):
        cluster_project(home.folder, PROJECT)
    # Answers to one question may leave another one open.
    assert cluster_project(home.folder, PROJECT, done_too=True)["n_images"] == 59


def test_the_map_has_every_image_that_is_not_blind(
    home: Home, project: list[dict[str, Any]]
) -> None:
    learn(home)
    assert map_project(home.folder, PROJECT)["points"] == 59
    with np.load(features_folder(home, PROJECT) / "map.npz") as made:
        assert made["task"].tolist() == [n for n in range(1, 61) if n != 7]
        assert np.isfinite(made["x"]).all()
        assert np.abs(made["y"]).max() <= 1


def test_later_tasks_take_the_place_of_earlier_ones() -> None:
    def table(ids: list[int], rows: list[int], blind: list[bool]) -> TaskTable:
        return TaskTable(np.array(ids), np.array(rows), np.array(blind), max(ids))

    both = table([1, 2, 3], [0, 1, -1], [False] * 3).and_new(
        table([3, 5, 6], [2, 1, -1], [False, True, True])
    )
    assert both.task_ids.tolist() == [1, 2, 3, 5, 6]
    assert both.rows.tolist() == [0, 1, 2, 1, -1]
    assert both.blind.tolist() == [False, True, False, True, True]  # task 2 shows the image of 5
    assert both.last_task == 6
    assert both.places(np.array([2, 4, 6, 9])).tolist() == [1, -1, 4, -1]
    assert TaskTable.empty().places(np.array([1])).tolist() == [-1]


@pytest.fixture
def backend(home: Home) -> Iterator[BackendForTests]:
    with serve_backend(home) as backend:
        yield backend


def ask(backend: BackendForTests, **body: Any) -> Any:
    return backend.call("POST", "/neighbours", json={"project": PROJECT, **body})


def png(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.slow
def test_neighbours_over_http(backend: BackendForTests) -> None:
    home = backend.home
    refused = ask(backend, tasks=[1])
    assert refused.status_code == 409
    assert "Learn features from all images" in refused.json()["error"]
    assert backend.call("GET", f"/features?project={PROJECT}").status_code == 409
    for work in ("features", "clusters", "map"):
        assert backend.call("POST", f"/{work}", json={"project": PROJECT}).status_code == 409

    learn(home)
    told = backend.call("GET", f"/features?project={PROJECT}").json()
    assert told == {"n": 0, "last_task": 0, "stale": False, "job": None}
    tasks = tasks_of(home, task_3="yes")
    new = {"new_tasks": tasks[:8], "label_config": CONFIG}
    answer = ask(backend, tasks=[1], limit=50, **new).json()
    assert answer["features"] == {"n": 8, "missing": 0}
    assert {one["task"] for one in answer["tasks"]} == {2, 4, 5, 6, 7, 8}
    new = {"new_tasks": tasks[8:], "label_config": CONFIG}
    assert ask(backend, tasks=[12], **new).json()["features"]["n"] == 12
    for _ in range(4):  # whichever worker is asked
        found = ask(backend, tasks=[1, 12], limit=50).json()["tasks"]
        assert {one["task"] for one in found} == set(range(2, 12)) - {3}

    # An image file: the same picture is found as its own task, and is not kept.
    same = ask(backend, image=png(home.images_root / "image-00004.png")).json()["tasks"]
    assert same[0]["task"] == 5
    assert same[0]["similarity"] == pytest.approx(1, abs=0.01)
    assert backend.call("GET", f"/features?project={PROJECT}").json()["n"] == 12


@pytest.mark.slow
def test_what_is_refused_over_http(backend: BackendForTests) -> None:
    learn(backend.home)
    new = {"new_tasks": tasks_of(backend.home), "label_config": CONFIG}
    assert ask(backend, tasks=[1], **new).ok
    for body, problem in [
        ({}, "give tasks, or an image"),
        ({"tasks": [1], "image": ""}, "give tasks, or an image"),
        ({"image": "%%%"}, "not base64"),
        ({"image": base64.b64encode(b"text").decode()}, "not an image"),
        ({"image": ""}, "the file is empty"),
        ({"tasks": ["one"]}, "valid integer"),
        ({"tasks": [1], "limit": 0}, "greater than or equal to 1"),
        ({"tasks": [1], "other": 2}, "not permitted"),
    ]:
        refused = ask(backend, **body)
        assert refused.status_code == 422, refused.text
        assert problem in refused.json()["error"]
    assert ask(backend, tasks=[99]).status_code == 404
    wide = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(wide, "png")
    bomb = ask(backend, image=base64.b64encode(wide.getvalue()).decode())
    assert bomb.status_code == 422
    assert backend.call("GET", "/clusters").status_code == 400
    assert backend.call("GET", f"/clusters/0?project={PROJECT}").status_code == 404
    assert backend.call("GET", f"/map/points?project={PROJECT}").status_code == 404
    url = backend.home.settings.backend_url
    stranger = backend.session.request("GET", f"{url}/features?project=7", auth=("a", "b"))
    assert stranger.status_code == 401


@pytest.mark.slow
def test_clusters_and_map_over_http(backend: BackendForTests, project: list[Any]) -> None:
    home = backend.home
    learn(home)
    empty = {"made_at": None, "n_images": 0, "clusters": [], "outliers": 0, "aside": None}
    empty["job"] = None
    assert backend.call("GET", f"/clusters?project={PROJECT}").json() == empty
    # The jobs themselves need Label Studio, which is not there: made in this process.
    cluster_project(home.folder, PROJECT, 3)
    map_project(home.folder, PROJECT)
    told = backend.call("GET", f"/clusters?project={PROJECT}").json()
    sizes = [one["size"] for one in told["clusters"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) + told["outliers"] == told["n_images"] == 59
    first = told["clusters"][0]
    path = f"/clusters/{first['id']}?project={PROJECT}"
    whole = backend.call("GET", path).json()
    assert whole["tasks"][:40] == first["tasks"]
    assert whole["next"] is None
    pages, after = [], 0
    while after is not None:
        page = backend.call("GET", f"{path}&after={after}&limit=4").json()
        pages += page["tasks"]
        after = page["next"]
    assert pages == whole["tasks"]
    assert len(pages) == first["size"]
    outliers = backend.call("GET", f"/clusters/outliers?project={PROJECT}&limit=1000").json()
    assert outliers["tasks"][:40] == told["aside"]["tasks"]
    assert len(outliers["tasks"]) == told["aside"]["size"] == told["outliers"]

    assert backend.call("GET", f"/map?project={PROJECT}").json()["n"] == 59
    content = backend.call("GET", f"/map/points?project={PROJECT}").content
    assert np.frombuffer(content[8 * 59 :], "<i8").tolist() == [n for n in range(1, 61) if n != 7]


@pytest.mark.slow
def test_jobs_are_started_once_and_shown(backend: BackendForTests) -> None:
    learn(backend.home)
    answer = backend.call("POST", "/clusters", json={"project": PROJECT})
    assert answer.status_code == 202
    (job,) = backend.call("GET", f"/jobs?project={PROJECT}").json()["jobs"]
    assert job["key"] == clusters_key(PROJECT)
    (record,) = await_jobs(backend.home)
    assert record.state == "failed"  # there is no Label Studio
    assert "Label Studio does not answer" in str(record.error)
    told = backend.call("GET", f"/clusters?project={PROJECT}").json()
    assert told["job"]["state"] == "failed"
    assert "log" not in told["job"]
    # Too many new images for one query: a job, and what is there so far.
    answer = ask(backend, tasks=[1], newer=5000).json()
    assert answer["tasks"] == []
    assert answer["features"]["missing"] == 5000
    first = answer["features"]["job"]
    await_jobs(backend.home)
    again = ask(backend, tasks=[1], newer=5000).json()
    assert again["features"]["job"] == first  # it failed just now: not one more a query
    assert current_store(backend.home, PROJECT) is not None
