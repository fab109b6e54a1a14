"""The gallery's API inside a real Label Studio: pages, filters, states, and who may see them."""

from __future__ import annotations

from functools import partial

import pytest
import requests

from label_studio_config.project import create_project
from tests.gallery_fixtures import (
    CONFIG,
    SCRIPT,
    VERSION,
    GalleryForTests,
    crop_rows,
    new_gallery,
    suggestion,
)
from tests.label_studio_fixtures import serve_for_tests
from tests.postgres_fixtures import postgres_cluster

__all__ = ["new_gallery"]

pytestmark = pytest.mark.slow


def suggested(gallery, count=None):
    """Copepods by even, detritus by odd position; the first is the most certain."""
    count = len(gallery.tasks) if count is None else count
    gallery.suggest(
        {
            task_id: ("Detritus" if i % 2 else "Copepod", round(0.99 - i / 100, 4))
            for i, task_id in enumerate(gallery.tasks[:count])
        }
    )


def test_what_the_page_needs_once(new_gallery):
    gallery = new_gallery(12)
    suggested(gallery, 10)
    said = gallery.get("gallery")
    assert said["project"] == {
        "id": gallery.project.id,
        "title": gallery.project.name,
        "votes_wanted": 1,
    }
    assert said["user"]["email"] == "admin@localhost"
    assert said["model_version"] == VERSION
    assert said["control"] == "group"
    group, egg_sac = said["controls"]
    assert group["title"] == "Functional group"
    assert group["labels"][:2] == [
        {"name": "Copepod", "hotkey": "c"},
        {"name": "Detritus", "hotkey": "d"},
    ]
    assert group["labels"][2]["name"] == SCRIPT
    assert group["not_assessable"] == ["Not assessable"]
    assert egg_sac["name"] == "egg_sac"
    assert said["samples"] == ["haul-0", "haul-1", "haul-2"]
    assert said["depth_m"] == [0.0, 40.0]
    assert said["annotators"] == []
    assert said["complete"]
    assert said["has_images"]
    assert said["has_suggestions"]
    index = gallery.get("gallery/index")
    assert index == {"tasks": 12, "suggestions": 10, "complete": True, "mended": 0}


def test_pages_follow_each_other_in_every_order(new_gallery):
    gallery = new_gallery(23)
    # Some are equally certain: each must still come once.
    gallery.suggest(
        {
            task_id: ("Detritus" if i % 2 else "Copepod", [0.9, 0.7, 0.5][i % 3])
            for i, task_id in enumerate(gallery.tasks)
        }
    )
    for order in ("certain", "uncertain", "novel", "task"):
        for query in ({}, {"label": "Copepod"}):
            at_once = gallery.on_page(order=order, limit=200, **query)
            by_four = gallery.on_page(order=order, limit=4, **query)
            assert at_once == by_four, order
            expected = range(0, 23, 2) if query else range(23)
            assert sorted(at_once) == list(expected)
    certain = gallery.on_page(order="certain", limit=5)
    assert [i % 3 for i in certain] == sorted(i % 3 for i in certain)
    assert gallery.on_page(order="uncertain", limit=5) == certain[::-1]
    assert gallery.on_page(order="task", limit=5) == list(range(23))


def test_a_crop_says_all_that_the_page_shows(new_gallery):
    gallery = new_gallery(3, blind=[2])
    task = gallery.tasks[0]
    gallery.suggest({task: ("Copepod", 0.8)}, novelty=0.25)
    (crop,) = gallery.page()["crops"]
    prediction = crop["suggestion"].pop("prediction")
    assert gallery.task(task)["predictions"][0]["id"] == prediction
    assert crop == {
        "task": task,
        "image": gallery.task(task)["data"]["image"],
        "sample": "haul-0",
        "width_px": 20,
        "height_px": 30,
        "pixel_size_um": 50.0,
        "blind": False,
        "suggestion": {
            "label": "Copepod",
            "confidence": 0.8,
            "second_label": "Detritus",
            "second_confidence": 0.2,
            "novelty": 0.25,
        },
        "state": "suggested",
        "answer": None,
        "others": [],
    }
    page = gallery.page(suggested=0)
    assert [c["task"] for c in page["crops"]] == gallery.tasks[1:]
    assert [c["state"] for c in page["crops"]] == ["open", "open"]
    assert [c["blind"] for c in page["crops"]] == [False, True]
    assert all(c["suggestion"] is None for c in page["crops"])


def test_filters(new_gallery):
    gallery = new_gallery(30)
    suggested(gallery)

    def found(**query):
        return sorted(gallery.on_page(limit=7, **query))

    assert found(sample="haul-1") == list(range(1, 30, 3))
    assert found(sample="haul-1", label="Copepod") == list(range(4, 30, 6))
    assert found(depth_from=30) == [i for i in range(30) if i % 5 >= 3]
    assert found(depth_from=10, depth_to=20) == [i for i in range(30) if i % 5 in (1, 2)]
    assert found(captured_to="2014-06-02") == [i for i in range(30) if i % 9 < 2]
    assert found(captured_from="2014-06-09T12:00:00Z") == [8, 17, 26]
    assert found(text="CROP-001") == list(range(10, 20))
    assert found(text="crop-0017") == [17]
    assert found(text="100%") == []
    assert found(confidence_from=0.9) == list(range(10))
    assert found(confidence_from=0.8, confidence_to=0.85) == list(range(14, 20))
    assert found(text="crop-001", confidence_from=0.85) == [10, 11, 12, 13, 14]
    picked = ",".join(str(gallery.tasks[i]) for i in (5, 2, 29))
    assert gallery.on_page(tasks=picked, limit=2) == [5, 2, 29]
    assert gallery.on_page(tasks=picked, label="Detritus") == [5, 29]
    labels = gallery.get("gallery/labels", sample="haul-1")
    assert labels == {
        "labels": [{"label": "Copepod", "count": 5}, {"label": "Detritus", "count": 5}],
        "open": 0,
    }
    of_tasks = gallery.call("POST", "gallery/labels", json={"tasks": picked, "depth_to": 15})
    assert of_tasks.json() == {"labels": [{"label": "Detritus", "count": 1}], "open": 0}
    counts = gallery.get("gallery/labels", confidence_from=0.9, label="Copepod")["labels"]
    assert counts == [{"label": "Copepod", "count": 5}]


@pytest.mark.parametrize(
    "query",
    [
        {"order": "random"},
        {"limit": "500"},
        {"state": "done"},
        {"confidence_from": "nan"},
        {"captured_from": "yesterday"},
        {"control": "species"},
        {"control": "cells"},
        {"after": "bm9uc2Vuc2U"},
        {"tasks": "1,x"},
        {"annotator": "-1"},
        {"suggested": "maybe"},
    ],
)
def test_a_wrong_query_is_refused(new_gallery, query):
    gallery = new_gallery(0)
    response = gallery.call("GET", "gallery/page", params=query)
    assert response.status_code == 400
    assert next(iter(query)) in response.text


def test_a_long_list_of_tasks_is_posted(new_gallery):
    gallery = new_gallery(3)
    suggested(gallery)
    tasks = [*range(10**8, 10**8 + 997), *gallery.tasks]
    found = gallery.call("POST", "gallery/page", json={"tasks": ",".join(map(str, tasks))}).json()
    assert [crop["task"] for crop in found["crops"]] == gallery.tasks
    tasks.append(1)
    refused = gallery.call("POST", "gallery/page", json={"tasks": ",".join(map(str, tasks))})
    assert refused.status_code == 400
    assert "1001 tasks" in refused.text


def test_states_with_one_vote(new_gallery):
    gallery = new_gallery(8)
    suggested(gallery, 6)
    anna = gallery.person("anna")
    tasks = gallery.tasks
    gallery.annotate(tasks[0], {"group": "Copepod"})  # as suggested
    gallery.annotate(tasks[1], {"group": "Copepod"})  # suggested: Detritus
    gallery.annotate(tasks[2], {"group": "Detritus"}, anna)
    gallery.annotate(tasks[3], {"group": "Detritus"})
    gallery.annotate(tasks[3], {"group": "Copepod"}, anna)
    gallery.annotate(tasks[4], {"group": "Copepod"}, was_cancelled=True)
    gallery.annotate(tasks[6], {"group": "Not assessable"}, anna)
    states = {
        "suggested": [4, 5],
        "accepted": [0],
        "mine": [1],
        "others": [2],
        "conflicting": [3],
    }
    for state, expected in states.items():
        assert gallery.on_page(state=state, order="task") == expected, state
        shown = gallery.page(state=state)["crops"]
        assert {crop["state"] for crop in shown} == {state}
    assert gallery.on_page(state=["mine", "others"], order="task") == [1, 2]
    assert gallery.on_page(suggested=0, state="others") == [6]
    assert gallery.on_page(suggested=0, state="open") == [7]
    assert gallery.page(suggested=0, state="others")["crops"][0]["others"] == [
        {"email": anna.email, "label": "Not assessable"}
    ]
    # The same, seen by the other person.
    seen = {state: gallery.on_page(anna, state=state, order="task") for state in states}
    assert seen == {
        "suggested": [4, 5],
        "accepted": [],
        "mine": [2],
        "others": [0, 1],
        "conflicting": [3],
    }
    assert gallery.on_page(annotator=anna.id, order="task") == [2, 3]
    counts = gallery.get("gallery/labels", state="conflicting")
    assert counts == {"labels": [{"label": "Detritus", "count": 1}], "open": 0}
    said = gallery.get("gallery")
    assert [person["email"] for person in said["annotators"]] == ["admin@localhost", anna.email]


def test_where_several_votes_are_wanted_others_answers_stay_hidden(new_gallery):
    gallery = new_gallery(5, votes=2)
    suggested(gallery, 4)
    anna = gallery.person("anna")
    tasks = gallery.tasks
    for i in (0, 1, 4):
        gallery.annotate(tasks[i], {"group": "Detritus"}, anna)
    gallery.annotate(tasks[1], {"group": "Copepod"})
    page = gallery.page(order="task")
    by_task = {crop["task"]: crop for crop in page["crops"]}
    assert by_task[tasks[0]]["state"] == "suggested"
    assert "others" not in by_task[tasks[0]]
    assert by_task[tasks[1]]["state"] == "conflicting"
    assert by_task[tasks[1]]["others"] == [{"email": anna.email, "label": "Detritus"}]
    # Nor does a filter give them away.
    assert gallery.on_page(state="others") == []
    assert gallery.on_page(state="conflicting") == [1]
    assert gallery.on_page(state="suggested", order="task") == [0, 2, 3]
    assert gallery.on_page(annotator=anna.id) == [1]
    assert gallery.on_page(suggested=0, state="open") == [4]
    assert gallery.get("gallery/labels", state="suggested")["labels"] == [
        {"label": "Copepod", "count": 2},
        {"label": "Detritus", "count": 1},
    ]


def test_blind_tasks_have_no_suggestion_anywhere(new_gallery):
    gallery = new_gallery(4, blind=[1])
    suggested(gallery)
    gallery.get("gallery")
    assert gallery.on_page(order="task") == [0, 2, 3]
    # Marked blind after its prediction was made.
    data = gallery.task(gallery.tasks[3])["data"]
    gallery.api.patch(f"/api/tasks/{gallery.tasks[3]}/", {"data": {**data, "blind": "yes"}})
    assert gallery.on_page(order="task") == [0, 2]
    open_crops = gallery.page(suggested=0)["crops"]
    assert [crop["task"] for crop in open_crops] == [gallery.tasks[1], gallery.tasks[3]]
    assert all(crop["blind"] and crop["suggestion"] is None for crop in open_crops)
    by_task = gallery.page(tasks=",".join(map(str, gallery.tasks)))["crops"]
    assert [crop["suggestion"] is None for crop in by_task] == [False, True, False, True]


def test_a_project_that_hides_suggestions_hides_them_here(new_gallery):
    gallery = new_gallery(3, suggestions_shown=False)
    suggested(gallery)
    said = gallery.get("gallery")
    assert said["model_version"] is None
    assert said["has_images"]
    assert not said["has_suggestions"]
    assert gallery.on_page() == []
    assert gallery.on_page(suggested=0) == [0, 1, 2]
    assert all(crop["suggestion"] is None for crop in gallery.page(suggested=0)["crops"])


def test_another_control_of_the_config(new_gallery):
    gallery = new_gallery(3)
    suggested(gallery)
    anna = gallery.person("anna")
    gallery.annotate(gallery.tasks[0], {"group": "Copepod", "egg_sac": "present"})
    gallery.annotate(gallery.tasks[0], {"group": "Copepod", "egg_sac": "absent"}, anna)
    gallery.annotate(gallery.tasks[2], {"group": "Copepod", "egg_sac": "absent"}, anna)
    where = {"control": "egg_sac", "suggested": 0}
    assert gallery.on_page(control="egg_sac") == []
    assert gallery.on_page(**where) == [0, 1, 2]
    assert gallery.on_page(**where, state="conflicting") == [0]
    assert gallery.on_page(**where, state="others") == [2]
    assert gallery.on_page(**where, state="open") == [1]
    # About the group itself, both agree.
    assert gallery.on_page(state="conflicting") == []


def test_labels_and_data_are_text(new_gallery):
    gallery = new_gallery(1)
    gallery.suggest({gallery.tasks[0]: (SCRIPT, 0.9)})
    response = gallery.call("GET", "gallery/page", params={"label": SCRIPT})
    assert response.headers["Content-Type"] == "application/json"
    assert response.json()["crops"][0]["suggestion"]["label"] == SCRIPT


def test_who_may_see_it(new_gallery):
    gallery = new_gallery(2)
    suggested(gallery)
    url = f"{gallery.server.url}/api/planktrait/projects/{gallery.project.id}"
    paths = ["gallery", "gallery/labels", "gallery/page"]
    tasks = ",".join(map(str, gallery.tasks))
    paths += [f"gallery/sprite?tasks={tasks}", f"gallery/sprite-map?tasks={tasks}"]
    for path in paths:
        assert requests.get(f"{url}/{path}", timeout=30).status_code == 401, path
        assert gallery.call("GET", path, gallery.person("anna")).ok
    nobody = requests.post(f"{url}/judgements", json={}, timeout=30)
    assert nobody.status_code == 401
    missing = requests.get(
        f"{gallery.server.url}/api/planktrait/projects/999999/gallery",
        headers={"Authorization": f"Token {gallery.server.home.secrets.api_token}"},
        timeout=30,
    )
    assert missing.status_code == 404


def test_a_project_of_another_organisation_is_refused(new_gallery):
    gallery = new_gallery(1)
    stranger = gallery.stranger()
    for path in ("gallery", "gallery/page", f"gallery/sprite?tasks={gallery.tasks[0]}"):
        assert gallery.call("GET", path, stranger).status_code == 403
    assert gallery.call("POST", "judgements", stranger, json={}).status_code == 403
    assert gallery.call("DELETE", "suggestions?model_version=x", stranger).status_code == 403
    # The Data Manager's actions, too: ours and Label Studio's own.
    call = partial(
        requests.request, headers={"Authorization": f"Token {stranger.token}"}, timeout=60
    )
    actions = f"{gallery.server.url}/api/dm/actions"
    project = f"project={gallery.project.id}"
    assert call("GET", f"{actions}?{project}").status_code == 403
    everything = {"selectedItems": {"all": True, "excluded": []}, "label": "Copepod"}
    for action in (
        *("suggest_labels", "learn_features", "accept_suggestions", "label_as", "mark_blind"),
        *("find_similar", "second_opinion", "export_selection", "next_task", "delete_tasks"),
    ):
        done = call("POST", f"{actions}?id={action}&{project}", json=everything)
        assert done.status_code == 403, (action, done.text)
    assert call("GET", f"{actions}/label_as/form?{project}").status_code == 403
    assert gallery.task(gallery.tasks[0])["annotations"] == []


def test_a_config_without_a_question_for_the_gallery_says_so(new_gallery):
    config = CONFIG.split("<Choices")[0] + (
        '<RectangleLabels name="box" toName="image"><Label value="x"/></RectangleLabels></View>'
    )
    gallery = new_gallery(1, config=config)
    response = gallery.call("GET", "gallery")
    assert response.status_code == 400
    assert "labeling config" in response.text


def test_the_same_on_postgresql(tmp_path, monkeypatch, postgres_template):
    with postgres_cluster(postgres_template) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with serve_for_tests(tmp_path) as server:
            gallery = GalleryForTests(server, create_project(server.home, "Postgres", CONFIG))
            gallery.load(crop_rows(server, 30))
            suggested(gallery, 28)
            said = gallery.get("gallery")
            index = gallery.get("gallery/index")
            assert index == {"tasks": 30, "suggestions": 28, "complete": True, "mended": 0}
            assert said["samples"] == ["haul-0", "haul-1", "haul-2"]
            for order in ("certain", "uncertain", "novel", "task"):
                for query in ({}, {"label": "Copepod"}):
                    at_once = gallery.on_page(order=order, limit=200, **query)
                    assert gallery.on_page(order=order, limit=4, **query) == at_once
            assert sorted(gallery.on_page(text="CROP-001", limit=3)) == list(range(10, 20))
            assert gallery.on_page(text="100%") == []
            assert gallery.on_page(sample="haul-1", label="Copepod") == list(range(4, 28, 6))
            assert gallery.on_page(captured_from="2014-06-09T12:00:00Z", order="task") == [
                8,
                17,
                26,
            ]
            assert gallery.on_page(suggested=0) == [28, 29]
            counts = gallery.get("gallery/labels", depth_to=0)
            assert counts == {
                "labels": [{"label": "Copepod", "count": 3}, {"label": "Detritus", "count": 3}],
                "open": 0,
            }
            # What Label Studio imports in bulk is indexed while it is saved.
            rows = [
                {"data": row, "predictions": [suggestion(gallery.project, 0, "Copepod", 0.9)]}
                for row in crop_rows(server, 3)
            ]
            gallery.api.post(f"/api/projects/{gallery.project.id}/import", rows)
            assert gallery.get("gallery/index")["suggestions"] == 31
            where = {"control": "egg_sac", "suggested": 0}
            gallery.annotate(gallery.tasks[0], {"group": "Copepod", "egg_sac": "present"})
            assert gallery.on_page(**where, state="mine") == [0]
            anything = {"suggested": "any", "order": "task"}
            assert gallery.on_page(answered="Copepod", **anything) == [0]
            assert gallery.on_page(answered="Detritus", **anything) == []
            assert gallery.on_page(text="30.0", **anything)[:3] == [3, 8, 13]
