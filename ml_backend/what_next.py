"""Which images to label next: the least certain ones, the most typical of what has no label yet,
or the most typical of the less certain half, which needs the fewest labels on ndsb.

Pure functions of features and confidences, for the gallery, the label stream and
`benchmarks/active_learning.py`, which measures them against random order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

Strategy = Literal["random", "uncertainty", "diversity", "mixture"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
MOST_CLUSTERS = 500
UNCERTAIN_SHARE = 0.5
"""The mixture chooses among this share of the images, the least certain ones."""

_BATCH_ROWS = 4096


def choose_next(
    strategy: Strategy,
    features: np.ndarray,
    confidence: np.ndarray | None,
    labelled: np.ndarray,
    count: int,
    seed: int = 0,
) -> np.ndarray:
    """The images to label next, the most useful first.

    Parameters
    ----------
    strategy : str
        "random"; "uncertainty", lowest confidence first; "diversity", the most typical image of
        each cluster that has no label yet, the largest clusters first (TypiClust; Hacohen et al.
        2022, arXiv 2202.02794); "mixture", the same among the less certain half of the images.
    features : float array, shape (n, d)
        Of unit length.
    confidence : float array (n,), optional
        Of the suggested label; without a model yet, what needs it chooses for diversity.
    labelled : bool array (n,)
    count : int

    Returns
    -------
    int array (min(count, images without a label),)
        Rows.

    Raises
    ------
    ValueError
        There is no such strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"{strategy!r} is none of {', '.join(STRATEGIES)}")
    if strategy in ("uncertainty", "mixture") and confidence is None:
        strategy = "diversity"
    open_rows = np.flatnonzero(~labelled)
    count = min(count, len(open_rows))
    if not count:
        return np.zeros(0, dtype=int)
    choose: dict[str, Callable[[], np.ndarray]] = {
        "random": lambda: np.random.default_rng(seed).permutation(open_rows),
        "uncertainty": lambda: _least_certain(open_rows, confidence),
        "diversity": lambda: _typical(features, labelled, count, seed),
        "mixture": lambda: _uncertain_and_different(features, labelled, confidence, count, seed),
    }
    return choose[strategy]()[:count]


def _least_certain(rows: np.ndarray, confidence: np.ndarray | None) -> np.ndarray:
    assert confidence is not None
    return rows[np.argsort(confidence[rows], kind="stable")]


def _typical(features: np.ndarray, labelled: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Clusters with the fewest labels first, the largest of those first, an image of each."""
    clusters = min(int(labelled.sum()) + count, MOST_CLUSTERS, len(features))
    of, distance = _cluster(features, clusters, seed)
    queues = {
        cluster: rows[np.argsort(distance[rows], kind="stable")].tolist()
        for cluster in range(clusters)
        if len(rows := np.flatnonzero((of == cluster) & ~labelled))
    }
    taken = np.bincount(of[labelled], minlength=clusters).astype(float)
    sizes = np.bincount(of, minlength=clusters)
    chosen: list[int] = []
    while len(chosen) < count:
        cluster = min(queues, key=lambda one: (taken[one], -sizes[one]))
        chosen.append(queues[cluster].pop(0))
        taken[cluster] += 1
        if not queues[cluster]:
            del queues[cluster]
    return np.array(chosen, dtype=int)


def _uncertain_and_different(
    features: np.ndarray,
    labelled: np.ndarray,
    confidence: np.ndarray | None,
    count: int,
    seed: int,
) -> np.ndarray:
    """As `_typical`, among the labelled images and the least certain ones."""
    open_rows = np.flatnonzero(~labelled)
    unsure = max(round(UNCERTAIN_SHARE * len(open_rows)), count)
    unsure_rows = _least_certain(open_rows, confidence)[:unsure]
    rows = np.sort(np.concatenate([np.flatnonzero(labelled), unsure_rows]))
    return rows[_typical(features[rows], labelled[rows], count, seed)]


def _cluster(features: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each row, and its distance to the centre."""
    from sklearn.cluster import MiniBatchKMeans  # above, it would cost each start a second

    features = np.asarray(features, dtype=np.float32)
    means = MiniBatchKMeans(count, batch_size=_BATCH_ROWS, n_init=1, random_state=seed)
    of = means.fit_predict(features)
    return of, np.linalg.norm(features - means.cluster_centers_[of], axis=1)
