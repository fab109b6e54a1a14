"""What the card and the page say of images that taught a version, and of numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from ml_backend.fit import FitSettings
from ml_backend.model_card import model_card
from ml_backend.registry import ModelVersion
from ml_backend.report_context import learning_points
from ml_backend.report_page import report_html
from ml_backend.taught import REFITTED, images_that_taught, who_taught
from tests.test_report_page import parsed

NUMBER = {
    "kind": "number",
    "unit": "px",
    "n_images": 26,
    "few_images": True,
    "mae": 0.35,
    "rmse": 0.5,
    "r2": 0.99,
    "interval_90_coverage": 0.85,
    "interval_95_coverage": 0.92,
    "interval_95_width": 2.25,
}
HEAD = {"control": "diameter", "kind": "number", "n_images": 115, "half_width_95": 1.1}


def record(**told: Any) -> dict[str, Any]:
    """What a training of 241 images records, as far as card and page need it."""
    return {
        "made_at": "2026-11-27T20:43:00+00:00",
        "seconds": 6.0,
        "encoder": "the encoder enc",
        "trained": "heads on frozen features",
        "images": {"train": 197, "validation": 44, "test": 26, "blind": 33},
        "split": {"unit": "sample", "reason": "30 samples are known"},
        "data_fingerprint": "f" * 64,
        "schema_fingerprint": "e" * 64,
        "metrics": {"test": {"diameter": NUMBER}},
        "blind": {"share_in_training_samples": None, "images_apart": 0},
        "left_out": {},
        "promotion": {"promoted": True, "reason": "the first version", "notes": []},
        "notes": [],
        "settings": asdict(FitSettings()),
        "heads": [{**HEAD, "cross_fitted": True}],
        **told,
    }


BOTH_SIDES = "241 taught it, 44 of which first chose its settings"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"refitted": False}, "197 taught it, 44 chose its settings"),
        ({"refitted": True}, BOTH_SIDES),
        ({"notes": [REFITTED]}, BOTH_SIDES),  # an older record
    ],
)
def test_images_of_both_sides_are_counted_where_both_taught(
    told: dict[str, Any], words: str
) -> None:
    made = record(**told)
    card = model_card("project-1-v0003", made)
    page = parsed(report_html("project-1-v0003", made, card, [])).text
    assert who_taught(made) == words
    assert f"{words}, 26 were held out" in card
    assert f"{words}, 26 held out" in page
    assert f"from {words.split()[0]} images" in page


def test_the_learning_curve_counts_what_taught_the_head(tmp_path) -> None:
    before = ModelVersion("p-v0001", tmp_path)
    before.__dict__["metrics"] = record(heads=[], refitted=True)  # a record without heads
    points, _ = learning_points("diameter", "p-v0002", record(refitted=True), [before])
    assert [point.n_images for point in points] == [241, 115]
    assert images_that_taught({}) is None


def test_the_card_names_its_version_and_how_often_intervals_hold() -> None:
    card = model_card("project-1-v0003", record())
    assert card.startswith("# project-1-v0003\n")
    assert "| 85% | 92% | 2.25 |" in card
    assert "no guarantee; how often they hold is above" in card
    untold = {**NUMBER, "interval_95_coverage": None, "interval_95_width": None}
    card = model_card("p-v0001", record(metrics={"test": {"diameter": untold}}))
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {10}
