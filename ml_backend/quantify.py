"""Counts of labels in groups of images, corrected for the classifier's confusion, with intervals.

A classifier's counts lean to the frequencies it was deployed for. Its calibrated probabilities p at
the prior π give each image's likelihoods, L_ik ∝ p_ik / π_k; under them the composition θ of a
group has a posterior, sampled by Gibbs' method,

    z_i | θ ~ Categorical(∝ θ_k L_ik),    θ | z ~ Dirichlet(α + counts of z),

whose mode under a flat prior is the EM of Saerens et al. 2002 (10.1162/089976602753284446); see
Ziegler & Czyż 2023 (arXiv 2302.09159) on Bayesian quantification. α is drawn too, from a grid: how
closely the groups keep to what is usual, and how even that is. So groups that are alike support
each other, and groups that differ do not. Images that people validated keep their label. Groups may
differ in how often a label occurs, not in how it looks.

>>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])
>>> logs = log_likelihoods(p, np.array([0.5, 0.5]))
>>> em_counts(logs, np.zeros(4, dtype=int), 1).round(3)
array([[2., 2.]])
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, softmax

from hpc_jobs import progress
from label_studio_config.words import counted
from ml_backend.calibrate import SMALLEST_PRIOR, SMALLEST_PROBABILITY
from ml_backend.priors import climb
from ml_backend.quantify_classifier import Correction

N_DRAWS = 300
SWEEPS = 4
BURN_IN = 30
# Fine steps, or the chain would never climb them. Flat is 1; the weakest suits groups that hold two
# or three labels each: where it was missing, the most frequent one was counted too low.
STRENGTHS = tuple(2.0 ** np.arange(-4, 6.5, 0.375))
SHARES = (0.0, 0.5, 0.9)
LEAST_LOG_LIKELIHOOD = -15.0
BLOCK = 4096
INTERVAL = (2.5, 97.5)
ROUNDING = 1e-6


class QuantifyError(ValueError):
    """Predictions, groups or validated labels that cannot be counted; says the remedy."""


@dataclass(frozen=True)
class Counts:
    """Corrected counts of k labels in g groups, each array (g, k).

    Attributes
    ----------
    mean, low, high
        Posterior mean and 95 % interval of the count in the group; low <= mean <= high. Where a
        label occurs in fewer than 2.5 % of the draws, the mean lies above the interval (or, where
        it is nearly always all there is, below): the interval then reaches to the whole number
        beyond the mean.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, draws: np.ndarray) -> Counts:
        """Summarise draws (d, g, k); the bounds are counts that were drawn, or hold the mean."""
        mean = draws.mean(axis=0, dtype=np.float64)
        low = np.percentile(draws, INTERVAL[0], axis=0, method="lower").astype(np.float64)
        high = np.percentile(draws, INTERVAL[1], axis=0, method="higher").astype(np.float64)
        low = np.where(mean < low - ROUNDING, np.floor(mean), low)
        high = np.where(mean > high + ROUNDING, np.ceil(mean), high)
        return cls(np.clip(mean, low, high), low, high)


def checked_prior(prior: np.ndarray, n_labels: int) -> np.ndarray:
    """Return the prior, (k,), summing to 1; zeros stay zeros.

    Raises
    ------
    QuantifyError
        It has another length, an entry that is negative or no number, or nothing above 0.
    """
    prior = np.asarray(prior, dtype=float)
    if prior.shape != (n_labels,):
        raise QuantifyError(
            f"the deployment prior has {prior.size} entries for {n_labels} labels: predict again"
        )
    if not np.isfinite(prior).all() or (prior < 0).any() or prior.sum() <= 0:
        raise QuantifyError(
            f"the deployment prior {prior.tolist()} holds an entry that is no frequency: set the "
            "prior of the model anew and predict again"
        )
    return prior / prior.sum()


def log_likelihoods(probabilities: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return log L, (n, k), at most 0, from probabilities (n, k) at the prior (k,).

    Raises
    ------
    QuantifyError
        A probability is no number.
    """
    wrong = ~np.isfinite(probabilities).all(axis=1)
    if wrong.any():
        raise QuantifyError(
            f"the probabilities of {counted(wrong.sum(), 'image')} are no numbers, the first is "
            f"number {np.flatnonzero(wrong)[0]}: predict again"
        )
    # As the head applied it: a prior that was clipped there is clipped here.
    applied = np.clip(checked_prior(prior, probabilities.shape[1]), SMALLEST_PRIOR, None)
    logs = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)) - np.log(applied)
    logs -= logs.max(axis=1, keepdims=True)
    return np.maximum(logs, LEAST_LOG_LIKELIHOOD)


def em_counts(
    logs: np.ndarray, groups: np.ndarray, n_groups: int, iterations: int = 300
) -> np.ndarray:
    """Return the expected counts (g, k) at the most likely composition (Saerens et al. 2002).

    Parameters
    ----------
    logs : array (n, k)
        As from `log_likelihoods`.
    groups : int array (n,)
        The group of each image, 0 to g - 1.
    """
    k = logs.shape[1]
    counts = np.zeros((n_groups, k))
    for group in np.unique(groups):
        likelihoods = np.exp(logs[groups == group])
        frequencies, _ = climb(likelihoods, np.full(k, 1 / k), 0.0, iterations)
        counts[group] = len(likelihoods) * frequencies
    return counts


def draw_counts(
    logs: np.ndarray,
    groups: np.ndarray,
    n_groups: int,
    *,
    prior: np.ndarray | None = None,
    validated: np.ndarray | None = None,
    correction: Correction | None = None,
    unknown: np.ndarray | None = None,
    n_draws: int = N_DRAWS,
    sweeps: int = SWEEPS,
    seed: int = 0,
) -> np.ndarray:
    """Draw the counts (d, g, k) from their posterior.

    Parameters
    ----------
    logs : array (n, k)
        As from `log_likelihoods`, of the images that nobody validated.
    groups : int array (n,)
        The group of each, 0 to g - 1.
    prior : array (k,), optional
        How often labels usually occur, as far as the correction does not tell; by default evenly.
    validated : array (g, k), optional
        Counts of the validated images, which are certain; they are part of the result.
    correction : Correction, optional
        The classifier's own uncertainty: each draw has likelihoods of its own. Without it they
        are taken as they are.
    unknown : int array (g,), optional
        How many further images of each group nothing is known of: they follow its composition.
    """
    rng = np.random.default_rng(seed)
    k = logs.shape[1]
    fixed = np.zeros((n_groups, k)) if validated is None else np.asarray(validated, float)
    logs = np.asarray(logs, dtype=np.float32)
    theta, alpha = np.full((n_groups, k), 1 / k), np.ones(k)
    usual = np.full(k, 1 / k) if prior is None else prior
    grid = _prior_grid(usual if correction is None else correction.frequencies)
    draws = np.zeros((n_draws, n_groups, k), dtype=np.float32)
    likelihoods = np.ascontiguousarray(np.exp(logs).T)
    for number in progress.track(range(n_draws), "draw counts"):
        if correction is not None:
            likelihoods = _corrected(correction, correction.draw(rng), logs)
        for _ in range(sweeps if number else BURN_IN):
            counts = fixed + _draw_labels(likelihoods, groups, theta, rng)
            alpha = _draw_alpha(counts, grid, rng)
            theta = _normalised(rng.standard_gamma(counts + alpha))
        draws[number] = counts
        if unknown is not None and unknown.any():
            # They tell nothing of the composition, so they need no part in the chain.
            draws[number] += rng.multinomial(unknown, theta)
    return draws


def _corrected(correction: Correction, parameters: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Likelihoods (k, n), the largest of each image 1; in blocks, to spare memory."""
    likelihoods = np.empty(logs.shape[::-1], dtype=np.float32)
    parameters = parameters.astype(np.float32)
    for start in range(0, len(logs), BLOCK):
        rows = slice(start, start + BLOCK)
        new = correction.apply(parameters, logs[rows])
        likelihoods[:, rows] = np.exp(new - new.max(axis=1, keepdims=True)).T
    return likelihoods


def _draw_labels(
    likelihoods: np.ndarray, groups: np.ndarray, theta: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw a label of each image given its group's composition; return the counts (g, k)."""
    n_groups, k = theta.shape
    counts = np.zeros(n_groups * k, dtype=np.int64)
    by_label = np.ascontiguousarray(theta.T, dtype=np.float32)
    for start in range(0, len(groups), BLOCK):
        group = groups[start : start + BLOCK]
        # One row a label: sums along short rows would take three times as long.
        heaps = np.take(by_label, group, axis=1) * likelihoods[:, start : start + BLOCK]
        for label in range(1, k):
            heaps[label] += heaps[label - 1]
        aim = rng.random(len(group), dtype=np.float32) * heaps[-1]
        drawn = np.zeros(len(group), dtype=np.int64)
        for label in range(k - 1):
            drawn += heaps[label] <= aim
        counts += np.bincount(group * k + drawn, minlength=n_groups * k)
    return counts.reshape(n_groups, k)


def _prior_grid(frequencies: np.ndarray) -> np.ndarray:
    """The Dirichlet parameters, (m, k), that compositions may have been drawn from.

    Their means lie between even and what is usual, (k,).
    """
    k = len(frequencies)
    return np.array(
        [
            strength * k * ((1 - share) / k + share * frequencies)
            for strength in STRENGTHS
            for share in SHARES
        ]
    )


def _draw_alpha(counts: np.ndarray, grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one of the Dirichlet parameters, (k,), given the counts (g, k) of all groups."""
    sizes, totals = counts.sum(axis=1), grid.sum(axis=1)
    log_evidence = np.array(
        [
            (gammaln(alpha + counts) - gammaln(alpha)).sum()
            - (gammaln(total + sizes) - gammaln(total)).sum()
            for alpha, total in zip(grid, totals, strict=True)
        ]
    )
    return grid[rng.choice(len(grid), p=softmax(log_evidence))]


def _normalised(weights: np.ndarray) -> np.ndarray:
    weights = np.maximum(weights, SMALLEST_PROBABILITY)
    return weights / weights.sum(axis=-1, keepdims=True)
