"""More like this: how long it takes, and how much of the exact search's answer it finds.

    python -m benchmarks.neighbours path/to/ndsb

Ours and the exact search (one float32 product with all features in memory) answer the same queries
in the same run, one thread each. Then the whole way in the backend: from task ids to task ids.
Last, which of several queries' similarities finds most images of their class on ndsb.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.feature_bank import grown, ndsb_features
from benchmarks.machine import keep
from hpc_jobs.files import write_json
from ml_backend.loaded_features import LoadedFeatures
from ml_backend.task_features import TaskTable
from simclr.append import RowFile
from simclr.feature_store import FeatureStore
from simclr.neighbours import Neighbours, together

SIZES = (20_000, 100_000, 700_000)
QUERIES = 30
LIMIT = 50
DRAWS = 400
Search = Callable[[np.ndarray], np.ndarray]


def store_of(features: np.ndarray, folder: Path) -> FeatureStore:
    """A feature store of given rows, with a task for each."""
    file = RowFile(folder / "features.npy", np.float16, (features.shape[1],))
    file.append(features)
    file.finish()
    count, width = features.shape
    state = {"fingerprint": "given", "feature_count": width, "rows": count, "journal_bytes": 0}
    write_json(folder / "state.json", state)
    ids = np.arange(1, count + 1)
    TaskTable(ids, ids - 1, np.zeros(count, dtype=bool), count).write(folder)
    return FeatureStore.open(folder)


def exact_search(features: np.ndarray) -> Search:
    """The nearest rows of one query or several, by every number of every row."""
    bank = features.astype(np.float32)

    def search(queries: np.ndarray) -> np.ndarray:
        similarity = together(bank @ queries.T)
        best = np.argpartition(-similarity, LIMIT)[:LIMIT]
        return best[np.argsort(-similarity[best])]

    return search


def timed(search: Search, queries: list[np.ndarray]) -> tuple[float, float, list[np.ndarray]]:
    """Milliseconds, the median and the largest, and the answers."""
    search(queries[0])
    seconds, answers = [], []
    for query in queries:
        started = time.perf_counter()
        answers.append(search(query))
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds)), 1000 * max(seconds), answers


def measure(features: np.ndarray, images_asked: int) -> dict[str, Any]:
    """Ours beside the exact search, for queries of so many images."""
    random = np.random.default_rng(1)
    rows = [random.choice(len(features), images_asked, replace=False) for _ in range(QUERIES)]
    queries = [features[chosen].astype(np.float32) for chosen in rows]
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(features, Path(folder))
        started = time.perf_counter()
        index = Neighbours.open(store)
        made_s = time.perf_counter() - started
        ours_ms, ours_most_ms, found = timed(lambda query: index.search(query, LIMIT).rows, queries)
        loaded = LoadedFeatures(store)
        tasks = iter([*rows[:1], *rows])
        whole_ms, whole_most_ms, _ = timed(
            lambda _: np.array(loaded.like_tasks((next(tasks) + 1).tolist(), 200)), queries
        )
    exact_ms, _, right = timed(exact_search(features), queries)
    pairs = zip(found, right, strict=True)
    return {
        "images": len(features),
        "asked": images_asked,
        "index s": round(made_s, 1),
        "exact ms": round(exact_ms, 1),
        "ours ms": round(ours_ms, 1),
        "ours most ms": round(ours_most_ms, 1),
        "ratio": round(exact_ms / ours_ms, 1),
        "recall@50": round(float(np.mean([np.isin(a, b).mean() for a, b in pairs])), 4),
        "backend, 200 ms": round(whole_ms, 1),
        "backend most ms": round(whole_most_ms, 1),
    }


def several(features: np.ndarray, classes: np.ndarray) -> list[dict[str, Any]]:
    """Precision@50 of the same class, by how the similarities with several queries are joined."""
    random = np.random.default_rng(0)
    names, counts = np.unique(classes, return_counts=True)
    table = []
    for asked in (1, 2, 5, 10, 20):
        precision: dict[str, list[float]] = {"largest": [], "mean": [], "ours": []}
        for _ in range(DRAWS):
            name = random.choice(names[counts >= LIMIT + 10])
            rows = random.choice(np.flatnonzero(classes == name), asked, replace=False)
            cosines = features @ features[rows].T
            joined = (cosines.max(axis=1), cosines.mean(axis=1), together(cosines))
            for rule, similarity in zip(precision, joined, strict=True):
                similarity = similarity.copy()
                similarity[rows] = -np.inf
                best = np.argpartition(-similarity, LIMIT)[:LIMIT]
                precision[rule].append(float((classes[best] == name).mean()))
        figures = {rule: round(float(np.mean(values)), 3) for rule, values in precision.items()}
        table.append({"asked": asked, **figures})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ndsb", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table, features = ndsb_features(arguments.ndsb)
    for size in arguments.sizes:
        bank = grown(features, size)
        for asked in (1, 10):
            told = measure(bank, asked)
            print(told, flush=True)
            keep("neighbours", {f"{size} images, {asked} asked": told})
    for labels in ("source_class", "functional_group"):
        rows = several(features, table[labels].to_numpy())
        print(labels, *rows, sep="\n", flush=True)
        keep("neighbours", {f"precision@50 of the same {labels}": rows})


if __name__ == "__main__":
    main()
