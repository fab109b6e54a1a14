"""Which images to leave out of counts, on answers whose best threshold is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from label_studio_config.schema import LabelSchema
from ml_backend.measure import Answered
from ml_backend.rejection import (
    MIN_IMAGES,
    Communities,
    choose_rejection,
    composition_errors,
)
from ml_backend.report import plain
from ml_backend.targets import ControlTargets, LearningSet

SCHEMA = LabelSchema.from_xml(
    '<View><Image name="image" value="$image"/><Choices name="group" toName="image">'
    '<Choice value="Copepod"/><Choice value="Medusa"/><Choice value="Marine snow"/>'
    "</Choices></View>"
)


def answered(
    truth: np.ndarray,
    said: np.ndarray,
    confidence: np.ndarray,
    novelty: np.ndarray | None = None,
    samples: int = 0,
) -> Answered:
    """Half of the images on the validation side, half held out."""
    n = len(truth)
    images = pd.DataFrame(
        {
            "image_id": [f"image-{i}" for i in range(n)],
            "sample_id": [f"haul-{i % samples}" if samples else None for i in range(n)],
            "side": ["validation" if i < n // 2 else "test" for i in range(n)],
        }
    )
    shares, chosen = np.eye(3)[truth], np.eye(3, dtype=bool)[said]
    target = ControlTargets(SCHEMA.control("group"), shares, np.ones(n, dtype=int))
    values = np.where(chosen, confidence[:, None], (1 - confidence[:, None]) / 2)
    if novelty is None:
        novelty = np.full(n, np.nan, dtype=np.float32)
    return Answered(
        LearningSet(SCHEMA, images, {"group": target}),
        {"group": values},
        {"group": values},
        {"group": chosen},
        {},
        {},
        novelty,
    )


def guesses(n: int = 1200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, the label said, and which 30 % are called Copepod whatever they are."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, size=n)
    guessed = generator.random(n) < 0.3
    return truth, np.where(guessed, 0, truth), guessed


@pytest.mark.parametrize("samples", [0, 6])
def test_unsure_guesses_are_left_out(samples: int) -> None:
    truth, said, guessed = guesses()
    confidence = np.where(guessed, 0.4, 0.9)
    record = choose_rejection(answered(truth, said, confidence, samples=samples), SCHEMA)
    assert record["unit"] == ("sample" if samples else "image")
    chosen = record["confidence"]
    assert chosen["helps"]
    assert 0.4 < chosen["threshold"] <= 0.9
    assert chosen["rejected"] == pytest.approx(0.3, abs=0.05)
    assert chosen["test"]["bray_curtis"] < chosen["test"]["bray_curtis_all"] - 0.1
    assert chosen["test"]["difference_interval"][1] < 0
    assert record["novelty"] is None


def test_a_hard_group_is_not_left_out_of_counts() -> None:
    """Single images get surer, the community would lose its marine snow."""
    truth = guesses()[0]
    generator = np.random.default_rng(1)
    wrong = (truth == 2) & (generator.random(len(truth)) < 0.2)
    said = np.where(wrong, 1, truth)
    record = choose_rejection(answered(truth, said, np.where(truth == 2, 0.5, 0.95)), SCHEMA)
    assert not record["confidence"]["helps"]
    assert record["confidence"]["threshold"] == 0.0
    assert record["confidence"]["rejected"] == record["confidence"]["test"]["rejected"] == 0.0
    assert "no threshold has a smaller error" in record["confidence"]["reason"]
    assert record["confidence"]["curve"][-1]["bray_curtis"] > 0.2
    json.dumps(plain(record), allow_nan=False)


def test_what_is_too_new_is_left_out() -> None:
    truth, said, guessed = guesses()
    novelty = np.where(guessed, 0.99, 0.5).astype(np.float32)
    record = choose_rejection(answered(truth, said, np.full(len(truth), 0.8), novelty), SCHEMA)
    assert record["novelty"]["helps"]
    assert 0.5 <= record["novelty"]["threshold"] < 0.99
    assert record["confidence"]["threshold"] == 0.0


def test_too_few_validation_images_choose_nothing() -> None:
    truth, said, _ = guesses(2 * MIN_IMAGES - 2)
    record = choose_rejection(answered(truth, said, np.full(len(truth), 0.8)), SCHEMA)
    assert record == {
        "control": "group",
        "reason": f"{MIN_IMAGES - 1} validation images with votes, needs {MIN_IMAGES}",
    }


def test_bray_curtis_by_hand() -> None:
    """All say Copepod, none is: wholly wrong; all are: wholly right; none left: wholly wrong."""
    said = np.eye(3, dtype=bool)[np.zeros(20, dtype=int)]
    confidence = {"confidence": np.full(20, 0.5), "novelty": np.zeros(20)}
    every = [np.arange(20)]
    for label, error in ((0, 0.0), (1, 1.0)):
        shares = np.eye(3)[np.full(20, label)]
        communities = Communities(shares, said, confidence, every)  # type: ignore[arg-type]
        errors = composition_errors(communities, "confidence", np.array([0.0, 0.9]))
        assert errors[:, 0] == pytest.approx(error)
        assert errors[:, 1] == pytest.approx(1.0)
