"""Calibration by all images that teach, each judged by a model that did not see it."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ml_backend import fit
from ml_backend.cross_fit import Outputs, cross_fitted_outputs
from ml_backend.describe import describe
from ml_backend.fine_tune import FineTuneSettings
from ml_backend.fit import WHOLE, FitSettings
from ml_backend.fit_heads import make_heads, set_priors
from ml_backend.folds import FOLDS, folds_of
from ml_backend.model import TraitModel
from ml_backend.registry import METRICS_FILE
from ml_backend.targets import ControlTargets, LearningSet
from ml_backend.teach import Teacher
from simclr.encoder import Encoder
from tests.few_labels import HEADS_ONLY, SCHEMA, learn, small_encoder
from tests.trait_fixtures import make_tasks

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

    def __call__(self, data: LearningSet, folder: Path, mark: str) -> Outputs:
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


def test_one_sample_with_most_images_is_not_judged_by_the_few_others(tmp_path: Path) -> None:
    data, judge = some_images(64, 12), Judge()
    data.images.loc[:40, "split_key"] = "the large one"
    assert cross_fitted_outputs(data, judge, tmp_path, "mark") == {}
    data.images.loc[20:40, "split_key"] = "another large one"
    assert "group" in cross_fitted_outputs(data, judge, tmp_path, "mark")


def test_other_samples_or_votes_are_judged_anew_after_a_kill(tmp_path: Path) -> None:
    data = some_images(64, 12)
    cross_fitted_outputs(data, Judge(), tmp_path, "mark")
    corrected = some_images(64, 12)
    corrected.images.loc[3, "split_key"] = "a new sample"
    judge = Judge()
    outputs = cross_fitted_outputs(corrected, judge, tmp_path, "mark")
    assert judge.calls
    np.testing.assert_array_equal(outputs["group"][:, 0], corrected.rows("train"))


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


def test_a_control_with_most_votes_in_one_sample_is_left_out(tmp_path: Path) -> None:
    data = some_images(64, 12)
    some = data.images["split_key"].isin(["3", "4"]).to_numpy()
    data.targets["group"].n_votes[~some] = 0
    data.targets["group"].shares[:] = [1, 0, 0]
    assert cross_fitted_outputs(data, Judge(), tmp_path, "mark") == {}


def test_a_label_that_could_not_be_told_gets_no_offset_against_it() -> None:
    """One label's images are left out of 300; calibrated by the others, no label is moved."""
    dice = np.random.default_rng(0)
    data = some_images(304, 304)
    group = data.targets["group"].shares
    logits = (3 * group + dice.normal(size=group.shape)).astype(np.float32)
    logits[:, 2] += 2  # too sure of the third label, as an offset would tell
    model = TraitModel(Encoder.create("test_resnet", 32), make_heads(data, 10)[0], SCHEMA, 1)
    rows = data.rows("train")
    set_priors(model, data, rows, np.ones(len(rows)))
    fit.calibrate_by(model, data, rows, {"group": logits[rows]})
    assert len(model.head("group").bias) == 3
    logits[group[:, 0] == 1] = np.nan
    fit.calibrate_by(model, data, rows, {"group": logits[rows]}, cross_fitted=True)
    assert model.head("group").bias == ()
    assert model.head("group").cross_fitted


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_said_of_images_does_not_depend_on_their_votes(
    tmp_path: Path, encoder: Path, whole: bool
) -> None:
    dice = np.random.default_rng(0)
    data = some_images(64, 12)
    pixels = dice.integers(0, 255, (64, 1, 32, 32)).astype(np.uint8)
    extents = np.zeros((64, 2), dtype=np.float32)
    torch.manual_seed(0)
    model = TraitModel(Encoder.load(encoder), make_heads(data, 10)[0], SCHEMA, 1)
    everybody = np.arange(64)
    set_priors(model, data, data.rows("train"), np.ones(60))
    inputs = describe(model, pixels, extents, everybody)
    model.fit_inputs(inputs)
    fine_tune = FineTuneSettings(epochs=1, min_images_per_epoch=64) if whole else None
    teacher = Teacher(model, inputs, pixels, extents, {"group": 0.01}, 0.5, fine_tune, 0)

    def judged(name: str) -> np.ndarray:
        return cross_fitted_outputs(data, teacher.judge, tmp_path / name, name)["group"]

    before = judged("before")
    rows = data.rows("train")
    mine = folds_of(data.images["split_key"].to_numpy(dtype=str)[rows]) == 1
    shares = data.targets["group"].shares
    shares[rows[mine]] = np.roll(shares[rows[mine]], 1, axis=1)
    after = judged("after")
    np.testing.assert_array_equal(before[mine], after[mine])
    assert np.nanmax(np.abs(before[~mine] - after[~mine])) > 0.01


def test_a_fifth_that_cannot_be_taught_leaves_the_calibration_of_the_validation_side(
    tmp_path: Path, encoder: Path, monkeypatch, caplog
) -> None:
    (tmp_path / "images").mkdir()
    tasks = make_tasks(tmp_path / "images", 200)
    teach = Teacher.teach

    def diverges(self, data, folder, mark):
        if folder.name == "fold-2":
            raise FloatingPointError("the loss became nan in epoch 1 of the fine-tuning")
        return teach(self, data, folder, mark)

    alone = learn(tmp_path, tasks, encoder, VALIDATION_ALONE, "alone")
    monkeypatch.setattr(Teacher, "teach", diverges)
    report = learn(tmp_path, tasks, encoder, HEADS_ONLY, "diverged")
    assert "validation side alone" in caplog.text
    ours, theirs = heads_of(report)["group"], heads_of(alone)["group"]
    assert ours["temperature"] == theirs["temperature"]
    assert not ours["cross_fitted"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("encoder"))


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
    assert 0.11 < after["group"]["temperature"] < 9
    assert after["group"]["temperature"] != 1
    assert before["diameter"]["half_width_95"] is None
    assert after["diameter"]["half_width_95"] > 0
    assert not any(head["cross_fitted"] for head in before.values())
    assert all(head["cross_fitted"] for head in after.values())
    card = (alone.version.folder / "README.md").read_text()
    assert "Not calibrated: group" in card
    card = (all_judged.version.folder / "README.md").read_text()
    assert "each fifth judged by a model that the other four taught" in card
    assert "Not calibrated: group" not in card
    assert (all_judged.version.folder / METRICS_FILE).is_file()


def test_the_whole_network_is_judged_so_too_and_leaves_no_checkpoint(
    tmp_path: Path, encoder: Path, monkeypatch
) -> None:
    (tmp_path / "images").mkdir()
    # A few drawn discs are too easy for heads to lose: what is fine-tuned shall win here.
    losses = cycle([1.0, 0.5])
    monkeypatch.setattr(fit, "validation_loss", lambda *_: next(losses))
    tasks = make_tasks(tmp_path / "images", 80)
    tuned = replace(HEADS_ONLY, fine_tune=replace(FitSettings().fine_tune, epochs=2))
    report = learn(tmp_path, tasks, encoder, tuned, "tuned")
    alone = learn(tmp_path, tasks, encoder, replace(tuned, cross_fit_below=0), "alone")
    assert report.record["trained"] == alone.record["trained"] == WHOLE
    assert heads_of(report)["group"]["cross_fitted"]
    assert heads_of(report)["group"]["tempered"]
    assert not heads_of(alone)["group"]["tempered"]
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_with_more_images_the_model_stays_and_only_its_temperature_differs(
    tmp_path: Path, encoder: Path
) -> None:
    (tmp_path / "images").mkdir()
    tasks = make_tasks(tmp_path / "images", 300)
    only = replace(VALIDATION_ALONE, refit_below=0, cross_fit_below=100)
    alone = learn(tmp_path, tasks, encoder, only, "alone")
    judged = learn(tmp_path, tasks, encoder, replace(only, cross_fit_below=None), "judged")
    before, after = heads_of(alone)["group"], heads_of(judged)["group"]
    assert before["temperature"] != pytest.approx(after["temperature"], rel=0.001)
    models = [TraitModel.load(report.version.folder).state_dict() for report in (alone, judged)]
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name]), name
    assert before["n_images"] == after["n_images"] == alone.record["images"]["train"]
    assert before["trained_prior"] == after["trained_prior"]
