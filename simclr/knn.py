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
    """Leave-one-out accuracy of a vote of the nearest neighbours.

    Attributes
    ----------
    micro : float
        Share of the images whose label is found.
    macro : float
        Mean over the labels of the share found, over labels that two images or more have.
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
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    judged = counts[codes] >= 2  # an only one has nobody to be found by
    if not judged.any():
        raise ValueError("no label is shared by two images: label more images")
    bank = functional.normalize(torch.from_numpy(np.asarray(features, dtype=np.float32)), dim=1)
    targets = torch.from_numpy(codes.astype(np.int64))
    neighbours = min(neighbours, len(bank) - 1)
    found = []
    for first in range(0, len(bank), _ROWS_AT_ONCE):
        similarity = bank[first : first + _ROWS_AT_ONCE] @ bank.T  # shape (rows, n)
        rows = torch.arange(len(similarity))
        similarity[rows, rows + first] = -torch.inf
        closest, index = similarity.topk(neighbours, dim=1)
        votes = torch.zeros(len(similarity), len(names))
        votes.scatter_add_(1, targets[index], (closest / TEMPERATURE).exp())
        found.append(votes.argmax(dim=1))
    right = (torch.cat(found) == targets).numpy()
    recalls = [right[codes == code].mean() for code in np.flatnonzero(counts >= 2)]
    return KnnAccuracy(
        micro=float(right[judged].mean()),
        macro=float(np.mean(recalls)),
        image_count=int(judged.sum()),
        label_count=len(recalls),
    )
