"""N tasks with predictions into Label Studio: `planktrait push` beside its own import.

    python -m benchmarks.push_scale --tasks 700000 --database sqlite

Ours is timed from the call to its end: manifest and shards read, a process started, everything in
the database, counters and the gallery's index included. Label Studio's `/api/projects/N/import`
gets the same tasks with the same predictions in them, 5,000 a call, into another project of the
same, still empty, database; only its answers are timed, not the making of the requests. It is asked
for fewer tasks where N is large, and once more at the end, into the full project: its rate then
says whether it falls with size. Then the Data Manager is timed on what was pushed.
`--database postgresql` starts a cluster of its own, as the tests do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.gallery_client import Client
from benchmarks.gallery_fill import HAULS, LABELS, config, task_data
from benchmarks.gallery_scale import IMAGES, serving
from benchmarks.machine import circumstances
from label_studio_config.manifest import Manifest
from label_studio_config.prediction import prediction_schema
from label_studio_config.prediction_shards import Shards
from label_studio_config.project import create_project
from label_studio_config.schema import LabelSchema
from label_studio_config.task_import import ready, tasks_of_rows
from ml_backend.push import push_project

RESULTS = Path(__file__).parent / "results" / "push_scale"
VERSION = "cruise-v0001"
SHARD_SIZE = 20_000
A_CALL = 5000


def make_manifest(root: Path, count: int, first: int = 0) -> Manifest:
    """Phantom images with a cruise's metadata; the files need not be there."""
    dice = random.Random(first)
    rows = []
    for number in range(first, first + count):
        row = task_data(number, dice, IMAGES)
        del row["image"]
        rows.append(row | {"path": f"crops/{number:07d}.png"})
    return Manifest(pd.DataFrame(rows), root)


def write_shards(folder: Path, manifest: Manifest, seed: int = 0) -> None:
    """Predictions as `planktrait predict` writes them: probabilities of all 121 labels."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = prediction_schema(LabelSchema.from_xml(config()), {"group": LABELS}, 8)
    rng = np.random.default_rng(seed)
    ids = manifest.image_ids
    for start in range(0, len(ids), SHARD_SIZE):
        some = ids[start : start + SHARD_SIZE]
        shares = rng.dirichlet(np.full(len(LABELS), 0.05), len(some)).astype(np.float32)
        sure = shares.max(axis=1)
        columns = {
            "image_id": some,
            "sample_id": [None] * len(some),
            "path": [None] * len(some),
            "model_version": [VERSION] * len(some),
            "confidence": sure,
            "novelty": rng.beta(1, 6, len(some)).astype(np.float32),
            "embedding": list(np.zeros((len(some), 8), np.float16)),
            "group": [LABELS[k] for k in shares.argmax(axis=1)],
            "group__confidence": sure,
            "group__probabilities": list(shares),
        }
        table = pa.table(columns, schema=schema)
        path = folder / f"part-{start // SHARD_SIZE:05d}.parquet"
        pq.write_table(table, path, compression="zstd")


def import_with_api(client: Client, home: Any, count: int, first: int, folder: Path) -> list[float]:
    """Tasks a second of each of Label Studio's own import calls."""
    manifest = make_manifest(home.images_root, count, first)
    write_shards(folder, manifest, first)
    shards = Shards(folder, LabelSchema.from_xml(config()))
    manifest, addresses, _ = ready(home.images_root, manifest)
    row_of = {image_id: row for row, image_id in enumerate(manifest.image_ids)}
    rates = []
    for batch in shards.batches(A_CALL):
        rows = [row_of[image_id] for image_id in batch.suggestions]
        tasks = [
            # A blind task has no prediction: our plugin would refuse it.
            {"data": data, "predictions": [suggestion] if data["blind"] == "no" else []}
            for data, suggestion in zip(
                tasks_of_rows(manifest, addresses, rows, 0.0, 0),
                batch.suggestions.values(),
                strict=True,
            )
        ]
        path = f"/api/projects/{client.project_id}/import?return_task_ids=false"
        body = json.dumps(tasks)
        headers = {"Content-Type": "application/json"}
        milliseconds, _ = client.call("POST", path, data=body, headers=headers)
        rates.append(len(tasks) / milliseconds * 1000)
        print(f"Label Studio's import: {rates[-1]:.0f} tasks a second", flush=True)
    return rates


def data_manager(client: Client, repeats: int) -> dict[str, float]:
    """Milliseconds, the median, of a page, sorted and filtered."""

    def page(turn: int, *, order: str | None = None, **item: Any) -> float:
        query: dict[str, Any] = {}
        if item:
            item = {"operator": "contains", "type": "String", **item}
            query["filters"] = {"conjunction": "and", "items": [item]}
        if order:
            query["ordering"] = [order]
        asked = {"project": client.project_id, "page": turn + 1, "page_size": 100, "fields": "all"}
        took, answer = client.call("GET", "/api/tasks", params=asked | {"query": json.dumps(query)})
        assert answer.json()["tasks"]
        return took

    asks: dict[str, Callable[[int], float]] = {
        "page of 100": page,
        "sorted by score": lambda i: page(i, order="-tasks:predictions_score"),
        "filter on a data field": lambda i: page(
            0, filter="filter:tasks:data.sample_id", value=f"haul-{(i + 9) % HAULS:03d}"
        ),
        "filter on prediction text": lambda i: page(
            0, filter="filter:tasks:predictions_results", value=LABELS[i + 1]
        ),
        "columns": lambda i: client.call(
            "GET", "/api/dm/columns", params={"project": client.project_id}
        )[0],
        "gallery: first page": lambda i: client.gallery(
            "gallery/page", limit=120, label=LABELS[i + 1]
        )[0],
    }
    took = {}
    for name, ask in asks.items():
        ask(repeats)  # warm, as after any other page
        took[name] = round(statistics.median(ask(turn) for turn in range(repeats)), 1)
        print(f"{name:28} {took[name]:8.0f} ms", flush=True)
    return took


def measure(database: str, folder: Path, tasks: int, peer: int, repeats: int) -> dict[str, Any]:
    """Everything, in one server on one database."""
    with serving(database, folder) as home:
        theirs = create_project(home, "Imported", config())
        ours = create_project(home, "Pushed", config())
        load = [round(one, 1) for one in os.getloadavg()]
        before = import_with_api(Client(home, theirs.id), home, peer, 10**7, folder / "peer")
        manifest = make_manifest(home.images_root, tasks)
        path = manifest.write(folder / "manifest.parquet")
        write_shards(folder / "shards", manifest)
        print(f"{tasks} images and shards are there", flush=True)
        began = time.perf_counter()
        told = push_project(home.folder, ours.id, path, folder / "shards")
        pushed_s = time.perf_counter() - began
        assert told["added"] == tasks, told
        print(f"pushed in {pushed_s:.0f} s, {tasks / pushed_s:.0f} a second", flush=True)
        client = Client(home, ours.id)
        took = data_manager(client, repeats)
        began = time.perf_counter()
        again = push_project(home.folder, ours.id, path, folder / "shards")
        again_s = time.perf_counter() - began
        assert not again["added"] + again["suggested"] + again["replaced"], again
        after = import_with_api(client, home, min(peer, 2 * A_CALL), 2 * 10**7, folder / "peer-2")
    rate, rate_full = statistics.median(before), statistics.median(after)
    theirs_s = tasks / rate
    return {
        "tasks": tasks,
        "suggested": told["suggested"],
        "database": database,
        "push_s": round(pushed_s, 1),
        "push_a_second": round(tasks / pushed_s),
        "push_again_s": round(again_s, 1),
        "import_tasks_measured": peer,
        "import_a_second": round(rate),
        "import_a_second_each_call": [round(one) for one in before],
        "import_a_second_when_full": round(rate_full),
        "import_s_at_its_first_rate": round(theirs_s, 1),
        "ratio": round(theirs_s / pushed_s, 2),
        "data_manager_ms": took,
        "load_average_before": load,
        **circumstances(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=700_000)
    parser.add_argument("--peer-tasks", type=int, default=20_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="push-scale-")))
        result = measure(
            arguments.database,
            folder,
            arguments.tasks,
            min(arguments.tasks, arguments.peer_tasks),
            arguments.repeats,
        )
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{arguments.database}-{arguments.tasks}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
