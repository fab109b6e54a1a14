"""Intervals of numbers that hold the share they promise: split conformal prediction.

Lei et al. 2018, arXiv 1604.04173: the width is a quantile of the errors on validation images,
counted so that a new image of the same kind falls inside with at least the promised probability,
however the errors are distributed. Where errors grow with the number, they are measured relative to
what is expected there (their section 5.2).

With few labels the errors are those of models that did without a fifth of the images each, around
what the model of all says. That promises nothing by itself (Barber et al. 2021, arXiv 1905.02928):
how many of the held-out images are inside is measured.
"""

from __future__ import annotations

import numpy as np

COVERAGE = 0.95
MIN_IMAGES_FOR_INTERVAL = 20
MIN_IMAGES_FOR_SLOPE = 100
SLOPE_SIGNIFICANCE = 0.01
SMALLEST_SPREAD = 0.25


def half_width(
    predicted: np.ndarray, truth: np.ndarray, spread: np.ndarray | None = None
) -> float | None:
    """Return half the width of the 95 % interval, None with fewer than 20 images.

    Parameters
    ----------
    predicted, truth : arrays (n,)
        Of images that the model did not learn from.
    spread : array (n,), optional
        How far errors are expected to reach, as from `relative_spread`: then the result is the
        half width where it is 1.
    """
    n = len(truth)
    rank = int(np.ceil((n + 1) * COVERAGE))
    if n < MIN_IMAGES_FOR_INTERVAL or rank > n:
        return None
    errors = np.abs(predicted - truth) / (1.0 if spread is None else spread)
    return float(np.sort(errors)[rank - 1])


def error_slope(
    predicted: np.ndarray, truth: np.ndarray, middle: float, expected: float = 0.0
) -> float:
    """Return how fast errors grow with the number: relative to those at `middle`, per unit.

    A straight line through the absolute errors; what is expected with fewer than 100 images, or
    where the line may be chance (p > 0.01).
    """
    if len(truth) < MIN_IMAGES_FOR_SLOPE or np.ptp(predicted) == 0:
        return expected
    from scipy.stats import linregress  # half a second for every process that only predicts

    line = linregress(predicted - middle, np.abs(predicted - truth))
    if not line.pvalue <= SLOPE_SIGNIFICANCE or line.intercept <= 0:
        return expected
    return float(line.slope / line.intercept)


def relative_spread(predicted: np.ndarray, middle: float, slope: float) -> np.ndarray:
    """Return how far errors reach at each prediction: 1 at `middle`, never below a quarter."""
    return np.maximum(1.0 + slope * (np.asarray(predicted) - middle), SMALLEST_SPREAD)
