"""Opening a task in the label stream: ours beside a Label Studio without our plugin.

    python -m benchmarks.open_task [--tasks 5000] [--times 200]

Both serve copies of one database (drawn images, a suggestion each) with one worker of 8 threads
under gunicorn, and are asked in turn, each time: the next task, the task itself, its image, and an
annotation, so that the next one comes. Theirs runs with Label Studio's own settings.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

from benchmarks.machine import circumstances
from label_studio_config.home import Home
from label_studio_config.hosting import start_in_background
from label_studio_config.processes import free_port
from label_studio_config.project import create_project
from tests.gallery_fixtures import CONFIG, GalleryForTests, crop_rows
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests, without_plugin

RESULTS = Path(__file__).parent / "results" / "open_task.json"
STEPS = ("next task", "task", "image")


def open_one(session: requests.Session, url: str, project: int) -> dict[str, float]:
    """Milliseconds of each step; then the task is answered, so that the next one comes."""
    took: dict[str, float] = {}

    def call(step: str, method: str, path: str, **options: Any) -> requests.Response:
        began = time.perf_counter()
        answer = session.request(method, url + path, timeout=60, **options)
        took[step] = 1000 * (time.perf_counter() - began)
        answer.raise_for_status()
        return answer

    given = call("next task", "POST", f"/api/dm/actions?id=next_task&project={project}", json={})
    path = f"/api/tasks/{given.json()['id']}"
    task = call("task", "GET", f"{path}?project={project}").json()
    call("image", "GET", task["data"]["image"])
    shown = task["predictions"][0]
    body = {"result": shown["result"], "lead_time": 2, "parent_prediction": shown["id"]}
    call("submit", "POST", f"{path}/annotations?project={project}", json=body)
    took["opening"] = sum(took[step] for step in STEPS)
    return took


def prepare(server: LabelStudioForTests, tasks: int) -> int:
    """A project whose tasks all have a suggestion."""
    gallery = GalleryForTests(server, create_project(server.home, "Opening", CONFIG))
    drawn = crop_rows(server, 200)
    gallery.load([{**drawn[i % 200], "image_id": f"crop-{i:06d}"} for i in range(tasks)])
    dice = random.Random(1)
    gallery.suggest({task: ("Copepod", round(dice.uniform(0.3, 1), 4)) for task in gallery.tasks})
    return gallery.project.id


def measure(tasks: int, times: int) -> dict[str, Any]:
    """Milliseconds of ours and of theirs, median and 95 % point, and the ratio of the medians."""
    with tempfile.TemporaryDirectory(prefix="open-task-") as name:
        folder = Path(name)
        with serve_for_tests(folder) as server:
            project, home = prepare(server, tasks), server.home
        copy = folder / "copy"
        shutil.copytree(home.folder, copy)
        ours_at = start_in_background(home, workers=1, port=free_port())
        with ours_at, without_plugin(Home(copy)) as theirs_at:
            session = requests.Session()
            session.trust_env = False
            session.headers["Authorization"] = f"Token {home.secrets.api_token}"
            urls = {"ours": ours_at.label_studio_url, "theirs": theirs_at}
            took: dict[str, list[dict[str, float]]] = {who: [] for who in urls}
            for turn in range(times + 5):
                for who, url in urls.items():
                    one = open_one(session, url, project)
                    if turn >= 5:  # what is imported at first use is imported
                        took[who].append(one)
    result: dict[str, Any] = {"tasks": tasks, "times": times}
    for step in (*STEPS, "opening", "submit"):
        columns = {who: [one[step] for one in rows] for who, rows in took.items()}
        medians = {who: statistics.median(column) for who, column in columns.items()}
        result[step] = {
            **{f"{who}_ms": round(median, 1) for who, median in medians.items()},
            **{
                f"{who}_p95_ms": round(statistics.quantiles(column, n=20)[-1], 1)
                for who, column in columns.items()
            },
            "ratio": round(medians["ours"] / medians["theirs"], 2),
        }
    return result | {
        **circumstances(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--times", type=int, default=200)
    arguments = parser.parse_args()
    result = measure(arguments.tasks, arguments.times)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
