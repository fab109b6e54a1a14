"""A second opinion: asked for through the API and the Data Manager, given in the label stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from label_studio_config.api import Api
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.results import write_result
from label_studio_config.users import UserInfo, add_user
from tests.label_studio_fixtures import LabelStudioForTests
from tests.push_fixtures import in_django

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
<Choice value="Copepod"/><Choice value="Detritus"/></Choices></View>"""


class People:
    """A project with ten images, and people who label in it."""

    def __init__(self, server: LabelStudioForTests, title: str) -> None:
        self.server = server
        self.api = Api(server.home)
        self.project: ProjectInfo = create_project(server.home, title, CONFIG)
        rows = [{"data": {"image": f"/data/{n}.png"}} for n in range(10)]
        self.api.post(f"/api/projects/{self.project.id}/import", rows)
        self.ids = sorted(task["id"] for task in self.tasks())
        self.people: dict[str, UserInfo] = {}

    def tasks(self) -> list[dict[str, Any]]:
        path = f"/api/planktrait/projects/{self.project.id}/tasks"
        return self.api.get(path, full=0)["tasks"]

    def call(self, who: str, path: str, body: dict[str, Any]) -> requests.Response:
        email = f"{who}-{self.project.id}@example.org"
        if who not in self.people:
            self.people[who] = add_user(self.server.home, email)
        headers = {"Authorization": f"Token {self.people[who].token}"}
        return requests.post(self.server.url + path, json=body, headers=headers, timeout=60)

    def judge(self, who: str, task: int, label: str) -> None:
        result = write_result(self.project.schema, {"group": label})
        self.call(who, f"/api/tasks/{task}/annotations/", {"result": result}).raise_for_status()

    def next_task(self, who: str) -> int:
        path = f"/api/dm/actions?id=next_task&project={self.project.id}"
        return self.call(who, path, {}).json()["id"]

    def page(self, who: str, **query: Any) -> list[dict[str, Any]]:
        path = f"{self.server.url}/api/planktrait/projects/{self.project.id}/gallery/page"
        headers = {"Authorization": f"Token {self.people[who].token}"}
        answer = requests.get(path, params=query, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.json()["crops"]

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        return self.api.post(f"/api/planktrait/projects/{self.project.id}/second-opinion", body)


@pytest.fixture
def people(label_studio, request) -> People:
    return People(label_studio, f"Opinions {abs(hash(request.node.name)) % 10**9}")


def test_images_come_first_in_the_stream_of_everybody_else(people: People) -> None:
    ids = people.ids
    for task in ids[:4]:
        people.judge("one", task, "Copepod")
    assert people.next_task("two") not in ids[:4]
    told = people.ask({"tasks": [ids[2], ids[1], ids[7]]})
    assert (told["asked"], told["waiting"], told["unanswered"]) == (2, 0, 1)
    assert people.ask({"tasks": [ids[2]]})["waiting"] == 1
    assert {t["id"] for t in people.tasks() if t["overlap"] == 2} == {ids[1], ids[2]}

    # What they were looking at already stays theirs until they have answered it.
    people.judge("two", people.next_task("two"), "Copepod")
    assert people.next_task("two") == ids[1]
    assert people.next_task("one") not in ids[:4]
    people.judge("two", ids[1], "Detritus")
    assert people.next_task("two") == ids[2]
    people.judge("two", ids[2], "Copepod")
    assert people.next_task("three") not in ids[:4]
    done = {t["id"]: t for t in people.tasks()}
    assert all(done[task]["is_labeled"] for task in ids[:4])
    assert done[ids[1]]["total_annotations"] == 2


def test_all_that_people_disagree_on(people: People) -> None:
    ids = people.ids
    for task in ids[:3]:
        people.judge("one", task, "Copepod")
    for task, label in ((ids[0], "Copepod"), (ids[1], "Detritus")):
        people.judge("two", task, label)
    assert people.ask({"conflicting": "group"})["asked"] == 1
    assert people.next_task("three") == ids[1]
    action = f"/api/dm/actions?id=second_opinion&project={people.project.id}"
    chosen = {"selectedItems": {"all": False, "included": [ids[0], ids[9]]}}
    done = people.api.post(action, chosen)
    assert done["processed_items"] == 1
    assert "1 have no answer yet" in done["detail"]


def test_others_answers_are_hidden_until_ones_own_is_given(people: People) -> None:
    ids = people.ids
    for task in ids[:2]:
        people.judge("one", task, "Copepod")
    people.call("two", "/api/current-user/whoami", {})
    people.ask({"tasks": [ids[0]]})
    seen = {crop["task"]: crop for crop in people.page("two", suggested=0, limit=50)}
    assert (seen[ids[0]]["state"], "others" in seen[ids[0]]) == ("open", False)
    assert seen[ids[1]]["others"][0]["label"] == "Copepod"
    assert [c["task"] for c in people.page("two", suggested=0, state="others")] == [ids[1]]
    assert ids[0] in [c["task"] for c in people.page("two", suggested=0, state="open")]
    people.judge("two", ids[0], "Detritus")
    (crop,) = people.page("two", suggested=0, state="conflicting")
    assert (crop["task"], crop["others"][0]["label"]) == (ids[0], "Copepod")


def test_many_that_wait_are_hidden_as_few_are(people: People) -> None:
    """Where they are too many to be read for each request."""
    ids = people.ids
    for task in ids[:3]:
        people.judge("one", task, "Copepod")
    people.judge("two", ids[2], "Detritus")
    people.call("three", "/api/current-user/whoami", {})
    people.ask({"tasks": ids[1:3]})
    queries = [{}, {"state": "open"}, {"state": "conflicting"}, {"answered": "Copepod"}]
    code = f"""
import json
from rest_framework.test import APIClient
from label_studio_config.plugin import awaited
client = APIClient(HTTP_HOST="localhost", HTTP_AUTHORIZATION="Token {people.people["three"].token}")
path = "/api/planktrait/projects/{people.project.id}"
def shown(query):
    page = client.get(path + "/gallery/page", {{"suggested": 0, "limit": 50, **query}}).json()
    return [(crop["task"], crop["state"], "others" in crop) for crop in page["crops"]]
for few in (5000, 0):
    awaited.FEW = few
    columns = client.get("/api/tasks", {{"project": {people.project.id}, "fields": "all"}}).json()
    judged = [{{"task": task, "label": "Detritus"}} for task in {ids[:2]}]
    body = {{"control": "group", "judgements": judged, "seen_at": "2020-01-01T00:00:00Z"}}
    told = {{
        "all": awaited.Awaited.of({people.project.id}).ids is not None,
        "pages": [shown(query) for query in {queries}],
        "labels": client.get(path + "/gallery/labels", {{"state": "open"}}).json(),
        "agreement": [task["agreement_of_annotators"] for task in columns["tasks"]][:3],
        "conflicts": client.get(path + "/agreement").json()["controls"][0]["conflicts"],
    }}
    said = client.post(path + "/judgements", body, format="json").json()
    told["refused"] = [conflict["task"] for conflict in said["conflicts"]]
    client.post(path + f"/judgements/{{said['batch']}}/undo", {{}}, format="json")
    print(json.dumps(told))
"""
    few, many = map(json.loads, in_django(people.server.home, code).splitlines()[-2:])
    assert (few.pop("all"), many.pop("all")) == (True, False)
    assert few == many
    everything, open_ones, conflicting, answered = few["pages"]
    assert everything[:3] == [[ids[0], "others", True]] + [[n, "open", False] for n in ids[1:3]]
    assert [task for task, *_ in open_ones] == ids[1:]
    assert (conflicting, answered) == ([], [[ids[0], "others", True]])
    assert few["labels"]["open"] == 9
    assert (few["agreement"], few["conflicts"]) == ([None] * 3, 0)
    assert few["refused"] == [ids[0]]


def test_more_annotations_per_task_are_for_all_tasks_still(people: People) -> None:
    ids = people.ids
    people.judge("one", ids[0], "Copepod")
    people.ask({"tasks": [ids[0]]})
    path = f"/api/projects/{people.project.id}/"
    people.api.patch(path, {"maximum_annotations": 2})
    assert {task["overlap"] for task in people.tasks()} == {2}
    people.api.patch(path, {"maximum_annotations": 1})
    overlaps = {task["id"]: task["overlap"] for task in people.tasks()}
    assert overlaps == {**dict.fromkeys(ids, 1), ids[0]: 2}


def test_who_skips_or_puts_off_an_image_goes_on(people: People) -> None:
    ids = people.ids
    people.api.patch(f"/api/projects/{people.project.id}/", {"skip_queue": "REQUEUE_FOR_ME"})
    for task in ids[:2]:
        people.judge("one", task, "Copepod")
    people.ask({"tasks": ids[:2]})
    assert people.next_task("two") == ids[0]
    skip = {"result": [], "was_cancelled": True}
    people.call("two", f"/api/tasks/{ids[0]}/annotations/", skip).raise_for_status()
    assert people.next_task("two") == ids[1]
    draft = {"result": [], "was_postponed": True}
    people.call("two", f"/api/tasks/{ids[1]}/drafts", draft).raise_for_status()
    assert people.next_task("two") not in ids[:2]


def test_however_many_one_has_judged_the_others_come_first_too(people: People) -> None:
    ids = []
    for who, count in (("one", 300), ("two", 1)):
        people.call(who, "/api/current-user/whoami", {})
        person = people.people[who].id
        result = write_result(people.project.schema, {"group": "Copepod"})
        said = [{"completed_by": person, "result": result}]
        rows = [{"data": {"image": f"/{who}/{n}.png"}, "annotations": said} for n in range(count)]
        path = f"/api/projects/{people.project.id}/import?return_task_ids=true"
        ids.append(people.api.post(path, rows)["task_ids"])
    for some in ids:
        assert people.ask({"tasks": some})["asked"] == len(some)
    assert people.next_task("one") == ids[1][0]
    assert people.next_task("two") == min(ids[0])


@pytest.mark.parametrize(
    "body",
    [{}, {"tasks": "all"}, {"tasks": [1], "conflicting": "group"}, {"conflicting": "colour"}],
)
def test_what_cannot_be_asked_is_refused(people: People, body: dict[str, Any]) -> None:
    path = f"/api/planktrait/projects/{people.project.id}/second-opinion"
    assert people.server.request("POST", path, json=body).status_code == 400


def test_a_project_of_others_is_refused(people: People) -> None:
    path = "/api/planktrait/projects/99999/second-opinion"
    assert people.server.request("POST", path, json={"tasks": [1]}).status_code == 404
    anonymous = requests.post(people.server.url + path.replace("99999", "1"), json={}, timeout=30)
    assert anonymous.status_code in (401, 403)
