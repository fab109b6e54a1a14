"""Actions on more images than a request should wait for: jobs, in steps that do nothing twice."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from label_studio_config.api import Api
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.results import write_result
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.users import add_user
from tests.label_studio_fixtures import LabelStudioForTests, backend_for_tests

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
<Choice value="Copepod"/><Choice value="Detritus"/></Choices></View>"""
VERSION = "project-0-v0001"
COUNT = 2300
SURE = 0.98


@dataclass
class Many:
    """A project with many images; the first half of their suggestions are sure."""

    server: LabelStudioForTests
    project: ProjectInfo
    ids: list[int] = field(default_factory=list)

    @classmethod
    def make(cls, server: LabelStudioForTests, title: str, count: int) -> Many:
        many = cls(server, create_project(server.home, title, CONFIG))
        rows = [{"data": {"image": f"/data/{n}.png", "blind": "no"}} for n in range(count)]
        path = f"/api/projects/{many.project.id}/import?return_task_ids=true"
        many.ids = sorted(many.api.post(path, rows)["task_ids"])
        said = [many._suggestion(n, task) for n, task in enumerate(many.ids)]
        many.api.post(f"{many.path}/suggestions", said)
        many.api.post(f"{many.path}/model-version", {"model_version": VERSION})
        return many

    def _suggestion(self, n: int, task: int) -> dict[str, Any]:
        sure = SURE if n < len(self.ids) // 2 else 0.6
        shares = {"group": {"Copepod": sure, "Detritus": 1 - sure}}
        result = write_result(self.project.schema, {"group": "Copepod"}, probabilities=shares)
        return {"task": task, "result": result, "score": sure, "model_version": VERSION}

    @property
    def api(self) -> Api:
        return Api(self.server.home)

    @property
    def path(self) -> str:
        return f"/api/planktrait/projects/{self.project.id}"

    def act(self, action: str, token: str | None = None, **said: Any) -> dict[str, Any]:
        """An action on the whole project."""
        path = f"/api/dm/actions?id={action}&project={self.project.id}"
        return self.call(path, {"selectedItems": {"all": True, "excluded": []}, **said}, token)

    def call(self, path: str, body: dict[str, Any], token: str | None = None) -> dict[str, Any]:
        response = self.post(path, body, token)
        assert response.ok, response.text[:1000]
        return response.json()

    def post(self, path: str, body: dict[str, Any], token: str | None = None) -> requests.Response:
        token = token or self.server.home.secrets.api_token
        headers = {"Authorization": f"Token {token}"}
        return requests.post(self.server.url + path, json=body, headers=headers, timeout=120)

    def labels(self) -> Counter[tuple[str, int]]:
        """How many annotations there are, by label and person."""
        return Counter(
            (item["value"]["choices"][0], annotation["completed_by"]["id"])
            for task in fetch_tasks(self.server.home, self.project.id)
            for annotation in task["annotations"]
            for item in annotation["result"]
        )


@pytest.fixture(scope="module")
def many(label_studio) -> Many:
    return Many.make(label_studio, "Many at a time", COUNT)


def test_steps_do_nothing_twice_and_one_click_undoes_them_all(many: Many) -> None:
    anna = add_user(many.server.home, "anna-many@example.org")
    with backend_for_tests(many.server.home) as backend:
        # Nobody waits for so many: a job is asked for, and nothing is saved yet.
        answer = many.act("accept_suggestions", anna.token, confidence=0.9)
        (asked,) = backend.sent_to("act")
    assert answer["job"] == "act-1"
    assert answer["processed_items"] == len(asked["tasks"]) == COUNT // 2
    assert many.labels() == {}
    path, order, ids = f"{many.path}/orders", asked["order"], asked["tasks"]

    told = many.call(path, {"order": order, "tasks": ids[:250], "so_far": {}})
    assert told["counts"]["saved"] == 250
    assert told["words"].startswith("Accepted 250 suggestions; about 5 of them")
    # A job that was ended begins again: what is done is counted, and not done again.
    told = many.call(path, {"order": order, "tasks": ids[:250], "so_far": {}})
    assert told["counts"]["saved"] == 250
    told = many.call(path, {"order": order, "tasks": ids[250:500], "so_far": told})
    assert told["words"].startswith("Accepted 500 suggestions; about 10 of them")
    assert many.labels() == {("Copepod", anna.id): 500}

    undo = many.call(f"{many.path}/judgements/undo-order", {"key": told["order"]}, anna.token)
    assert undo == {"undone": 500, "kept": 0, "left": 0}
    assert many.labels() == {}
    # What of it is still to come is not done any more.
    assert many.call(path, {"order": order, "tasks": ids[500:750]})["withdrawn"] is True
    assert many.labels() == {}


def test_an_order_is_that_of_one_person_in_one_project(many: Many) -> None:
    berta, carl = (add_user(many.server.home, f"{n}-many@example.org") for n in ("berta", "carl"))
    with backend_for_tests(many.server.home) as backend:
        many.act("label_as", berta.token, label="Detritus")
        (asked,) = backend.sent_to("act")
    body = {"order": asked["order"], "tasks": asked["tasks"][:2]}
    other = create_project(many.server.home, "Another", CONFIG)
    elsewhere = f"/api/planktrait/projects/{other.id}/orders"
    assert many.post(f"{many.path}/orders", body, carl.token).status_code == 403
    assert many.post(elsewhere, body).status_code == 400
    changed = body["order"][:-1] + ("A" if body["order"][-1] != "A" else "B")
    assert many.post(f"{many.path}/orders", body | {"order": changed}).status_code == 400
    assert many.post(f"{many.path}/orders", body | {"tasks": ["1"]}).status_code == 400
    assert many.labels() == {}


def test_without_the_backend_the_first_of_them_are_done(many: Many) -> None:
    answer = many.act("second_opinion")
    assert "1000 have no answer yet" in answer["detail"]
    assert f"{COUNT - 1000} images left: call it again" in answer["detail"]


def test_they_are_jobs_with_progress(label_studio_with_backend) -> None:
    many = Many.make(label_studio_with_backend, "Many as jobs", 1100)
    dora = add_user(many.server.home, "dora-many@example.org")

    def done(answer: dict[str, Any]) -> dict[str, Any]:
        end = time.monotonic() + 120
        while True:
            jobs = {job["id"]: job for job in many.api.get(f"{many.path}/jobs")["jobs"]}
            job = jobs[answer["job"]]
            if job["state"] not in ("queued", "running"):
                assert job["state"] == "finished", job
                assert job["progress"]["done"] == job["progress"]["total"] == 1100
                return job["result"]
            assert time.monotonic() < end
            time.sleep(0.2)

    # Detritus, where the suggestion says Copepod.
    told = done(many.act("label_as", dora.token, label="Detritus"))
    assert told["words"] == "Labelled 1100 images as Detritus."
    assert many.labels() == {("Detritus", dora.id): 1100}
    tasks = many.api.get(f"{many.path}/tasks", full=0, annotated_only=1)["tasks"]
    assert all(task["is_labeled"] for task in tasks)
    told = done(many.act("second_opinion"))
    assert told["words"] == "A further opinion is asked for on 1100 images."
    told = done(many.act("mark_blind"))
    assert told["words"].startswith("Marked 0 images blind. 1100 were judged already")
