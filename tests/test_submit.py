"""`planktrait submit` for each kind of command, as somebody types it; and a disk that is full."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import hpc_jobs
from hpc_jobs.files import read_json
from hpc_jobs.processes import ProcessIdentity
from label_studio_config.api import Api
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest
from label_studio_config.project import ProjectInfo, create_project
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema
from ml_backend.encoders import newest_encoder, set_newest_encoder
from ml_backend.project_features import CLUSTERS_FILE, features_folder
from ml_backend.registry import Registry
from planktrait import app
from simclr.encoder import Encoder
from tests.backend_fixtures import CONFIG, PROJECT, add_version, draw_images, image_task
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests
from tests.slurm_fixtures import await_true
from tests.small_disk import small_disk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

IMAGES, ANSWERED = 60, 45


def submit(home: Home, kind: str, *words: object) -> hpc_jobs.JobRecord:
    """The job of `planktrait submit --wait`, whose command says how it ended."""
    typed = ["submit", "--wait", kind, *map(str, words), "--home", str(home.folder)]
    answer = CliRunner().invoke(app, typed, env={"COLUMNS": "250"})
    found = re.search(r"│ job +│ (\S+)", answer.output)
    assert found is not None, answer.output
    record = hpc_jobs.read_job(home.jobs_folder / found[1])
    assert record is not None
    holder = ProcessIdentity.from_json(read_json(record.folder / "job.json")["process"])
    assert holder is not None
    await_true(lambda: not holder.is_alive(), 30, lambda: f"{holder} lives on")
    assert answer.exit_code == (0 if record.state == "finished" else 1)
    assert record.state == "finished" or str(record.error) in " ".join(answer.output.split())
    return record


def answered_tasks(drawn: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Tasks with what somebody answered, as Label Studio exports them."""
    schema = LabelSchema.from_xml(CONFIG)
    tasks = []
    for number, (name, group) in enumerate(drawn, start=1):
        result = write_result(schema, {"group": group})
        given = [{"id": number, "result": result, "completed_by": {"email": "a@example.org"}}]
        task = image_task(number, name, sample_id=f"sample {number % 12}")
        tasks.append(task | {"annotations": given})
    return tasks


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, database_template: Path
) -> Iterator[tuple[LabelStudioForTests, ProjectInfo]]:
    """A project of drawn images, most of them answered, and a small encoder to start from."""
    with serve_for_tests(tmp_path_factory.mktemp("submit"), template=database_template) as server:
        tasks = answered_tasks(draw_images(server.images_root, IMAGES))
        made = create_project(server.home, "Submitted", CONFIG)
        api = Api(server.home)
        api.post(f"/api/planktrait/projects/{made.id}/images-folder", {})
        for task in tasks:
            given = [{"result": one["result"]} for one in task["annotations"]]
            task["annotations"] = given if task.pop("id") <= ANSWERED else []
        api.post(f"/api/projects/{made.id}/import", tasks)
        encoders = server.home.encoders_folder(made.id)
        small = Encoder.create("test_resnet", 32).save(encoders / "small" / "encoder")
        set_newest_encoder(encoders, small)
        yield server, made


@pytest.mark.parametrize("kind", ["pretrain", "train", "cluster", "push"])
def test_each_kind_does_what_its_command_does(
    project: tuple[LabelStudioForTests, ProjectInfo], tmp_path: Path, kind: str
) -> None:
    server, made = project
    home, api = server.home, Api(server.home)
    words: list[object] = ["--project", made.name]
    encoders = home.encoders_folder(made.id)
    before = newest_encoder(encoders)
    if kind == "pretrain":
        words += ["--epochs", 1, "--backbone", "test_resnet", "--image-size-px", 32]
    elif kind == "train":
        words += ["--rare", "even", "--self-train", 10]
    elif kind == "cluster":
        words += ["--count", 3]
    elif kind == "push":
        draw_images(server.images_root / "more", 5)
        names = [f"more/image-{n:05d}.png" for n in range(5)]
        table = pd.DataFrame({"image_id": names, "path": names})
        words.insert(0, Manifest(table, server.images_root).write(tmp_path / "more.parquet"))
    record = submit(home, kind, *words)
    assert record.state == "finished", hpc_jobs.read_log(record)
    assert record.progress is not None
    if kind == "pretrain":
        assert newest_encoder(encoders) != before
        set_newest_encoder(encoders, before)
    elif kind == "train":
        live = Registry(home.models_folder(made.id)).live
        assert live is not None
        assert api.get(f"/api/projects/{made.id}")["model_version"] == live.name
        settings = live.metrics["settings"]
        assert (settings["balance"], settings["most_unlabelled"]) == (1.0, 10)
        assert live.metrics["images"]["unlabelled"] > 0
    elif kind == "cluster":
        assert (features_folder(home, made.id) / CLUSTERS_FILE).is_file()
    else:
        assert api.get("/api/tasks", project=made.id, page_size=1)["total"] == IMAGES + 5


def fill(folder: Path, left_bytes: int) -> Path:
    """A file that leaves a file system no more than that."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            file.truncate(file.tell() - left_bytes)
    return filler


def test_a_training_on_a_full_disk_says_so_and_the_live_model_stays(tmp_path: Path) -> None:
    """Home, models and jobs lie on it; once there is room, the same command succeeds."""
    disk = tmp_path / "small"
    disk.mkdir()
    with small_disk(disk, "60m"):
        fill_while_training(disk)


def fill_while_training(disk: Path) -> None:
    home = Home(disk / "home")
    tasks = answered_tasks(draw_images(disk / "images", IMAGES))
    (disk / "export.json").write_text(json.dumps(tasks))
    (disk / "config.xml").write_text(CONFIG)
    encoder = Encoder.create("test_resnet", 32).save(disk / "encoder")
    registry = Registry(home.models_folder(PROJECT))
    live = add_version(home)
    words = ["--export", disk / "export.json", "--config", disk / "config.xml"]
    words += ["--images", disk / "images", "--models", registry.folder]
    words += ["--encoder", encoder]
    filler = fill(disk, 400_000)
    record = submit(home, "train", *words)
    assert record.state == "failed", hpc_jobs.read_log(record)
    assert "disk is full" in str(record.error), record.error
    assert (registry.live, len(registry.list())) == (live, 1)
    filler.unlink()
    again = submit(home, "train", *words)
    assert again.state == "finished", hpc_jobs.read_log(again)
    assert len(registry.list()) == 2
