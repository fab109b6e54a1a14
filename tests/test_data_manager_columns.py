"""Our columns in the Data Manager of a real Label Studio: shown, sorted, filtered; blind bare."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import requests

from label_studio_config.api import Api
from label_studio_config.project import create_project
from label_studio_config.results import write_result
from label_studio_config.users import add_user
from tests.push_fixtures import in_django

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
<Choice value="Copepod"/><Choice value="Detritus"/><Choice value="Diatom"/></Choices></View>"""
VERSION = "project-0-v0001"
SUGGESTED = {0: ("Copepod", 0.9), 1: ("Detritus", 0.6), 2: ("Copepod", 0.75)}
SECOND = {0: "Diatom", 1: "Copepod", 2: "Diatom"}
BLIND = 3
OURS = {"suggested_label", "confidence", "second_choice", "novelty", "agreement_of_annotators"}


@pytest.fixture(scope="module")
def api(label_studio):
    return Api(label_studio.home)


@pytest.fixture(scope="module")
def project(label_studio, api):
    project = create_project(label_studio.home, "Columns of the Data Manager", CONFIG)
    data = [
        {"data": {"image": f"/data/{n}.png", "n": n, "blind": "yes" if n == BLIND else "no"}}
        for n in range(5)
    ]
    api.post(f"/api/projects/{project.id}/import", data)
    ids = ids_of(api, project)
    predictions = [
        {
            "task": ids[n],
            "score": score,
            "model_version": VERSION,
            "result": write_result(
                project.schema,
                {"group": label},
                probabilities={"group": {label: score, SECOND[n]: 1 - score}},
                novelty=0.1 * n,
            ),
        }
        for n, (label, score) in SUGGESTED.items()
    ]
    api.post(f"/api/planktrait/projects/{project.id}/suggestions", predictions)
    api.post(f"/api/planktrait/projects/{project.id}/model-version", {"model_version": VERSION})
    give_prediction(label_studio.home, ids[0], ids[BLIND])
    return project


def give_prediction(home, from_task, to_task):
    """A copy of one task's prediction for another, which may be blind, past every guard."""
    with closing(sqlite3.connect(home.label_studio_folder / "label_studio.sqlite3")) as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(prediction)")]
        copied = [name for name in names if name not in ("id", "task_id")]
        database.execute(
            f"INSERT INTO prediction (task_id, {', '.join(copied)}) "
            f"SELECT ?, {', '.join(copied)} FROM prediction WHERE task_id = ?",
            (to_task, from_task),
        )
        database.commit()


def ids_of(api, project):
    page = api.get("/api/tasks", project=project.id, page_size=100, fields="all")
    return {task["data"]["n"]: task["id"] for task in page["tasks"]}


def listed(api, project, ordering=None, filters=()):
    """The tasks of a new tab, by number in their order."""
    data = {
        "title": "a tab",
        "ordering": [f"{'-' if ordering.startswith('-') else ''}tasks:{ordering.lstrip('-')}"]
        if ordering
        else [],
        "filters": {"conjunction": "and", "items": list(filters)},
        "hiddenColumns": {"explore": [], "labeling": []},
    }
    view = api.post("/api/dm/views/", {"project": project.id, "data": data})
    page = api.get("/api/tasks", project=project.id, view=view["id"], page_size=100)
    return {task["data"]["n"]: task for task in page["tasks"]}


def where(column, operator, value, kind):
    return {
        "filter": f"filter:tasks:{column}",
        "operator": operator,
        "type": kind,
        "value": value,
    }


def test_the_columns_are_offered(api, project):
    columns = {c["id"]: c for c in api.get("/api/dm/columns", project=project.id)["columns"]}
    assert columns.keys() >= OURS
    assert columns["confidence"]["type"] == "Number"
    assert columns["total_annotations"]["title"] == "Annotations"


def test_what_they_show(api, project):
    tasks = listed(api, project)
    assert tasks[0]["suggested_label"] == "Copepod"
    assert tasks[0]["confidence"] == pytest.approx(0.9)
    assert tasks[0]["second_choice"] == "Diatom"
    assert tasks[2]["novelty"] == pytest.approx(0.2)
    for n in (BLIND, 4):
        assert {name: tasks[n][name] for name in OURS} == dict.fromkeys(OURS)


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("suggested_label", [0, 2, 1]),
        ("confidence", [1, 2, 0]),
        ("second_choice", [1, 0, 2]),
        ("novelty", [0, 1, 2]),
    ],
)
def test_they_sort(api, project, column, order):
    """What has no suggestion, or is blind, comes last either way, by its id alone."""
    bare = [BLIND, 4]
    assert list(listed(api, project, ordering=column)) == order + bare
    back = list(listed(api, project, ordering=f"-{column}"))
    assert back[3:] == bare
    if column in ("confidence", "novelty"):
        assert back[:3] == order[::-1]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("confidence", "greater", 0.7, "Number"), {0, 2}),
        (("suggested_label", "equal", "Copepod", "String"), {0, 2}),
        (("second_choice", "equal", "Diatom", "String"), {0, 2}),
        (("novelty", "greater", 0.05, "Number"), {1, 2}),
        (("novelty", "less", 0.15, "Number"), {0, 1}),
    ],
)
def test_they_filter(api, project, asked, found):
    assert set(listed(api, project, filters=[where(*asked)])) == found


def test_a_page_catches_up_once(label_studio, api, project):
    token = label_studio.home.secrets.api_token
    code = f"""
from rest_framework.test import APIClient
from label_studio_config.plugin import data_manager_columns as columns
calls = []
columns.catch_up = lambda project, budget_s: calls.append(project.id)
client = APIClient(HTTP_HOST="localhost", HTTP_AUTHORIZATION="Token {token}")
for _ in range(2):
    page = client.get("/api/tasks", {{"project": {project.id}, "page_size": 100, "fields": "all"}})
    assert len(page.json()["tasks"]) == 5, page.content
    print(calls)
"""
    assert in_django(label_studio.home, code).splitlines()[-2:] == [
        str([project.id]),
        str([project.id] * 2),
    ]


def test_agreement_of_two_people(label_studio, api, project):
    add_user(label_studio.home, "columns@example.org", "a-good-password-1")
    ids = ids_of(api, project)
    session = requests.Session()
    session.trust_env = False
    page = f"{label_studio.url}/user/login/"
    session.get(page, timeout=20)
    form = {
        "email": "columns@example.org",
        "password": "a-good-password-1",
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
    }
    session.post(page, data=form, headers={"Referer": page}, timeout=20)
    for n, (mine, theirs) in {0: ("Copepod", "Copepod"), 1: ("Detritus", "Diatom")}.items():
        path = f"/api/tasks/{ids[n]}/annotations/"
        api.post(path, {"result": write_result(project.schema, {"group": mine})})
        said = {"result": write_result(project.schema, {"group": theirs})}
        answer = session.post(label_studio.url + path, json=said, timeout=20)
        assert answer.status_code == 201, answer.text
    tasks = listed(api, project)
    agreed = {n: task["agreement_of_annotators"] for n, task in tasks.items()}
    assert agreed == {0: 1.0, 1: 0.5, 2: None, 3: None, 4: None}
    unsure = where("agreement_of_annotators", "less", 0.9, "Number")
    assert set(listed(api, project, filters=[unsure])) == {1}


def test_agreement_is_hidden_until_ones_own_answer_is_given(label_studio, api, project):
    """Where several votes are wanted, in what is shown, sorted and filtered."""
    ids = ids_of(api, project)
    people = [add_user(label_studio.home, f"columns-{n}@example.org") for n in (1, 2)]
    for person, label in zip(people, ("Copepod", "Diatom"), strict=True):
        answer = requests.post(
            f"{label_studio.url}/api/tasks/{ids[2]}/annotations/",
            json={"result": write_result(project.schema, {"group": label})},
            headers={"Authorization": f"Token {person.token}"},
            timeout=20,
        )
        assert answer.status_code == 201, answer.text
    unsure = where("agreement_of_annotators", "less", 0.9, "Number")
    assert set(listed(api, project, filters=[unsure])) == {1, 2}
    api.patch(f"/api/projects/{project.id}/", {"maximum_annotations": 2})
    tasks = listed(api, project, ordering="-agreement_of_annotators")
    agreed = {n: task["agreement_of_annotators"] for n, task in tasks.items()}
    assert agreed == {0: 1.0, 1: 0.5, 2: None, 3: None, 4: None}
    assert list(tasks)[:2] == [0, 1]
    assert set(listed(api, project, filters=[unsure])) == {1}
    said = {"result": write_result(project.schema, {"group": "Diatom"})}
    api.post(f"/api/tasks/{ids[2]}/annotations/", said)
    assert listed(api, project)[2]["agreement_of_annotators"] == pytest.approx(0.667)
    api.patch(f"/api/projects/{project.id}/", {"maximum_annotations": 1})


def test_opening_one_task_does_not_wait_for_them(label_studio, api, project):
    """It is given without our columns, so the database is not asked for them."""
    task_id = ids_of(api, project)[0]
    code = (
        "from django.db import connection\n"
        "from django.test import Client\n"
        "from django.test.utils import CaptureQueriesContext as Capture\n"
        f"token = {label_studio.home.secrets.api_token!r}\n"
        "client = Client(HTTP_HOST='localhost', HTTP_AUTHORIZATION=f'Token {token}')\n"
        f"for address in ('/api/tasks/{task_id}/', '/api/tasks?project={project.id}&fields=all'):\n"
        "    with Capture(connection) as queries:\n"
        "        answer = client.get(address)\n"
        "    assert answer.status_code == 200, answer.content\n"
        "    print(sum('planktrait' in query['sql'] for query in queries))\n"
    )
    one_task, page = map(int, in_django(label_studio.home, code).split()[-2:])
    assert one_task == 0
    assert page > 0
