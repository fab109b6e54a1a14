"""How often each label occurs where a model serves: given, or estimated without annotations.

All that is here assumes label shift: labels are more or less frequent than in training, but images
of a label look as they did.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ml_backend.calibrate import SMALLEST_PRIOR, correct_prior

logger = logging.getLogger(__name__)

SUM_TOLERANCE = 1e-3
EM_TOLERANCE = 1e-6
EM_ITERATIONS = 2000
BADLY_CONDITIONED = 1e3


class PriorError(ValueError):
    """Frequencies that are none; names the control and the remedy."""


def check_prior(
    control: str, prior: Sequence[float] | np.ndarray, labels: Sequence[str], kind: str = "one of"
) -> np.ndarray:
    """Return frequencies as an array (k,); those of "one of" then sum to 1 exactly.

    Parameters
    ----------
    prior : array (k,)
        In the order of `labels`. Those of "any of" are separate, each at most 1.

    Raises
    ------
    PriorError
        Not one for each label, one negative or no number, or the sum of "one of" is off by more
        than 0.001.
    """
    values = np.asarray(prior, dtype=float)
    if values.shape != (len(labels),):
        raise PriorError(
            f"control {control!r} has {len(labels)} labels, its prior {values.size} frequencies: "
            f"give one for each of {', '.join(labels)}"
        )
    for label, value in zip(labels, values, strict=True):
        if not np.isfinite(value) or value < 0 or (kind == "any of" and value > 1):
            raise PriorError(
                f"control {control!r}: the frequency of {label!r} is {value:g}, give a number from "
                "0 to 1"
            )
    total = values.sum()
    if kind == "any of":
        return values
    if abs(total - 1) > SUM_TOLERANCE:
        raise PriorError(
            f"control {control!r}: the frequencies sum to {total:g}, not to 1. Divide each by "
            "their sum, or give the label that is missing its share"
        )
    return values / total


def prior_by_em(
    probabilities: np.ndarray,
    prior: np.ndarray,
    tolerance: float = EM_TOLERANCE,
    max_iterations: int = EM_ITERATIONS,
) -> np.ndarray:
    """Return the frequencies (k,) that make predictions most likely (Saerens et al. 2002).

    Expectation-maximisation: move the probabilities to the frequencies found so far, take their
    mean as the new ones. Needs calibrated probabilities.

    Parameters
    ----------
    probabilities : array (n, k)
        Of "one of" labels, calibrated at `prior`.
    prior : array (k,)
    tolerance : float
        Largest change of a frequency at which to stop.
    max_iterations : int
        Then stop too, with a warning.

    Raises
    ------
    PriorError
        There is no image.

    References
    ----------
    Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21-41.
    """
    if not len(probabilities):
        raise PriorError("no predictions to estimate frequencies from: give images")
    prior = np.clip(np.asarray(prior, dtype=float), SMALLEST_PRIOR, None)
    start = prior / prior.sum()
    ratios = np.asarray(probabilities, dtype=float) / start
    found, change = climb(ratios, start, tolerance, max_iterations)
    if not change < tolerance:
        text = "frequencies still moved by %.1g after %d iterations"
        logger.warning(text, change, max_iterations)
    return found


def climb(
    likelihoods: np.ndarray, frequencies: np.ndarray, tolerance: float, max_iterations: int
) -> tuple[np.ndarray, float]:
    """Steps of the EM from `frequencies` (k,), given likelihoods (n, k) up to a factor an image.

    Returns
    -------
    frequencies : array (k,)
    change : float
        The largest in the last step.
    """
    change = np.inf
    for _ in range(max_iterations):
        joint = likelihoods * frequencies
        new = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        change = float(np.abs(new - frequencies).max())
        frequencies = new
        if change < tolerance:
            break
    return frequencies, change


def prior_by_bbse(confusion: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the frequencies (k,) that explain how often each label is predicted.

    Black box shift estimation (Lipton, Wang & Smola 2018, arXiv 1802.03916), by least squares with
    no negative frequency. Needs no calibration, only the same predictor on both sides.

    Parameters
    ----------
    confusion : array (k, k)
        A row per true label: counts of the labels predicted for its images, or sums of their
        probabilities. A label without images is taken to be always recognised.
    predicted : array (k,)
        How often each label is predicted, or the mean of its probabilities, where frequencies are
        sought.

    Raises
    ------
    PriorError
        Shapes do not fit, or nothing is predicted.
    """
    from scipy.optimize import nnls  # here: who only predicts starts sooner without it

    counts = np.asarray(confusion, dtype=float)
    shares = np.asarray(predicted, dtype=float)
    if counts.ndim != 2 or counts.shape != (len(shares), len(shares)):
        raise PriorError(
            f"a confusion of shape {counts.shape} does not fit {len(shares)} labels: give a row "
            "and a column for each"
        )
    if not shares.sum() > 0:
        raise PriorError("no predictions to estimate frequencies from: give images")
    total = counts.sum(axis=1, keepdims=True)
    recalled = np.where(total > 0, counts / np.where(total > 0, total, 1), np.eye(len(shares)))
    if np.linalg.cond(recalled) > BADLY_CONDITIONED:
        logger.warning("some labels are hardly told apart: their frequencies are not to be trusted")
    found, _ = nnls(recalled.T, shares / shares.sum())
    return found / found.sum()


def published_correction(
    probabilities: np.ndarray, trained: np.ndarray, deployed: np.ndarray
) -> np.ndarray:
    """Return the correction of Schanz et al. 2023, (n, k), whose rows do not sum to 1.

    For comparison only: each label against all others, as if those others kept their proportions
    among themselves. `correct_prior` is Bayes' rule.

    References
    ----------
    Schanz, Möller, Rühl & Greenberg 2023, Machine Learning: Science and Technology 4, 035007.
    """
    return correct_prior("any of", probabilities, trained, deployed)
