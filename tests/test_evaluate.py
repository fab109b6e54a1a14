"""Metrics and the promotion rule, on answers whose figures can be worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score

from label_studio_config.controls import Control
from ml_backend.evaluate import Judged, bootstrap_weights, evaluate_labels, evaluate_number
from ml_backend.promote import decide
from ml_backend.reliability import (
    adaptive_calibration_error,
    classwise_calibration_error,
    reliability_bins,
    risk_coverage,
)
from ml_backend.targets import ControlTargets

LABELS = ("Copepod", "Diatom chain", "Marine snow")


def one_hot(truth: np.ndarray) -> np.ndarray:
    return np.eye(len(LABELS))[truth]


def answers(truth: np.ndarray, right: float, seed: int = 0) -> np.ndarray:
    """Probabilities of a model that is right on a share of the images."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(len(truth)) > right
    predicted = np.where(wrong, (truth + 1) % len(LABELS), truth)
    return one_hot(predicted) * 0.7 + 0.1


def figures(probabilities: np.ndarray, shares: np.ndarray, kind: str = "one of") -> dict:
    """Figures of a model that suggests what is most probable."""
    if kind == "one of":
        chosen = np.eye(shares.shape[1], dtype=bool)[probabilities.argmax(axis=1)]
    else:
        chosen = probabilities >= 0.5
    labels = LABELS[: shares.shape[1]]
    return evaluate_labels(
        kind, labels, probabilities, probabilities / 2, chosen, shares, units(len(shares))
    )


def truth_of(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(LABELS), size=n, p=[0.8, 0.15, 0.05])


def units(n: int) -> np.ndarray:
    return np.arange(n).astype(str)


def test_figures_agree_with_scikit_learn() -> None:
    truth = truth_of(500)
    probabilities = answers(truth, 0.7)
    predicted = probabilities.argmax(axis=1)
    metrics = figures(probabilities, one_hot(truth))
    assert metrics["macro_recall"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert metrics["macro_precision"] == pytest.approx(
        precision_score(truth, predicted, average="macro")
    )
    assert metrics["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert metrics["micro_accuracy"] == pytest.approx((truth == predicted).mean())
    low, high = metrics["macro_recall_interval"]
    assert low < metrics["macro_recall"] < high


def test_no_error_is_no_certainty() -> None:
    """The rule of three: 18 images without an error do not rule out that 3 in 18 are wrong."""
    truth = np.arange(18) % 2
    low, high = figures(answers(truth, 1.0), one_hot(truth))["macro_recall_interval"]
    assert 0.7 < low < 0.85
    assert high == 1.0
    rare = np.array([0] * 300 + [1] * 3)
    low, _ = figures(answers(rare, 1.0), one_hot(rare))["macro_recall_interval"]
    assert low < 0.75
    many = np.arange(20_000) % 2
    low, _ = figures(answers(many, 1.0), one_hot(many))["macro_recall_interval"]
    assert low > 0.999


def test_a_label_of_any_number_that_is_always_right_is_not_certain_either() -> None:
    shares = np.eye(2)[np.arange(20) % 2]
    metrics = figures(np.where(shares > 0, 0.9, 0.1), shares, "any of")
    low, high = metrics["macro_recall_interval"]
    assert 0.75 < low < 0.9
    assert high == metrics["macro_recall"] == 1.0


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Rare labels and few errors, where the bootstrap alone holds in 80 % of cases."""
    generator = np.random.default_rng(0)
    recalls = generator.beta(20, 1.5, 12)
    inside = []
    for _ in range(200):
        truth = np.arange(90) * 12 // 90
        wrong = generator.random(90) > recalls[truth]
        said = np.where(wrong, (truth + 1) % 12, truth)
        judged = Judged(np.eye(12, dtype=bool)[truth], np.eye(12, dtype=bool)[said], units(90))
        low, high = judged.macro_recall_interval()
        inside.append(low <= recalls.mean() <= high)
    assert np.mean(inside) >= 0.94


def test_the_majority_answer_is_no_good_in_macro() -> None:
    truth = truth_of(500)
    majority = one_hot(np.zeros(500, dtype=int)) * 0.7 + 0.1
    metrics = figures(majority, one_hot(truth))
    assert metrics["micro_accuracy"] > 0.75
    assert metrics["macro_recall"] == metrics["majority_macro_recall"] == pytest.approx(1 / 3)


def test_a_label_that_does_not_occur_is_left_out_and_counted() -> None:
    truth = np.array([0, 0, 1, 1])
    metrics = figures(answers(truth, 1.0), one_hot(truth))
    assert metrics["macro_recall"] == 1.0
    assert metrics["labels_evaluated"] == 2
    assert metrics["per_label"]["Marine snow"]["support"] == 0
    assert metrics["few_images"]


def test_disagreeing_annotators_count_by_their_shares() -> None:
    shares = np.array([[0.6, 0.4, 0.0]])
    second = np.array([[0.2, 0.7, 0.1]])
    metrics = figures(second, shares)
    assert metrics["agreement"] == pytest.approx(0.4 / 0.6)
    same = figures(np.clip(shares, 1e-9, 1), shares)
    assert same["kl"] == pytest.approx(0.0, abs=1e-6)
    assert same["nll"] > 0.6


def test_any_modal_label_is_right() -> None:
    """Two annotators who disagree: neither label is wrong, whichever comes first in the config."""
    shares = np.array([[0.5, 0.5, 0.0]] * 4)
    for right in (0, 1):
        metrics = figures(one_hot(np.full(4, right)), shares)
        assert metrics["micro_accuracy"] == metrics["macro_recall"] == 1.0
    assert figures(one_hot(np.full(4, 2)), shares)["micro_accuracy"] == 0.0


def test_the_error_of_probabilities_before_the_correction_is_told_too() -> None:
    truth = truth_of(300)
    metrics = figures(answers(truth, 0.8), one_hot(truth))
    right = metrics["micro_accuracy"]
    assert metrics["ece"] == pytest.approx(abs(right - 0.8), abs=1e-4)
    assert metrics["ece_before_correction"] == pytest.approx(right - 0.4, abs=1e-4)


def test_any_of_always_yes_is_no_better_than_chance() -> None:
    shares = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=float)
    always = np.full((4, 2), 0.9)
    metrics = figures(always, shares, "any of")
    assert metrics["macro_recall"] == pytest.approx(0.5)


def test_numbers_in_their_own_unit() -> None:
    truth = np.arange(200, dtype=float)
    noise = np.random.default_rng(0).normal(size=200) * 3
    metrics = evaluate_number(truth + noise, truth, sd=3.0, unit="count")
    assert metrics["mae"] == pytest.approx(np.abs(noise).mean())
    assert metrics["r2"] > 0.99
    assert metrics["interval_90_coverage"] == pytest.approx(0.9, abs=0.05)


def test_bootstrap_draws_whole_samples() -> None:
    weights = bootstrap_weights(np.array(["a", "a", "b", "c"]), draws=50)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert weights.shape == (50, 4)


def test_weighted_macro_recall_is_that_of_repeated_images() -> None:
    truth = truth_of(60)
    chosen = answers(truth, 0.6) > 0.5
    judged = Judged.of("one of", chosen, one_hot(truth), units(60))
    weights = bootstrap_weights(units(60), draws=3)
    repeated = np.repeat(np.arange(60), weights[0].astype(int))
    again = Judged.of("one of", chosen[repeated], one_hot(truth)[repeated], repeated)
    assert np.asarray(judged.macro_recall(weights))[0] == pytest.approx(again.macro_recall())


def choices(truth: np.ndarray, right: float, seed: int = 0) -> np.ndarray:
    """Labels chosen by a model that is right on a share of the images."""
    return answers(truth, right, seed) > 0.5


def targets(truth: np.ndarray, name: str = "group") -> dict[str, ControlTargets]:
    control = Control(name, "Choices", "image", "one of", LABELS)
    shares = one_hot(truth).astype(np.float32)
    return {name: ControlTargets(control, shares, np.ones(len(truth), dtype=int))}


def test_a_better_version_is_promoted() -> None:
    truth = truth_of(600)
    new, old = choices(truth, 0.9), choices(truth, 0.6)
    decision = decide({"group": new}, {"group": old}, targets(truth), units(600))
    assert decision.promoted
    assert decision.difference_interval[0] > 0
    assert not decision.notes


def test_an_equal_version_is_promoted() -> None:
    truth = truth_of(600)
    new, old = choices(truth, 0.8, seed=3), choices(truth, 0.8, seed=4)
    assert decide({"group": new}, {"group": old}, targets(truth), units(600)).promoted


def test_a_worse_version_is_not() -> None:
    truth = truth_of(600)
    new, old = choices(truth, 0.4), choices(truth, 0.9)
    decision = decide({"group": new}, {"group": old}, targets(truth), units(600))
    assert not decision.promoted
    assert decision.difference_interval[1] < 0
    assert "worse" in decision.reason


def test_few_images_are_said() -> None:
    truth = truth_of(12)
    decision = decide({"group": choices(truth, 1)}, None, targets(truth), units(12))
    assert decision.promoted
    assert "only 12 held-out images" in decision.notes[0]


def test_without_a_shared_control_the_live_version_stays() -> None:
    truth = truth_of(200)
    decision = decide(
        {"group": choices(truth, 1)}, {"sex": choices(truth, 1)}, targets(truth), units(200)
    )
    assert not decision.promoted
    assert any("'sex' is served only by the live" in note for note in decision.notes)


def test_a_live_version_that_fits_nothing_gives_way() -> None:
    truth = truth_of(200)
    decision = decide({"group": choices(truth, 1)}, {}, targets(truth), units(200))
    assert decision.promoted
    assert "no head of the live version" in decision.reason


def test_masked_images_do_not_count() -> None:
    truth = truth_of(300)
    both = targets(truth)
    both["group"].n_votes[:100] = 0
    decision = decide(
        {"group": choices(truth, 0.9)}, {"group": choices(truth, 0.9)}, both, units(300)
    )
    assert decision.n_heldout == 200


def number_targets(truth: np.ndarray, name: str = "length") -> dict[str, ControlTargets]:
    control = Control(name, "Number", "image", "number", (), unit="mm")
    return {name: ControlTargets(control, truth[:, None], np.ones(len(truth), dtype=int))}


def lengths(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=n) * 10 + 50, generator.normal(size=(n, 1))


def test_a_project_of_numbers_alone_is_decided_on_their_errors() -> None:
    truth, noise = lengths()
    good, bad = {"length": truth[:, None] + noise}, {"length": truth[:, None] + 12 * noise}
    refused = decide(bad, good, number_targets(truth), units(300))
    assert not refused.promoted
    assert refused.shared_controls == ("length",)
    assert refused.difference_interval[1] < 0
    assert "mean skill" in refused.reason
    spread = np.abs(truth - truth.mean()).mean()
    assert refused.live_score == pytest.approx(1 - np.abs(noise).mean() / spread, abs=1e-6)
    assert decide(good, bad, number_targets(truth), units(300)).promoted


def test_one_absurd_number_does_not_outweigh_the_labels() -> None:
    truth, noise = lengths()
    group = truth_of(300)
    both = targets(group) | number_targets(truth)
    new = {"group": choices(group, 0.9), "length": truth[:, None] + 1e9}
    old = {"group": choices(group, 0.9), "length": truth[:, None] + noise}
    decision = decide(new, old, both, units(300))
    assert not decision.promoted
    assert decision.difference > -1.0
    assert "macro recall and skill" in decision.reason


def test_what_cannot_be_compared_is_not_promoted() -> None:
    same = np.full(200, 3.0)
    answer = {"length": same[:, None]}
    decision = decide(answer, answer, number_targets(same), units(200))
    assert not decision.promoted
    assert "do not differ" in decision.reason


def test_held_out_images_of_few_samples_are_said() -> None:
    truth = truth_of(600)
    chosen = {"group": choices(truth, 0.9)}
    samples = np.array(["a", "b", "c"])[np.arange(600) % 3]
    notes = decide(chosen, chosen, targets(truth), samples).notes
    assert any("come from 3 sample(s)" in note for note in notes)


def test_adaptive_calibration_error_by_hand() -> None:
    """Two bins of two: |(0 - .1) + (1 - .3)| and |(1 - .8) + (1 - .9)|, over four images."""
    confidence, right = np.array([0.9, 0.1, 0.8, 0.3]), np.array([1, 0, 1, 1])
    error = adaptive_calibration_error(confidence, right, n_bins=2)
    assert error == pytest.approx((0.6 + 0.3) / 4)
    assert np.isnan(adaptive_calibration_error(np.zeros(0), np.zeros(0)))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_equal_confidences_does_not_matter(seed: int) -> None:
    right = np.random.default_rng(seed).random(100) < 0.7
    confidence = np.full(100, 0.8)
    assert adaptive_calibration_error(confidence, right) == pytest.approx(abs(right.mean() - 0.8))
    curve = risk_coverage(confidence, right)
    assert curve["aurc"] == pytest.approx(1 - right.mean())


def test_classwise_calibration_error_by_hand() -> None:
    """Label A: bins .2 (truth 0) and .6 (truth ½); label B the same mirrored."""
    probabilities = np.array([[0.2, 0.8], [0.6, 0.4], [0.6, 0.4]])
    truth = np.array([[0, 1], [1, 0], [0, 1]])
    by_hand = (1 * 0.2 + 2 * 0.1) / 3
    assert classwise_calibration_error(probabilities, truth) == pytest.approx(by_hand, abs=1e-6)


def test_reliability_bins_hold_the_calibration_error() -> None:
    bins = reliability_bins(np.array([0.05, 0.06, 0.95, 1.0]), np.array([0, 1, 1, 1]), n_bins=10)
    assert [entry["n"] for entry in bins] == [2, 2]
    assert bins[0]["confidence"] == pytest.approx(0.055)
    assert bins[0]["accuracy"] == 0.5
    truth = truth_of(400)
    probabilities = np.random.default_rng(2).dirichlet(np.ones(3), size=400)
    metrics = figures(probabilities, one_hot(truth))
    gaps = [b["n"] * abs(b["confidence"] - b["accuracy"]) for b in metrics["reliability"]]
    assert sum(gaps) / 400 == pytest.approx(metrics["ece"], abs=1e-6)


def test_risk_and_coverage_by_hand() -> None:
    """From the surest: right, right, wrong, right; risks 0, 0, 1/3, 1/4."""
    curve = risk_coverage(np.array([0.5, 0.9, 0.8, 0.7]), np.array([1, 1, 1, 0]))
    assert curve["coverage"] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert curve["risk"] == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert curve["aurc"] == pytest.approx((1 / 3 + 1 / 4) / 4)
    long = risk_coverage(np.random.default_rng(0).random(1000), np.ones(1000))
    assert len(long["coverage"]) == 50
    assert long["coverage"][-1] == 1.0


def test_who_is_taken_for_whom() -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    said = np.array([0, 0, 1, 1, 2, 2])
    metrics = figures(one_hot(said) * 0.7 + 0.1, one_hot(truth))
    assert metrics["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert "mae_steps" not in metrics
    assert "confusion" not in figures(np.full((4, 2), 0.9), np.ones((4, 2)), "any of")


def test_ordinal_labels_are_steps() -> None:
    """Errors of 0, 0, 1 and 2 steps; quadratic kappa 1 - Σ observed d² / Σ expected d²."""
    truth, said = np.array([0, 1, 1, 0]), np.array([0, 1, 2, 2])
    chosen = one_hot(said).astype(bool)
    metrics = evaluate_labels(
        "one of", LABELS, one_hot(said), one_hot(said), chosen, one_hot(truth), units(4), True
    )
    assert metrics["mae_steps"] == pytest.approx(3 / 4)
    # Observed: 1² + 2² = 5. By chance, each pair of 2 × (0, 1) and said (0, 1, 2, 2) over four:
    expected = sum((t - s) ** 2 for t in truth for s in said) / 4
    assert metrics["quadratic_kappa"] == pytest.approx(1 - 5 / expected)
    same = one_hot(np.zeros(4, dtype=int))
    constant = evaluate_labels(
        "one of", LABELS, same, same, same.astype(bool), same, units(4), True
    )
    assert np.isnan(constant["quadratic_kappa"])
