"""More like this, clusters and the map at Label Studio's own API, with the backend and its jobs."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, expect

from label_studio_config.api import Api, ApiError
from label_studio_config.project import ProjectInfo, create_project
from tests.backend_fixtures import CONFIG, draw_images, give_encoder
from tests.browser_fixtures import visiting
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests
from tests.postgres_fixtures import postgres_cluster

pytestmark = pytest.mark.slow
N_TASKS = 60
BLIND = 5


@dataclass
class Shown:
    """A project with drawn images; `tasks` are their ids, one of which is blind."""

    server: LabelStudioForTests
    project: ProjectInfo
    tasks: list[int]

    @property
    def api(self) -> Api:
        return Api(self.server.home)

    @property
    def path(self) -> str:
        return f"/api/planktrait/projects/{self.project.id}"

    @property
    def blind(self) -> int:
        return self.tasks[BLIND]

    def post(self, name: str, **options: Any) -> requests.Response:
        return self.server.request("POST", f"{self.path}/{name}", **options)

    def await_made(self, name: str) -> dict[str, Any]:
        """What an address says once its job has ended well."""
        end = time.monotonic() + 300
        while True:
            told: dict[str, Any] = self.api.get(f"{self.path}/{name}")
            if told["job"]["state"] not in ("queued", "running"):
                assert told["job"]["state"] == "finished", told["job"]
                return told
            assert time.monotonic() < end, told["job"]
            time.sleep(0.5)


@pytest.fixture(scope="module")
def shown(label_studio_with_backend: LabelStudioForTests) -> Shown:
    return project_with_images(label_studio_with_backend)


def project_with_images(
    server: LabelStudioForTests, title: str = "Features", folder: str = "features"
) -> Shown:
    project = create_project(server.home, title, CONFIG)
    shown = Shown(server, project, [])
    shown.api.post(f"{shown.path}/images-folder", {})
    add_images(shown, N_TASKS, folder, blind=BLIND)
    return shown


def add_images(shown: Shown, count: int, folder: str, blind: int = -1) -> list[int]:
    drawn = draw_images(shown.server.images_root / folder, count, seed=len(shown.tasks))
    tasks = [
        {
            "data": {
                "image": f"/data/local-files/?d={folder}/{name}",
                "image_id": f"{folder}/{name}",
                "blind": "yes" if number == blind else "no",
            }
        }
        for number, (name, _) in enumerate(drawn)
    ]
    known = set(shown.tasks)
    shown.api.post(f"/api/projects/{shown.project.id}/import", tasks)
    images = shown.api.get(f"{shown.path}/tasks", full=0, limit=5000)["tasks"]
    new = [task["id"] for task in images if task["id"] not in known]
    shown.tasks += new
    return new


def neighbours(shown: Shown, *tasks: int, **body: Any) -> dict[str, Any]:
    answer = shown.post("neighbours", json={"tasks": list(tasks), **body})
    assert answer.ok, answer.text
    return answer.json()


def test_more_like_this(shown: Shown) -> None:
    refused = shown.post("neighbours", json={"tasks": shown.tasks[:1]})
    assert refused.status_code == 409
    assert "Learn features from all images" in refused.text
    give_encoder(shown.server.home, shown.project.id)

    first = shown.tasks[0]
    answer = neighbours(shown, first)
    assert answer["features"] == {"n": N_TASKS, "missing": 0}
    found = [one["task"] for one in answer["tasks"]]
    assert sorted(found) == sorted(set(shown.tasks) - {first, shown.blind})
    similarities = [one["similarity"] for one in answer["tasks"]]
    assert similarities == sorted(similarities, reverse=True)
    several = neighbours(shown, first, shown.blind, shown.tasks[1], limit=7)["tasks"]
    assert len(several) == 7
    assert not {one["task"] for one in several} & {first, shown.blind, shown.tasks[1]}

    # New images are among the neighbours at once, deleted ones no more.
    new = add_images(shown, 4, "later")
    shown.server.request("DELETE", f"/api/tasks/{new[0]}").raise_for_status()
    shown.tasks.remove(new[0])
    answer = neighbours(shown, new[1])
    assert answer["features"]["missing"] == 0
    assert {one["task"] for one in answer["tasks"]} == set(shown.tasks) - {new[1], shown.blind}

    # So is an image that became blind after its features were made.
    marked = shown.tasks[9]
    data = shown.api.get(f"/api/tasks/{marked}")["data"]
    shown.api.patch(f"/api/tasks/{marked}", {"data": {**data, "blind": "yes"}})
    assert marked not in {one["task"] for one in neighbours(shown, first)["tasks"]}
    shown.api.patch(f"/api/tasks/{marked}", {"data": data})


def test_what_is_left_to_judge_is_found_behind_what_was_judged(shown: Shown) -> None:
    """Of 130 images the nearest are answered: some of them, and then more than are looked at."""
    many = project_with_images(shown.server, "Much judged", "judged")
    give_encoder(many.server.home, many.project.id)
    add_images(many, 130 - N_TASKS, "judged-too")
    first = many.tasks[0]
    order = [one["task"] for one in neighbours(many, first)["tasks"]]
    assert len(order) == 128
    answered = 0
    for count in (62, 110):
        judgements = [{"task": task, "label": "disc"} for task in order[answered:count]]
        body = {"control": "group", "judgements": judgements}
        assert many.post("judgements", json=body).json()["saved"] == count - answered
        answered = count
        found = neighbours(many, first, limit=5, open=1)["tasks"]
        assert [one["task"] for one in found] == order[count : count + 5]


def test_more_like_an_uploaded_image(shown: Shown) -> None:
    name = next((shown.server.images_root / "features").glob("image-00007.png"))
    with name.open("rb") as file:
        answer = shown.post("neighbours", files={"image": file}, data={"limit": "5"})
    assert answer.ok, answer.text
    found = answer.json()["tasks"]
    assert len(found) == 5
    assert found[0]["task"] == shown.tasks[7]
    assert found[0]["similarity"] == pytest.approx(1, abs=0.01)
    tasks = shown.api.get(f"/api/projects/{shown.project.id}")["task_number"]
    assert tasks == len(shown.tasks)  # nothing was added


def test_what_is_refused(shown: Shown) -> None:
    large = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (5000, 5000), dtype=np.uint8)
    Image.fromarray(noise).save(large, "png", compress_level=0)
    for options, problem in [
        ({"files": {"image": ("a.png", b"no image")}}, "not an image"),
        ({"files": {"image": ("a.png", large.getvalue())}}, "more than 20 MB"),
        ({"json": {}}, "give tasks"),
        ({"json": {"tasks": []}}, "give tasks"),
        ({"json": {"tasks": ["1"]}}, "give tasks"),
        ({"json": {"tasks": [True]}}, "give tasks"),
        ({"json": {"tasks": shown.tasks[:1], "limit": 0}}, "limit"),
        ({"json": {"tasks": [10**9]}}, "is not in project"),
        ({"json": {"tasks": [shown.blind]}}, "blind"),
    ]:
        answer = shown.post("neighbours", **options)
        assert answer.status_code == 400, answer.text
        assert problem in answer.text
    for name in ("neighbours", "clusters", "map"):
        anonymous = requests.post(shown.server.url + f"{shown.path}/{name}", json={}, timeout=30)
        assert anonymous.status_code in (401, 403)
        unknown = shown.server.request("POST", f"/api/planktrait/projects/99999/{name}", json={})
        assert unknown.status_code == 404


def test_clusters_come_from_a_job(shown: Shown) -> None:
    nothing = shown.api.get(f"{shown.path}/clusters")
    assert (nothing["made_at"], nothing["clusters"], nothing["job"]) == (None, [], None)
    with pytest.raises(ApiError, match="404"):
        shown.api.get(f"{shown.path}/clusters/0/tasks")
    result = [{"from_name": "group", "to_name": "image", "type": "choices"}]
    result[0]["value"] = {"choices": ["disc"]}  # type: ignore[assignment]
    labelled = shown.tasks[20]
    shown.api.post(f"/api/tasks/{labelled}/annotations/", {"result": result})
    assert shown.post("clusters", json={}).status_code == 202
    told = shown.await_made("clusters")
    assert told["made_at"]
    assert told["n_images"] == len(shown.tasks) - 2  # without the blind and the labelled one
    seen: list[int] = []
    for cluster in told["clusters"]:
        page = shown.api.get(f"{shown.path}/clusters/{cluster['id']}/tasks", limit=1000)
        assert page["tasks"][:40] == cluster["tasks"]
        assert len(page["tasks"]) == cluster["size"]
        assert page["next"] is None
        assert cluster["label"] is None  # nothing is suggested yet
        seen += page["tasks"]
    assert len(seen) == len(set(seen)) == told["n_images"] - told["outliers"]
    assert not {shown.blind, labelled} & set(seen)

    # Once something is suggested, each cluster says what most of its images are suggested to be.
    result[0]["value"] = {"choices": ["bar"]}  # type: ignore[assignment]
    suggestion = {"result": result, "score": 0.9, "model_version": "by-hand"}
    shown.api.post(
        f"{shown.path}/suggestions",
        [suggestion | {"task": task} for task in told["clusters"][0]["tasks"]],
    )
    shown.api.post(f"{shown.path}/model-version", {"model_version": "by-hand"})
    shown.api.get(f"{shown.path}/gallery")
    labels = [one["label"] for one in shown.api.get(f"{shown.path}/clusters")["clusters"]]
    assert labels == ["bar"] + [None] * (len(labels) - 1)
    # Not where the project hides suggestions from people.
    project = f"/api/projects/{shown.project.id}"
    shown.api.patch(project, {"show_collab_predictions": False})
    shown.api.post(f"{shown.path}/model-version", {"model_version": "by-hand"})
    clusters = shown.api.get(f"{shown.path}/clusters")["clusters"]
    assert {one["label"] for one in clusters} == {None}
    shown.api.patch(project, {"show_collab_predictions": True})

    # What is gone or has become blind is neither shown nor counted.
    first, second = told["clusters"][0]["tasks"][:2]
    shown.server.request("DELETE", f"/api/tasks/{first}").raise_for_status()
    shown.tasks.remove(first)
    data = shown.api.get(f"/api/tasks/{second}")["data"]
    shown.api.patch(f"/api/tasks/{second}", {"data": {**data, "blind": "yes"}})
    now = shown.api.get(f"{shown.path}/clusters")["clusters"][0]
    assert now["size"] == told["clusters"][0]["size"] - 2
    assert now["tasks"] == told["clusters"][0]["tasks"][2:]
    shown.api.patch(f"/api/tasks/{second}", {"data": data})
    # The number of a cluster is another one's once they are made anew.
    place = f"{shown.path}/clusters/{now['id']}/tasks"
    assert shown.api.get(place, made_at=told["made_at"])["tasks"]
    old = shown.server.request("GET", f"{place}?made_at=2014-06-01T12:00:00%2B00:00")
    assert old.status_code == 409
    assert "made anew" in old.text


def test_a_map_comes_from_a_job(shown: Shown) -> None:
    assert shown.api.get(f"{shown.path}/map")["n"] == 0
    assert shown.post("map", json={}).status_code == 202
    told = shown.await_made("map")
    assert sorted(told["task"]) == sorted(set(shown.tasks) - {shown.blind})
    assert told["n"] == len(told["x"]) == len(told["y"]) == len(told["task"])
    assert max(map(abs, told["x"] + told["y"])) <= 1
    answer = shown.server.request("GET", f"{shown.path}/map?binary=1")
    n = told["n"]
    assert len(answer.content) == 12 * n
    np.testing.assert_allclose(np.frombuffer(answer.content[: 4 * n], "<f4"), told["x"], atol=1e-4)
    assert np.frombuffer(answer.content[8 * n :], "<u4").tolist() == told["task"]
    assert answer.headers["X-Planktrait-Made-At"] == told["made_at"]
    state = shown.api.get(f"{shown.path}/map/state")
    assert (state["made_at"], state["n"], state["new"]) == (told["made_at"], n, 0)
    add_images(shown, 3, "after-the-map", blind=0)
    assert shown.api.get(f"{shown.path}/map/state")["new"] == 2
    colours = shown.server.request("GET", f"{shown.path}/map/colours")
    assert colours.ok
    assert b'"labels": ["bar"]' in colours.content
    jobs = shown.api.get(f"{shown.path}/model")["jobs"]
    assert {f"clusters project {shown.project.id}", f"map project {shown.project.id}"} <= {
        job["key"] for job in jobs
    }


def test_like_more_images_than_one_call_takes(browser: Browser, shown: Shown) -> None:
    """How many were used is said; the address is short enough for every web server."""
    image = shown.api.get(f"/api/tasks/{shown.tasks[0]}")["data"]["image"]
    same = [{"data": {"image": image, "image_id": f"same-{n}", "blind": "no"}} for n in range(1000)]
    shown.api.post(f"/api/projects/{shown.project.id}/import", same)
    path = f"/api/dm/actions?id=find_similar&project={shown.project.id}"
    told = shown.api.post(path, {"selectedItems": {"all": True, "excluded": []}})
    n = shown.api.get(f"/api/projects/{shown.project.id}")["task_number"]
    assert told["processed_items"] == 1000 < n
    assert f"1000 of {n} images" in told["detail"]
    assert len(told["address"].partition("#")[0]) < 100
    with visiting(browser, shown.server) as visit:
        page = visit.page
        page.goto(shown.server.url + told["address"])
        chip, status = page.locator("#similar-chip"), page.locator("#status")
        expect(chip).to_contain_text(f"Like 1,000 of {n:,}", timeout=120_000)
        expect(status).to_contain_text("most similar first, to 50 of the 1,000")
        visit.keep_screenshot("find-similar-many")
        page.reload()
        expect(chip).to_contain_text(f"Like 1,000 of {n:,}", timeout=20_000)

        # All that are selected in the gallery, too.
        page.set_viewport_size({"width": 2400, "height": 1600})
        page.goto(f"{shown.server.url}/planktrait/projects/{shown.project.id}/gallery?suggested=0")
        expect(page.locator(".cell.painted").nth(150)).to_be_visible(timeout=20_000)
        page.locator(".cell").first.click()
        page.keyboard.press("Control+a")
        with page.expect_request("**/neighbours") as asked:
            page.get_by_role("button", name="More like this").click()
        selected = len(asked.value.post_data_json["tasks"])
        assert selected > 100
        expect(chip).to_contain_text(f"Like {selected} images", timeout=20_000)


def test_the_same_on_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_template: Path
) -> None:
    with postgres_cluster(postgres_template) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with serve_for_tests(tmp_path, with_backend=True) as server:
            shown = project_with_images(server)
            test_more_like_this(shown)
            test_clusters_come_from_a_job(shown)
            test_a_map_comes_from_a_job(shown)
