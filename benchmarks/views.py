"""How many turns of an image are worth their time: recall and images a second.

    python -m benchmarks.views path/to/ndsb path/to/version

The version is one that `benchmarks.label_efficiency` left (that of all labels). The held-out images
are classified with their features averaged over 1, 2, 4 and 8 turns, decoded before; the peer in
the same run is the bare forward pass of the same network. Times are medians of alternating rounds.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.machine import circumstances
from benchmarks.ndsb import CONTROL, LABEL_SETS, read_table
from benchmarks.training import decoded, evaluate_on
from hpc_jobs.whole_files import write_text
from ml_backend.describe import describe
from ml_backend.model import TraitModel
from simclr.cache import ImageCache

RESULTS = Path(__file__).parent / "results"
VIEWS = (1, 2, 4, 8)
BATCH = 256
ROUNDS = 5
TIMED_IMAGES = 2048


def measure(model: TraitModel, cache: ImageCache, truth: np.ndarray) -> dict[str, Any]:
    """Recall and speed by number of views, and the speed of the bare network."""
    found: dict[str, Any] = {}
    for views in VIEWS:
        model.views = views
        inputs = describe(model, cache.images, cache.log_extents, np.arange(len(cache)))
        figures = evaluate_on(model, inputs, truth)
        found[str(views)] = {k: figures[k] for k in ("macro_recall", "micro_accuracy", "ece")}
    seconds: dict[str, list[float]] = {name: [] for name in ("bare network", *map(str, VIEWS))}
    for _ in range(ROUNDS + 1):
        for name, taken in seconds.items():
            began_s = time.perf_counter()
            for images, extents in _batches(cache, TIMED_IMAGES):
                if name == "bare network":
                    with torch.inference_mode(), torch.autocast("cpu", enabled=model.in_bf16):
                        model.encoder(torch.from_numpy(images))
                else:
                    model.views = int(name)
                    model.answer(images, extents)
            taken.append(time.perf_counter() - began_s)
    timed = min(TIMED_IMAGES, len(cache))
    rates = {name: timed / float(np.median(taken[1:])) for name, taken in seconds.items()}
    for name, rate in rates.items():
        found.setdefault(name, {})["images_per_second"] = round(rate, 1)
        found[name]["of_bare_network"] = round(rate / rates["bare network"], 3)
    return found


def _batches(cache: ImageCache, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first in range(0, min(count, len(cache)), BATCH):
        rows = slice(first, min(first + BATCH, count))
        yield np.ascontiguousarray(cache.images[rows]), cache.log_extents[rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=lambda text: Path(text).resolve(), help="folder of ndsb")
    parser.add_argument("version", type=Path, help="folder of a version")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    model = TraitModel.load(arguments.version)
    table: pd.DataFrame = read_table(arguments.data)
    table = table[table["held_out"]].reset_index(drop=True)
    cache = decoded(table, arguments.data, model.encoder)
    labels = set(model.head(CONTROL).labels)
    (column,) = [c for c in LABEL_SETS.values() if set(table[c]) <= labels]
    found = measure(model, cache, table[column].to_numpy(dtype=str))
    print("turns         images/s  of the bare network  macro  micro  ECE")
    for name, row in found.items():
        scores = [row.get(k) for k in ("macro_recall", "micro_accuracy", "ece")]
        told = "  ".join("" if s is None else f"{s:.3f}" for s in scores)
        print(f"{name:12} {row['images_per_second']:>9}  {row['of_bare_network']:>19}  {told}")
    result = {
        "backbone": model.encoder.backbone_name,
        "image_size_px": model.encoder.preprocessing.image_size_px,
        "labels": column,
        "n_images": len(table),
        "threads": torch.get_num_threads(),
        **circumstances(),
        "by_views": found,
    }
    write_text(RESULTS / "views.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
