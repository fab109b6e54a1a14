"""A 2-D map of images: near each other are those whose features are alike (t-SNE).

openTSNE keeps more of each image's neighbours than UMAP did on ndsb, needs no compiler at run time
and takes 700,000 images. Every image is drawn to its 15 nearest ones alike: as good there as the
usual perplexity of 30, at a third of the memory and time (`benchmarks/feature_map.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from openTSNE import TSNEEmbedding, affinity, initialization

from hpc_jobs import progress
from simclr.neighbours import reduced_to_unit

DIMENSIONS = 50
NEIGHBOURS = 15
EARLY_STEPS = 125
LATE_STEPS = 250
EARLY_EXAGGERATION = 12.0
SMALLEST = 10
"""Fewer images are laid out by their two principal dimensions."""

_STEPS_BETWEEN_REPORTS = 5


def lay_out(features: np.ndarray, *, seed: int = 0, threads: int = 1) -> np.ndarray:
    """Places of images on a map.

    Parameters
    ----------
    features : float array, shape (n, d)
        Of unit length.
    threads : int
        With one, the same features always give the same map.

    Returns
    -------
    float32 array, shape (n, 2)
        Centred; the farther of the two axes reaches from -1 to 1.
    """
    points = reduced_to_unit(features, DIMENSIONS)
    if len(points) < SMALLEST:
        return _fit_in(points[:, :2])
    steps = EARLY_STEPS + LATE_STEPS
    progress.report("map", 0, steps, "neighbours of each image")
    options: dict[str, Any] = {"n_jobs": threads, "random_state": seed}
    count = min(NEIGHBOURS, (len(points) - 1) // 3)
    alike = affinity.Uniform(points, k_neighbors=count, **options)
    start = initialization.pca(points, random_state=seed)
    done = 0

    def tell(iteration: int, error: float, embedding: Any) -> None:
        progress.report("map", min(done + iteration, steps), steps)

    places = TSNEEmbedding(
        start,
        alike,
        callbacks=[tell],
        callbacks_every_iters=_STEPS_BETWEEN_REPORTS,
        **options,
    )
    places.optimize(EARLY_STEPS, exaggeration=EARLY_EXAGGERATION, momentum=0.5, inplace=True)
    done = EARLY_STEPS
    places.optimize(LATE_STEPS, momentum=0.8, inplace=True)
    return _fit_in(np.asarray(places))


def _fit_in(places: np.ndarray) -> np.ndarray:
    if not len(places):
        return np.zeros((0, 2), dtype=np.float32)
    low, high = places.min(axis=0), places.max(axis=0)
    reach = float((high - low).max()) / 2
    return ((places - (low + high) / 2) / (reach or 1.0)).astype(np.float32)
