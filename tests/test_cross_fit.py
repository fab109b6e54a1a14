"""Calibration by all images that teach, each judged by a model that did not see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from label_studio_config.schema import LabelSchema
from ml_backend.cross_fit import Outputs, cross_fitted_outputs
from ml_backend.fit import WHOLE, FitSettings
from ml_backend.folds import FOLDS
from ml_backend.registry import METRICS_FILE, Registry
from ml_backend.targets import ControlTargets, LearningSet
from ml_backend.train import train
from simclr.encoder import Encoder
from tests.trait_fixtures import XML, make_tasks, resolver

SCHEMA = LabelSchema.from_xml(XML)
HEADS_ONLY = replace(
    FitSettings(views=1, untrained=True), fine_tune=replace(FitSettings().fine_tune, epochs=0)
)
VALIDATION_ALONE = replace(HEADS_ONLY, cross_fit_below=0)


def some_images(n: int, units: int) -> LearningSet:
    """Images of the training side, a few a sample, the last ones blind."""
    images = pd.DataFrame(
        {
            "image_id": np.arange(n).astype(str),
            "split_key": (np.arange(n) % units).astype(str),
            "side": ["train"] * (n - 4) + ["blind"] * 4,
        }
    )
    shares = np.eye(3, dtype=np.float32)[np.arange(n) % 3]
    group = ControlTargets(SCHEMA.control("group"), shares, np.ones(n, dtype=int))
    return LearningSet(SCHEMA, images, {"group": group})


class Judge:
    """Says of each image which row it is, and remembers who taught."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls: list[LearningSet] = []
        self.fails_at = fails_at

    def __call__(self, data: LearningSet, folder: Path) -> Outputs:
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append(data)
        rows = data.rows("validation").astype(np.float32)
        return {"group": np.repeat(rows[:, None], 3, axis=1)}


def test_each_image_is_judged_once_by_images_of_other_samples(tmp_path: Path) -> None:
    data, judge = some_images(64, 12), Judge()
    outputs = cross_fitted_outputs(data, judge, tmp_path, "mark")
    np.testing.assert_array_equal(outputs["group"][:, 0], data.rows("train"))
    assert len(judge.calls) == FOLDS
    key = data.images["split_key"].to_numpy()
    for call in judge.calls:
        taught, judged = call.rows("train"), call.rows("validation")
        assert set(key[taught]).isdisjoint(key[judged])
        assert sorted([*taught, *judged]) == list(data.rows("train"))


def test_a_killed_training_judges_only_the_folds_that_are_missing(tmp_path: Path) -> None:
    data = some_images(64, 12)
    with pytest.raises(KeyboardInterrupt):
        cross_fitted_outputs(data, Judge(fails_at=3), tmp_path, "mark")
    judge = Judge()
    outputs = cross_fitted_outputs(data, judge, tmp_path, "mark")
    assert len(judge.calls) == FOLDS - 3
    np.testing.assert_array_equal(outputs["group"][:, 0], data.rows("train"))
    other = Judge()
    cross_fitted_outputs(data, other, tmp_path, "of other data")
    assert len(other.calls) == FOLDS


def test_fewer_samples_than_folds_are_not_divided(tmp_path: Path) -> None:
    judge = Judge()
    assert cross_fitted_outputs(some_images(64, FOLDS - 1), judge, tmp_path, "mark") == {}
    assert not judge.calls


def test_what_nothing_could_teach_tells_nothing(tmp_path: Path) -> None:
    """One label is on images of one sample only; what they are taken for is no fault."""
    data = some_images(64, 12)
    group = data.targets["group"].shares
    alone = (data.images["split_key"] == "3").to_numpy()
    group[:] = np.where(alone[:, None], [0, 0, 1], [1, 0, 0])
    found = cross_fitted_outputs(data, Judge(), tmp_path, "mark")["group"]
    np.testing.assert_array_equal(np.isnan(found[:, 0]), alone[data.rows("train")])


def test_a_control_with_votes_in_one_sample_only_is_left_out(tmp_path: Path) -> None:
    data = some_images(64, 12)
    data.targets["group"].n_votes[data.images["split_key"] != "3"] = 0
    assert cross_fitted_outputs(data, Judge(), tmp_path, "mark") == {}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return Encoder.create("resnet10t", image_size_px=32).save(tmp_path_factory.mktemp("encoder"))


def learn(tmp_path: Path, tasks, encoder: Path, settings: FitSettings, name: str):
    return train(
        tasks,
        SCHEMA,
        resolve_image=resolver(tmp_path / "images"),
        registry=Registry(tmp_path / name),
        encoder=encoder,
        settings=settings,
    )


def heads_of(report) -> dict[str, dict]:
    return {head["control"]: head for head in report.record["heads"]}


def test_few_images_are_calibrated_where_the_validation_side_is_too_small(
    tmp_path: Path, encoder: Path
) -> None:
    (tmp_path / "images").mkdir()
    tasks = make_tasks(tmp_path / "images", 90)
    alone = learn(tmp_path, tasks, encoder, VALIDATION_ALONE, "alone")
    all_judged = learn(tmp_path, tasks, encoder, HEADS_ONLY, "all")
    assert alone.record["images"] == all_judged.record["images"]
    assert alone.record["images"]["validation"] < 20
    before, after = heads_of(alone), heads_of(all_judged)
    assert not before["group"]["tempered"]
    assert before["group"]["temperature"] == 1
    assert after["group"]["tempered"]
    assert after["group"]["temperature"] != 1
    assert before["diameter"]["half_width_95"] is None
    assert after["diameter"]["half_width_95"] > 0
    assert not alone.record["cross_fitted"]
    assert all_judged.record["cross_fitted"]
    card = (alone.version.folder / "README.md").read_text()
    assert "Not calibrated: group" in card
    card = (all_judged.version.folder / "README.md").read_text()
    assert "each fifth judged by a model of the other four" in card
    assert "Not calibrated: group" not in card
    assert (all_judged.version.folder / METRICS_FILE).is_file()


def test_the_whole_network_is_judged_so_too_and_leaves_no_checkpoint(
    tmp_path: Path, encoder: Path
) -> None:
    (tmp_path / "images").mkdir()
    tasks = make_tasks(tmp_path / "images", 80)
    tuned = replace(HEADS_ONLY, fine_tune=replace(FitSettings().fine_tune, epochs=2))
    report = learn(tmp_path, tasks, encoder, tuned, "tuned")
    alone = learn(tmp_path, tasks, encoder, replace(tuned, cross_fit_below=0), "alone")
    assert report.record["trained"] == alone.record["trained"] == WHOLE
    assert report.record["cross_fitted"]
    assert heads_of(report)["group"]["tempered"]
    assert not heads_of(alone)["group"]["tempered"]
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_with_more_images_the_model_stays_and_only_its_temperature_differs(
    tmp_path: Path, encoder: Path
) -> None:
    (tmp_path / "images").mkdir()
    tasks = make_tasks(tmp_path / "images", 300)
    only = replace(VALIDATION_ALONE, refit_below=0)
    alone = learn(tmp_path, tasks, encoder, only, "alone")
    judged = learn(tmp_path, tasks, encoder, replace(only, cross_fit_below=1000), "judged")
    before, after = heads_of(alone)["group"], heads_of(judged)["group"]
    assert before["temperature"] != after["temperature"]
    assert before["n_images"] == after["n_images"] == alone.record["images"]["train"]
    assert before["trained_prior"] == after["trained_prior"]
