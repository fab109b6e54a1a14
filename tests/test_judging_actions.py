"""Data Manager actions that judge, in a real Label Studio: what is saved, left alone, refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import requests

from label_studio_config.api import Api, ApiError
from label_studio_config.hosting import server_environment
from label_studio_config.project import create_project
from label_studio_config.results import write_result
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.users import add_user
from label_studio_config.votes import read_votes

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
<Choice value="Copepod"/><Choice value="Detritus"/>
<Choice value="Cannot tell" role="not_assessable"/></Choices></View>"""
VERSION = "project-0-v0001"
CONFIDENCES = (0.99, 0.97, 0.96, 0.8, 0.6)


@pytest.fixture
def home(label_studio):
    return label_studio.home


@pytest.fixture
def project(home, request):
    project = create_project(home, f"Actions {abs(hash(request.node.name)) % 10**9}", CONFIG)
    api = Api(home)
    data = [{"data": {"image": f"/data/{n}.png", "n": n, "blind": "no"}} for n in range(5)]
    api.post(f"/api/projects/{project.id}/import", data)
    by_number = numbered(home, project)
    predictions = [
        {
            "task": by_number[n]["id"],
            "score": score,
            "model_version": VERSION,
            "result": write_result(
                project.schema,
                {"group": "Copepod"},
                probabilities={"group": {"Copepod": score, "Detritus": 1 - score}},
            ),
        }
        for n, score in enumerate(CONFIDENCES)
    ]
    api.post(f"/api/planktrait/projects/{project.id}/suggestions", predictions)
    api.post(f"/api/planktrait/projects/{project.id}/model-version", {"model_version": VERSION})
    return project


def numbered(home, project):
    return {task["data"]["n"]: task for task in fetch_tasks(home, project.id)}


def run(home, project, action, numbers=None, **options):
    items = {"all": numbers is None, "excluded": []}
    if numbers is not None:
        by_number = numbered(home, project)
        items = {"all": False, "included": [by_number[n]["id"] for n in numbers]}
    path = f"/api/dm/actions?id={action}&project={project.id}"
    return Api(home).call("POST", path, json={"selectedItems": items, **options})


def at_95(answer):
    """What a preview says of 95 %: images, and how many of them are expected to be wrong."""
    (found,) = [one for one in answer["preview"]["choices"] if one["confidence"] == 0.95]
    return found["images"], found["wrong"]


def judged_by(label_studio, project, person, numbers, label="Detritus"):
    """Somebody else's answers, saved as the editor does."""
    by_number = numbered(label_studio.home, project)
    for n in numbers:
        answer = requests.post(
            f"{label_studio.url}/api/tasks/{by_number[n]['id']}/annotations/",
            json={"result": write_result(project.schema, {"group": label})},
            headers={"Authorization": f"Token {person.token}"},
            timeout=60,
        )
        assert answer.status_code == 201, answer.text


def labels(home, project):
    return {
        n: [item["value"]["choices"][0] for one in task["annotations"] for item in one["result"]]
        for n, task in numbered(home, project).items()
    }


def blind_in_index(home, project):
    """The tasks that the gallery's index takes for blind."""
    query = "SELECT task_id FROM planktrait_crop WHERE project_id = ? AND blind"
    with closing(sqlite3.connect(home.label_studio_folder / "label_studio.sqlite3")) as database:
        return [task_id for (task_id,) in database.execute(query, (project.id,))]


def test_sure_suggestions_are_accepted_with_an_estimate_of_errors(home, project):
    asked = run(home, project, "accept_suggestions")
    preview = asked["preview"]
    assert (preview["selected"], preview["waiting"], preview["complete"]) == (5, 5, True)
    assert at_95(asked) == (3, pytest.approx(0.08, abs=0.05))
    assert preview["choices"][-1] == {
        "confidence": 0.5,
        "images": 5,
        "wrong": pytest.approx(sum(1 - sure for sure in CONFIDENCES)),
    }
    # Of what is selected alone, and nothing is saved by looking.
    part = run(home, project, "accept_suggestions", numbers=[2, 3])
    assert (part["preview"]["selected"], at_95(part)[0]) == (2, 1)
    assert set(map(tuple, labels(home, project).values())) == {()}
    answer = run(home, project, "accept_suggestions", confidence=0.95)
    assert (answer["processed_items"], answer["left"]) == (3, 0)
    (batch,) = answer["batches"]
    path = f"/api/planktrait/projects/{project.id}/judgements/{batch}/undo"
    assert Api(home).post(path)["undone"] == 3
    answer = run(home, project, "accept_suggestions", confidence="95 %")
    assert answer["processed_items"] == 3
    assert "about 0" in answer["detail"]
    assert labels(home, project) == {0: ["Copepod"], 1: ["Copepod"], 2: ["Copepod"], 3: [], 4: []}
    votes = read_votes(project.schema, fetch_tasks(home, project.id))
    assert votes["suggestion_shown"].all()
    assert set(votes["suggestion_version"]) == {VERSION}
    # What is answered is not accepted again, and only what is selected is.
    again = run(home, project, "accept_suggestions", numbers=[2, 3], confidence="0.5")
    assert again["processed_items"] == 1
    assert labels(home, project)[4] == []


def test_where_several_votes_are_wanted_others_answers_take_nothing_away(label_studio, project):
    """Nor do the counts give them away."""
    home = label_studio.home
    anna = add_user(home, f"anna-votes-{project.id}@example.org")
    judged_by(label_studio, project, anna, [0])
    assert at_95(run(home, project, "accept_suggestions"))[0] == 2
    Api(home).patch(f"/api/projects/{project.id}/", {"maximum_annotations": 2})
    judged_by(label_studio, project, anna, [1])
    assert at_95(run(home, project, "accept_suggestions"))[0] == 3
    answer = run(home, project, "accept_suggestions", confidence="0.95")
    assert answer["processed_items"] == 3
    assert labels(home, project)[1] == ["Detritus", "Copepod"]
    assert run(home, project, "accept_suggestions", confidence="0.95")["processed_items"] == 0


def test_a_second_opinion_may_accept_what_the_first_has_judged(label_studio, project):
    home = label_studio.home
    anna = add_user(home, f"anna-again-{project.id}@example.org")
    judged_by(label_studio, project, anna, [0, 1])
    run(home, project, "second_opinion", numbers=[0])
    answer = run(home, project, "accept_suggestions", numbers=[0, 1], confidence="0.95")
    assert answer["processed_items"] == 1
    assert labels(home, project)[0] == ["Detritus", "Copepod"]


def test_a_label_for_all_that_is_selected(home, project):
    answer = run(home, project, "label_as", numbers=[3, 4], label="Detritus")
    assert answer["processed_items"] == 2
    assert labels(home, project)[3] == ["Detritus"]
    assert labels(home, project)[0] == []
    run(home, project, "label_as", numbers=[4], label="Cannot tell")
    assert labels(home, project)[4] == ["Cannot tell"]
    with pytest.raises(ApiError, match="no label"):
        run(home, project, "label_as", numbers=[0], label="Krill")
    form = Api(home).get("/api/dm/actions/label_as/form", project=project.id)
    assert form[0]["fields"][0]["options"] == ["Copepod", "Detritus", "Cannot tell"]


def test_so_many_a_call_and_how_many_are_left(home, project):
    code = f"""
import json, django
django.setup()
from types import SimpleNamespace
from projects.models import Project
from tasks.models import Task
from users.models import User
from label_studio_config.plugin import bulk_orders, gallery_catch_up, judging_actions as actions
project = Project.objects.get(id={project.id})
request = SimpleNamespace(user=User.objects.order_by("id").first(), data={{"confidence": "0.9"}})
images = Task.objects.filter(project=project)
def call(action):
    answer = action(project, images, request=request)
    print(json.dumps([answer["processed_items"], answer["left"], answer["detail"]]))
actions.CATCH_UP_S, gallery_catch_up.CHUNK = 0, 5
call(actions.accept_suggestions)
actions.CATCH_UP_S, bulk_orders.AT_ONCE, bulk_orders.A_STEP = 60, 2, 1
call(actions.accept_suggestions)
call(actions.accept_suggestions)
request.data = {{"label": "Detritus"}}
for _ in range(4):
    call(actions.label_as)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=server_environment(home), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    first, *accepted = answers[:3]
    assert first[:2] == [0, 0]
    assert "still being made: call it again" in first[2]
    assert [answer[:2] for answer in accepted] == [[2, 1], [1, 0]]
    assert "1 image left: call it again" in accepted[0][2]
    assert [answer[:2] for answer in answers[3:]] == [[2, 3], [2, 1], [1, 0], [0, 0]]
    assert set(map(tuple, labels(home, project).values())) == {("Detritus",)}


def test_blind_images_lose_their_suggestion_unless_somebody_judged_them(home, project):
    run(home, project, "label_as", numbers=[0], label="Detritus")
    tasks_before = numbered(home, project)
    assert blind_in_index(home, project) == []
    answer = run(home, project, "mark_blind", numbers=[0, 1])
    assert answer["processed_items"] == 1
    assert "1 were judged already" in answer["detail"]
    # Before any page of the gallery looks.
    assert blind_in_index(home, project) == [tasks_before[1]["id"]]
    tasks = numbered(home, project)
    assert tasks[1]["data"]["blind"] == "yes"
    assert (tasks[1]["predictions"], tasks[1]["total_predictions"]) == ([], 0)
    assert tasks[0]["data"]["blind"] == "no"
    assert len(tasks[0]["predictions"]) == 1
    page = Api(home).get(f"/api/planktrait/projects/{project.id}/gallery/page", limit=100)
    assert tasks[1]["id"] not in {crop["task"] for crop in page["crops"]}


def test_where_the_gallery_shows_what_is_similar(home, project):
    answer = run(home, project, "find_similar", numbers=[2, 3])
    ids = [numbered(home, project)[n]["id"] for n in (2, 3)]
    assert answer["address"].endswith(f"/gallery?similar={ids[0]},{ids[1]}")
    assert "what is like 2 images" in answer["detail"]
    assert answer["processed_items"] == 2


def test_a_confidence_that_is_none_is_refused(home, project):
    with pytest.raises(ApiError, match="is no confidence"):
        run(home, project, "accept_suggestions", confidence="very")
    assert labels(home, project)[0] == []
