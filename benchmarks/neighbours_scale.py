"""More like this, clusters and the map through Label Studio, over HTTP, at N tasks.

    python -m benchmarks.neighbours_scale path/to/ndsb --tasks 700000

A server of its own with the ML backend (`--database postgresql`: on a cluster of its own); phantom
tasks with a cruise's metadata, one in a hundred blind, and the features of `feature_bank.grown`.
Milliseconds are medians over real requests from one client; clusters and map are shown as their
jobs would leave them. "As the page asks" is what `similar.js` sends where judged images leave the
gallery: only what this person has left to judge. It is measured before anybody has answered, and
after three people have answered a third of the tasks.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.feature_bank import grown, ndsb_features
from benchmarks.gallery_answers import answer
from benchmarks.gallery_client import Client, read_all, three_people
from benchmarks.gallery_fill import CHUNK, LABELS, config, task_data
from benchmarks.gallery_scale import IMAGES, serving
from benchmarks.machine import circumstances
from benchmarks.ndsb import ENCODER
from hpc_jobs.files import read_json, write_json
from label_studio_config.batches import batches
from label_studio_config.home import Home
from label_studio_config.hosting import server_environment
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

RESULTS = Path(__file__).parent / "results" / "neighbours_scale"
CLUSTERS = 1000
FOUND = 200
AS_THE_PAGE_ASKS = {"limit": FOUND, "open": 1, "control": "group"}
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


def answer_some(project_id: int, people: list[int]) -> None:
    """Three people answer, as `gallery_answers` says; run inside the server's environment."""
    import django

    django.setup()
    from projects.models import Project
    from tasks.models import Task

    project = Project.objects.get(id=project_id)
    rng = np.random.default_rng(0)
    ids = Task.objects.filter(project=project).order_by("id").values_list("id", flat=True)
    for some in batches(list(ids), CHUNK):
        tasks = list(Task.objects.filter(id__in=list(some)).only("id"))
        answer(project, tasks, {}, people, LABELS, rng)


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


def measure_similar(
    client: Client, task_ids: np.ndarray, image: Path, repeats: int, when: str
) -> dict[str, dict[str, float]]:
    """More like this, the plain question beside what the page asks."""
    path = f"/api/planktrait/projects/{client.project_id}/neighbours"
    random_ids = np.random.default_rng(2)

    def like(asked: int, more: dict[str, Any]) -> float:
        ids = random_ids.choice(task_ids, asked, replace=False).tolist()
        took, answer = client.call("POST", path, json={"tasks": ids, **more})
        assert len(answer.json()["tasks"]) == FOUND
        return took

    def like_image(more: dict[str, Any]) -> float:
        with image.open("rb") as file:
            took, answer = client.call("POST", path, files={"image": file}, data=more)
        assert len(answer.json()["tasks"]) == FOUND
        return took

    asks: dict[str, Callable[[], float]] = {}
    for words, more in (("", {}), (", as the page asks", AS_THE_PAGE_ASKS)):
        asks[f"more like one{words}{when}"] = partial(like, 1, more)
        asks[f"more like ten{words}{when}"] = partial(like, 10, more)
        asks[f"more like an uploaded image{words}{when}"] = partial(like_image, more)
    return _times(asks, repeats)


def measure_places(client: Client, repeats: int) -> dict[str, dict[str, float]]:
    """Clusters and the map."""
    path = f"/api/planktrait/projects/{client.project_id}"
    asks = {
        name: partial(lambda asked: client.call("GET", f"{path}/{asked}")[0], asked)
        for name, asked in {
            "a page of a cluster": "clusters/7/tasks",
            f"{CLUSTERS} clusters": "clusters",
            "the map, binary": "map?binary=1",
            "the map, JSON": "map",
        }.items()
    }
    return _times(asks, repeats)


def _times(asks: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind of request: the first, the median of the others, the most."""
    took = {}
    for name, ask in asks.items():
        times = [ask() for _ in range(repeats + 4)]
        warm = times[4:]  # each of the workers has been asked by then
        took[name] = {"first_ms": times[0], "median_ms": median(warm), "most_ms": max(warm)}
        took[name] = {kind: round(value, 1) for kind, value in took[name].items()}
        print(f"{name:64}", took[name], flush=True)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ndsb", type=Path)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--people", type=int, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.people:
        answer_some(arguments.fill, arguments.people)
        return
    if arguments.fill is not None:
        fill(arguments.fill, arguments.tasks)
        return
    _, features = ndsb_features(arguments.ndsb)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="neighbours-scale-")))
        home = stack.enter_context(serving(arguments.database, folder, BACKEND))
        project = create_project(home, "At scale", config())
        command = [sys.executable, "-m", "benchmarks.neighbours_scale", str(arguments.ndsb)]
        command += ["--tasks", str(arguments.tasks), "--fill", str(project.id)]
        inside = {**server_environment(home), "PYTHONPATH": str(Path(__file__).parents[1])}
        started = time.perf_counter()
        subprocess.run(command, env=inside, check=True)
        print(f"{arguments.tasks} tasks in {time.perf_counter() - started:.0f} s", flush=True)
        dice = random.Random(0)
        data = [task_data(number, dice, IMAGES) for number in range(arguments.tasks)]
        blind = np.array([one["blind"] == "yes" for one in data])
        # The only project of a new database: its tasks are numbered from 1 on.
        ids = np.arange(1, arguments.tasks + 1)
        table = TaskTable(ids, ids - 1, blind, arguments.tasks)
        keep_features(home, project.id, grown(features, arguments.tasks), table)
        image = folder / "images" / "crops" / "0007.png"
        client = Client(home, project.id)
        read_all(client)
        shown = ids[~blind]
        took = measure_similar(client, shown, image, arguments.repeats, "")
        took |= measure_places(client, arguments.repeats)
        people = [str(one) for one in three_people(home)]
        subprocess.run([*command, "--people", *people], env=inside, check=True)
        read_all(client)
        words = ", a third answered"
        took |= measure_similar(client, shown, image, arguments.repeats, words)
    result = {"tasks": arguments.tasks, "database": arguments.database, "requests": took}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{arguments.database}-{arguments.tasks}.json"
    path.write_text(json.dumps({**result, **circumstances()}, indent=1) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
