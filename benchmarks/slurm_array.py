"""Two tasks of a Slurm array against one: bulk prediction, one processor a task.

    python -m benchmarks.slurm_array path/to/images [--images 30000]

Starts a Slurm of its own (munge, a controller, one node; `apt-get install slurm-wlm munge`) that
binds each task to a processor. The images are the folder's, repeated under other names; the model
has random weights. Speeds are told twice: from submission to the last shard, which holds what it
takes to start, and between shards, while every task is at work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import hpc_jobs
from benchmarks.machine import circumstances
from hpc_jobs.command_line import run_command
from label_studio_config.manifest import Manifest
from label_studio_config.project import read_config
from label_studio_config.schema import LabelSchema
from label_studio_config.sources import read_source
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.registry import Registry
from simclr.encoder import Encoder
from tests.slurm_fixtures import slurm_for_tests

RESULTS = Path(__file__).parent / "results" / "slurm_array.json"
ROOT = Path(__file__).parent.parent


def repeated(images: Path, count: int, path: Path) -> Path:
    """A manifest of so many images: those of a folder, again and again under other names."""
    manifest, _ = read_source(images)
    table = manifest.table
    copies = -(-count // len(table))
    parts = [table.assign(image_id=table["image_id"] + f"-{copy}") for copy in range(copies)]
    whole = pd.concat(parts, ignore_index=True).iloc[:count]
    Manifest(whole, manifest.root).write(path)
    return path


def add_model(folder: Path, backbone: str, image_size_px: int) -> Path:
    """A registry with one live version of random weights."""
    torch.manual_seed(0)
    schema = LabelSchema.from_xml(read_config("functional_groups"))
    control = schema.primary
    assert control is not None
    even = (1 / len(control.labels),) * len(control.labels)
    head = Head(
        control.name, "one of", tuple(control.labels), trained_prior=even, deployed_prior=even
    )
    model = TraitModel(Encoder.create(backbone, image_size_px), [head], schema)

    def write(place: Path) -> None:
        model.save(place)

    registry = Registry(folder)
    registry.promote(registry.add(write).name, "for a benchmark")
    return folder


def predict(folder: Path, manifest: Path, models: Path, tasks: int, shard_size: int) -> Any:
    """Images a second of an array of so many tasks: from submission, and between shards."""
    output = folder / f"predictions-{tasks}-{time.time_ns()}"
    arguments = ["predict", str(manifest), "--models", str(models), "--output", str(output)]
    began = time.time()
    job = hpc_jobs.submit(
        run_command,
        "planktrait:app",
        [*arguments, "--shard-size", str(shard_size)],
        str(folder),
        name=f"{tasks} tasks",
        folder=folder / "jobs",
        executor="slurm",
        parts=tasks,
        parameters={"cpus_per_task": 1, "timeout_min": 60},
    )
    job.result()
    shards = sorted(output.glob("part-*.parquet"))
    written = [path.stat().st_mtime for path in shards]
    of_task = [written[k::tasks] for k in range(tasks)]
    count = len(pd.read_parquet(output, columns=["image_id"]))
    return {
        "images": count,
        "seconds": max(written) - began,
        "from_submission": count / (max(written) - began),
        "between_shards": sum(
            (len(one) - 1) * shard_size / (max(one) - min(one)) for one in of_task
        ),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--shard-size", type=int, default=1_000)
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--image-size-px", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    runs: dict[int, list[Any]] = {1: [], 2: []}
    with (
        tempfile.TemporaryDirectory() as scratch,
        slurm_for_tests(("n1",), task_plugin="task/affinity") as slurm,
    ):
        os.environ.update(slurm.variables)
        folder = Path(scratch)
        manifest = repeated(asked.data.resolve(), asked.images, folder / "images.parquet")
        models = add_model(folder / "models", asked.backbone, asked.image_size_px)
        load = os.getloadavg()[0]
        for _ in range(asked.repeats):
            for tasks, known in runs.items():
                known.append(predict(folder, manifest, models, tasks, asked.shard_size))
    kinds = ("from_submission", "between_shards")
    medians = {
        tasks: {kind: statistics.median(run[kind] for run in known) for kind in kinds}
        for tasks, known in runs.items()
    }
    result = {
        **circumstances(),
        "load_before": load,
        "images": asked.images,
        "network": f"{asked.backbone} at {asked.image_size_px} px",
        "images_a_second": medians,
        "ratio": {kind: medians[2][kind] / medians[1][kind] for kind in kinds},
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    for kind in kinds:
        one, two = medians[1][kind], medians[2][kind]
        print(f"{kind}: one task {one:.0f}, two tasks {two:.0f} images/s, ratio {two / one:.2f}")
    print(f"{os.cpu_count()} cores, load {load:.1f} before")


if __name__ == "__main__":
    main()
