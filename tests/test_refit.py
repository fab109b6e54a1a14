"""With few labels, heads and the whole network learn from the validation side too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ml_backend.fit import WHOLE, FitSettings
from ml_backend.model import TraitModel
from ml_backend.split import SplitRule
from tests.few_labels import HEADS_ONLY, learn, small_encoder
from tests.trait_fixtures import make_tasks


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("encoder"))


def test_few_images_all_teach_and_held_out_ones_do_not(tmp_path: Path, encoder: Path) -> None:
    (tmp_path / "images").mkdir()
    tasks = make_tasks(tmp_path / "images", 80)
    both = learn(tmp_path, tasks, encoder, HEADS_ONLY, "both")
    sides = both.record["images"]
    group = next(head for head in both.record["heads"] if head["control"] == "group")
    assert group["n_images"] == sides["train"] + sides["validation"]
    assert sum(group["n_per_label"]) == pytest.approx(group["n_images"])
    assert any("validation side too" in note for note in both.record["notes"])
    assert "annotate more" in both.record["rejection"]["reason"]

    alone = learn(tmp_path, tasks, encoder, replace(HEADS_ONLY, refit_below=0), "alone")
    group = next(head for head in alone.record["heads"] if head["control"] == "group")
    assert group["n_images"] == sides["train"]
    assert not any("validation side too" in note for note in alone.record["notes"])

    without = [task for task in tasks if not _held_out(task, both.version.folder.parent)]
    again = learn(tmp_path, without, encoder, HEADS_ONLY, "again")
    models = [TraitModel.load(report.version.folder) for report in (both, again)]
    assert models[0].fingerprint == models[1].fingerprint


def test_the_whole_network_learns_from_few_images_too(tmp_path: Path, encoder: Path) -> None:
    (tmp_path / "images").mkdir()
    tasks = make_tasks(tmp_path / "images", 80)
    tuned = replace(
        HEADS_ONLY, cross_fit_below=0, fine_tune=replace(FitSettings().fine_tune, epochs=4)
    )
    both = learn(tmp_path, tasks, encoder, tuned, "both")
    alone = learn(tmp_path, tasks, encoder, replace(tuned, refit_below=0), "alone")
    assert both.record["trained"] == alone.record["trained"] == WHOLE
    sides = both.record["images"]
    group, before = (
        next(head for head in report.record["heads"] if head["control"] == "group")
        for report in (both, alone)
    )
    assert group["n_images"] == sides["train"] + sides["validation"]
    assert before["n_images"] == sides["train"]
    assert group["temperature"] == before["temperature"]
    assert any("validation side too" in note for note in both.record["notes"])
    assert not list(tmp_path.rglob("checkpoint.pt"))


def _held_out(task, folder: Path) -> bool:
    rule = SplitRule.read(folder)
    assert rule is not None
    data = task["data"]
    (key,) = rule.keys([data["image_id"]], [data.get("sample_id")])
    return rule.side(key) == "test"
