"""What the backend tells the browser of a project's model: versions, reports, promotion, logs."""

from __future__ import annotations

from base64 import b64encode

import pytest
from flask.testing import FlaskClient

import hpc_jobs
from label_studio_config.home import Home
from ml_backend.registry import REPORT_FILE, Registry
from ml_backend.server import create_app
from tests.backend_fixtures import PROJECT, add_version, end_jobs, home

__all__ = ["home"]


@pytest.fixture
def client(home: Home) -> FlaskClient:
    client = create_app(home).test_client()
    pair = f"{home.secrets.backend_username}:{home.secrets.backend_password}"
    client.environ_base["HTTP_AUTHORIZATION"] = "Basic " + b64encode(pair.encode()).decode()
    yield client
    end_jobs(home)


def test_versions_the_newest_first_and_which_is_live(home: Home, client: FlaskClient) -> None:
    assert client.get(f"/models?project={PROJECT}").json["versions"] == []
    first, second = add_version(home), add_version(home, promote=False, seed=1)
    told = client.get(f"/models?project={PROJECT}").json
    assert [version["name"] for version in told["versions"]] == [second.name, first.name]
    assert told["live"] == first.name
    assert told["promoted_because"] == "for a test"
    assert client.get("/models").status_code == 400


def test_promotion_by_hand_and_the_way_back(home: Home, client: FlaskClient) -> None:
    first, second = add_version(home), add_version(home, promote=False, seed=1)
    answer = client.post(f"/models/{second.name}/promote", json={"project": PROJECT})
    assert answer.status_code == 200, answer.json
    assert answer.json["live"] == second.name
    registry = Registry(home.models_folder(PROJECT))
    assert registry.live is not None
    assert registry.live.name == second.name
    # Its suggestions come as a job, which the list of jobs shows.
    listed = client.get(f"/jobs?project={PROJECT}").json["jobs"]
    assert [job["id"] for job in listed] == [answer.json["job"]]
    client.post(f"/models/{first.name}/promote", json={"project": PROJECT})
    assert registry.live_record["previous"] == second.name
    for wrong in ("project-7-v9999", "..", "project-8-v0001"):
        answer = client.post(f"/models/{wrong}/promote", json={"project": PROJECT})
        assert answer.status_code == 404
    assert registry.live.name == first.name


def test_the_page_of_a_version(home: Home, client: FlaskClient) -> None:
    version = add_version(home)
    path = f"/models/{version.name}/report?project={PROJECT}"
    without = client.get(path)
    assert without.status_code == 404
    assert "planktrait report" in without.json["error"]
    (version.folder / REPORT_FILE).write_text("<h1>Recall</h1>")
    page = client.get(path)
    assert page.mimetype == "text/html"
    assert page.text == "<h1>Recall</h1>"
    assert client.get(f"/models?project={PROJECT}").json["versions"][0]["report"]


def test_no_suggestions_without_a_model(home: Home, client: FlaskClient) -> None:
    refused = client.post("/suggest", json={"project": PROJECT})
    assert refused.status_code == 409
    assert "start a training" in refused.json["error"]
    assert client.post("/suggest", json={"project": "seven"}).status_code == 422


def test_the_last_lines_of_a_log(home: Home, client: FlaskClient) -> None:
    job = hpc_jobs.submit(_tell, 300, name="tell", folder=home.jobs_folder)
    job.wait(60)
    told = client.get(f"/jobs/{job.id}/log?lines=3").json
    assert told["state"] == "finished"
    assert len(told["log"].splitlines()) == 3
    every = client.get(f"/jobs/{job.id}/log?lines=2000").json["log"].splitlines()
    assert every[-3:] == told["log"].splitlines()
    assert [line for line in every if line.startswith("line ")][-1] == "line 299"
    assert client.get("/jobs/../log").status_code == 404
    assert client.get("/jobs/nothing/log").status_code == 404
    assert client.get(f"/jobs/{job.id}/log?lines=0").status_code == 400


def _tell(lines: int) -> None:
    for line in range(lines):
        print(f"line {line}", flush=True)
