"""Twenty annotators at once on PostgreSQL: how long do their requests take, also beside a training?

    python -m benchmarks.annotators_load [--seconds 180] [--people 20] [--database PostgreSQL]

Fourteen people work through the label stream (next task, the task, its image, the annotation, as
the editor sends it with the suggestion on screen), six look through the gallery (a page of 120 and
its sprite). Each has a session of their own, logged in as a browser is, over real HTTP, and looks
2 to 4 s at what came. First without a job, then the same while trainings run one after the other as
the backend starts them: fetch the annotations, train, write a suggestion for every image.

What asks runs on the same processors as the servers, so it takes its share.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import requests

import hpc_jobs
from benchmarks.machine import circumstances
from label_studio_config.api import Api
from label_studio_config.project import create_project
from label_studio_config.server_tasks import fetch_tasks
from label_studio_config.users import UserInfo
from ml_backend.training_jobs import suggest_project
from tests.backend_fixtures import CONFIG, add_version, draw_images, start_small
from tests.gallery_fixtures import GalleryForTests
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests
from tests.postgres_fixtures import postgres_cluster

RESULTS = Path(__file__).parent / "results" / "annotators_load.json"
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
IN_THE_GALLERY = 0.3
LOOKS_S = (2.0, 4.0)
ON_A_PAGE = 120
TAUGHT = 150
Q = (50, 95, 99)


@dataclass
class Times:
    """Seconds that each kind of request took, and the answers that were no success."""

    by_kind: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def table(self) -> dict[str, dict[str, float]]:
        """By kind, and of all together: how many, and milliseconds."""
        everything = [seconds for some in self.by_kind.values() for seconds in some]
        return {
            kind: {
                "n": len(seconds),
                **{f"p{q}_ms": round(1000 * float(np.percentile(seconds, q)), 1) for q in Q},
            }
            for kind, seconds in [*sorted(self.by_kind.items()), ("all", everything)]
            if seconds
        }


@dataclass
class Annotator:
    """One person with a browser's session, who works until `end`."""

    gallery: GalleryForTests
    session: requests.Session
    times: Times
    end: float
    dice: random.Random
    answered: list[int] = field(default_factory=list)
    done: int = 0

    def call(self, kind: str, method: str, path: str, **options: Any) -> requests.Response | None:
        """One timed request; None after an error, which is noted."""
        url = self.gallery.server.url + path
        began = time.perf_counter()
        try:
            answer = self.session.request(method, url, timeout=60, **options)
            problem = None if answer.ok else f"{answer.status_code} {answer.text[:300]}"
        except requests.RequestException as error:
            problem = repr(error)
        took_s = time.perf_counter() - began
        with self.times.lock:
            if problem is None:
                self.done += 1
                self.times.by_kind[kind].append(took_s)
            else:
                self.times.errors.append(f"{kind} {path}: {problem}")
        return answer if problem is None else None

    def look(self) -> float:
        """Look at what came; for how long."""
        looks_s = self.dice.uniform(*LOOKS_S)
        time.sleep(max(0.0, min(looks_s, self.end - time.monotonic())))
        return looks_s

    def label_stream(self) -> None:
        """Task after task, accepting most suggestions."""
        project = self.gallery.project.id
        while time.monotonic() < self.end:
            path = f"/api/dm/actions?id=next_task&project={project}"
            given = self.call("next task", "POST", path, json={"project": project})
            if given is None:
                continue
            task_id = given.json()["id"]
            task = self.call("task", "GET", f"/api/tasks/{task_id}?project={project}")
            if task is None:
                continue
            self.call("image", "GET", task.json()["data"]["image"])
            lead_time = self.look()
            shown = task.json()["predictions"]
            body = {
                "result": shown[0]["result"] if shown else [],
                "lead_time": lead_time,
                "draft_id": 0,
                "parent_prediction": shown[0]["id"] if shown else None,
                "parent_annotation": None,
                "started_at": datetime.now(UTC).isoformat(),
                "project": project,
            }
            path = f"/api/tasks/{task_id}/annotations?project={project}"
            if self.call("submit", "POST", path, json=body) is not None:
                self.answered.append(task_id)

    def look_through_gallery(self) -> None:
        """Page after page, from the most or the least certain."""
        path = f"/api/planktrait/projects/{self.gallery.project.id}/gallery"
        query: dict[str, Any] = {}
        while time.monotonic() < self.end:
            if not query.get("after"):
                query = {"order": self.dice.choice(["certain", "uncertain", "novel", "task"])}
            query |= {"limit": ON_A_PAGE, "suggested": 1}
            page = self.call("gallery page", "GET", f"{path}/page", params=query)
            if page is None:
                continue
            shown = page.json()
            tasks = ",".join(str(crop["task"]) for crop in shown["crops"])
            if tasks:
                self.call("sprite", "GET", f"{path}/sprite", params={"tasks": tasks})
            query["after"] = shown["next"]
            self.look()


@contextmanager
def served(database: str, tasks: int, template: Path | None) -> Iterator[GalleryForTests]:
    """Label Studio with two workers and our backend; a project of drawn images, each suggested."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="annotators-load-")))
        variables = {"PLANKTRAIT_TRAIN_EVERY": "1000000"}
        if database == "PostgreSQL":
            variables |= stack.enter_context(postgres_cluster(template))
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        stack.callback(_put_back, before)
        server = stack.enter_context(serve_for_tests(folder, with_backend=True, workers=2))
        yield _project(server, tasks)


def _put_back(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _project(server: LabelStudioForTests, tasks: int) -> GalleryForTests:
    drawn = draw_images(server.images_root / "cruise", tasks)
    gallery = GalleryForTests(server, create_project(server.home, "Load", CONFIG))
    gallery.load(
        [
            {"image": f"/data/local-files/?d=cruise/{name}", "image_id": name, "blind": "no"}
            for name, _ in drawn
        ]
    )
    for task_id, (_, group) in zip(gallery.tasks[:TAUGHT], drawn, strict=False):
        gallery.annotate(task_id, {"group": group})
    # What is suggested does not matter here, only that something is.
    add_version(server.home, project_id=gallery.project.id)
    suggest_project(server.home.folder, gallery.project.id)
    return gallery


def start_training(gallery: GalleryForTests) -> hpc_jobs.Job[Any]:
    """Start a training as the button does."""
    Api(gallery.server.home).post(f"/api/ml/{gallery.project.backend_id}/train", {})
    return hpc_jobs.Job(hpc_jobs.list_jobs(gallery.server.home.jobs_folder, newest=1)[0].folder)


def work_together(
    gallery: GalleryForTests, people: list[UserInfo], seconds: float, seed: int
) -> tuple[Times, list[int], list[int]]:
    """Everybody works for so long: the times, the tasks answered, and each one's requests."""
    times, end = Times(), time.monotonic() + seconds
    annotators = [
        Annotator(gallery, gallery.sessions[who.id], times, end, random.Random(seed + n))
        for n, who in enumerate(people)
    ]
    readers = round(IN_THE_GALLERY * len(people))
    with ThreadPoolExecutor(len(people)) as pool:
        works = [
            pool.submit(one.look_through_gallery if n < readers else one.label_stream)
            for n, one in enumerate(annotators)
        ]
        for work in works:
            work.result()
    answered = [task_id for one in annotators for task_id in one.answered]
    return times, answered, [one.done for one in annotators]


@contextmanager
def trainings(gallery: GalleryForTests) -> Iterator[list[str]]:
    """Trainings one after the other meanwhile; how they ended.

    The one that still runs at the end is cancelled, unless it is the first: that is waited for.
    """
    over = threading.Event()
    ended: list[str] = []

    def repeat() -> None:
        while not over.is_set():
            job = start_training(gallery)
            while (record := job.wait(0.5)).active and not (over.is_set() and ended):
                pass
            if record.active:
                job.cancel()
            else:
                ended.append(record.state)

    with ThreadPoolExecutor(1) as pool:
        repeated = pool.submit(repeat)
        yield ended
        over.set()
        repeated.result()


def measure(
    people: int,
    seconds: float,
    database: str = "PostgreSQL",
    template: Path | None = None,
    small: bool = False,
) -> dict[str, Any]:
    """Both times, what was answered, and the ratio of the 95 % points.

    With `small`, trainings begin with a tiny encoder, so that the first one ends soon after.
    """
    with served(database, int(people * seconds) + 2 * TAUGHT, template) as gallery:
        if small:
            start_small(gallery.server.home, gallery.project.id)
        everybody = [gallery.person(f"annotator{n}") for n in range(people)]
        for who in everybody:
            gallery.log_in(who)
        work_together(gallery, everybody, 5, seed=0)  # what is imported at first use is imported
        alone, answered, done = work_together(gallery, everybody, seconds, seed=100)
        with trainings(gallery) as ended:
            beside, more, done_beside = work_together(gallery, everybody, seconds, seed=200)
        tables = {"alone": alone.table(), "beside trainings": beside.table()}
        judged = fetch_tasks(gallery.server.home, gallery.project.id, annotated_only=True)
        written = Counter(task["id"] for task in judged for _ in task["annotations"])
    return {
        "database": database,
        "people": people,
        "seconds": seconds,
        **tables,
        "p95_ratio": {
            kind: round(values["p95_ms"] / tables["alone"][kind]["p95_ms"], 2)
            for kind, values in tables["beside trainings"].items()
            if kind in tables["alone"]
        },
        "answered": len(answered) + len(more),
        "requests_of_each": {"alone": done, "beside trainings": done_beside},
        "lost": sorted(set(answered + more) - set(written)),
        "doubled": sorted(task_id for task_id, times in written.items() if times > 1),
        "trainings": ended,
        "errors": [*alone.errors, *beside.errors],
        "autogroup": AUTOGROUP.read_text().strip() if AUTOGROUP.exists() else None,
        **circumstances(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=180, help="of each of the two times")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--database", choices=["SQLite", "PostgreSQL"], default="PostgreSQL")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    result = measure(arguments.people, arguments.seconds, arguments.database)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if result["errors"]:
        raise SystemExit(f"{len(result['errors'])} requests failed")


if __name__ == "__main__":
    main()
