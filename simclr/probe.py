"""What a linear classifier finds of a label in features: what a few labels could make of them."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from simclr.knn import accuracy_of

GRID = (0.001, 0.01, 0.1, 1.0)
FOLDS = 3
MOST_CHOOSING_IMAGES = 4000
MOST_ITERATIONS = 300


class ProbeError(ValueError):
    """Labels that nothing can be learned from; the message says why."""


@dataclass(frozen=True)
class ProbeAccuracy:
    """What a linear probe finds on held-out images.

    Attributes
    ----------
    micro : float
        Share of the held-out images whose label is found.
    macro : float
        Mean over the labels of the held-out images of the share found (macro recall).
    image_count, label_count : int
        Held-out images, and their labels.
    c : float
        The inverse strength of the L2 penalty that was chosen.
    """

    micro: float
    macro: float
    image_count: int
    label_count: int
    c: float


def linear_probe(
    features: np.ndarray,
    labels: np.ndarray,
    held_out_features: np.ndarray,
    held_out_labels: np.ndarray,
) -> ProbeAccuracy:
    """Fit a logistic regression on frozen features, and judge it on held-out images.

    Features are standardised, labels weigh the same however rare they are (the macro recall is
    what counts), and the L2 penalty is the best of a small grid in a 3-fold cross-validation of
    the fitted images (at most 4,000 of them, drawn at random).

    Parameters
    ----------
    features : float array, shape (n, d)
    labels : array, shape (n,)
    held_out_features : float array, shape (m, d)
    held_out_labels : array, shape (m,)
        A label that `labels` does not have counts as never found.

    Raises
    ------
    ProbeError
        There are fewer than two labels to tell apart, or no held-out images.

    Examples
    --------
    >>> centres, names = np.eye(3).repeat(6, axis=0), np.repeat(["a", "b", "c"], 6)
    >>> linear_probe(centres, names, centres, names).macro
    1.0
    """
    labels, held_out_labels = np.asarray(labels), np.asarray(held_out_labels)
    if len(np.unique(labels)) < 2 or not len(held_out_labels):
        raise ProbeError(
            f"{len(np.unique(labels))} labels to learn and {len(held_out_labels)} held-out images: "
            f"give two labels or more, and one image or more"
        )
    with warnings.catch_warnings():
        # A label of one or two images is missing from a fold, and is then not found there.
        warnings.filterwarnings("ignore", ".*least populated class.*")
        warnings.filterwarnings("ignore", ".*could represent a regression problem.*")
        # Where the labels can be told apart without an error, weak penalties are slow to converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        c = _choose_c(features, labels)
        found = _classifier(c).fit(features, labels).predict(held_out_features)
    return ProbeAccuracy(**asdict(accuracy_of(found == held_out_labels, held_out_labels)), c=c)


def _choose_c(features: np.ndarray, labels: np.ndarray) -> float:
    """The C of the grid with the best macro recall of cross-validated predictions."""
    rows = np.random.default_rng(0).permutation(len(labels))[:MOST_CHOOSING_IMAGES]
    chosen, few = labels[rows], np.unique(labels[rows], return_counts=True)[1].max() < FOLDS
    if few or len(np.unique(chosen)) < 2:
        return GRID[len(GRID) // 2]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    recalls = []
    for c in GRID:
        found = cross_val_predict(_classifier(c), features[rows], chosen, cv=folds)
        recalls.append(balanced_accuracy_score(chosen, found))
    return GRID[int(np.argmax(recalls))]


def _classifier(c: float) -> Pipeline:
    regression = LogisticRegression(C=c, max_iter=MOST_ITERATIONS, class_weight="balanced")
    return make_pipeline(StandardScaler(), regression)
