"""How quickly the gallery answers at N tasks, with Label Studio's Data Manager beside it.

    python -m benchmarks.gallery_scale --tasks 700000 --database sqlite

Every figure is the median over real HTTP requests to a server with two workers, from one client,
in milliseconds; no request is asked twice. Beside it stands the mean processor time that the
server's processes took, which says the same on a busy machine (with PostgreSQL: without the
database). The tasks are phantoms with a cruise's metadata and a prediction each, a third of them
with answers of three people (`gallery_answers`).
`--database postgresql` starts a cluster of its own, as the tests do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.gallery_client import Client, read_all, three_people
from benchmarks.gallery_fill import FIRST_DAY, HAULS, LABELS, config
from benchmarks.machine import circumstances, family
from label_studio_config.home import Home
from label_studio_config.hosting import server_environment, start_in_background
from label_studio_config.processes import free_port
from label_studio_config.project import create_project
from tests.label_studio_fixtures import without_plugin

RESULTS = Path(__file__).parent / "results" / "gallery_scale"
IMAGES = 300
ON_A_PAGE = 120
ACCEPTED = 60


def processor_ms() -> float:
    """Of this program's own servers, all workers together, since they were started."""
    total = 0.0
    for pid in set(family(os.getpid())) - {os.getpid()}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        total += (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
    return total


def measure(
    client: Client, tasks: int, repeats: int, people: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Milliseconds of every request, and the mean of the server's, by what was asked.

    Parameters
    ----------
    people : whose answers are there; the first is the one who asks
    """
    took: dict[str, dict[str, Any]] = {}

    def note(name: str, ask: Callable[[int], float]) -> None:
        ask(-1)  # warm, as after any other page
        before = processor_ms()
        times = [round(ask(turn), 1) for turn in range(repeats)]
        spent = (processor_ms() - before) / repeats
        took[name] = {"median_ms": statistics.median(times), "processor_ms": round(spent, 1)}
        took[name]["ms"] = times
        print(f"{name:44} {took[name]['median_ms']:8.0f} ms, processor {spent:6.0f} ms", flush=True)

    def page(**query: Any) -> float:
        milliseconds, response = client.gallery("gallery/page", limit=ON_A_PAGE, **query)
        crops = response.json()["crops"]
        assert crops, query
        assert all(crop["state"] == query.get("state", crop["state"]) for crop in crops), query
        return milliseconds

    def day(turn: int) -> str:
        days = max(tasks // 86_400, 1)
        return str((FIRST_DAY + timedelta(days=turn % days)).date())

    def data_manager(name: str, asked: Client) -> None:
        field, text = "filter:tasks:data.sample_id", "filter:tasks:predictions_results"
        note(f"{name}: page of 100", lambda i: asked.data_manager(i + 2))
        note(
            f"{name}: filter on a data field",
            lambda i: asked.data_manager(1, filter=field, value=f"haul-{i + 9:03d}"),
        )
        note(
            f"{name}: filter on prediction text",
            lambda i: asked.data_manager(1, filter=text, value=LABELS[i + 1]),
        )

    common = LABELS[:12]
    note("first page", lambda i: page(label=common[i + 1], state="suggested"))
    note("first page, all labels", lambda i: page(order=("certain", "novel")[i % 2]))
    cursors = {}
    for label in common:
        after: str | None = None
        for _ in range(3):
            answer = client.gallery("gallery/page", label=label, limit=100, after=after)[1].json()
            after = answer["next"] or after
        cursors[label] = after
    note("next page", lambda i: page(label=common[i + 1], after=cursors[common[i + 1]]))
    note("filter: sample", lambda i: page(sample=f"haul-{(37 * (i + 2)) % HAULS:03d}"))
    note("filter: confidence", lambda i: page(confidence_from=0.3, confidence_to=0.5 + i / 50))
    note("filter: depth", lambda i: page(depth_from=10 * (i + 2), depth_to=10 * (i + 2) + 1))
    note("filter: text of many", lambda i: page(text=f"station {i + 2}"))
    note(
        "filter: text of one",
        lambda i: client.gallery("gallery/page", text=f"crop-{tasks * (i + 2) // 13:07d}")[0],
    )
    note("filter: novelty", lambda i: page(novelty_from=0.3 + i / 100, order="novel"))
    note("filter: one day", lambda i: page(captured_from=day(i + 2), captured_to=day(i + 2)))
    orders = ("certain", "uncertain", "novel")

    def in_state(state: str, turn: int) -> float:
        return page(state=state, order=orders[turn % 3], n=turn)

    for state in ("accepted", "mine", "others", "conflicting"):
        note(f"filter: state {state}", partial(in_state, state))
    note("filter: annotator", lambda i: page(annotator=people[i % 3], order=orders[i % 3], n=i))
    note("filter: answered as", lambda i: page(answered=LABELS[i + 1]))
    note(
        "filter: answered as, by one",
        lambda i: page(answered=LABELS[i // 3 + 1], annotator=people[i % 3]),
    )
    note("labels, state mine", lambda i: client.gallery("gallery/labels", state="mine", n=i)[0])
    note("not suggested", lambda i: page(suggested=0, n=i))
    note("labels", lambda i: client.gallery("gallery/labels", state="suggested", n=i)[0])
    note(
        "labels, one sample",
        lambda i: client.gallery("gallery/labels", sample=f"haul-{i + 5:03d}")[0],
    )
    note("what the page needs once", lambda i: client.gallery("gallery", n=i)[0])

    def sprite(turn: int) -> float:
        _, answer = client.gallery("gallery/page", label=common[turn + 1], limit=ON_A_PAGE)
        ids = ",".join(str(crop["task"]) for crop in answer.json()["crops"])
        return client.gallery("gallery/sprite", tasks=ids)[0]

    note(f"sprite of {ON_A_PAGE}", sprite)

    def accept(turn: int) -> float:
        _, answer = client.gallery(
            "gallery/page", label=common[turn + 1], state="suggested", limit=ACCEPTED
        )
        said = answer.json()
        judgements = [
            {"task": c["task"], "accept": True, "prediction": c["suggestion"]["prediction"]}
            for c in said["crops"]
        ]
        body = {"control": "group", "judgements": judgements, "seen_at": said["seen_at"]}
        path = f"/api/planktrait/projects/{client.project_id}/judgements"
        milliseconds, response = client.call("POST", path, json={**body, "lead_time_s": 3.0})
        assert response.json()["saved"] == len(judgements) > 0
        return milliseconds

    note(f"accept a page of {ACCEPTED}", accept)
    note(
        "first page, after accepting",
        lambda i: page(label=common[i % 2], state="suggested", order=orders[i % 3], n=i),
    )
    note("filter: accepted, one label", lambda i: page(state="accepted", label=common[i + 1]))
    with without_plugin(client.home, workers=2) as url:
        data_manager("Data Manager", client)
        data_manager("Label Studio's own Data Manager", client.at(url))
    return took


@contextmanager
def serving(database: str, folder: Path, backend: str | None = None) -> Iterator[Home]:
    """A server of its own with drawn images, and perhaps a backend, on SQLite or PostgreSQL."""
    with ExitStack() as stack:
        if database == "postgresql":
            from tests.postgres_fixtures import postgres_cluster

            os.environ.update(stack.enter_context(postgres_cluster()))
        images = folder / "images"
        if not images.exists():
            _draw(images / "crops")
        home = Home(folder / "home")
        stack.enter_context(
            start_in_background(
                home,
                images_root=images,
                backend_application=backend,
                workers=2,
                port=free_port(),
                backend_port=free_port(),
                report=print,
            )
        )
        yield home


def _draw(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        width, height = rng.integers(24, 120, 2).tolist()
        noise = rng.normal(225, 6, (height, width)).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(noise)
        ImageDraw.Draw(image).ellipse((5, 5, width - 6, height - 6), fill=60)
        image.save(folder / f"{number:04d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--repeats", type=int, default=9, help="requests of each kind, at most 10")
    parser.add_argument(
        "--folder", type=Path, help="keep the server's home there, and use it again"
    )
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gallery-scale-"))
        )
        fresh = not (folder / "home").exists()
        home = stack.enter_context(serving(arguments.database, folder))
        project = create_project(home, "At scale", config())
        people = three_people(home)
        command = [sys.executable, "-m", "benchmarks.gallery_fill", str(project.id)]
        started = time.perf_counter()
        subprocess.run(
            [*command, str(arguments.tasks), str(IMAGES), *map(str, people)],
            env={**server_environment(home), "PYTHONPATH": str(Path(__file__).parents[1])},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        filled_s = time.perf_counter() - started
        print(f"{arguments.tasks} tasks are there after {filled_s:.0f} s", flush=True)
        client = Client(home, project.id)
        started, visits = time.perf_counter(), read_all(client)
        indexed_s = time.perf_counter() - started
        print(f"indexed in {indexed_s:.0f} s, {visits} visits", flush=True)
        took = measure(client, arguments.tasks, arguments.repeats, people)
        result = {
            "tasks": arguments.tasks,
            "database": arguments.database,
            "loaded_s": round(filled_s, 1) if fresh else None,
            "indexed_s": round(indexed_s, 1) if fresh else None,
            "requests": took,
            **circumstances(),
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{arguments.database}-{arguments.tasks}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    main()
