"""The plugin inside a real Label Studio: actions, suggestions, templates, and its guard."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from label_studio_config.api import Api, ApiError
from label_studio_config.hosting import server_environment
from label_studio_config.project import config_names, create_project, read_config
from label_studio_config.results import read_result, write_result
from tests.label_studio_fixtures import backend_for_tests

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
    load(home, project, 450, blind={3, 4})

    def answer(task):
        n = task["data"]["n"]
        return [] if n == 7 else suggestion(project, "Detritus" if n % 2 else "Copepod", n / 1000)

    backend.answer_to = answer
    done = run(home, project, "suggest_labels")
    assert done["processed_items"] == 447
    assert "project-0-v0001" in done["detail"]
    assert "2 blind" in done["detail"]
    assert "1 got none" in done["detail"]
    sizes = [len(body["tasks"]) for body in backend.sent_to("predict")]
    assert sizes == [200, 200, 48]
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


def test_the_model_version_can_be_set_before_its_first_suggestion(home, project):
    path = f"/api/planktrait/projects/{project.id}/model-version"
    Api(home).post(path, {"model_version": "project-0-v0009"})
    assert Api(home).get(f"/api/projects/{project.id}/")["model_version"] == "project-0-v0009"
    with pytest.raises(ApiError, match="name of a version"):
        Api(home).post(path, {"model_version": ""})


@pytest.mark.parametrize("what", ["images-folder", "images", "model-version", "suggestions"])
def test_our_api_needs_a_login_and_a_project(label_studio, project, what):
    method = "GET" if what == "images" else "POST"
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
