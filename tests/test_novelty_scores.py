"""The novelty benchmark: every score points the right way, and labels are left out as it says."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pandas as pd
import pytest

from benchmarks.novelty import SEEDS, left_out, separation
from benchmarks.novelty_scores import SCORES, Described, Taught

N_LABELS, DIMENSIONS = 4, 16


def described(features: np.ndarray, weight: np.ndarray) -> Described:
    logits = features @ weight.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shown = np.linalg.norm(features, axis=1)  # stands for what the product says
    return Described(features, features, logits, shares / shares.sum(axis=1, keepdims=True), shown)


@pytest.fixture(scope="module")
def separations() -> dict[str, float]:
    """AUROC of a fifth cluster, by score, when four were taught."""
    rng = np.random.default_rng(0)
    centres = 6 * np.eye(DIMENSIONS)[: N_LABELS + 1]
    weight = np.eye(DIMENSIONS)[:N_LABELS]
    labels = np.repeat(np.arange(N_LABELS + 1), 60)
    features = centres[labels] + rng.normal(size=(len(labels), DIMENSIONS))
    known = labels < N_LABELS
    taught = Taught(described(features[known], weight), labels[known], weight, np.zeros(N_LABELS))
    fresh = described(centres[labels] + rng.normal(size=features.shape), weight)
    names = labels.astype(str)
    return {
        name: separation(score(taught, fresh), names, ~known)["macro_auroc"]
        for name, score in SCORES.items()
        if name != "as shown"
    }


@pytest.mark.parametrize("name", [name for name in SCORES if name != "as shown"])
def test_every_score_finds_a_cluster_that_nobody_taught(
    separations: dict[str, float], name: str
) -> None:
    assert separations[name] > 0.75


def test_a_score_without_a_clue_is_at_one_half() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c", "d"], 400)
    found = separation(rng.random(1600), labels, np.isin(labels, ["c", "d"]))
    assert found["macro_auroc"] == pytest.approx(0.5, abs=0.04)
    assert found["found"] == pytest.approx(0.05, abs=0.02)


def test_labels_with_few_images_do_not_count_alone() -> None:
    labels = np.array(["known"] * 100 + ["novel"] * 50 + ["rare"] * 3)
    score = np.array([0.0] * 100 + [1.0] * 50 + [-1.0] * 3)
    found = separation(score, labels, labels != "known")
    assert found["macro_auroc"] == 1.0
    assert found["auroc"] < 1.0


def test_every_label_is_left_out_once() -> None:
    table = pd.DataFrame({"functional_group": [f"group {n}" for n in range(21)]})
    thirds = [left_out(table, "groups", seed) for seed in SEEDS]
    assert [len(third) for third in thirds] == [7, 7, 7]
    assert sorted(chain(*thirds)) == sorted(table["functional_group"])
