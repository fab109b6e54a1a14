"""The plugin inside a real Label Studio: actions, suggestions, templates, and its guard."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from label_studio_config.api import Api, ApiError
from label_studio_config.backend_connection import authorization
from label_studio_config.hosting import server_environment
from label_studio_config.project import config_names, create_project, read_config
from label_studio_config.results import read_result, write_result
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.users import add_user
from label_studio_config.votes import read_votes
from tests.label_studio_fixtures import backend_for_tests
from tests.push_fixtures import in_django

pytestmark = pytest.mark.slow

CONFIG = """<View><Image name="image" value="$image"/><Choices name="group" toName="image">
<Choice value="Copepod" aphia="1080"/><Choice value="Detritus"/></Choices></View>"""


@pytest.fixture
def home(label_studio):
    return label_studio.home


@pytest.fixture
def project(home, request):
    return create_project(home, f"Plugin {abs(hash(request.node.name)) % 10**9}", CONFIG)


@pytest.fixture
def backend(home):
    with backend_for_tests(home) as backend:
        yield backend


def load(home, project, count, blind=()):
    api = Api(home)
    data = [
        {"data": {"image": f"/data/{i}.png", "n": i, "blind": "yes" if i in blind else "no"}}
        for i in range(count)
    ]
    api.post(f"/api/projects/{project.id}/import", data)
    return tasks_of(home, project)


def tasks_of(home, project):
    page = Api(home).get("/api/tasks", project=project.id, page_size=1000, fields="all")
    return {task["data"]["n"]: task for task in page["tasks"]}


def run(home, project, action, selected=None):
    items = {"all": selected is None, "excluded": []}
    if selected is not None:
        items = {"all": False, "included": selected}
    return Api(home).call(
        "POST", f"/api/dm/actions?id={action}&project={project.id}", json={"selectedItems": items}
    )


def suggestion(project, label="Copepod", score=0.7, version="project-0-v0001"):
    result = write_result(project.schema, {"group": label}, probabilities={"group": {label: score}})
    return {"result": result, "score": score, "model_version": version}


def test_the_actions_are_offered(home, project):
    actions = {a["id"]: a for a in Api(home).get("/api/dm/actions", project=project.id)}
    assert actions["suggest_labels"]["title"] == "Suggest labels"
    assert actions["learn_features"]["title"] == "Learn features from all images"
    assert actions["suggest_labels"]["dialog"]["type"] == "confirm"


def test_suggest_labels_saves_what_the_backend_answers(home, project, backend):
    load(home, project, 150, blind={3, 4})

    def answer(task):
        n = task["data"]["n"]
        return [] if n == 7 else suggestion(project, "Detritus" if n % 2 else "Copepod", n / 1000)

    backend.answer_to = answer
    done = run(home, project, "suggest_labels")
    assert done["processed_items"] == 147
    assert "project-0-v0001" in done["detail"]
    assert "2 blind images were left alone." in done["detail"]
    assert "1 got none" in done["detail"]
    sizes = [len(body["tasks"]) for body in backend.sent_to("predict")]
    assert sizes == [148]
    asked = {task["data"]["n"] for body in backend.sent_to("predict") for task in body["tasks"]}
    assert asked.isdisjoint({3, 4})
    tasks = tasks_of(home, project)
    for n, task in tasks.items():
        if n in (3, 4, 7):
            assert task["predictions"] == []
            assert task["total_predictions"] == 0
            continue
        (prediction,) = task["predictions"]
        assert prediction["score"] == n / 1000
        assert prediction["model_version"] == "project-0-v0001"
        (label,) = read_result(project.schema, prediction["result"])["group"].labels
        assert label == ("Detritus" if n % 2 else "Copepod")
        # Visible to the score column and to uncertainty sampling.
        assert task["predictions_score"] == n / 1000
        assert task["total_predictions"] == 1


def test_of_many_tasks_only_those_marks_are_read_that_may_say_blind(home, project):
    load(home, project, 210, blind={3})
    code = f"""
import json
from projects.models import Project
from tasks.models import Task
from label_studio_config.plugin import actions, shown_tasks
actions.backend.ask = lambda *asked, **body: {{"live": "v1", "job": "suggest-1"}}
read = []
for module in (actions, shown_tasks):
    module.is_blind_data = lambda data, known=module.is_blind_data: read.append(data) or known(data)
project = Project.objects.get(id={project.id})
told = actions.suggest_labels(project, Task.objects.filter(project=project))
print(json.dumps([told["processed_items"], told["detail"], read]))
"""
    suggested, detail, read = json.loads(in_django(home, code).splitlines()[-1])
    assert suggested == 209
    assert "1 blind image was left alone." in detail
    assert read == [{"blind": "yes"}]


def test_repeating_replaces_the_suggestions_of_that_version(home, project, backend):
    load(home, project, 5)
    backend.answer_to = lambda task: suggestion(project, "Copepod", 0.4)
    run(home, project, "suggest_labels")
    backend.answer_to = lambda task: suggestion(project, "Detritus", 0.6)
    run(home, project, "suggest_labels")
    assert [t["total_predictions"] for t in tasks_of(home, project).values()] == [1] * 5
    backend.answer_to = lambda task: suggestion(project, "Copepod", 0.9, "project-0-v0002")
    run(home, project, "suggest_labels")
    tasks = tasks_of(home, project)
    assert [t["total_predictions"] for t in tasks.values()] == [2] * 5
    # The new version's score is the one that counts.
    assert {t["predictions_score"] for t in tasks.values()} == {0.9}


def test_only_the_selected_tasks_are_suggested(home, project, backend):
    tasks = load(home, project, 5)
    backend.answer_to = lambda task: suggestion(project)
    assert run(home, project, "suggest_labels", [tasks[2]["id"]])["processed_items"] == 1
    assert [t["total_predictions"] for t in tasks_of(home, project).values()] == [0, 0, 1, 0, 0]


def test_an_annotation_remembers_the_suggestion_shown(home, project, backend):
    tasks = load(home, project, 1)
    backend.answer_to = lambda task: suggestion(project)
    run(home, project, "suggest_labels")
    task = tasks_of(home, project)[0]
    Api(home).post(
        f"/api/tasks/{tasks[0]['id']}/annotations/",
        {
            "result": suggestion(project, "Detritus")["result"],
            "parent_prediction": task["predictions"][0]["id"],
        },
    )
    (exported,) = Api(home).get(f"/api/projects/{project.id}/export", exportType="JSON")
    assert exported["annotations"][0]["prediction"]["model_version"] == "project-0-v0001"


def test_tasks_are_fetched_with_all_that_was_said_about_them(home, project, backend):
    """As Label Studio's export gives them, with the suggestion that the annotator saw."""
    tasks = load(home, project, 7)
    backend.answer_to = lambda task: suggestion(project)
    run(home, project, "suggest_labels")
    api = Api(home)
    person = add_user(home, "judge@example.org")
    prediction_id = tasks_of(home, project)[0]["predictions"][0]["id"]
    body = {
        "result": suggestion(project, "Detritus")["result"],
        "parent_prediction": prediction_id,
        "lead_time": 2.5,
    }
    for n, body_of_task in ((0, body), (1, {"result": [], "was_cancelled": True})):
        requests.post(
            f"{api.url}/api/tasks/{tasks[n]['id']}/annotations/",
            json=body_of_task,
            headers={"Authorization": f"Token {person.token}"},
            timeout=30,
        ).raise_for_status()
    # The annotation keeps its copy when the suggestion itself is deleted.
    api.call("DELETE", f"/api/predictions/{prediction_id}/")

    fetched = list(fetch_tasks(home, project.id, page_size=3))
    assert [task["id"] for task in fetched] == sorted(task["id"] for task in tasks.values())
    saved = {task["id"]: task for task in api.get(f"/api/projects/{project.id}/export")}
    (mine,) = fetched[0]["annotations"]
    (exported,) = saved[fetched[0]["id"]]["annotations"]
    assert mine["prediction"]["model_version"] == "project-0-v0001"
    assert mine["completed_by"] == {"id": person.id, "email": "judge@example.org"}
    assert mine["lead_time"] == 2.5
    for key in ("result", "prediction", "was_cancelled", "lead_time", "created_at", "updated_at"):
        assert mine[key] == exported[key], key
    assert fetched[0]["predictions"] == []
    (other,) = fetched[2]["predictions"]
    assert other["score"] == 0.7
    assert read_result(project.schema, other["result"])["group"].labels == ("Copepod",)
    for source in (fetched, saved.values()):
        assert read_votes(project.schema, source)["suggestion_shown"].tolist() == [True]

    def ids(**options):
        found = list(fetch_tasks(home, project.id, full=False, page_size=2, **options))
        assert all(task["annotations"] == task["predictions"] == [] for task in found)
        return [task["data"]["n"] for task in found]

    assert ids() == list(range(7))
    assert ids(annotated_only=True) == [0]
    assert ids(unannotated_only=True) == list(range(1, 7))
    assert ids(missing_version="project-0-v0001") == [0]
    assert ids(missing_version="project-0-v000") == list(range(7))
    light = next(iter(fetch_tasks(home, project.id, full=False)))
    assert (light["total_annotations"], light["total_predictions"]) == (1, 0)
    with pytest.raises(ApiError, match="limit='0x1'"):
        api.get(f"/api/planktrait/projects/{project.id}/tasks", limit="0x1")
    with pytest.raises(ApiError, match="404"):
        next(fetch_tasks(home, 999999))


def test_a_page_of_tasks_takes_few_queries(home, project):
    """The same number of queries for one task and for many, each with annotations."""
    tasks = load(home, project, 30)
    for task in list(tasks.values())[:20]:
        Api(home).post(f"/api/tasks/{task['id']}/annotations/", {"result": []})
    code = (
        "import django; django.setup()\n"
        "from django.db import connection\n"
        "from django.test.utils import CaptureQueriesContext as Capture\n"
        "from projects.models import Project\n"
        "from label_studio_config.plugin.task_pages import Query, page_of_tasks\n"
        f"project = Project.objects.get(id={project.id})\n"
        "counts = []\n"
        "for limit in (1, 30):\n"
        "    with Capture(connection) as queries:\n"
        "        page = page_of_tasks(project, Query(limit=limit))\n"
        "    counts.append(len(queries))\n"
        "assert len(page) == 30 and counts == [3, 3], (len(page), counts)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=server_environment(home), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("kind", ["unknown label", "too few answers", "refused", "no backend"])
def test_a_wrong_backend_saves_nothing_and_says_why(home, project, request, kind):
    load(home, project, 3)
    if kind != "no backend":
        backend = request.getfixturevalue("backend")
        bad = suggestion(project)
        bad["result"][0]["value"]["choices"] = ["Unicorn"]
        backend.answer_to = lambda task: bad
        backend.drop_answers = 1 if kind == "too few answers" else 0
        backend.refuse = {"predict": 500} if kind == "refused" else {}
    with pytest.raises(ApiError) as refused:
        run(home, project, "suggest_labels")
    assert refused.value.status == 503
    expected = {
        "unknown label": "Unicorn",
        "too few answers": "did not answer for each of 3",
        "refused": "predict is refused",
        "no backend": "does not answer",
    }
    assert expected[kind] in str(refused.value)
    assert all(t["total_predictions"] == 0 for t in tasks_of(home, project).values())


def test_learn_features_asks_the_backend_for_a_job(home, project, backend):
    load(home, project, 2)
    done = run(home, project, "learn_features")
    assert backend.sent_to("pretrain") == [{"project": project.id}]
    assert "pretrain-1" in done["detail"]
    # The page follows the job by its id.
    assert done["job"] == "pretrain-1"
    backend.refuse = {"pretrain": 409}
    with pytest.raises(ApiError, match="pretrain is refused"):
        run(home, project, "learn_features")


def test_suggestions_can_be_posted_in_bulk(home, project):
    tasks = load(home, project, 4, blind={1})
    path = f"/api/planktrait/projects/{project.id}/suggestions"
    body = [suggestion(project, score=0.3) | {"task": task["id"]} for task in tasks.values()]
    assert Api(home).post(path, body) == {"saved": 3}
    assert Api(home).post(path, body) == {"saved": 3}
    assert [t["total_predictions"] for t in tasks_of(home, project).values()] == [1, 0, 1, 1]
    for wrong in ({**body[0], "task": 10**9}, {**body[0], "model_version": ""}):
        with pytest.raises(ApiError, match=r"task \d+"):
            Api(home).post(path, [body[2], wrong])


@pytest.mark.parametrize("mark", ["yes", "Yes", "true", True, 1, "1"])
def test_a_blind_task_gets_no_prediction_by_any_address(home, project, backend, mark):
    api = Api(home)
    data = [{"data": {"image": f"/data/{n}.png", "n": n}} for n in range(2)]
    data[0]["data"]["blind"] = mark
    api.post(f"/api/projects/{project.id}/import", data)
    tasks = tasks_of(home, project)
    body = suggestion(project) | {"task": tasks[0]["id"]}
    one = f"/api/projects/{project.id}"
    with pytest.raises(ApiError, match=r"400.*is blind"):
        api.post("/api/predictions/", body)
    with pytest.raises(ApiError, match=r"400.*is blind"):
        api.post(f"{one}/import/predictions", [body | {"task": tasks[1]["id"]}, body])
    with pytest.raises(ApiError, match=r"400.*is blind"):
        api.post(f"{one}/import", [{**data[0], "predictions": [suggestion(project)]}])
    assert api.get(f"{one}/")["task_number"] == 2
    assert api.post(f"/api/planktrait/projects/{project.id}/suggestions", [body]) == {"saved": 0}
    # Another backend's answer for a blind task would be saved: it is not asked.
    create_project(home, Api(home).get(f"{one}/")["title"])
    backend.requests.clear()
    backend.answer_to = lambda task: suggestion(project)
    run(home, project, "retrieve_tasks_predictions")
    run(home, project, "suggest_labels")
    asked = {task["data"]["n"] for body in backend.sent_to("predict") for task in body["tasks"]}
    assert asked == {1}
    assert sorted(len(task["predictions"]) for task in tasks_of(home, project).values()) == [0, 1]


def test_an_interactive_backend_suggests_nothing_for_a_blind_task(home, project, backend):
    tasks = load(home, project, 2, blind={0})
    create_project(home, Api(home).get(f"/api/projects/{project.id}/")["title"])
    backend.answer_to = lambda task: suggestion(project)
    (connected,) = Api(home).get("/api/ml", project=project.id)
    address = f"/api/ml/{connected['id']}"
    # Label Studio changes a backend only where it is told its address and password again.
    told = {"url": connected["url"], "project": project.id, "auth_method": "BASIC_AUTH"}
    secrets = home.secrets
    told |= {"basic_auth_user": secrets.backend_username, "is_interactive": True}
    Api(home).patch(address, told | {"basic_auth_pass": secrets.backend_password})
    backend.requests.clear()
    said = [
        Api(home).post(f"{address}/interactive-annotating", {"task": task["id"], "context": {}})
        for _, task in sorted(tasks.items())
    ]
    assert said[0] == {"data": {"result": []}}
    assert said[1]["data"]["result"] == suggestion(project)["result"]
    asked = [task["data"]["n"] for body in backend.sent_to("predict") for task in body["tasks"]]
    assert asked == [1]
    # "Send Test Request" takes any task of the project.
    Api(home).call("DELETE", f"/api/tasks/{tasks[1]['id']}/")
    with pytest.raises(ApiError, match=r"409.*is blind"):
        Api(home).post(f"{address}/predict/test?random=true")
    assert len(backend.sent_to("predict")) == 1


def test_a_task_that_is_not_blind_gets_predictions_by_every_address(home, project):
    api = Api(home)
    tasks = load(home, project, 1)
    body = suggestion(project) | {"task": tasks[0]["id"]}
    assert api.post("/api/predictions/", body)["id"]
    assert api.post(f"/api/projects/{project.id}/import/predictions", [body]) == {"created": 1}
    imported = [{"data": {"image": "/x.png", "n": 1}, "predictions": [suggestion(project)]}]
    api.post(f"/api/projects/{project.id}/import", imported)
    assert [len(task["predictions"]) for task in tasks_of(home, project).values()] == [2, 1]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/invite"),
        ("POST", "/api/invite/reset-token"),
        ("GET", "/api/organizations/1"),
        ("POST", "/api/users/"),
        ("POST", "/api/users.json"),
        ("GET", "/api/webhooks/"),
        ("POST", "/api/webhooks/"),
        ("GET", "/api/webhooks/{webhook}/"),
        ("PATCH", "/api/webhooks/{webhook}/"),
        ("DELETE", "/api/webhooks/{webhook}/"),
    ],
)
def test_only_the_owner_adds_people_and_reads_webhooks(label_studio, home, backend, method, path):
    project = create_project(home, "Owner only", CONFIG)
    url = label_studio.url + path.format(webhook=project.webhook_id)
    token = add_user(home, "curious@example.org").token
    answer = requests.request(
        method,
        url,
        json={"email": "friend@example.org", "password": "a long password", "headers": {}},
        headers={"Authorization": f"Token {token}"},
        timeout=30,
    )
    assert answer.status_code == 403, answer.text
    assert authorization(home.secrets) not in answer.text
    if method == "GET":
        assert label_studio.request(method, path.format(webhook=project.webhook_id)).ok


def test_members_still_see_each_other(label_studio, home):
    token = add_user(home, "curious@example.org").token
    for path in ("/api/users/", "/api/organizations/", "/api/organizations/1/memberships"):
        answer = requests.get(
            label_studio.url + path, headers={"Authorization": f"Token {token}"}, timeout=30
        )
        assert answer.ok, path
        assert home.secrets.backend_password not in answer.text


def test_the_model_version_can_be_set_before_its_first_suggestion(home, project):
    path = f"/api/planktrait/projects/{project.id}/model-version"
    Api(home).post(path, {"model_version": "project-0-v0009"})
    assert Api(home).get(f"/api/projects/{project.id}/")["model_version"] == "project-0-v0009"
    with pytest.raises(ApiError, match="name of a version"):
        Api(home).post(path, {"model_version": ""})


@pytest.mark.parametrize(
    "what", ["images-folder", "images", "tasks", "model-version", "suggestions"]
)
def test_our_api_needs_a_login_and_a_project(label_studio, project, what):
    method = "GET" if what in ("images", "tasks") else "POST"
    url = f"{label_studio.url}/api/planktrait/projects/{project.id}/{what}"
    assert requests.request(method, url, timeout=30).status_code == 401
    missing = f"/api/planktrait/projects/999999/{what}"
    assert label_studio.request(method, missing).status_code == 404


def test_our_configs_are_offered_first(home, label_studio):
    offered = Api(home).get("/api/templates")
    assert offered["groups"][0] == "Plankton"
    ours = [t for t in offered["templates"] if t["group"] == "Plankton"]
    assert [t["config"] for t in ours] == [read_config(name) for name in config_names()]
    for template in ours:
        picture = label_studio.request("GET", template["image"])
        assert picture.ok
        assert picture.headers["Content-Type"] == "image/svg+xml"


def test_many_people_annotate_at_once(home, project):
    """SQLite with several writers: nothing is lost, nobody is told that the database is locked."""
    tasks = load(home, project, 80)

    def annotate(task):
        return Api(home).post(f"/api/tasks/{task['id']}/annotations/", {"result": []})["id"]

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(annotate, tasks.values()))
    assert len(set(ids)) == 80
    assert all(t["total_annotations"] == 1 for t in tasks_of(home, project).values())


def test_the_plugin_loads_no_torch(home):
    code = (
        "import django, sys; django.setup(); import label_studio_config.plugin.urls; "
        "bad = {'torch', 'timm', 'lightly', 'ml_backend'} & set(sys.modules); "
        "sys.exit(f'loaded: {bad}' if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=server_environment(home), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
