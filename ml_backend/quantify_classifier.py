"""How wrong a classifier's likelihoods may be, told from images that people validated blindly.

The likelihood of image i under label k is corrected by a few numbers,

    log L'_ik = t · log L_ik + b_k + Σ_j w_jk q_ij,    q_i = softmax(log L_i),

a temperature t, a bias b of each label, and w: whom it is taken for (Kull et al. 2019, arXiv
1910.12656, call this family Dirichlet calibration). All are pulled to "the classifier is right" by
normal priors, wider for rare labels, of which a classifier has seen few; how wide is weighed by
the evidence of the validated images (Laplace's approximation; MacKay 1992). Each draw refits them,
in one Newton step, to a bootstrap of the validated units and to a prior mean that is drawn too, so
that what was not validated stays as uncertain as the prior says.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import log_softmax, softmax

TEMPERATURE_SD = 0.3
BIAS_SDS = (0.1, 0.2, 0.4)
CONFUSION_SDS = (0.25, 0.5, 1.0)
RARITY_EXPONENT = 0.5
RARITY_RANGE = (0.1, 20.0)
LEAST_TEMPERATURE = 0.1
LEAST_WEIGHT = 0.01
MOST_PARAMETERS = 1000
MIN_UNITS = 5
NEWTON_STEPS = 30


@dataclass(frozen=True)
class _Fit:
    """The best correction under one pair of prior widths, and what a draw from it needs."""

    best: np.ndarray
    hessian: np.ndarray
    inverse: np.ndarray
    scores: np.ndarray
    precision: np.ndarray
    log_evidence: float


class Correction:
    """What validated images say of a classifier with k labels.

    Parameters
    ----------
    log_likelihoods : array (n, k)
        Of the validated images, as from `quantify.log_likelihoods`.
    shares : array (n, k)
        Their true labels: rows sum to 1, a tie is split.
    prior : array (k,)
        The deployment prior: where the validated images are few, their labels occur so.
    units : array (n,), of text or numbers
        What is drawn together in the bootstrap (the name of the sample); fewer than 5 units are no
        ground for one, and images are drawn instead.
    """

    def __init__(
        self,
        log_likelihoods: np.ndarray,
        shares: np.ndarray,
        prior: np.ndarray,
        units: np.ndarray,
    ) -> None:
        self.logs, self.shares = np.asarray(log_likelihoods, float), np.asarray(shares, float)
        self.prior = np.asarray(prior, float)
        _, self.units = np.unique(units, return_inverse=True)
        if self.units.max(initial=-1) + 1 < MIN_UNITS:
            self.units = np.arange(len(self.logs))
        self.n_units = int(self.units.max()) + 1
        self.directions = _directions(self.logs)
        self.features = self._features(self.logs)
        self.log_prior = self._log_prior(np.ones(len(self.logs)))
        fits = [self._fit(*sds) for sds in product(BIAS_SDS, CONFUSION_SDS)]
        weights = softmax([fit.log_evidence for fit in fits])
        kept = weights >= LEAST_WEIGHT
        self.fits = [fit for fit, keep in zip(fits, kept, strict=True) if keep]
        self.weights = weights[kept] / weights[kept].sum()

    @property
    def frequencies(self) -> np.ndarray:
        """How often each label occurs among the validated images, (k,); smoothed by the prior."""
        return np.exp(self.log_prior)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One plausible correction, for `apply`."""
        fit = self.fits[rng.choice(len(self.fits), p=self.weights)]
        drawn = rng.multinomial(self.n_units, np.full(self.n_units, 1 / self.n_units))
        weights = drawn[self.units].astype(float)
        # The labels' frequencies are redrawn too: the bias takes up what they do not explain.
        shift = np.zeros_like(fit.best)
        shift[1 : 1 + len(self.prior)] = self._log_prior(weights) - self.log_prior
        pull = (weights - 1) @ fit.scores - fit.hessian @ shift
        pull += np.sqrt(fit.precision) * rng.normal(size=len(pull))
        return fit.best + fit.inverse @ pull

    def apply(self, parameters: np.ndarray, log_likelihoods: np.ndarray) -> np.ndarray:
        """Corrected log-likelihoods (m, k) of any images, from those of the classifier."""
        return self._corrected(parameters, log_likelihoods, self._features(log_likelihoods))

    def _corrected(
        self, parameters: np.ndarray, logs: np.ndarray, features: np.ndarray
    ) -> np.ndarray:
        temperature = max(float(parameters[0]), LEAST_TEMPERATURE)
        return temperature * logs + features @ parameters[1:].reshape(-1, len(self.prior))

    def _features(self, logs: np.ndarray) -> np.ndarray:
        """A constant, and for whom an image is taken: (m, 1 + r)."""
        taken_for = softmax(logs, axis=1) @ self.directions.astype(logs.dtype)
        return np.hstack([np.ones((len(logs), 1), taken_for.dtype), taken_for])

    def _log_prior(self, weights: np.ndarray) -> np.ndarray:
        """How often each label occurs among the weighted images, one image a label of prior."""
        k = len(self.prior)
        counts = weights @ self.shares + k * self.prior
        return np.log(counts / counts.sum())

    def _fit(self, bias_sd: float, confusion_sd: float) -> _Fit:
        commonness = len(self.prior) * self.frequencies
        rarity = np.clip(1 / commonness, *RARITY_RANGE) ** RARITY_EXPONENT
        widths = np.full((self.features.shape[1], 1), confusion_sd)
        widths[0] = bias_sd
        precision = np.r_[1 / TEMPERATURE_SD**2, (1 / (widths**2 * rarity)).ravel()]
        centre = np.zeros(len(precision))
        centre[0] = 1.0
        best: np.ndarray = centre
        value = self._objective(centre, centre, precision)
        for _ in range(NEWTON_STEPS):
            p = self._probabilities(best)
            gradient = self._scores(p).sum(axis=0) - precision * (best - centre)
            step = np.linalg.solve(self._hessian(p) + np.diag(precision), gradient)
            new, new_value = best + step, self._objective(best + step, centre, precision)
            while new_value < value and np.abs(step).max() > 1e-8:
                step = step / 2
                new, new_value = best + step, self._objective(best + step, centre, precision)
            gained, best, value = new_value - value, new, new_value
            if gained < 1e-4:
                break
        p = self._probabilities(best)
        hessian = self._hessian(p)
        full = hessian + np.diag(precision)
        log_evidence = value + 0.5 * (np.log(precision).sum() - np.linalg.slogdet(full)[1])
        return _Fit(best, hessian, np.linalg.inv(full), self._scores(p), precision, log_evidence)

    def _logits(self, parameters: np.ndarray) -> np.ndarray:
        return self.log_prior + self._corrected(parameters, self.logs, self.features)

    def _probabilities(self, parameters: np.ndarray) -> np.ndarray:
        return softmax(self._logits(parameters), axis=1)

    def _objective(
        self, parameters: np.ndarray, centre: np.ndarray, precision: np.ndarray
    ) -> float:
        fit = (self.shares * log_softmax(self._logits(parameters), axis=1)).sum()
        return float(fit - 0.5 * (precision * (parameters - centre) ** 2).sum())

    def _scores(self, p: np.ndarray) -> np.ndarray:
        """Each image's gradient of the log-likelihood, (n, parameters)."""
        residual = self.shares - p
        linear = self.features[:, :, None] * residual[:, None, :]
        return np.hstack([(residual * self.logs).sum(1, keepdims=True), linear.reshape(len(p), -1)])

    def _hessian(self, p: np.ndarray) -> np.ndarray:
        """Minus the second derivatives of the log-likelihood, (parameters, parameters)."""
        n, k = p.shape
        d = self.features.shape[1]
        spread = (self.features[:, :, None] * p[:, None, :]).reshape(n, -1)
        linear = -(spread.T @ spread)
        place = np.arange(d * k).reshape(d, k)
        for label in range(k):
            own = (self.features * p[:, [label]]).T @ self.features
            linear[np.ix_(place[:, label], place[:, label])] += own
        mean = (p * self.logs).sum(axis=1, keepdims=True)
        cross = (self.features.T @ (p * (self.logs - mean))).ravel()
        own = (p * (self.logs - mean) ** 2).sum()
        return np.block([[np.full((1, 1), own), cross[None]], [cross[:, None], linear]])


def _directions(logs: np.ndarray) -> np.ndarray:
    """Along which the labels an image is taken for are told apart, (k, r).

    All of them where the parameters stay few enough to be fitted; else those that vary most.
    """
    k = logs.shape[1]
    most = MOST_PARAMETERS // k - 1
    if most >= k:
        return np.eye(k)
    taken_for = softmax(logs, axis=1)
    _, vectors = np.linalg.eigh(taken_for.T @ taken_for)
    return vectors[:, ::-1][:, : max(most, 0)]
