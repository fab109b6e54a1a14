"""Planktrait on a real Slurm: predictions by an array, faults in it, trainings of Label Studio."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

import hpc_jobs
from hpc_jobs.files import read_json
from hpc_jobs.site import SITE_FILE
from label_studio_config.api import Api
from label_studio_config.home import Home
from label_studio_config.project import create_project
from ml_backend.encoders import set_newest_encoder
from ml_backend.registry import Registry
from simclr.embed import read_embeddings
from simclr.encoder import Encoder
from tests.backend_fixtures import PROJECT, add_version, draw_images
from tests.browser_fixtures import visiting
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests
from tests.slurm_fixtures import SlurmForTests, await_true
from tests.trait_fixtures import XML, make_tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent
LONGEST_S = 240
IMAGES, SHARD_SIZE = 600, 10
SITE = """cluster = "slurm"
time = "00:30"
cpus = 1

[push]
cluster = "local"
"""


@pytest.fixture(autouse=True)
def _importable_on_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "300")


def planktrait(folder: Path, *arguments: str) -> str:
    """What a command prints; it must succeed."""
    command = [sys.executable, "-m", "planktrait", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit(home: Home, *arguments: str) -> hpc_jobs.Job[Any]:
    """The job that `planktrait submit` made."""
    said = planktrait(home.folder.parent, "submit", *arguments)
    found = re.search(r"│ job +│ (\S+)", said)
    assert found is not None, said
    return hpc_jobs.Job(home.jobs_folder / found[1])


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, list[str]]:
    """A home with a model, images, and what one process makes of them in `single`."""
    folder = tmp_path_factory.mktemp("predicted")
    home = Home(folder / "planktrait-home")
    (home.folder / SITE_FILE).write_text(SITE)
    draw_images(folder / "images", IMAGES)
    home.change_settings(images_root=folder / "images")
    add_version(home)
    models = str(home.models_folder(PROJECT))
    command = ["predict", "images", "--models", models, "--shard-size", str(SHARD_SIZE)]
    planktrait(folder, *command, "--output", "single")
    return home, command


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder).sort_values("image_id", ignore_index=True)


@pytest.mark.parametrize("fault", ["a task killed", "a node lost"])
def test_an_array_with_a_fault_predicts_what_one_process_predicts(
    slurm: SlurmForTests, predicted: tuple[Home, list[str]], fault: str
) -> None:
    home, command = predicted
    output = home.folder.parent / fault.replace(" ", "-")
    job = submit(home, "--tasks", "2", *command, "--output", str(output))

    def first_part() -> list[Path]:
        return [path for path in output.glob("part-*.parquet") if int(path.stem[5:]) % 2 == 0]

    await_true(lambda: bool(first_part()), LONGEST_S, lambda: logs_of(job))
    process = read_json(job.folder / "part-000" / "started.json")["process"]["pid"]
    if fault == "a task killed":
        os.kill(process, signal.SIGKILL)
    else:
        node = next(name for name in slurm.nodes if process in slurm.processes_on(name))
        slurm.lose(node)
    made = {path: path.stat().st_mtime_ns for path in first_part()}
    assert 0 < len(made) < IMAGES / SHARD_SIZE / 2, "it was to be interrupted half way"
    try:
        assert job.record().active
        assert len(job.result(LONGEST_S)) == 2, logs_of(job)
    finally:
        if fault == "a node lost":
            slurm.start_node(node)
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what was done is kept"
    single = rows_of(home.folder.parent / "single")
    assert len(single) == IMAGES
    pd.testing.assert_frame_equal(rows_of(output), single)


def logs_of(job: hpc_jobs.Job[Any]) -> str:
    record = job.record()
    return "\n".join(hpc_jobs.read_log(one) for one in record.parts or (record,))


def test_features_by_an_array(slurm: SlurmForTests, predicted: tuple[Home, list[str]]) -> None:
    home, _ = predicted
    folder = home.folder.parent
    live = Registry(home.models_folder(PROJECT)).live
    assert live is not None
    command = ["embed", "images", "--encoder", str(live.folder / "encoder")]
    job = submit(home, "--tasks", "2", *command, "--output", "features", "--shard-size", "400")
    single = folder / "features.parquet"
    planktrait(folder, *command, "--output", str(single))
    job.result(LONGEST_S)
    image_ids, features = read_embeddings(single)
    shards = [read_embeddings(path) for path in sorted((folder / "features").glob("part-*"))]
    assert [image_id for ids, _ in shards for image_id in ids] == image_ids
    pd.testing.assert_frame_equal(
        pd.concat([pd.DataFrame(one) for _, one in shards], ignore_index=True),
        pd.DataFrame(features),
        atol=1e-4,
    )


def test_jobs_are_listed_with_logs_and_ended(
    slurm: SlurmForTests, predicted: tuple[Home, list[str]]
) -> None:
    home, command = predicted
    folder = home.folder.parent
    refused = submit(home, "predict", "nowhere", *command[2:])
    assert refused.wait(LONGEST_S).state == "failed"
    with slurm.full():
        waiting = submit(home, "--tasks", "3", *command, "--output", "never")
        listed = planktrait(folder, "jobs")
        lines = {line.split()[1]: line for line in listed.splitlines() if "predict" in line}
        assert "Slurm" in lines[waiting.id]
        assert "queued" in lines[waiting.id]
        assert "waits for PartitionDown" in lines[waiting.id]
        assert "nowhere" in lines[refused.id]
        assert "failed" in lines[refused.id]
        assert "Traceback" in planktrait(folder, "jobs", "--log", refused.id)
        assert "cancelled" in planktrait(folder, "jobs", "--cancel", waiting.id)
    assert not (folder / "never").exists()


@pytest.fixture(scope="module")
def server(
    slurm: SlurmForTests, tmp_path_factory: pytest.TempPathFactory, database_template: Path
) -> Iterator[LabelStudioForTests]:
    """Label Studio and our backend, whose trainings run on Slurm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANKTRAIT_TRAIN_EVERY", "1000000")
        patch.setenv("PYTHONPATH", str(ROOT))
        folder = tmp_path_factory.mktemp("slurm-server")
        with serve_for_tests(folder, template=database_template, with_backend=True) as server:
            (server.home.folder / SITE_FILE).write_text('[train]\ncluster = "slurm"\n')
            yield server


def test_start_training_in_label_studio_runs_on_slurm(
    slurm: SlurmForTests, server: LabelStudioForTests
) -> None:
    home, api = server.home, Api(server.home)
    project = create_project(home, "On the cluster", XML)
    api.post(f"/api/planktrait/projects/{project.id}/images-folder", {})
    tasks = [
        {"data": task["data"], "annotations": [{"result": one["result"]} for one in given]}
        for task in make_tasks(server.images_root, 70)
        for given in [task["annotations"] if task["id"] <= 60 else []]
    ]
    api.post(f"/api/projects/{project.id}/import", tasks)
    encoders = home.encoders_folder(project.id)
    small = Encoder.create("resnet10t", 32).save(encoders / "small" / "encoder")
    set_newest_encoder(encoders, small)

    api.post(f"/api/ml/{project.backend_id}/train", {})
    model = f"/api/planktrait/projects/{project.id}/model"
    (job,) = api.get(model)["jobs"]
    seen = set()

    def ended() -> bool:
        (now,) = api.get(model)["jobs"]
        seen.add((now["progress"] or {}).get("stage"))
        return now["state"] not in {"queued", "running"}

    record = hpc_jobs.read_job(home.jobs_folder / job["id"])
    assert record is not None
    assert record.where.startswith("Slurm ")
    await_true(ended, LONGEST_S, lambda: str(api.get(model)["jobs"]))
    told = api.get(model)
    assert told["jobs"][0]["state"] == "finished", told["jobs"]
    assert told["live"] == told["versions"][0]["name"] == told["jobs"][0]["result"]["version"]
    assert len(seen - {None}) > 1, "its progress is shown"
    log = api.get(f"{model}/jobs/{job['id']}/log", lines=5)["log"]
    assert "Job completed successfully" in log
    assert api.get(f"/api/projects/{project.id}")["model_version"] == told["live"]
    found = api.get("/api/tasks", project=project.id, page_size=100)
    assert found["total_predictions"] == 70


def test_the_model_page_says_what_a_training_waits_for(
    slurm: SlurmForTests, server: LabelStudioForTests, browser: Browser
) -> None:
    project = create_project(server.home, "Waiting", XML)
    with slurm.full(), visiting(browser, server) as visit:
        server.request("POST", f"/api/planktrait/projects/{project.id}/model/start/train")
        (job,) = Api(server.home).get(f"/api/planktrait/projects/{project.id}/model")["jobs"]
        visit.page.goto(f"{server.url}/planktrait/projects/{project.id}/model")
        card = visit.page.locator("article.job")
        expect(card).to_contain_text("queued")
        expect(card).to_contain_text("waits for PartitionDown")
        visit.keep_screenshot("model-waits-for")
        record = hpc_jobs.read_job(server.home.jobs_folder / job["id"])
        assert record is not None
        assert hpc_jobs.cancel(record).state == "cancelled"


def test_a_wrong_profile_refuses_with_its_words(server: LabelStudioForTests) -> None:
    project = create_project(server.home, "Refused", XML)
    profile = server.home.folder / SITE_FILE
    before = profile.read_text()
    profile.write_text('[train]\nclustr = "slurm"\n')
    try:
        path = f"/api/planktrait/projects/{project.id}/model/start/train"
        answer = server.request("POST", path)
    finally:
        profile.write_text(before)
    assert answer.status_code == 503
    assert "train.clustr is not known" in answer.text
