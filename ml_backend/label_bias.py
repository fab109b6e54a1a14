"""Calibration label by label: an offset for each beside the temperature, where it helps.

Vector scaling (Guo et al. 2017, arXiv 1706.04599) with one slope: logits / temperature + offset.
Gaussian priors pull it to the plain temperature, so that a label with few images stays as that
leaves it. Dirichlet calibration (Kull et al. 2019, arXiv 1910.12656) has k² parameters, more than
the images of rare labels can carry, and is not offered.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ml_backend.calibrate import TEMPERATURE_RANGE, calibrated, fit_temperature
from ml_backend.folds import FOLDS, folds_of

logger = logging.getLogger(__name__)

MIN_IMAGES_FOR_BIAS = 100
BIAS_SD = 0.5
"""How far offsets are expected to be from 0, in units of a tempered logit."""
SLOPE_SD = 0.25
"""How far the slope is expected to be from that of the plain temperature, as a share of it."""
MAX_ITERATIONS = 100


def fit_bias(
    kind: str, logits: np.ndarray, shares: np.ndarray, weights: np.ndarray, plain: float
) -> tuple[float, np.ndarray]:
    """Return the most probable temperature, and offset of each label, (k,).

    Convex: the likelihood of the votes, with priors of `BIAS_SD` and `SLOPE_SD`.

    Parameters
    ----------
    kind : "one of" or "any of"
    logits, shares : arrays (n, k)
        Of images that did not teach.
    weights : array (n, k)
        As from `prior_weights`. They count as many images as their effective number.
    plain : float
        The temperature without offsets.
    """
    scaled = torch.from_numpy(np.asarray(logits, dtype=np.float64) / plain)
    wanted = torch.from_numpy(np.asarray(shares, dtype=np.float64))
    effective = weights * (weights.sum(axis=0) / (weights**2).sum(axis=0))
    counted = torch.from_numpy(np.asarray(effective, dtype=np.float64))
    bias = torch.zeros(scaled.shape[1], dtype=torch.float64, requires_grad=True)
    slope = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [slope, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        outputs = slope * scaled + bias
        if kind == "one of":
            losses = -wanted * functional.log_softmax(outputs, dim=1)
        else:
            losses = functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="none")
        loss = (counted * losses).sum() + (bias**2).sum() / (2 * BIAS_SD**2)
        loss = loss + ((slope - 1) ** 2).sum() / (2 * SLOPE_SD**2)
        loss.backward()
        return loss

    optimiser.step(closure)
    steepest = float(slope.detach().clamp_min(plain / TEMPERATURE_RANGE[1]))
    return plain / steepest, bias.detach().numpy()


def choose_bias(
    kind: str,
    logits: np.ndarray,
    shares: np.ndarray,
    weights: np.ndarray,
    plain: float,
    units: np.ndarray | None = None,
) -> tuple[float, tuple[float, ...]]:
    """Return temperature and offsets of `fit_bias` where they measurably help, else (plain, ()).

    They do if in cross-validation, at the training prior, they lower the Brier score (mean over
    labels) of the temperature alone by more than one standard error.

    Parameters
    ----------
    kind, logits, shares, weights, plain
        As in `fit_bias`.
    units : array (n,), optional
        Split keys: images of one sample are in one fold, and count as one in the standard error.
    """
    if len(logits) < MIN_IMAGES_FOR_BIAS:
        return plain, ()
    names, unit = np.unique(
        np.arange(len(logits)) if units is None else np.asarray(units), return_inverse=True
    )
    if len(names) < FOLDS:
        return plain, ()
    fold = folds_of(unit)
    gain = np.zeros(len(logits))
    for held_out in range(FOLDS):
        out, rest = fold == held_out, fold != held_out
        alone = fit_temperature(kind, logits[rest], shares[rest], weights[rest])
        temperature, bias = fit_bias(kind, logits[rest], shares[rest], weights[rest], alone)
        before = calibrated(kind, logits[out], alone) - shares[out]
        after = calibrated(kind, logits[out], temperature, bias) - shares[out]
        gain[out] = (weights[out] * (before**2 - after**2)).mean(axis=1)
    mean = gain.mean()
    error = np.sqrt((np.bincount(unit, gain - mean) ** 2).sum()) / len(gain)
    logger.info("offsets by label gain %.2g ± %.2g in Brier score", mean, error)
    if mean <= error:
        return plain, ()
    temperature, bias = fit_bias(kind, logits, shares, weights, plain)
    return temperature, tuple(bias.tolist())
