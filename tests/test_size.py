"""What the size of an organism does to a model, and sizes that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from label_studio_config.schema import LabelSchema
from ml_backend.fine_tune import FineTuneSettings
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel
from ml_backend.registry import Registry
from ml_backend.train import train
from simclr.encoder import Encoder
from tests.trait_fixtures import XML, make_tasks, resolver

SCHEMA = LabelSchema.from_xml(XML)
QUICK = FitSettings(views=1, fine_tune=FineTuneSettings(epochs=1, min_images_per_epoch=128))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Encoder.create("resnet10t", image_size_px=32).save(tmp_path_factory.mktemp("encoder"))


def trained(tmp_path: Path, encoder: Path, settings: FitSettings) -> TraitModel:
    folder = tmp_path / "images"
    folder.mkdir()
    report = train(
        make_tasks(folder, 80),
        SCHEMA,
        resolve_image=resolver(folder),
        registry=Registry(tmp_path / "p"),
        encoder=encoder,
        settings=settings,
    )
    return TraitModel.load(report.version.folder)


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("use_size", [True, False])
def test_without_the_size_no_extent_changes_an_answer(
    tmp_path: Path, encoder: Path, use_size: bool, epochs: int
) -> None:
    settings = replace(QUICK, use_size=use_size, fine_tune=replace(QUICK.fine_tune, epochs=epochs))
    model = trained(tmp_path, encoder, settings)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32), dtype=np.uint8)
    small, large = np.full((4, 2), np.log(20.0)), np.full((4, 2), np.log(2000.0))
    answers = [model.answer(pixels, extents).values for extents in (small, large)]
    for control in ("group", "diameter"):
        same = np.array_equal(answers[0][control], answers[1][control])
        assert same is not use_size
