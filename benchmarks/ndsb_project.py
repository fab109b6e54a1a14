"""A project of real images in its own Label Studio, with a model that was trained on others."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import requests

import hpc_jobs
from benchmarks.ndsb import ENCODER, LABEL_SETS, read_table, schema_of, subset, tasks_of
from benchmarks.training import train_tasks
from examples.truth import config_of_labels
from label_studio_config.api import Api
from label_studio_config.home import Home
from label_studio_config.hosting import start_in_background
from label_studio_config.processes import free_port
from label_studio_config.project import ProjectInfo, create_project
from ml_backend.fit import FitSettings
from ml_backend.registry import Registry
from ml_backend.training_jobs import suggest_project

IMPORTED_AT_ONCE = 5000
WORK = Path(__file__).parent / "work" / "ndsb_project"
BACKEND_APPLICATION = "ml_backend.server:create_app()"


@dataclass
class NdsbProject:
    """Images that taught the model nothing, as tasks; their labels are in `table`."""

    home: Home
    project: ProjectInfo
    table: pd.DataFrame
    labels: str

    @cached_property
    def api(self) -> Api:
        """Of the project's owner."""
        return Api(self.home)

    @cached_property
    def session(self) -> requests.Session:
        """Of the project's owner, for requests that are timed."""
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Token {self.home.secrets.api_token}"
        return session

    @cached_property
    def truth(self) -> dict[int, str]:
        """The label of each task."""
        by_image = self.table.set_index("image")[LABEL_SETS[self.labels]]
        return {number: str(by_image[name]) for number, name in self.names.items()}

    @cached_property
    def names(self) -> dict[int, str]:
        """The image of each task."""
        path = f"/api/planktrait/projects/{self.project.id}/tasks"
        found: dict[int, str] = {}
        while True:
            after = max(found, default=0)
            page = self.api.get(path, full=0, limit=5000, after=after)["tasks"]
            found |= {task["id"]: task["data"]["image_id"] for task in page}
            if len(page) < 5000:
                return found

    def wait_for(self, job: str) -> float:
        """Seconds that a job took, from its submission to its end.

        Raises
        ------
        SystemExit
            It failed.
        """
        record = hpc_jobs.read_job(self.home.jobs_folder / job)
        while record is not None and record.active:
            time.sleep(0.1)
            record = hpc_jobs.read_job(self.home.jobs_folder / job)
        if record is None or record.state != "finished" or record.finished is None:
            raise SystemExit(f"{job} did not finish: {record}")
        return record.finished - record.submitted

    def suggest(self) -> None:
        """A suggestion for every task, in this process."""
        suggest_project(self.home.folder, self.project.id)


@contextmanager
def ndsb_project(
    data: Path,
    labels: str,
    share: float,
    seed: int,
    n_images: int | None = None,
    model: Path | None = None,
) -> Iterator[NdsbProject]:
    """Serve Label Studio and the backend with held-out images and a model of `share` of the labels.

    Parameters
    ----------
    data : Path
        Folder of `ndsb`.
    labels : str
        "groups" or "classes".
    n_images : int, optional
        More than there are held-out ones: images come again as further tasks.
    model : Path, optional
        A version's folder, instead of training one.
    """
    table = read_table(data)
    held_out = table[table["held_out"]].reset_index(drop=True)
    n_images = n_images or len(held_out)
    with tempfile.TemporaryDirectory(prefix="ndsb-project-") as name:
        home = Home(Path(name) / "home")
        # Nobody asked for the trainings that so many judgements would start.
        os.environ["PLANKTRAIT_TRAIN_EVERY"] = "1000000"
        servers = start_in_background(
            home,
            images_root=data,
            workers=2,
            port=free_port(),
            backend_port=free_port(),
            backend_application=BACKEND_APPLICATION,
            report=print,
        )
        with servers:
            config = config_of_labels(sorted(table[LABEL_SETS[labels]].unique()))
            project = create_project(home, f"ndsb, {labels}", config)
            known = NdsbProject(home, project, held_out, labels)
            rows = [held_out["image"][n % len(held_out)] for n in range(n_images)]
            for start in range(0, n_images, IMPORTED_AT_ONCE):
                some = rows[start : start + IMPORTED_AT_ONCE]
                body: list[Any] = [
                    {"data": {"image": f"/data/local-files/?d={image}", "image_id": image}}
                    for image in some
                ]
                known.api.post(f"/api/projects/{project.id}/import", body)
            registry = Registry(home.models_folder(project.id))
            chosen = model or _trained(data, table, labels, share, seed)
            version = registry.add(partial(_copy, chosen))
            registry.promote(version.name, reason="trained on a part of the other images")
            try:
                yield known
            finally:
                hpc_jobs.cancel_all(home.jobs_folder)


def _trained(data: Path, table: pd.DataFrame, labels: str, share: float, seed: int) -> Path:
    """A version that was trained on a share of the labels; kept for the next time."""
    home = WORK / f"{labels}-{100 * share:g}pct-seed{seed}"
    live = Registry(home).live
    if live is not None:
        return live.folder
    schema = schema_of(table, labels)
    tasks = tasks_of(subset(table, labels, share, seed), labels, schema)
    return train_tasks(tasks, schema, data, home, ENCODER, FitSettings(seed=seed)).version.folder


def _copy(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder, dirs_exist_ok=True)
