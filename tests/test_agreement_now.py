"""Agreement of annotators as it is now, and the gallery of what they disagree on."""

from __future__ import annotations

from typing import Any

import pytest

from label_studio_config.results import write_result
from tests.label_studio_fixtures import LabelStudioForTests
from tests.test_second_opinion import People

pytestmark = pytest.mark.slow

VERSION = "project-0-v0001"


def made(server: LabelStudioForTests, title: str) -> People:
    """Ten images, of which the even ones have a suggestion; two people disagree on four."""
    people = People(server, title)
    said = [
        {
            "task": task,
            "score": 0.9,
            "model_version": VERSION,
            "result": write_result(people.project.schema, {"group": "Copepod"}),
        }
        for task in people.ids[::2]
    ]
    path = f"/api/planktrait/projects/{people.project.id}"
    people.api.post(f"{path}/suggestions", said)
    people.api.post(f"{path}/model-version", {"model_version": VERSION})
    for n, task in enumerate(people.ids[:8]):
        people.judge("one", task, "Copepod" if n % 2 else "Detritus")
        people.judge("two", task, "Copepod" if n < 4 or n % 2 else "Detritus")
    for task in people.ids[6:8]:
        people.judge("two", task, "Copepod" if task == people.ids[6] else "Detritus")
    return people


@pytest.fixture(scope="module")
def people(label_studio) -> People:
    return made(label_studio, "Agreement now")


def figures(people: People, who: str | None = None) -> dict[str, Any]:
    path = f"{people.server.url}/api/planktrait/projects/{people.project.id}/agreement"
    token = people.people[who].token if who else people.server.home.secrets.api_token
    answer = people.server.session.get(path, headers={"Authorization": f"Token {token}"})
    assert answer.ok, answer.text
    return answer.json()


def conflicts(people: People) -> list[int]:
    """By what people's newest annotations say: the owner looks at nobody's suggestion."""
    asked = {"suggested": "any", "state": "conflicting", "answers": "all", "limit": 3}
    path = f"/api/planktrait/projects/{people.project.id}/gallery/page"
    found: list[int] = []
    after: str | None = ""
    while after is not None:
        page = people.api.get(path, **asked, after=after)
        found += [crop["task"] for crop in page["crops"]]
        after = page["next"]
    return found


def test_it_is_of_now_and_leads_to_all_of_them(people: People) -> None:
    """Without any model version, on images with a suggestion and without."""
    (told,) = figures(people)["controls"]
    assert (told["control"], told["n_images"]) == ("group", 8)
    expected = [people.ids[n] for n in (0, 2, 6, 7)]
    assert conflicts(people) == expected
    assert told["conflicts"] == len(expected)
    assert told["confused"][0]["labels"] == ["Copepod", "Detritus"]
    assert told["confused"][0]["n_images"] == len(expected)
    assert -1 < told["alpha"] < 1
    people.judge("one", people.ids[8], "Copepod")
    people.judge("two", people.ids[8], "Detritus")
    (told,) = figures(people)["controls"]
    assert (told["n_images"], told["conflicts"]) == (9, 5)
    assert conflicts(people) == [*expected, people.ids[8]]


def test_who_may_not_see_others_answers_sees_it_of_what_he_judged(label_studio) -> None:
    people = made(label_studio, "Agreement of several votes")
    people.judge("three", people.ids[0], "Detritus")
    path = f"/api/projects/{people.project.id}/"
    people.api.patch(path, {"maximum_annotations": 2})
    told = figures(people, "three")
    assert (told["of_all"], told["hidden"]) == (False, True)
    assert told["controls"][0]["n_images"] == told["controls"][0]["conflicts"] == 1
    shown = people.page("three", suggested="any", state="conflicting")
    assert [crop["task"] for crop in shown] == [people.ids[0]]
    url = f"{people.server.url}/api/planktrait/projects/{people.project.id}/gallery/page"
    headers = {"Authorization": f"Token {people.people['three'].token}"}
    asked = {"suggested": "any", "state": "conflicting", "answers": "all"}
    refused = people.server.session.get(url, params=asked, headers=headers, timeout=60)
    assert refused.status_code == 403
    # Who made the project sees all of them where he asks, and by default as everybody else.
    told = figures(people)
    assert told["of_all"] is True
    assert told["controls"][0]["n_images"] == 8
    assert len(conflicts(people)) == told["controls"][0]["conflicts"] == 4
    project = f"/api/planktrait/projects/{people.project.id}/gallery/page"
    page = people.api.get(project, suggested="any", state="conflicting")
    assert page["crops"] == []
