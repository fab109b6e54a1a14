"""A home with drawn images and a small real model, and its backend under gunicorn, for tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image, ImageDraw

import hpc_jobs
from label_studio_config.home import Home
from label_studio_config.hosting import server_environment
from label_studio_config.processes import ServerProcess, free_port
from label_studio_config.schema import LabelSchema
from ml_backend.encoders import set_newest_encoder
from ml_backend.model import Head, TraitModel
from ml_backend.registry import ModelVersion, Registry
from simclr.encoder import Encoder

PROJECT = 7
UID = f"{PROJECT}.1700000000"
GROUPS = ("disc", "bar", "cross")
CONFIG = """<View><Image name="image" value="$image"/>
  <Choices name="group" toName="image" choice="single">
    <Choice value="disc"/><Choice value="bar"/><Choice value="cross"/>
    <Choice value="Not assessable" role="not_assessable"/>
  </Choices>
  <View visibleWhen="choice-selected" whenTagName="group" whenChoiceValue="bar">
    <Number name="cells" toName="image" min="0" unit="count"/>
  </View>
</View>"""


def draw_images(folder: Path, count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Draw discs, bars and crosses on noise; (file name, group) each."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    drawn = []
    for number in range(count):
        group = GROUPS[number % len(GROUPS)]
        image = Image.fromarray(random.integers(20, 60, (48, 48), dtype=np.uint8))
        pen = ImageDraw.Draw(image)
        x, y = random.integers(18, 30, 2).tolist()
        size = int(random.integers(8, 14))
        if group == "disc":
            pen.ellipse((x - size, y - size, x + size, y + size), fill=220)
        else:
            pen.line((x - size, y, x + size, y), fill=220, width=4)
        if group == "cross":
            pen.line((x, y - size, x, y + size), fill=220, width=4)
        name = f"image-{number:05d}.png"
        image.save(folder / name)
        drawn.append((name, group))
    return drawn


def image_task(task_id: int, path: str, **data: Any) -> dict[str, Any]:
    """A task as Label Studio sends it."""
    image = f"/data/local-files/?d={path}"
    return {"id": task_id, "data": {"image": image, "image_id": path, "blind": "no"} | data}


def add_version(
    home: Home,
    promote: bool = True,
    seed: int = 0,
    image_size_px: int = 32,
    project_id: int = PROJECT,
) -> ModelVersion:
    """A version with random weights, in the registry of a project."""
    torch.manual_seed(seed)
    encoder = Encoder.create("resnet10t", image_size_px)
    heads = [
        Head("group", "one of", GROUPS, trained_prior=(1 / 3,) * 3, deployed_prior=(1 / 3,) * 3),
        Head("cells", "number", unit="count", offset=3.0, scale=1.0, sd=1.0),
    ]
    model = TraitModel(encoder, heads, LabelSchema.from_xml(CONFIG))
    for classifier in model.classifiers:
        torch.nn.init.normal_(classifier.weight, std=0.02)  # type: ignore[arg-type]

    def write(folder: Path) -> None:
        model.save(folder)

    registry = Registry(home.models_folder(project_id))
    version = registry.add(write)
    if promote:
        registry.promote(version.name, "for a test")
    return version


def start_small(home: Home, project_id: int) -> None:
    """Have a project's trainings begin with a tiny encoder, where a test only needs that they end.

    On one processor such a training takes seconds; one of the default network a minute or more.
    """
    give_encoder(home, project_id, "test_resnet")


def give_encoder(
    home: Home, project_id: int, backbone: str = "resnet10t", name: str = "small", seed: int = 0
) -> Path:
    """As after “Learn features from all images”, with random weights; the encoder's folder."""
    torch.manual_seed(seed)
    folder = home.encoders_folder(project_id)
    encoder = Encoder.create(backbone, 32).save(folder / name / "encoder")
    set_newest_encoder(folder, encoder)
    return encoder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with twelve drawn images, and no Label Studio where it expects one."""
    home = Home(tmp_path / "home")
    draw_images(tmp_path / "images", 12)
    dead = free_port()
    home.change_settings(
        images_root=tmp_path / "images",
        label_studio_port=dead,
        label_studio_url=f"http://127.0.0.1:{dead}",
    )
    return home


@dataclass
class BackendForTests:
    """A running backend."""

    home: Home
    process: ServerProcess
    session: requests.Session

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """One call with the right password."""
        url = self.home.settings.backend_url + path
        return self.session.request(method, url, timeout=120, **options)

    def jobs(self) -> list[dict[str, Any]]:
        """What /jobs lists."""
        return self.call("GET", "/jobs").json()["jobs"]


@contextmanager
def serve_backend(home: Home, workers: int = 2, threads: int = 4) -> Iterator[BackendForTests]:
    """The backend of a home under gunicorn, as `hosting` runs it; its jobs end with it."""
    port = free_port()
    home.change_settings(backend_port=port, backend_url=f"http://127.0.0.1:{port}")
    auth = (home.secrets.backend_username, home.secrets.backend_password)
    command = [sys.executable, "-m", "gunicorn", "ml_backend.server:create_app()"]
    command += ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--no-control-socket"]
    command += ["--workers", str(workers), "--threads", str(threads), "--graceful-timeout", "5"]
    command += ["--preload"]
    process = ServerProcess(
        name="ML backend",
        command=command,
        env=server_environment(home),
        folder=home.folder,
        log_file=home.logs_folder / "ml-backend.log",
        health_url=f"http://127.0.0.1:{port}/health",
        auth=auth,
    )
    session = requests.Session()
    session.trust_env = False
    session.auth = auth
    # Each call on a new connection, so that all workers are asked.
    session.headers["Connection"] = "close"
    process.start()
    try:
        process.await_health(120, lambda line: None)
        yield BackendForTests(home, process, session)
    finally:
        process.stop()
        end_jobs(home)


def end_jobs(home: Home) -> None:
    """Cancel what runs, so that no job outlives its test."""
    for record in hpc_jobs.list_jobs(home.jobs_folder):
        hpc_jobs.cancel(record, grace_s=1)


def await_jobs(home: Home, timeout_s: float = 900) -> list[hpc_jobs.JobRecord]:
    """Wait until no job runs; the jobs, newest first."""
    end = time.monotonic() + timeout_s
    while True:
        records = hpc_jobs.list_jobs(home.jobs_folder)
        if not any(record.active for record in records):
            return records
        assert time.monotonic() < end, [record.as_json() for record in records]
        time.sleep(0.2)
