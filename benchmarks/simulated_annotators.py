"""Annotators who err as stated: for benchmarks of conflicting votes, where the truth is known.

Votes are numbers of labels, (n, m): one row an image, one column an annotator. Errors depend on
the true label, not on the image: with the label known, annotators err independently (Dawid & Skene
1979, doi:10.2307/2346806).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 10
UNIFORM_SHARE = 0.1
ACCURACY_RANGE = (0.05, 0.99)


def looks_like(
    features: np.ndarray,
    labels: np.ndarray,
    k: int,
    neighbours: int = NEIGHBOURS,
    uniform_share: float = UNIFORM_SHARE,
) -> np.ndarray:
    """Which label is taken for which by somebody who errs, (k, k): diagonal 0, rows sum to 1.

    How often the nearest neighbours of a label's images, by cosine similarity and without the
    image itself, have each other label; mixed with the uniform distribution, so that nothing is
    impossible.

    Parameters
    ----------
    features : float array (n, d)
    labels : int array (n,)
    """
    bank = NearestNeighbors(n_neighbors=neighbours, metric="cosine", algorithm="brute")
    index = bank.fit(features).kneighbors(return_distance=False)  # leaves the image itself out
    counts = np.zeros((k, k))
    np.add.at(counts, (np.repeat(labels, neighbours), labels[index].ravel()), 1.0)
    np.fill_diagonal(counts, 0.0)
    uniform = (1 - np.eye(k)) / (k - 1)
    total = counts.sum(axis=1, keepdims=True)
    near = np.where(total > 0, counts / np.maximum(total, 1.0), uniform)
    return (1 - uniform_share) * near + uniform_share * uniform


def confusion_of(error_rate: float, likeness: np.ndarray) -> np.ndarray:
    """What an annotator says of each true label, (k, k); he errs equally often on each."""
    return (1 - error_rate) * np.eye(len(likeness)) + error_rate * likeness


def simulate(
    truth: np.ndarray, confusions: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Votes (n, m) of m annotators on images with true labels (n,)."""
    votes = np.empty((len(truth), len(confusions)), dtype=int)
    for who, confusion in enumerate(confusions):
        drawn = rng.random(len(truth))[:, None]
        votes[:, who] = (confusion.cumsum(axis=1)[truth] < drawn).sum(axis=1)
    return np.minimum(votes, len(confusions[0]) - 1)  # rows may sum to a little less than 1


def shares_of(votes: np.ndarray, k: int) -> np.ndarray:
    """Share of the annotators who chose each label, (n, k)."""
    return np.eye(k)[votes].mean(axis=1)


def majority(votes: np.ndarray, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The label that most annotators chose, (n,), and where that was a tie, bool (n,).

    A tie is drawn, each of its labels equally often.
    """
    shares = shares_of(votes, k)
    modal = np.isclose(shares, shares.max(axis=1, keepdims=True))
    drawn = np.where(modal, rng.random(shares.shape), -1.0)
    return drawn.argmax(axis=1), modal.sum(axis=1) > 1


def accuracy_by_agreement(votes: np.ndarray) -> np.ndarray:
    """How often each of three annotators is right, (3,), from how often two of them agree.

    If errors rarely coincide, two annotators agree as often as both are right, a_ij = p_i p_j, so
    p_i = sqrt(a_ij a_ik / a_jk). Errors that coincide make it a little too high.
    """
    if votes.shape[1] != 3:
        raise ValueError(f"votes of {votes.shape[1]} annotators: this takes three")
    agree = {
        (i, j): float((votes[:, i] == votes[:, j]).mean()) for i, j in ((0, 1), (0, 2), (1, 2))
    }
    ij, ik, jk = agree.values()
    pairs = np.array([ij * ik / jk, ij * jk / ik, ik * jk / ij]) if min(ij, ik, jk) else np.ones(3)
    return np.clip(np.sqrt(pairs), *ACCURACY_RANGE)


def weights_by_agreement(votes: np.ndarray) -> np.ndarray:
    """Log odds of each of three annotators being right, mean 1: how votes should weigh.

    Nitzan & Paroush 1982, doi:10.2307/2526438.
    """
    accuracy = accuracy_by_agreement(votes)
    odds = np.maximum(np.log(accuracy / (1 - accuracy)), 0.0)
    return odds / odds.mean() if odds.any() else np.ones(3)
