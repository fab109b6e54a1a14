"""What the size of an organism does to a model, and sizes that are none."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from label_studio_config.schema import LabelSchema
from ml_backend.fine_tune import FineTuneSettings
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel
from ml_backend.registry import Registry
from ml_backend.report import TrainingReport
from ml_backend.split import SplitRule
from ml_backend.train import train
from simclr.encoder import Encoder
from tests.trait_fixtures import XML, make_tasks, resolver

SCHEMA = LabelSchema.from_xml(XML)
QUICK = FitSettings(views=1, fine_tune=FineTuneSettings(epochs=1, min_images_per_epoch=128))
HEADS_ONLY = replace(QUICK, fine_tune=replace(QUICK.fine_tune, epochs=0))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Encoder.create("resnet10t", image_size_px=32).save(tmp_path_factory.mktemp("encoder"))


def trained(
    tmp_path: Path, encoder: Path, settings: FitSettings, sizes_um: tuple[Any, ...] = ()
) -> tuple[TraitModel, TrainingReport]:
    """A model of 80 drawn images, the first of which bear these pixel sizes and the rest 10 µm."""
    folder = tmp_path / "images"
    folder.mkdir()
    tasks = make_tasks(folder, 80)
    for task, size_um in zip_longest(tasks, sizes_um, fillvalue=10.0):
        task["data"]["pixel_size_um"] = size_um
    report = train(
        tasks,
        SCHEMA,
        resolve_image=resolver(folder),
        registry=Registry(tmp_path / "p"),
        encoder=encoder,
        settings=settings,
    )
    return TraitModel.load(report.version.folder), report


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("use_size", [True, False])
def test_without_the_size_no_extent_changes_an_answer(
    tmp_path: Path, encoder: Path, use_size: bool, epochs: int
) -> None:
    settings = replace(QUICK, use_size=use_size, fine_tune=replace(QUICK.fine_tune, epochs=epochs))
    model, _ = trained(tmp_path, encoder, settings)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32), dtype=np.uint8)
    small, large = np.full((4, 2), np.log(20.0)), np.full((4, 2), np.log(2000.0))
    answers = [model.answer(pixels, extents).values for extents in (small, large)]
    for control in ("group", "diameter"):
        same = np.array_equal(answers[0][control], answers[1][control])
        assert same is not use_size


WRONG = (float("nan"), float("inf"), 0, -3.0, "10 µm", None)


def test_sizes_are_in_um_where_every_image_states_one(tmp_path: Path, encoder: Path) -> None:
    model, report = trained(tmp_path, encoder, HEADS_ONLY)
    assert model.extent_unit == "um"
    assert not any("pixel size" in note for note in report.record["notes"])


@pytest.mark.parametrize("wrong", WRONG)
def test_a_pixel_size_that_is_none_lets_a_model_measure_in_px(
    tmp_path: Path, encoder: Path, wrong: Any
) -> None:
    """One image without a size in µm cannot be left out of the votes: all are then in px."""
    model, report = trained(tmp_path, encoder, HEADS_ONLY, (wrong,) * 20)
    assert model.extent_unit == "px"
    n_taught, rule = report.record["images"]["train"], SplitRule(unit="image")
    n_wrong = sum(rule.side(f"image-{number}") == "train" for number in range(20))
    (note,) = [note for note in report.record["notes"] if "pixel size" in note]
    assert f"{n_wrong} of {n_taught} training images have no pixel size" in note
    assert "pixels, not in µm: import every image with its pixel_size_um" in note
    assert note in (report.version.folder / "README.md").read_text(encoding="utf-8")
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_where_no_image_has_a_size_nothing_is_missed(tmp_path: Path, encoder: Path) -> None:
    model, report = trained(tmp_path, encoder, HEADS_ONLY, (None,) * 80)
    assert model.extent_unit == "px"
    assert not any("pixel size" in note for note in report.record["notes"])
