"""The 2-D map of ndsb: how many neighbours it keeps, and how long it takes.

    python -m benchmarks.feature_map path/to/ndsb

Kept is the share of an image's 30 nearest by all features that are among its 30 nearest on the map;
right is how often the most frequent class of its 10 nearest on the map is its own. UMAP is measured
beside it where it is installed. `--large` times ours on 700,000 images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from openTSNE import TSNE
from sklearn.neighbors import NearestNeighbors

from benchmarks.feature_bank import grown, ndsb_features
from benchmarks.machine import keep
from simclr.feature_map import DIMENSIONS, lay_out
from simclr.neighbours import reduced_to_unit

JUDGED = 3000
KEPT = 30
VOTES = 10


def figures(
    table: pd.DataFrame, features: np.ndarray, name: str, make: Callable[[], np.ndarray]
) -> dict[str, Any]:
    """One row of the table."""
    started = time.perf_counter()
    places = make()
    seconds = time.perf_counter() - started
    judged = np.random.default_rng(0).choice(len(features), JUDGED, replace=False)
    truly, shown = (_nearest(points, judged) for points in (features, places))
    kept = np.mean([np.isin(a, b).mean() for a, b in zip(truly, shown, strict=True)])
    told: dict[str, Any] = {"way": name, "kept": round(float(kept), 3)}
    for column in ("source_class", "functional_group"):
        labels = table[column].to_numpy()
        votes = pd.DataFrame(labels[shown[:, :VOTES]]).mode(axis=1)[0].to_numpy()
        told[f"right {column}"] = round(float((votes == labels[judged]).mean()), 3)
    return told | {"s": round(seconds, 1)}


def _nearest(points: np.ndarray, judged: np.ndarray) -> np.ndarray:
    found = NearestNeighbors(n_neighbors=KEPT + 1).fit(points)
    return found.kneighbors(points[judged], return_distance=False)[:, 1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ndsb", type=Path)
    parser.add_argument("--large", type=int, default=0, help="so many images, to time")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    table, features = ndsb_features(arguments.ndsb)
    if arguments.large:
        bank = grown(features, arguments.large)
        started, worked = time.perf_counter(), time.process_time()
        lay_out(bank, threads=arguments.threads)
        seconds, worked_s = time.perf_counter() - started, time.process_time() - worked
        told = {"images": len(bank), "s": round(seconds, 1), "processor s": round(worked_s, 1)}
        print(told)
        keep("feature_map", {f"{len(bank)} images, {arguments.threads} threads": told})
        return
    points = reduced_to_unit(features, DIMENSIONS)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "two principal dimensions": lambda: points[:, 1:3],
        "ours": lambda: lay_out(features),
        "openTSNE, perplexity 30, 250 + 500 steps": lambda: np.asarray(
            TSNE(perplexity=30, negative_gradient_method="fft", random_state=0).fit(points)
        ),
    }
    if find_spec("umap"):
        import umap

        ways["UMAP"] = lambda: umap.UMAP(random_state=0, n_jobs=1).fit_transform(points)
    for name, make in ways.items():
        told = figures(table, features, name, make)
        print(told, flush=True)
        keep("feature_map", {name: told})


if __name__ == "__main__":
    main()
