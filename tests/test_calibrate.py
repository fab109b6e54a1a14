"""Calibration against cases whose answer is known."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from ml_backend.calibrate import (
    CalibrationError,
    calibrated,
    correct_prior,
    estimate_prior,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    prior_shift,
    prior_weights,
)


def sampled(n: int, k: int, seed: int = 0, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels truly drawn from their softmax: calibrated by construction."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k)) * sharpness
    truth = np.array([generator.choice(k, p=p) for p in softmax(logits, axis=1)])
    return logits, truth


def test_the_true_temperature_is_found() -> None:
    logits, truth = sampled(8000, 5)
    overconfident = logits * 3.0
    assert fit_temperature("one of", overconfident, np.eye(5)[truth]) == pytest.approx(3.0, rel=0.1)


def test_temperature_improves_ece_of_an_overconfident_model() -> None:
    logits, truth = sampled(6000, 5)
    temperature = fit_temperature("one of", logits[:3000] * 3, np.eye(5)[truth[:3000]])
    before = calibrated("one of", logits[3000:] * 3, 1.0)
    after = calibrated("one of", logits[3000:] * 3, temperature)
    ece = [
        expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == truth[3000:])
        for p in (before, after)
    ]
    assert ece[0] > 0.15
    assert ece[1] < 0.03


def test_temperature_is_left_alone_on_few_images() -> None:
    logits, truth = sampled(10, 3)
    assert fit_temperature("one of", logits * 5, np.eye(3)[truth]) == 1.0


def test_any_of_temperature() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(6000, 3)) * 2
    truth = generator.random(size=logits.shape) < 1 / (1 + np.exp(-logits))
    fitted = fit_temperature("any of", logits * 2, truth.astype(float))
    assert fitted == pytest.approx(2.0, rel=0.1)


def test_prior_correction_is_bayes_rule() -> None:
    """Two labels told apart by one Gaussian measurement: the exact posterior is known."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=4000)
    likelihood = np.stack([np.exp(-((x - 1) ** 2) / 2), np.exp(-((x + 1) ** 2) / 2)], axis=1)
    at = {}
    for name, prior in {"train": [0.5, 0.5], "deploy": [0.97, 0.03]}.items():
        joint = likelihood * prior
        at[name] = joint / joint.sum(axis=1, keepdims=True)
    corrected = correct_prior("one of", at["train"], np.array([0.5, 0.5]), np.array([0.97, 0.03]))
    np.testing.assert_allclose(corrected, at["deploy"], atol=1e-12)
    np.testing.assert_allclose(corrected.sum(axis=1), 1.0)
    through_logits = calibrated(
        "one of",
        np.log(at["train"]),
        1.0,
        prior_shift("one of", np.array([0.5, 0.5]), np.array([0.97, 0.03])),
    )
    np.testing.assert_allclose(through_logits, at["deploy"], atol=1e-9)


def test_any_of_prior_shift_moves_the_odds() -> None:
    shift = prior_shift("any of", np.array([0.5]), np.array([0.1]))
    assert calibrated("any of", np.zeros((1, 1)), 1.0, shift)[0, 0] == pytest.approx(0.1)


def test_the_same_prior_changes_nothing() -> None:
    prior = np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(prior_shift("one of", prior, prior), 0.0)


def test_priors_of_other_length_are_refused() -> None:
    with pytest.raises(CalibrationError, match="one frequency per label"):
        prior_shift("one of", np.ones(3) / 3, np.ones(2) / 2)


def test_prior_of_weighted_votes() -> None:
    shares = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=float)
    np.testing.assert_allclose(estimate_prior(shares), [0.75, 0.25])
    np.testing.assert_allclose(estimate_prior(shares, np.array([1, 1, 1, 3.0])), [0.5, 0.5])


def test_a_label_nobody_chose_has_a_small_prior_not_none() -> None:
    prior = estimate_prior(np.array([[1.0, 0.0]] * 50))
    assert 0 < prior[1] <= 0.01


def test_log_loss_of_one_of_is_soft_cross_entropy() -> None:
    shares, logits = np.array([[0.5, 0.5]]), np.array([[0.0, 0.0]])
    assert log_loss("one of", logits, shares, 1.0, 0.0) == pytest.approx(np.log(2))


def test_the_temperature_is_that_at_the_training_prior() -> None:
    """Natural images, a head taught evenly: the temperature fits before Bayes' rule, and after."""
    generator = np.random.default_rng(4)
    natural, taught = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    truth = generator.choice(2, p=natural, size=20_000)
    x = np.where(truth == 0, generator.normal(1, 1, 20_000), generator.normal(-1, 3, 20_000))
    logits = np.stack([norm.logpdf(x, 1, 1), norm.logpdf(x, -1, 3)], axis=1)  # exact when even
    shares = np.eye(2)[truth]
    weights = prior_weights("one of", shares, taught, natural)
    assert fit_temperature("one of", logits * 2, shares, weights) == pytest.approx(2.0, rel=0.06)
    assert fit_temperature("one of", logits * 2, shares) != pytest.approx(2.0, rel=0.06)


def test_weights_of_any_of_give_each_label_its_training_frequency() -> None:
    generator = np.random.default_rng(5)
    natural, taught = np.array([0.1, 0.3]), np.array([0.4, 0.2])
    shares = (generator.random((20_000, 2)) < natural).astype(float)
    weights = prior_weights("any of", shares, taught, natural)
    seen = (weights * shares).sum(axis=0) / weights.sum(axis=0)
    np.testing.assert_allclose(seen, taught, atol=0.02)


def test_the_correction_can_be_undone() -> None:
    p = softmax(np.random.default_rng(6).normal(size=(50, 3)), axis=1)
    a, b = np.array([0.2, 0.3, 0.5]), np.array([0.7, 0.2, 0.1])
    for kind in ("one of", "any of"):
        there = correct_prior(kind, p, a, b)
        assert not np.allclose(there, p)
        np.testing.assert_allclose(correct_prior(kind, there, b, a), p, atol=1e-9)
