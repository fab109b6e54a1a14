"""More like this, clusters and the map through Label Studio, over HTTP, at N tasks.

    python -m benchmarks.neighbours_scale path/to/ndsb --tasks 700000

A server of its own on SQLite with the ML backend; phantom tasks with a cruise's metadata, one in a
hundred blind, and the features of `feature_bank.grown`. Milliseconds are medians over real requests
from one client; clusters and map are shown as their jobs would leave them.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.feature_bank import ENCODER, grown, ndsb_features
from benchmarks.gallery_fill import CHUNK, config, task_data
from benchmarks.gallery_scale import IMAGES, Client, _draw
from hpc_jobs.files import read_json, write_json
from label_studio_config.home import Home
from label_studio_config.hosting import server_environment, start_in_background
from label_studio_config.processes import free_port
from label_studio_config.project import create_project
from ml_backend.encoders import set_newest_encoder
from ml_backend.project_features import (
    CLUSTERS_FILE,
    MAP_FILE,
    features_folder,
    set_current,
    store_of,
)
from ml_backend.task_features import TaskTable
from simclr.append import RowFile
from simclr.encoder import Encoder
from simclr.neighbours import Neighbours

CLUSTERS = 1000
BACKEND = "ml_backend.server:create_app()"


def fill(project_id: int, count: int) -> None:
    """Bulk-create tasks; run inside the server's environment."""
    import django

    django.setup()
    from tasks.models import Task

    dice = random.Random(0)
    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        rows = [
            Task(project_id=project_id, data=task_data(number, dice, IMAGES), inner_id=number + 1)
            for number in numbers
        ]
        Task.objects.bulk_create(rows, batch_size=1000)


def keep_features(home: Home, project_id: int, features: np.ndarray, tasks: TaskTable) -> None:
    """Store, index, clusters and map, as if the jobs had run."""
    encoders = home.encoders_folder(project_id)
    encoder = Encoder.load(ENCODER).eval()
    set_newest_encoder(encoders, encoder.save(encoders / "ndsb" / "encoder"))
    store = store_of(home, project_id, encoder)
    file = RowFile(store.folder / "features.npy", np.float16, (features.shape[1],))
    file.append(features)
    file.finish()
    state = read_json(store.folder / "state.json") or {}
    write_json(store.folder / "state.json", state | {"rows": len(features)})
    Neighbours.open(store)
    tasks.write(store.folder)
    set_current(home, project_id, store)
    folder = features_folder(home, project_id)
    shown = np.random.default_rng(0).permutation(tasks.task_ids[~tasks.blind])
    starts = np.linspace(0, len(shown), CLUSTERS + 1).astype(int)
    facts: dict[str, Any] = {"n_images": len(shown), "outliers": 0, "made_at": "now"}
    np.savez(folder / CLUSTERS_FILE, task=shown, starts=starts, **facts)
    places = np.random.default_rng(0).normal(size=(2, len(shown))).astype(np.float32)
    np.savez(folder / MAP_FILE, task=shown, x=places[0], y=places[1], made_at="now")


def measure(client: Client, task_ids: np.ndarray, image: Path, repeats: int) -> None:
    """Print how long each kind of request takes."""
    path = f"/api/planktrait/projects/{client.project_id}"
    random_ids = np.random.default_rng(2)

    def like(asked: int) -> float:
        ids = random_ids.choice(task_ids, asked, replace=False).tolist()
        took, answer = client.call("POST", f"{path}/neighbours", json={"tasks": ids})
        assert len(answer.json()["tasks"]) == 200
        return took

    def like_image() -> float:
        with image.open("rb") as file:
            return client.call("POST", f"{path}/neighbours", files={"image": file})[0]

    asks = {
        "more like one": lambda: like(1),
        "more like ten": lambda: like(10),
        "more like an uploaded image": like_image,
        "a page of a cluster": lambda: client.call("GET", f"{path}/clusters/7/tasks")[0],
        f"{CLUSTERS} clusters": lambda: client.call("GET", f"{path}/clusters")[0],
        "the map, binary": lambda: client.call("GET", f"{path}/map?binary=1")[0],
        "the map, JSON": lambda: client.call("GET", f"{path}/map")[0],
    }
    for name, ask in asks.items():
        times = [ask() for _ in range(repeats + 4)]
        warm = times[4:]  # each of the workers has been asked by then
        print(
            f"{name:30} first {times[0]:7.0f} ms, then {median(warm):7.0f} ms, "
            f"most {max(warm):7.0f} ms, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ndsb", type=Path)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill is not None:
        fill(arguments.fill, arguments.tasks)
        return
    _, features = ndsb_features(arguments.ndsb)
    with tempfile.TemporaryDirectory(prefix="neighbours-scale-") as name:
        folder, home = Path(name), Home(Path(name) / "home")
        _draw(folder / "images" / "crops")
        with start_in_background(
            home,
            images_root=folder / "images",
            backend_application=BACKEND,
            workers=2,
            port=free_port(),
            backend_port=free_port(),
            report=print,
        ):
            project = create_project(home, "At scale", config())
            command = [sys.executable, "-m", "benchmarks.neighbours_scale", str(arguments.ndsb)]
            started = time.perf_counter()
            subprocess.run(
                [*command, "--tasks", str(arguments.tasks), "--fill", str(project.id)],
                env={**server_environment(home), "PYTHONPATH": str(Path(__file__).parents[1])},
                check=True,
            )
            print(f"{arguments.tasks} tasks in {time.perf_counter() - started:.0f} s", flush=True)
            dice = random.Random(0)
            data = [task_data(number, dice, IMAGES) for number in range(arguments.tasks)]
            blind = np.array([one["blind"] == "yes" for one in data])
            # The only project of a new database: its tasks are numbered from 1 on.
            ids = np.arange(1, arguments.tasks + 1)
            table = TaskTable(ids, ids - 1, blind, arguments.tasks)
            keep_features(home, project.id, grown(features, arguments.tasks), table)
            image = folder / "images" / "crops" / "0007.png"
            measure(Client(home, project.id), ids[~blind], image, arguments.repeats)


if __name__ == "__main__":
    main()
