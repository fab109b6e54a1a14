"""How well neighbours in feature space share a label: the progress signal of a pretraining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

NEIGHBOURS = 10
TEMPERATURE = 0.1
_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class KnnAccuracy:
    """Accuracy of a vote of the nearest neighbours.

    Attributes
    ----------
    micro : float
        Share of the images whose label is found.
    macro : float
        Mean over the labels of the share found; left one out, over labels of two images or more.
    image_count, label_count : int
        Images judged, and labels in the macro mean.
    """

    micro: float
    macro: float
    image_count: int
    label_count: int


def knn_accuracy(
    features: np.ndarray, labels: np.ndarray, neighbours: int = NEIGHBOURS
) -> KnnAccuracy:
    """Predict each label from the other images, by cosine similarity.

    A neighbour's vote weighs exp(similarity / 0.1) (Wu et al. 2018, arXiv 1805.01978).

    Parameters
    ----------
    features : float array, shape (n, d)
    labels : array, shape (n,)
        Of any kind that can be compared.
    neighbours : int
        Votes for each image.

    Raises
    ------
    ValueError
        Fewer than two images have a label that another one shares.

    Examples
    --------
    >>> knn_accuracy(np.eye(3).repeat(4, axis=0), np.repeat(["a", "b", "c"], 4)).macro
    1.0
    """
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    judged = counts[codes] >= 2  # an only one has nobody to be found by
    if not judged.any():
        raise ValueError("no label is shared by two images: label more images")
    bank = _unit_length(features)
    right = _predict(bank, codes, bank, neighbours, leave_out=True) == codes
    return accuracy_of(right[judged], codes[judged])


def knn_transfer(
    features: np.ndarray,
    labels: np.ndarray,
    held_out_features: np.ndarray,
    held_out_labels: np.ndarray,
    neighbours: int = NEIGHBOURS,
) -> KnnAccuracy:
    """Predict the labels of held-out images from their neighbours among the others.

    Votes weigh as in `knn_accuracy`; a held-out label that `labels` lacks is never found.

    Parameters
    ----------
    features : float array, shape (n, d)
    labels : array, shape (n,)
    held_out_features : float array, shape (m, d)
    held_out_labels : array, shape (m,)
    neighbours : int

    Examples
    --------
    >>> knn_transfer(np.eye(2), np.array(["a", "b"]), np.eye(2)[[1]], np.array(["b"])).micro
    1.0
    """
    _, codes = np.unique(np.concatenate([labels, held_out_labels]), return_inverse=True)
    codes, held_out = codes[: len(labels)], codes[len(labels) :]
    bank, queries = _unit_length(features), _unit_length(held_out_features)
    return accuracy_of(_predict(bank, codes, queries, neighbours) == held_out, held_out)


def _unit_length(features: np.ndarray) -> torch.Tensor:
    return functional.normalize(torch.from_numpy(np.asarray(features, dtype=np.float32)), dim=1)


def _predict(
    bank: torch.Tensor,
    codes: np.ndarray,
    queries: torch.Tensor,
    neighbours: int,
    leave_out: bool = False,
) -> np.ndarray:
    """The code with most votes for each query; `leave_out`: the queries are the bank itself."""
    targets = torch.from_numpy(codes.astype(np.int64))
    neighbours = min(neighbours, len(bank) - leave_out)
    found = []
    for first in range(0, len(queries), _ROWS_AT_ONCE):
        similarity = queries[first : first + _ROWS_AT_ONCE] @ bank.T  # shape (rows, n)
        if leave_out:
            rows = torch.arange(len(similarity))
            similarity[rows, rows + first] = -torch.inf
        closest, index = similarity.topk(neighbours, dim=1)
        votes = torch.zeros(len(similarity), int(codes.max()) + 1)
        votes.scatter_add_(1, targets[index], (closest / TEMPERATURE).exp())
        found.append(votes.argmax(dim=1))
    return torch.cat(found).numpy()


def accuracy_of(right: np.ndarray, codes: np.ndarray) -> KnnAccuracy:
    """Micro and macro from whether each image's label was found, bool (n,), and its label (n,)."""
    recalls = [right[codes == code].mean() for code in np.unique(codes)]
    return KnnAccuracy(
        micro=float(right.mean()),
        macro=float(np.mean(recalls)),
        image_count=len(right),
        label_count=len(recalls),
    )
