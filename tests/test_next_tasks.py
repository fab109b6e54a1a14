"""What to label next, through Label Studio with the backend (in Chromium: test_clusters_page)."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import torch

from label_studio_config.results import write_result
from label_studio_config.users import add_user
from ml_backend.encoders import set_newest_encoder
from simclr.encoder import Encoder
from tests.test_feature_views import Shown, project_with_images

pytestmark = pytest.mark.slow


@dataclass
class Person:
    """Somebody who labels, through Label Studio's API."""

    url: str
    session: requests.Session

    @classmethod
    def of(cls, shown: Shown, email: str) -> Person:
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Token {add_user(shown.server.home, email).token}"
        return cls(shown.server.url, session)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        response = self.session.post(self.url + path, json=body, timeout=60)
        assert response.ok, response.text[:1000]
        return response.json()


@pytest.fixture(scope="module")
def shown(label_studio_with_backend) -> Shown:
    return project_with_images(label_studio_with_backend, "Next", "next")


def chosen(shown: Shown, **asked) -> list[int]:
    return shown.api.get(f"{shown.path}/next", **asked)["tasks"]


def test_open_tasks_come_in_an_order_blind_and_judged_ones_never(shown: Shown) -> None:
    path = f"{shown.path}/next"
    refused = shown.server.request("GET", path)
    assert refused.status_code == 409
    assert "Learn features from all images" in refused.text
    folder = shown.server.home.encoders_folder(shown.project.id)
    torch.manual_seed(0)
    set_newest_encoder(folder, Encoder.create("resnet10t", 32).save(folder / "small" / "encoder"))
    end = time.monotonic() + 240  # the first call starts the job that computes the features
    while not (tasks := chosen(shown, limit=1000)):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert sorted(tasks) == sorted(set(shown.tasks) - {shown.blind})
    assert chosen(shown, limit=1000) == tasks
    assert tasks != sorted(tasks)
    for task in tasks[:3]:
        result = write_result(shown.project.schema, {"group": "disc"})
        shown.api.post(f"/api/tasks/{task}/annotations/", {"result": result})
    rest = chosen(shown, limit=1000, strategy="diversity")
    assert sorted(rest) == sorted(set(tasks) - set(tasks[:3]))
    assert len(chosen(shown, limit=7)) == 7
    for wrong in ({"strategy": "luck"}, {"limit": "0"}):
        assert shown.server.request("GET", path, params=wrong).status_code == 400


def test_what_follows_leaves_out_what_was_shown(shown: Shown) -> None:
    path = f"{shown.path}/next"
    everything = chosen(shown, limit=1000)
    seen: list[int] = []
    while more := shown.api.post(path, {"limit": 20, "not": seen})["tasks"]:
        assert len(more) <= 20
        seen += more
    assert sorted(seen) == sorted(everything)
    assert seen[:20] == chosen(shown, limit=20)
    # Among what passes the page's filters, however few that are.
    task = everything[-1]
    name = shown.api.get(f"/api/tasks/{task}/")["data"]["image_id"]
    filters = {"state": ["suggested", "open"], "text": name, "limit": 20}
    assert shown.api.post(path, filters)["tasks"] == [task]
    assert shown.api.post(path, {**filters, "not": [task]})["tasks"] == []
    assert shown.api.post(path, {"state": ["mine"]})["tasks"] == []
    for wrong in ({"not": "1"}, {"not": ["1"]}, {"not": [True]}, {"state": ["luck"]}, []):
        assert shown.server.request("POST", path, json=wrong).status_code == 400, wrong


def test_where_several_votes_are_wanted_each_person_has_open_tasks_of_their_own(
    shown: Shown,
) -> None:
    path = f"/api/projects/{shown.project.id}/"
    person = Person.of(shown, "second-vote@example.org")
    before = set(chosen(shown, limit=1000))
    task = min(before)
    shown.api.patch(path, {"maximum_annotations": 2})
    judge(shown, person, task)
    try:
        assert set(chosen(shown, limit=1000)) == before
        theirs = person.session.get(f"{person.url}{shown.path}/next?limit=1000", timeout=60).json()
        assert set(theirs["tasks"]) == set(shown.tasks) - {shown.blind, task}
    finally:
        shown.api.patch(path, {"maximum_annotations": 1})
    assert set(chosen(shown, limit=1000)) == before - {task}


def stream(shown: Shown, person: Person) -> int:
    """The task that Label Studio's label stream gives to a person."""
    path = f"/api/dm/actions?id=next_task&project={shown.project.id}"
    return person.post(path, {})["id"]


def judge(shown: Shown, person: Person, task: int, **more) -> None:
    result = write_result(shown.project.schema, {"group": "disc"})
    person.post(f"/api/tasks/{task}/annotations/", {"result": result, **more})


def test_the_label_stream_follows_where_the_project_wants_it(shown: Shown) -> None:
    """Each person gets the first task that nobody has, answered ones and skipped ones never."""
    path = f"{shown.path}/label-order"
    one, two = (Person.of(shown, f"{name}@example.org") for name in ("stream-1", "stream-2"))
    known = shown.api.get(path)
    assert known == {
        "strategy": "mixture",
        "in_label_stream": False,
        "chosen": 0,
        "chosen_at": None,
        "may_change": True,
    }
    told = shown.api.post(path, {"strategy": "diversity", "in_label_stream": True})
    assert (told["strategy"], told["waits_because"]) == ("diversity", None)
    order = chosen(shown, limit=1000)
    assert order == chosen(shown, limit=1000, strategy="diversity")
    assert told["chosen"] == len(order) > 10
    assert order != sorted(order)

    assert stream(shown, one) == order[0]
    assert stream(shown, one) == order[0]  # theirs until they answer it
    assert stream(shown, two) == order[1]
    judge(shown, one, order[0])
    judge(shown, two, order[1], was_cancelled=True)
    assert stream(shown, one) == order[1]  # what somebody skipped goes to others
    assert stream(shown, two) == order[2]
    # What a person sorts or filters in the Data Manager stays as asked.
    by_id = {"ordering": ["-tasks:id"]}
    asked = one.post(f"/api/dm/actions?id=next_task&project={shown.project.id}", by_id)
    judged = {*order[:2]}
    assert asked["id"] == max(set(shown.tasks) - judged)

    for wrong in ({"strategy": "luck"}, {"in_label_stream": "yes"}):
        assert shown.server.request("POST", path, json=wrong).status_code == 400
    shown.api.post(path, {"strategy": "mixture", "in_label_stream": False})
    assert shown.api.get(path)["in_label_stream"] is False


def test_where_several_votes_are_wanted_the_stream_goes_on_for_whoever_is_ahead(
    shown: Shown,
) -> None:
    """What one person has answered is there for the others still."""
    path = f"{shown.path}/label-order"
    ahead, behind = (Person.of(shown, f"{name}@example.org") for name in ("ahead", "behind"))
    shown.api.patch(f"/api/projects/{shown.project.id}/", {"maximum_annotations": 2})
    try:
        told = shown.api.post(path, {"strategy": "diversity", "in_label_stream": True})
        judged = [stream(shown, ahead)]
        for _ in range(told["chosen"] // 2):
            judge(shown, ahead, judged[-1])
            judged.append(stream(shown, ahead))
        assert len(set(judged)) == len(judged)
        end = time.monotonic() + 60
        while (now := shown.api.get(path))["chosen_at"] == told["chosen_at"]:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert 0 < now["chosen"] <= told["chosen"] * 2 / 3
        given = shown.api.get(f"/api/tasks/{stream(shown, behind)}/")
        assert given["total_annotations"] + given["cancelled_annotations"] > 0
    finally:
        shown.api.post(path, {"strategy": "mixture", "in_label_stream": False})
        shown.api.patch(f"/api/projects/{shown.project.id}/", {"maximum_annotations": 1})


def test_tasks_are_chosen_anew_for_another_version(shown: Shown) -> None:
    path = f"{shown.path}/label-order"
    person = Person.of(shown, "stream-3@example.org")
    shown.api.post(path, {"strategy": "uncertainty", "in_label_stream": True})
    first = shown.api.get(path)["chosen_at"]
    shown.api.post(f"{shown.path}/model-version", {"model_version": "project-0-v0009"})
    stream(shown, person)
    end = time.monotonic() + 60
    while (now := shown.api.get(path)["chosen_at"]) == first:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert now > first
    shown.api.post(path, {"strategy": "mixture", "in_label_stream": False})


def test_whoever_has_had_all_that_can_be_chosen_does_not_have_it_chosen_again_and_again(
    shown: Shown,
) -> None:
    ahead = Person.of(shown, "far-ahead@example.org")
    shown.api.patch(f"/api/projects/{shown.project.id}/", {"maximum_annotations": 2})
    for task in shown.tasks:
        judge(shown, ahead, task)
    shown.api.post(f"{shown.path}/label-order", {"strategy": "diversity", "in_label_stream": True})
    before = kept_order(shown)
    assert json.loads(before["tasks"])
    assert before["choosing_since"] is None
    path = f"{shown.server.url}/api/dm/actions?id=next_task&project={shown.project.id}"
    for _ in range(2):
        assert ahead.session.post(path, json={}, timeout=60).status_code == 404
        assert kept_order(shown) == before


def kept_order(shown: Shown) -> dict[str, Any]:
    """With when somebody began to choose anew, which the API does not say."""
    with closing(
        sqlite3.connect(shown.server.home.label_studio_folder / "label_studio.sqlite3")
    ) as database:
        database.row_factory = sqlite3.Row
        (row,) = database.execute(
            "SELECT * FROM planktrait_labelorder WHERE project_id = ?", (shown.project.id,)
        )
        return dict(row)
