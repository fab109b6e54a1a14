"""Whether probabilities mean what they say, beyond one number: bins of equal width, of equal mass,
and label by label.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ml_backend.calibrate import ECE_BINS, expected_calibration_error


def reliability_bins(
    confidence: np.ndarray, right: np.ndarray, n_bins: int = ECE_BINS
) -> list[dict[str, float]]:
    """The points of a reliability diagram: bins of equal width that hold anything.

    Parameters
    ----------
    confidence, right : arrays (m,)
        Probability of what was answered, and whether that was so.

    Returns
    -------
    list of dict
        confidence and accuracy (means in the bin), and n. The mean of their distances, weighted
        by n, is the expected calibration error.
    """
    confidence, right = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    inner_edges = np.linspace(0.0, 1.0, n_bins + 1)[1:-1]
    bin_of = np.searchsorted(inner_edges, confidence, side="right")
    return [
        {
            "confidence": float(confidence[bin_of == b].mean()),
            "accuracy": float(right[bin_of == b].mean()),
            "n": int((bin_of == b).sum()),
        }
        for b in np.unique(bin_of)
    ]


def adaptive_calibration_error(
    confidence: np.ndarray, right: np.ndarray, n_bins: int = ECE_BINS
) -> float:
    """Calibration error over bins of equal mass (Nixon et al. 2019, arXiv 1904.01685).

    Bins of equal width hold few images where the model is rarely so sure; here each holds as many
    as the others, or differs by one. Of equal confidences none is first: each counts as their mean.

    Parameters
    ----------
    confidence, right : arrays (m,)
        As for `reliability_bins`.

    Returns
    -------
    float
        NaN without images.
    """
    order, right = _by_confidence(confidence, right)
    if not len(order):
        return float("nan")
    gap = right - np.asarray(confidence, dtype=float)[order]
    bins = [part for part in np.array_split(gap, min(n_bins, len(gap))) if len(part)]
    return float(sum(abs(part.sum()) for part in bins) / len(gap))


def classwise_calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean over labels of the calibration error of that label's probability.

    Kull et al. 2019, arXiv 1910.12656: it sees rare labels, which the error of the suggested label
    hides. It is small where labels are many, since most probabilities are then near 0.

    Parameters
    ----------
    probabilities, truth : arrays (n, k)
        Truth as 0 and 1.
    """
    errors = [
        expected_calibration_error(probabilities[:, k], truth[:, k])
        for k in range(probabilities.shape[1])
    ]
    return float(np.mean(errors)) if errors else float("nan")


def risk_coverage(confidence: np.ndarray, right: np.ndarray, n_points: int = 50) -> dict[str, Any]:
    """How often the surest answers are wrong, against how many are answered at all.

    Geifman & El-Yaniv 2017 (arXiv 1705.08500); the area under the curve (AURC) is the mean risk
    over every coverage from 1 / m to 1. Equal confidences count as in
    `adaptive_calibration_error`.

    Parameters
    ----------
    confidence, right : arrays (m,)
        As for `reliability_bins`.

    Returns
    -------
    dict
        aurc; coverage and risk, at most `n_points` points with the last at full coverage.
    """
    _, right = _by_confidence(confidence, right)
    m = len(right)
    if not m:
        return {"aurc": float("nan"), "coverage": [], "risk": []}
    answered = np.arange(1, m + 1)
    risk = np.cumsum(1.0 - right[::-1]) / answered
    kept = np.unique(np.linspace(1, m, min(n_points, m)).round().astype(int)) - 1
    return {
        "aurc": float(risk.mean()),
        "coverage": (answered[kept] / m).tolist(),
        "risk": risk[kept].tolist(),
    }


def _by_confidence(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order from unsure to sure, and `right` in it, averaged over equal confidences."""
    confidence, right = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    _, group, size = np.unique(confidence, return_inverse=True, return_counts=True)
    order = np.argsort(confidence, kind="stable")
    mean = np.bincount(group, weights=right, minlength=len(size)) / np.maximum(size, 1)
    return order, mean[group][order]
