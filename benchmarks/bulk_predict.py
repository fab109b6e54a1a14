"""Bulk classification, from files to Parquet, beside its limit and beside a plain PyTorch loop.

    python -m benchmarks.bulk_predict path/to/ndsb --images 20000
    python -m benchmarks.bulk_predict path/to/ndsb --grow 7000 70000 700000

In the same run and on the same images, round by round, medians:

* `decode`: the images read and made inputs of, nothing else;
* `forward`: the network alone, as the product runs it, on inputs in memory;
* `PyTorch`: the same network where OpenVINO is not installed, in the same precision;
* `limit`: 1 / (1/forward + 1/decode), what a machine can do that does both and waits for nothing;
* `end to end`: `write_predictions`, the function behind `planktrait predict`;
* `int8`: the same with `--int8`, whose network is made once, before (how long that takes is told);
* `plain loop`: PyTorch in fp32 behind a DataLoader of two workers with torchvision's transforms,
  the same batch, nothing written (of the first 20,000 images).

More images than there are is the same ones again as files of other names. With `--grow` single
runs over so many files, with their time, peak memory and cost. What bf16 and int8 cost in macro
recall is in `benchmarks/inference_precision.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.machine import circumstances, family, share_of_memory_mb
from benchmarks.ndsb import CONTROL, read_table, schema_of
from label_studio_config.manifest import Manifest
from ml_backend.head import Head
from ml_backend.images import read_batches
from ml_backend.int8 import int8_graph
from ml_backend.model import TraitModel
from ml_backend.predict import write_predictions
from ml_backend.predict_pieces import BATCH_SIZE, extractor_of
from simclr.encoder import Encoder
from simclr.inference import FeatureExtractor

RESULTS = Path(__file__).parent / "results" / "bulk_predict"
NETWORKS = (("resnet18", 128), ("mobilenetv4_conv_small", 128), ("resnet10t", 64))
IN_MEMORY = 2048
TIMES_FORWARD = 4
MOST_PLAIN = 20_000
SECONDS_BETWEEN_LOOKS = 0.5


def network(name: str, side_px: int, labels: tuple[str, ...], table: pd.DataFrame) -> TraitModel:
    """A model of 121 classes with random weights, one turn of an image and no novelty.

    Random weights cost what learned ones do; a trained version looks at two turns or more.
    """
    torch.manual_seed(0)
    even = (1 / len(labels),) * len(labels)
    head = Head(CONTROL, "one of", labels, trained_prior=even, deployed_prior=even)
    model = TraitModel(Encoder.create(name, side_px), [head], schema_of(table, "classes"))
    return model.eval()


class Plain(Dataset):
    """Images as the tutorials read them."""

    def __init__(self, paths: list[Path], side_px: int) -> None:
        self.paths = paths
        steps = [
            transforms.Grayscale(),
            transforms.Resize((side_px, side_px)),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.25]),
        ]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[row]))


def plain_network(model: TraitModel) -> torch.nn.Module:
    """The same architecture as PyTorch makes it, in fp32."""
    side_px = model.encoder.preprocessing.image_size_px
    backbone = Encoder.create(model.encoder.backbone_name, side_px).backbone
    backbone.to(memory_format=torch.contiguous_format)
    return torch.nn.Sequential(backbone, torch.nn.Linear(model.encoder.feature_count, 121)).eval()


def plain_loop(network: torch.nn.Module, paths: list[Path], side_px: int) -> None:
    loader = DataLoader(Plain(paths, side_px), batch_size=BATCH_SIZE, num_workers=2)
    with torch.inference_mode():
        for images in loader:
            network(images).softmax(dim=1).numpy()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(model: TraitModel, manifest: Manifest, rounds: int) -> dict[str, Any]:
    """Images a second of each, medians over rounds."""
    side_px, n = model.encoder.preprocessing.image_size_px, len(manifest)
    extractor, plain = extractor_of(model), plain_network(model)
    pytorch = FeatureExtractor(model.encoder, model.views, "torch")
    first = manifest.select(manifest.image_ids[:IN_MEMORY])
    settings = model.encoder.preprocessing
    batches = [batch.pixels for batch in read_batches(first, settings, BATCH_SIZE)]
    n_forward = TIMES_FORWARD * sum(map(len, batches))
    some = manifest.paths[:MOST_PLAIN]

    def decode() -> None:
        for _ in read_batches(manifest, settings, BATCH_SIZE):
            pass

    def forward(extractor: FeatureExtractor) -> None:
        for _ in extractor.stream(batches * TIMES_FORWARD, lambda batch: batch):
            pass

    def end_to_end(graph: Path | None = None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            if graph is not None:
                (Path(folder) / graph.name).symlink_to(graph)
            write_predictions(
                model, manifest, folder, model_version="benchmark", int8=graph is not None
            )

    decode()  # the files are in memory from the first round on
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        # Random weights: what they see in images is not to be kept.
        graph = int8_graph(model, manifest, Path(folder), lowest_cosine=0.0)
        quantised_s = time.perf_counter() - began
        for _ in range(rounds):
            for name, work, count in (
                ("decode", decode, n),
                ("forward", partial(forward, extractor), n_forward),
                ("forward_pytorch", partial(forward, pytorch), n_forward),
                ("end_to_end", end_to_end, n),
                ("int8", partial(end_to_end, graph), n),
                ("plain_loop", lambda: plain_loop(plain, some, side_px), len(some)),
            ):
                found.setdefault(name, []).append(count / seconds(work))
    rates = {name: statistics.median(values) for name, values in found.items()}
    limits = [1 / (1 / f + 1 / d) for f, d in zip(found["forward"], found["decode"], strict=True)]
    found["limit"] = limits

    def times(name: str, other: str) -> float:
        pairs = zip(found[name], found[other], strict=True)
        return statistics.median(rate / peer for rate, peer in pairs)

    return {
        "runtime": extractor.description,
        "runtime_pytorch": pytorch.description,
        **{name: round(rate, 1) for name, rate in rates.items()},
        "limit": round(statistics.median(limits), 1),
        "forward_times_pytorch": round(times("forward", "forward_pytorch"), 2),
        "share_of_limit": round(times("end_to_end", "limit"), 3),
        "times_plain_loop": round(times("end_to_end", "plain_loop"), 2),
        "int8_times_end_to_end": round(times("int8", "end_to_end"), 2),
        "int8_made_in_s": round(quantised_s, 1),
        "rounds": rounds,
        "images": n,
    }


def under_other_names(table: pd.DataFrame, data: Path, folder: Path, n: int) -> Manifest:
    """A manifest of n files: the images again and again, as links with names of their own."""
    names = []
    for number in range(n):
        name = f"{number // 10_000:03d}/{number:06d}.jpg"
        path = folder / name
        if number % 10_000 == 0:
            path.parent.mkdir(parents=True)
        path.symlink_to(data / table["image"][number % len(table)])
        names.append(name)
    return Manifest(pd.DataFrame({"image_id": names, "path": names}), folder)


class Memory:
    """Peak resident memory of this process and its children, in MB, each page counted once."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            self.peak_mb = max(self.peak_mb, sum(map(_share_mb, family(os.getpid()))))


def _share_mb(pid: int) -> float:
    try:
        return share_of_memory_mb(pid)
    except OSError:
        return 0.0


def whole(model: TraitModel, table: pd.DataFrame, data: Path, sizes: list[int]) -> dict[str, Any]:
    """Time, peak memory and size of the shards at growing numbers of images."""
    growth = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as name, Memory() as memory:
            manifest = under_other_names(table, data, Path(name) / "images", n)
            began = time.perf_counter()
            shards, skipped = write_predictions(model, manifest, Path(name) / "predictions")
            took = time.perf_counter() - began
            size_mb = sum(path.stat().st_size for path in shards) / 1e6
        growth.append(
            {
                "images": n,
                "seconds": round(took, 1),
                "images_a_second": round(n / took, 1),
                "peak_memory_mb": round(memory.peak_mb),
                "shards_mb": round(size_mb),
                "skipped": len(skipped),
                "core_hours_a_million": round(took / n * 1e6 / 3600 * (os.cpu_count() or 1), 2),
            }
        )
        print(json.dumps(growth[-1]), flush=True)
    exponents = [
        float(np.log(b["seconds"] / a["seconds"]) / np.log(b["images"] / a["images"]))
        for a, b in pairwise(growth)
    ]
    return {"growth": growth, "exponent_of_time": [round(value, 2) for value in exponents]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=lambda text: Path(text).resolve(), help="folder of ndsb")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="*", default=[name for name, _ in NETWORKS])
    parser.add_argument("--grow", nargs="*", type=int, help="e.g. 7000 70000 700000, instead")
    arguments = parser.parse_args()
    table = read_table(arguments.data)
    labels = tuple(sorted(table["source_class"].unique()))
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, side_px in NETWORKS:
        if name not in arguments.networks:
            continue
        model = network(name, side_px, labels, table)
        if arguments.grow:
            result = whole(model, table, arguments.data, arguments.grow)
        else:
            shuffled = table.sample(frac=1, random_state=0).reset_index(drop=True)
            with tempfile.TemporaryDirectory() as folder:
                images = under_other_names(shuffled, arguments.data, Path(folder), arguments.images)
                result = measure(model, images, arguments.rounds)
        result = {
            "network": name,
            "side_px": side_px,
            **result,
            **circumstances(),
        }
        print(json.dumps(result, indent=1), flush=True)
        kind = "growth" if arguments.grow else "rates"
        path = RESULTS / f"{kind}-{name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
