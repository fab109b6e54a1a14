"""How quickly the backend answers /health while it is idle, predicts, or a training runs.

    python -m benchmarks.health_latency

Label Studio counts a backend as gone when /health takes over a second; ours is to take 0.2 s at
most. Every request is a new connection, as Label Studio's are. The training is a real one, on
drawn images, as the job that the backend would start; the model is of the default size.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import requests

import hpc_jobs
from label_studio_config.home import Home
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema
from ml_backend.registry import Registry
from tests.backend_fixtures import (
    CONFIG,
    PROJECT,
    UID,
    BackendForTests,
    add_version,
    draw_images,
    image_task,
    serve_backend,
)

PAUSE_S = 0.02


def measure(backend: BackendForTests, goes_on: Callable[[], bool]) -> np.ndarray:
    """Seconds that /health took, again and again while `goes_on`."""
    url, auth = backend.home.settings.backend_url + "/health", backend.session.auth
    seconds = []
    while goes_on():
        with requests.Session() as session:
            session.trust_env = False
            started = time.perf_counter()
            assert session.get(url, auth=auth, timeout=10).status_code == 200
            seconds.append(time.perf_counter() - started)
        time.sleep(PAUSE_S)
    return np.array(seconds)


def during_predict(backend: BackendForTests, task_count: int) -> tuple[np.ndarray, float]:
    """Latencies during one /predict, and how long that took."""
    names = sorted(path.name for path in backend.home.images_root.iterdir())
    tasks = [image_task(n, names[n % len(names)]) for n in range(task_count)]
    body = {"tasks": tasks, "project": UID, "label_config": CONFIG}
    took: list[float] = []

    def predict() -> None:
        started = time.perf_counter()
        results = backend.call("POST", "/predict", json=body).json()["results"]
        took.append(time.perf_counter() - started)
        assert all(results)

    thread = threading.Thread(target=predict)
    thread.start()
    latencies = measure(backend, thread.is_alive)
    thread.join()
    return latencies, took[0]


def during_training(backend: BackendForTests, most_s: float) -> np.ndarray:
    """Latencies from the start of a real training job until its end, or for `most_s` seconds."""
    names = sorted(path.name for path in backend.home.images_root.iterdir())
    job = hpc_jobs.submit(
        train_drawn,
        backend.home.folder,
        names,
        name="train for a benchmark",
        folder=backend.home.jobs_folder,
    )
    end = time.monotonic() + most_s
    latencies = measure(backend, lambda: time.monotonic() < end and job.record().active)
    record = job.record()
    assert record.state in {"running", "finished"}, record.error
    job.cancel()
    return latencies


def train_drawn(home_folder: Path, names: list[str]) -> str:
    """Train on drawn images, their groups known from how `draw_images` numbers them."""
    from ml_backend.train import train
    from tests.backend_fixtures import GROUPS

    home, schema = Home(home_folder), LabelSchema.from_xml(CONFIG)
    tasks: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        result = write_result(schema, {"group": GROUPS[number % 3]})
        annotation = {"id": number, "completed_by": {"id": 1, "email": "a"}, "result": result}
        tasks.append(image_task(number, name) | {"annotations": [annotation]})
    registry = Registry(home.models_folder(PROJECT + 1))
    return train(tasks, schema, resolve_image=home.resolve_image, registry=registry).version.name


def describe(latencies: np.ndarray) -> str:
    """Median, 99th percentile and maximum in milliseconds."""
    median, high, most = np.percentile(latencies, [50, 99, 100]) * 1000
    return f"median {median:.0f} ms, 99 % {high:.0f} ms, max {most:.0f} ms ({len(latencies)} calls)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60, help="at most, of the training")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        draw_images(Path(folder) / "images", options.images)
        home.change_settings(images_root=Path(folder) / "images")
        add_version(home, image_size_px=64)
        with serve_backend(home) as backend:
            start = time.monotonic()
            print(
                "idle:           ", describe(measure(backend, lambda: time.monotonic() < start + 5))
            )
            for attempt in ("first", "second"):
                latencies, took = during_predict(backend, options.tasks)
                print(f"{attempt} /predict of {options.tasks} ({took:.1f} s):", describe(latencies))
            print("during training:", describe(during_training(backend, options.seconds)))


if __name__ == "__main__":
    main()
