"""A project's model at Label Studio's own API: versions, pages, promotion, jobs, logs; who may."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest
import requests

from label_studio_config.api import Api
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.users import add_user
from ml_backend.registry import Registry
from tests.backend_fixtures import start_small
from tests.label_studio_fixtures import LabelStudioForTests
from tests.trait_fixtures import XML, make_tasks

pytestmark = pytest.mark.slow


@dataclass
class Trained:
    """A project on a server with a backend: annotated, and trained once."""

    server: LabelStudioForTests
    project: ProjectInfo

    @property
    def api(self) -> Api:
        return Api(self.server.home)

    @property
    def path(self) -> str:
        return f"/api/planktrait/projects/{self.project.id}/model"

    def finished(self, job: str) -> dict:
        end = time.monotonic() + 600
        while True:
            jobs = {known["id"]: known for known in self.api.get(self.path)["jobs"]}
            if jobs[job]["state"] not in ("queued", "running"):
                return jobs[job]
            assert time.monotonic() < end, jobs[job]
            time.sleep(0.5)


@pytest.fixture(scope="module")
def trained(label_studio_with_backend) -> Trained:
    server = label_studio_with_backend
    folder = server.images_root / "model-views"
    folder.mkdir()
    project = create_project(server.home, "The model in the browser", XML)
    trained = Trained(server, project)
    trained.api.post(f"/api/planktrait/projects/{project.id}/images-folder", {})
    tasks = []
    for task in make_tasks(folder, 60):
        name = task["data"]["image"].split("?d=")[1]
        task["data"]["image"] = f"/data/local-files/?d=model-views/{name}"
        annotations = [{"result": one["result"]} for one in task["annotations"]]
        tasks.append({"data": task["data"], "annotations": annotations})
    trained.api.post(f"/api/projects/{project.id}/import", tasks)
    assert trained.api.get(trained.path) == {
        **{"live": None, "promoted_at": None, "promoted_because": None},
        **{"versions": [], "jobs": []},
    }
    start_small(server.home, project.id)
    answer = trained.api.call("POST", f"{trained.path}/start/train")
    job = trained.finished(answer["job"])
    assert job["state"] == "finished", job
    return trained


def test_versions_with_their_figures_and_jobs_without_paths(trained: Trained) -> None:
    told = trained.api.get(trained.path)
    (version,) = told["versions"]
    assert told["live"] == version["name"]
    assert version["metrics"]["test"]["group"]["n_images"] > 0
    assert version["promotion"]["promoted"]
    assert version["report"]
    (job,) = told["jobs"]
    assert job["result"]["version"] == version["name"]
    assert str(trained.server.home.folder) not in json.dumps(told)
    log = trained.api.get(f"{trained.path}/jobs/{job['id']}/log", lines=5)
    assert len(log["log"].splitlines()) == 5


def test_the_page_of_a_version_has_an_origin_of_its_own(trained: Trained) -> None:
    (version,) = trained.api.get(trained.path)["versions"]
    page = trained.server.request("GET", f"{trained.path}/versions/{version['name']}/report")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Content-Security-Policy"].startswith("sandbox")
    assert version["name"] in page.text
    missing = trained.server.request("GET", f"{trained.path}/versions/project-1-v0099/report")
    assert missing.status_code == 404


def test_promotion_brings_its_suggestions(trained: Trained) -> None:
    registry = Registry(trained.server.home.models_folder(trained.project.id))
    live = registry.live
    assert live is not None
    answer = trained.api.call("POST", f"{trained.path}/versions/{live.name}/promote")
    assert answer["live"] == live.name
    assert trained.finished(answer["job"])["state"] == "finished"
    project = trained.api.get(f"/api/projects/{trained.project.id}")
    assert project["model_version"] == live.name
    refused = trained.server.request("POST", f"{trained.path}/versions/nothing/promote")
    assert refused.status_code == 404
    assert registry.live_record["reason"] == "by hand, in the browser"


def test_what_is_refused(trained: Trained) -> None:
    job = trained.api.get(trained.path)["jobs"][0]["id"]
    other = create_project(trained.server.home, "Another project", XML)
    of_other = f"/api/planktrait/projects/{other.id}/model"
    calls = [
        ("POST", f"{trained.path}/start/reboot"),
        ("GET", f"{of_other}/jobs/{job}/log"),
        ("POST", f"{of_other}/jobs/{job}/cancel"),
        ("GET", "/api/planktrait/projects/99999/model"),
        ("GET", f"{trained.path}/jobs/nothing/log"),
    ]
    for method, path in calls:
        assert trained.server.request(method, path).status_code == 404, path
    suggest = trained.server.request("POST", f"{of_other}/start/suggestions")
    assert suggest.status_code == 409
    assert "start a training" in suggest.text
    assert requests.get(trained.server.url + trained.path, timeout=20).status_code == 401


def test_csrf_holds_for_whoever_is_logged_in(trained: Trained) -> None:
    password = "a-good-password-1"
    add_user(trained.server.home, "model-views@example.org", password)
    session = requests.Session()
    session.trust_env = False
    page = f"{trained.server.url}/user/login/"
    session.get(page, timeout=20)
    token = session.cookies["csrftoken"]
    form = {"email": "model-views@example.org", "password": password, "csrfmiddlewaretoken": token}
    session.post(page, data=form, headers={"Referer": page}, timeout=20)
    address = trained.server.url + trained.path
    assert session.get(address, timeout=20).status_code == 200
    without = session.post(f"{address}/start/suggestions", timeout=20)
    assert without.status_code == 403
    token = session.cookies["csrftoken"]
    given = session.post(f"{address}/start/suggestions", headers={"X-CSRFToken": token}, timeout=20)
    assert given.status_code == 202, given.text
    assert trained.finished(given.json()["job"])["state"] == "finished"
