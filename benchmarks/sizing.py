"""What an installation needs: memory of its processes, disk of its database, time of a backup.

    python -m benchmarks.sizing [--tasks 20000] [--database PostgreSQL]
    python -m benchmarks.sizing --pushed 700000 [--database PostgreSQL]

Measured on a project of drawn images, each task with a suggestion in the gallery's index, a tenth
annotated. Memory is proportional set size (what processes share is divided among them). "Per
100,000" is extrapolated from the tasks that were there. `--pushed` measures the database alone, of
so many images with suggestions of 121 labels by `planktrait push`: nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hpc_jobs
from benchmarks.gallery_fill import LABELS, config
from benchmarks.gallery_scale import serving
from benchmarks.machine import MB, circumstances, share_of_memory_mb
from benchmarks.push_scale import make_manifest, write_shards
from hpc_jobs.files import read_json
from hpc_jobs.job_folder import STARTED_FILE
from label_studio_config.api import Api
from label_studio_config.backup import back_up, restore
from label_studio_config.database import Sqlite
from label_studio_config.database_choice import database_of
from label_studio_config.home import Home
from label_studio_config.postgresql import PostgreSql
from label_studio_config.project import create_project
from ml_backend.push import push_project
from tests.backend_fixtures import CONFIG, draw_images
from tests.gallery_fixtures import GalleryForTests
from tests.label_studio_fixtures import LabelStudioForTests, serve_for_tests
from tests.postgres_fixtures import postgres_server

RESULTS = Path(__file__).parent / "results" / "sizing.json"
IMAGES = 1000
TAUGHT = 60


def memory_mb(group: int) -> list[float]:
    """Proportional set size of each process of a process group, the largest first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) != group:
                continue
            found.append(round(share_of_memory_mb(int(folder.name)), 1))
        except OSError:
            continue
    return sorted(found, reverse=True)


def peak_of_job_mb(job_folder: Path, over: threading.Event) -> float:
    """The most that a job's process ever held, while it runs."""
    peak = 0.0
    while not over.is_set():
        started = read_json(job_folder / STARTED_FILE)
        if started:
            status = Path(f"/proc/{started['process']['pid']}/status")
            try:
                line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
                peak = max(peak, int(line.split()[1]) * 1024 / MB)
            except (OSError, StopIteration):
                pass
        over.wait(0.1)
    return round(peak, 1)


def train(server: LabelStudioForTests, backend_id: int | None) -> dict[str, float]:
    """A training through Label Studio: its seconds and the most memory of its process."""
    Api(server.home).post(f"/api/ml/{backend_id}/train", {})
    job = hpc_jobs.list_jobs(server.home.jobs_folder, newest=1)[0]
    over, peaks = threading.Event(), []
    watcher = threading.Thread(target=lambda: peaks.append(peak_of_job_mb(job.folder, over)))
    watcher.start()
    ended = hpc_jobs.Job[Any](job.folder).wait()
    over.set()
    watcher.join()
    if ended.state != "finished" or ended.started is None or ended.finished is None:
        raise SystemExit(f"{ended.name} is {ended.state}: {ended.error}")
    return {"seconds": round(ended.finished - ended.started, 1), "peak_mb": peaks[0]}


def database_mb(home: Home) -> float:
    """Disk of the database."""
    database = database_of(home)
    if isinstance(database, Sqlite):
        parts = database.file.parent.glob(f"{database.file.name}*")
        return sum(path.stat().st_size for path in parts) / MB
    assert isinstance(database, PostgreSql)
    with database.connected() as connection:
        sql = "SELECT pg_database_size(current_database())"
        return int(connection.execute(sql).fetchall()[0][0]) / MB


def folder_mb(folder: Path) -> float:
    """Disk of a folder."""
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / MB, 2)


def measure(tasks: int, database: str) -> dict[str, Any]:
    """All figures."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sizing-")))
        os.environ["PLANKTRAIT_TRAIN_EVERY"] = "1000000"
        cluster = None
        if database == "PostgreSQL":
            cluster = stack.enter_context(postgres_server())
            os.environ.update(cluster.variables)
        began = time.monotonic()
        server = stack.enter_context(serve_for_tests(folder, with_backend=True, workers=2))
        result: dict[str, Any] = {"database": database, "tasks": tasks}
        result["first_start_s"] = round(time.monotonic() - began, 1)
        home = server.home
        empty_mb = database_mb(home)
        label_studio, backend = (p.pid or 0 for p in server.servers.processes)
        result["at_rest_mb"] = {
            "label_studio": memory_mb(label_studio),
            "backend": memory_mb(backend),
        }
        drawn = draw_images(server.images_root / "cruise", IMAGES)
        gallery = GalleryForTests(server, create_project(home, "Sizing", CONFIG))
        rows = [
            {
                "image": f"/data/local-files/?d=cruise/{drawn[i % IMAGES][0]}",
                "image_id": f"crop-{i:06d}",
                "sample_id": f"haul-{i % 50}",
                "captured_at": f"2014-06-{1 + i % 9:02d}T12:00:00Z",
                "depth_m": float(i % 50),
                "blind": "no",
            }
            for i in range(tasks)
        ]
        gallery.load(rows)
        for i, task_id in enumerate(gallery.tasks[:TAUGHT]):
            gallery.annotate(task_id, {"group": drawn[i % IMAGES][1]})
        result["training"] = train(server, gallery.project.backend_id)
        result["training"] |= {"annotations": TAUGHT, "suggestions": tasks}
        gallery.get("gallery")
        with_suggestions_mb = database_mb(home)
        dice = random.Random(0)
        answered = tasks // 10
        for start in range(TAUGHT, TAUGHT + answered, 500):
            ids = gallery.tasks[start : start + 500]
            gallery.judge([{"task": one, "label": dice.choice(("disc", "bar"))} for one in ids])
        annotated_mb = database_mb(home)
        result["disk_mb"] = {
            "empty_database": round(empty_mb, 1),
            "per_100000_images_with_suggestion": round(
                1e5 / tasks * (with_suggestions_mb - empty_mb), 1
            ),
            "per_100000_annotations": round(1e5 / answered * (annotated_mb - with_suggestions_mb)),
            "a_model_version": folder_mb(home.models_folder(gallery.project.id)),
            "cache_per_100000_images": round(
                1e5 / TAUGHT * folder_mb(home.cache_folder / "images"), 1
            ),
        }
        for order in ("certain", "uncertain", "task"):
            gallery.page(limit=120, order=order)
            gallery.api.get("/api/tasks", project=gallery.project.id, page_size=100)
        result["in_use_mb"] = {
            "label_studio": memory_mb(label_studio),
            "backend": memory_mb(backend),
        }
        began = time.monotonic()
        written = back_up(home, folder / "backup", lambda stage, done, total: None)
        result["backup"] = {
            "seconds": round(time.monotonic() - began, 1),
            "mb": round(written.n_bytes / MB, 1),
        }
        if cluster is not None:
            os.environ.update(cluster.new_database("again"))
        began = time.monotonic()
        restore(folder / "backup", Home(folder / "again"), lambda stage, done, total: None)
        result["restore_s"] = round(time.monotonic() - began, 1)
    return result | {
        "label_studio": version("label-studio"),
        **circumstances(),
    }


def measure_pushed(count: int, database: str) -> dict[str, Any]:
    """Disk of a database, and of its backup, after a push of so many images."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sizing-")))
        # In its own module's words: "sqlite" or "postgresql".
        home = stack.enter_context(serving(database.lower(), folder))
        project = create_project(home, "Pushed", config())
        empty_mb = database_mb(home)
        manifest = make_manifest(home.images_root, count)
        path = manifest.write(folder / "manifest.parquet")
        write_shards(folder / "shards", manifest)
        told = push_project(home.folder, project.id, path, folder / "shards")
        assert told["added"] == count, told
        pushed_mb = database_mb(home)
        print(f"{count} images: {pushed_mb - empty_mb:.0f} MB of {database}", flush=True)
        began = time.monotonic()
        written = back_up(home, folder / "backup", lambda stage, done, total: None)
        backup_s = time.monotonic() - began
    return {
        "images": count,
        "suggested": told["suggested"],
        "labels": len(LABELS),
        "database_mb": round(pushed_mb - empty_mb, 1),
        "backup": {"seconds": round(backup_s, 1), "mb": round(written.n_bytes / MB, 1)},
        **circumstances(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20000)
    parser.add_argument("--database", choices=["SQLite", "PostgreSQL"], default="PostgreSQL")
    parser.add_argument("--pushed", type=int, help="e.g. 700000: the database of so many, instead")
    arguments = parser.parse_args()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments.pushed:
        pushed = measure_pushed(arguments.pushed, arguments.database)
        result = known.get(arguments.database, {}) | {"pushed": pushed}
    else:
        result = measure(arguments.tasks, arguments.database)
        result |= {k: v for k, v in known.get(arguments.database, {}).items() if k == "pushed"}
    RESULTS.write_text(json.dumps(known | {arguments.database: result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
