"""Clusters of images by their features, each pure enough to be labelled as a whole.

MiniBatchKMeans makes micro-clusters, Ward's hierarchy merges their centres, and the images that
are far from the centre of their cluster stay aside. On ndsb these clusters were purer than
HDBSCAN's at the same share of outliers, many of whose images are in one large cluster
(`benchmarks/clusters.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import AgglomerativeClustering, MiniBatchKMeans

from hpc_jobs import progress
from simclr.neighbours import reduced_to_unit

DIMENSIONS = 64
OUTLIERS = 0.4
"""Share of the images that are farthest from their centre."""

SMALLEST = 5
MOST_CLUSTERS = 1000
MICRO_A_CLUSTER = 4
MOST_MICRO = 4000
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Clusters:
    """Which cluster each image is in.

    Attributes
    ----------
    labels : int array (n,)
        From 0, the largest cluster first; -1 is an outlier.
    distances : float32 array (n,)
        To the centre of the cluster that is nearest in the hierarchy, also for outliers.
    """

    labels: np.ndarray
    distances: np.ndarray

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.labels.max(initial=-1)) + 1

    def members(self, cluster: int) -> np.ndarray:
        """Rows of a cluster, nearest to the centre first."""
        rows = np.flatnonzero(self.labels == cluster)
        return rows[np.argsort(self.distances[rows], kind="stable")]


def usual_count(n_images: int) -> int:
    """How many clusters are made by default: 1.6 √n, about a hundred images each for 24,000."""
    return int(np.clip(round(1.6 * n_images**0.5), 1, MOST_CLUSTERS))


def find_clusters(
    features: np.ndarray,
    count: int | None = None,
    *,
    outliers: float = OUTLIERS,
    smallest: int = SMALLEST,
    seed: int = 0,
) -> Clusters:
    """Cluster images by the cosine of their features.

    Parameters
    ----------
    features : float array, shape (n, d)
        Of unit length.
    count : int, optional
        Number of clusters before the small ones are dissolved; by default `usual_count`.
    outliers : float
        Share of the images that stay aside, 0 to below 1.
    smallest : int
        A cluster of fewer images is dissolved into outliers.

    Returns
    -------
    Clusters
        The same for the same features and arguments.
    """
    n_images = len(features)
    if n_images < smallest:
        return Clusters(np.full(n_images, -1), np.zeros(n_images, dtype=np.float32))
    count = min(count or usual_count(n_images), n_images)
    points = reduced_to_unit(features, DIMENSIONS)
    progress.report("clusters", 0, 0, "micro-clusters")
    n_micro = min(max(count, min(MICRO_A_CLUSTER * count, MOST_MICRO)), n_images)
    micro = MiniBatchKMeans(
        n_micro, random_state=seed, batch_size=_BATCH_ROWS, n_init=1, compute_labels=False
    ).fit(points)
    labels = micro.predict(points)
    used, labels = np.unique(labels, return_inverse=True)
    if len(used) > count:
        progress.report("clusters", 0, 0, "hierarchy")
        merged = AgglomerativeClustering(count, linkage="ward").fit(_centres(points, labels))
        labels = merged.labels_[labels]
    progress.report("clusters", 0, 0, "outliers")
    distances = np.linalg.norm(points - _centres(points, labels)[labels], axis=1)
    # Rounding must not part images that are the same.
    kept = distances <= np.quantile(distances, 1 - outliers) + 1e-5
    labels = np.where(kept, labels, -1)
    return Clusters(_largest_first(labels, smallest), distances.astype(np.float32))


def _centres(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of each label's points; every label from 0 on has one at least."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(labels.max() + 1))
    sums = np.add.reduceat(points[order], starts, axis=0, dtype=np.float64)
    return np.asarray(sums / np.bincount(labels)[:, None], dtype=np.float32)


def _largest_first(labels: np.ndarray, smallest: int) -> np.ndarray:
    sizes = np.bincount(labels[labels >= 0])
    kept = np.argsort(-sizes, kind="stable")
    kept = kept[sizes[kept] >= smallest]
    number = np.full(len(sizes) + 1, -1)  # the last one is for the outliers
    number[kept] = np.arange(len(kept))
    return number[labels]
