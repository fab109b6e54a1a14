"""Intervals of numbers, and offsets by label: what they promise, on data whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from ml_backend.calibrate import brier_score, fit_temperature
from ml_backend.calibrate_head import calibrate_head
from ml_backend.conformal import error_slope, half_width, relative_spread
from ml_backend.evaluate import evaluate_number
from ml_backend.head import Head
from ml_backend.label_bias import choose_bias, fit_bias

NUMBER = Head("cells", "number", unit="count", offset=5.0, scale=2.0)
EVEN = Head(
    "group", "one of", ("a", "b", "c", "d"), trained_prior=(0.25,) * 4, deployed_prior=(0.25,) * 4
)


def test_the_width_is_the_finite_sample_quantile() -> None:
    truth = np.zeros(39)
    assert half_width(np.arange(1, 40.0), truth) == 38  # the ⌈40 · 0.95⌉-th of 39 errors
    assert half_width(np.arange(1, 20.0), truth[:19]) is None
    assert half_width(np.arange(1, 21.0), truth[:20]) == 20  # the largest: ⌈21 · 0.95⌉ = 20


@pytest.mark.parametrize("n", [20, 50, 400])
def test_the_interval_holds_what_it_promises(n: int) -> None:
    """Over many validation sides, errors far from normal: 95 % or a little more."""
    rng = np.random.default_rng(n)
    held = []
    for _ in range(400):
        errors = rng.standard_t(3, size=n + 200)
        reach = half_width(errors[:n], np.zeros(n))
        held.append((np.abs(errors[n:]) <= reach).mean())
    assert 0.945 < np.mean(held) < 0.95 + 1.5 / n + 0.005


def growing(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts from 1 to 20, off by a tenth of themselves."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 21, size=n).astype(float)
    return truth * (1 + 0.1 * rng.normal(size=n)), truth


def test_where_errors_grow_the_interval_does() -> None:
    predicted, truth = growing(1000)
    head = calibrate_head(NUMBER, (predicted[:, None] - 5) / 2, truth[:, None])
    assert head.error_slope == pytest.approx(1 / 5, rel=0.3)  # twice as far at 10 as at 5
    predicted, truth = growing(4000, seed=1)
    reach = head.half_widths(predicted)
    for few in (truth <= 7, truth > 14):
        assert 0.9 < (np.abs(predicted - truth) <= reach)[few].mean() < 0.99
    alike = calibrate_head(NUMBER, predicted[:50, None] / 2 - 2.5, truth[:50, None])
    assert alike.error_slope == 0  # too few to tell
    assert np.ptp(alike.half_widths(predicted)) == 0


def test_a_spread_never_vanishes_and_chance_is_no_growth() -> None:
    np.testing.assert_allclose(relative_spread(np.array([5.0, 6.0, -90.0]), 5, 0.1), [1, 1.1, 0.25])
    rng = np.random.default_rng(3)
    predicted = rng.uniform(size=500)
    assert error_slope(predicted, predicted + rng.normal(size=500), 0.5) == 0
    assert error_slope(np.ones(500), rng.normal(size=500), 0.5) == 0


def test_too_few_images_give_no_interval() -> None:
    few = np.arange(10.0)[:, None]
    head = calibrate_head(NUMBER, few, few)
    assert head.half_width_95 is None
    assert np.isnan(head.half_widths(few)).all()
    none = calibrate_head(NUMBER, few[:0], few[:0])
    assert (none.half_width_95, none.sd) == (None, NUMBER.scale)


def test_coverage_is_reported() -> None:
    truth = np.arange(100.0)
    told = evaluate_number(truth + 1, truth, 2.0, "count", np.where(truth < 90, 1.5, 0.5))
    assert told["interval_95_coverage"] == pytest.approx(0.9)
    assert told["interval_95_width"] == pytest.approx(2.8)
    assert evaluate_number(truth, truth, 2.0)["interval_95_coverage"] is None


def biased(n: int, offsets: tuple[float, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs that lean by `offsets`, and one-hot labels drawn from what they should have been."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 4)) * 2
    truth = np.array([rng.choice(4, p=p) for p in softmax(logits, axis=1)])
    return logits + np.array(offsets), np.eye(4)[truth]


def test_offsets_are_found_where_a_label_leans_and_they_help() -> None:
    logits, shares = biased(1500, (0, 0, 0, 1.5))
    head = calibrate_head(EVEN, logits, shares)
    assert head.bias[3] - np.mean(head.bias[:3]) == pytest.approx(-1.5, abs=0.2)
    logits, shares = biased(3000, (0, 0, 0, 1.5), seed=1)
    alone = replace(head, bias=(), temperature=fit_temperature("one of", logits, shares))
    assert brier_score(head.answer(logits), shares) < brier_score(alone.answer(logits), shares)


def test_with_offsets_what_is_shown_at_the_natural_frequencies_is_as_sure_as_it_is_right() -> None:
    """Few rare images, of which it is too sure, weigh as much as many common ones in offsets."""
    natural = np.array([0.7, 0.2, 0.07, 0.03])
    skewed = replace(EVEN, trained_prior=(0.25,) * 4, deployed_prior=tuple(natural))
    rng = np.random.default_rng(0)
    truth = rng.choice(4, 2000, p=natural)
    logits = 1.5 * np.eye(4)[truth] + rng.normal(size=(2000, 4)) + np.array([0, 0, 0, 1.5])
    logits[truth > 1] *= 3
    shares = np.eye(4)[truth]
    head = calibrate_head(skewed, logits, shares)
    assert head.bias
    best = brier_score(head.answer(logits), shares)
    for factor in (0.85, 0.93, 1.08, 1.18):
        other = replace(
            head, temperature=head.temperature * factor, bias=tuple(np.array(head.bias) / factor)
        )
        assert brier_score(other.answer(logits), shares) > best


def test_the_temperature_alone_is_the_rule() -> None:
    """Of 30 heads that lean nowhere hardly any gets offsets, and those are small."""
    found = []
    for seed in range(30):
        logits, shares = biased(300, (0, 0, 0, 0), seed)
        found.append(calibrate_head(EVEN, logits, shares).bias)
    chosen = [bias for bias in found if bias]
    assert len(chosen) <= 6
    assert all(np.abs(bias).max() < 0.5 for bias in chosen)


def test_few_images_get_no_offsets() -> None:
    logits, shares = biased(99, (0, 0, 0, 3))
    weights = np.ones_like(shares)
    assert choose_bias("one of", logits, shares, weights, 1.0) == (1.0, ())
    logits, shares = biased(400, (0, 0, 0, 3))
    weights = np.ones_like(shares)
    assert len(choose_bias("one of", logits, shares, weights, 1.0)[1]) == 4
    of_one_sample = np.zeros(400)
    assert choose_bias("one of", logits, shares, weights, 1.0, of_one_sample) == (1.0, ())


def test_a_label_without_images_is_only_held_back_a_little() -> None:
    logits, shares = biased(400, (0, 0, 0, 0))
    never = shares.argmax(axis=1) != 3
    _, bias = fit_bias("one of", logits[never], shares[never], np.ones((never.sum(), 4)), 1.0)
    assert np.isfinite(bias).all()
    assert bias[3] < 0


def test_any_of_labels_have_offsets_of_their_own() -> None:
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(2000, 2)) * 2
    shares = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    head = Head("f", "any of", ("x", "y"), trained_prior=(0.5, 0.5), deployed_prior=(0.5, 0.5))
    found = calibrate_head(head, logits + [1.0, 0.0], shares)
    np.testing.assert_allclose(found.bias, [-1, 0], atol=0.2)
    assert Head.from_dict(found.as_dict()) == found


def test_a_head_saved_before_is_read() -> None:
    record = EVEN.as_dict()
    for name in ("bias", "ordinal", "half_width_95", "error_slope"):
        del record[name]
    assert Head.from_dict(record) == EVEN


def test_no_number_lies_far_beyond_the_votes() -> None:
    head = Head("length", "number", lowest=0.0, highest=10.0, offset=5.0, scale=3.0)
    assert head.answer(np.array([[1000.0], [-1000.0], [0.0]]))[:, 0].tolist() == [11.0, -1.0, 5.0]
    unbounded = Head("length", "number", offset=5.0, scale=3.0)  # of an older version
    assert unbounded.answer(np.array([[1000.0]]))[0, 0] == 3005.0
