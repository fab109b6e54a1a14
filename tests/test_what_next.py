"""What to label next: unlabelled rows only, each once, and what each strategy is for."""

from __future__ import annotations

import numpy as np
import pytest

from ml_backend.what_next import STRATEGIES, choose_next


def clouds(sizes: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of unit length in clouds of some sizes, and which cloud each is in."""
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(random.normal(size=(8, 8)))[0][: len(sizes)]
    of = np.repeat(np.arange(len(sizes)), sizes)
    features = centres[of] + 0.05 * random.normal(size=(len(of), 8))
    return features / np.linalg.norm(features, axis=1, keepdims=True), of


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_unlabelled_image_once_and_the_same_every_time(strategy) -> None:
    features, of = clouds((40, 30, 20))
    confidence = np.random.default_rng(1).random(len(of))
    labelled = np.arange(len(of)) % 3 == 0
    chosen = choose_next(strategy, features, confidence, labelled, 25)
    assert len(chosen) == len(set(chosen.tolist())) == 25
    assert not labelled[chosen].any()
    assert (choose_next(strategy, features, confidence, labelled, 25) == chosen).all()
    every = choose_next(strategy, features, confidence, labelled, 1000)
    assert sorted(every.tolist()) == np.flatnonzero(~labelled).tolist()
    assert len(choose_next(strategy, features, confidence, np.ones(len(of), bool), 5)) == 0


def test_the_least_certain_come_first() -> None:
    features, of = clouds((30, 30))
    confidence = np.linspace(0, 1, len(of))[::-1]
    chosen = choose_next("uncertainty", features, confidence, np.zeros(len(of), bool), 10)
    assert chosen.tolist() == list(range(59, 49, -1))


def test_diversity_finds_the_rare_cloud_that_chance_misses() -> None:
    features, of = clouds((2000, 600, 300, 20))
    labelled = np.zeros(len(of), bool)
    chosen = choose_next("diversity", features, None, labelled, 24)
    assert set(of[chosen]) == {0, 1, 2, 3}
    labelled[of < 3] = True
    chosen = choose_next("diversity", features, None, labelled, 5)
    assert set(of[chosen]) == {3}


def test_a_mixture_leaves_out_what_is_sure_and_asks_of_everything_else() -> None:
    features, of = clouds((240, 200, 20, 20))
    confidence = np.where(of == 0, 0.95, np.where(of == 1, 0.3, 0.35))
    labelled = np.zeros(len(of), bool)
    assert set(of[choose_next("mixture", features, confidence, labelled, 24)]) == {1, 2, 3}
    assert set(of[choose_next("uncertainty", features, confidence, labelled, 24)]) == {1}
    assert set(of[choose_next("diversity", features, confidence, labelled, 24)]) == {0, 1, 2, 3}


def test_without_a_model_uncertainty_is_diversity() -> None:
    features, of = clouds((50, 50))
    labelled = np.zeros(len(of), bool)
    expected = choose_next("diversity", features, None, labelled, 8)
    assert (choose_next("mixture", features, None, labelled, 8) == expected).all()


def test_an_unknown_strategy_is_named() -> None:
    features, of = clouds((5, 5))
    with pytest.raises(ValueError, match="'luck' is none of random"):
        choose_next("luck", features, None, np.zeros(len(of), bool), 2)  # type: ignore[arg-type]
