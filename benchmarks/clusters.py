"""Clusters of ndsb by our way and by HDBSCAN's: how pure, how many images stay aside, how long.

    python -m benchmarks.clusters path/to/ndsb

Purity is the share of clustered images that have the most frequent label of their cluster: what is
right if each cluster is labelled as a whole. `--large` times ours on 700,000 images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import HDBSCAN

from benchmarks.feature_bank import grown, ndsb_features
from benchmarks.machine import keep
from simclr.clusters import find_clusters
from simclr.neighbours import reduced_to_unit

Find = Callable[[], np.ndarray]


def figures(table: pd.DataFrame, name: str, find: Find) -> dict[str, Any]:
    """One row of the table."""
    started = time.perf_counter()
    labels = find()
    seconds = time.perf_counter() - started
    kept = labels >= 0
    sizes = np.bincount(labels[kept])
    told: dict[str, Any] = {
        "way": name,
        "clusters": len(sizes),
        "aside": round(1 - float(kept.mean()), 3),
        "median size": int(np.median(sizes)),
        "largest": int(sizes.max()),
    }
    for column in ("source_class", "functional_group"):
        counts = pd.crosstab(labels[kept], table[column][kept]).to_numpy()
        told[f"purity {column}"] = round(float(counts.max(axis=1).sum() / kept.sum()), 3)
    return told | {"s": round(seconds, 1)}


def ways(features: np.ndarray) -> dict[str, Find]:
    """What is compared, by name."""
    points = reduced_to_unit(features, 32)

    def hdbscan(smallest: int, samples: int, how: str) -> Find:
        model = HDBSCAN(smallest, min_samples=samples, cluster_selection_method=how, copy=True)
        return lambda: model.fit_predict(points)

    def ours(count: int, outliers: float) -> Find:
        return lambda: find_clusters(features, count, outliers=outliers).labels

    found: dict[str, Find] = {
        "HDBSCAN, 10 at least, excess of mass": hdbscan(10, 5, "eom"),
        "HDBSCAN, 10 at least, leaves": hdbscan(10, 5, "leaf"),
        "HDBSCAN, 20 at least, leaves, 1 sample": hdbscan(20, 1, "leaf"),
    }
    for count in (125, 250, 500):
        for outliers in (0.0, 0.4, 0.65, 0.8):
            found[f"ours, {count}, {outliers:.0%} aside"] = ours(count, outliers)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ndsb", type=Path)
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    table, features = ndsb_features(arguments.ndsb)
    if arguments.large:
        bank = grown(features, 700_000)
        started, worked = time.perf_counter(), time.process_time()
        found = find_clusters(bank)
        seconds, worked_s = time.perf_counter() - started, time.process_time() - worked
        told = {"images": len(bank), "clusters": found.count, "s": round(seconds, 1)}
        told |= {"processor s": round(worked_s, 1)}
        print(told)
        keep("clusters", {f"{len(bank)} images": told})
        return
    for name, find in ways(features).items():
        told = figures(table, name, find)
        print(told, flush=True)
        keep("clusters", {name: told})


if __name__ == "__main__":
    main()
