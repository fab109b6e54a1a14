"""Rare labels can count in the loss, or through heads that are fitted anew."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from label_studio_config.schema import LabelSchema
from label_studio_config.votes import read_votes
from ml_backend import fit
from ml_backend.fine_tune import FineTune, FineTuneSettings
from ml_backend.fit import WHOLE, FitSettings
from ml_backend.fit_heads import image_weights, make_heads, set_priors
from ml_backend.model import TraitModel
from ml_backend.registry import Registry
from ml_backend.report import TrainingReport
from ml_backend.split import SplitRule
from ml_backend.targets import LearningSet, learning_set, task_images
from ml_backend.train import train
from ml_backend.ways import RARE_WAYS
from simclr.encoder import Encoder
from tests.trait_fixtures import GROUPS, XML, make_tasks, resolver

SCHEMA = LabelSchema.from_xml(XML)
STEPS = FineTuneSettings(epochs=1, min_images_per_epoch=64)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def tasks(images: Path):
    return make_tasks(images, 120)


def fine_tuning(tasks, folder: Path, settings: FineTuneSettings) -> FineTune:
    data: LearningSet = learning_set(
        SCHEMA, task_images(SCHEMA, tasks), read_votes(SCHEMA, tasks), SplitRule(unit="image")
    )
    torch.manual_seed(0)
    heads, _ = make_heads(data, 10)
    model = TraitModel(Encoder.create("resnet10t", image_size_px=32), heads, SCHEMA, 1)
    weights = image_weights(data, data.rows("train"), 0.5)
    set_priors(model, data, data.rows("train"), weights)
    pixels = np.random.default_rng(0).integers(0, 256, (len(data), 1, 32, 32), dtype=np.uint8)
    extents = np.zeros((len(data), 2), dtype=np.float32)
    return FineTune(model, data, pixels, extents, weights, settings, folder, "mark")


def test_an_adjusted_loss_changes_no_answer_before_it_is_minimised(tasks, tmp_path: Path) -> None:
    answers, priors = [], []
    for strength in (0.0, 1.0):
        settings = replace(STEPS, epochs=0, logit_adjustment=strength)
        model = fine_tuning(tasks, tmp_path / str(strength), settings).run()
        pixels = np.random.default_rng(1).integers(0, 256, (8, 1, 32, 32), dtype=np.uint8)
        answers.append(model.answer(pixels, np.zeros((8, 2))).values["group"])
        priors.append(model.head("group").trained_prior)
    np.testing.assert_allclose(*answers, rtol=1e-5)
    assert max(priors[0]) > 1.2 / len(GROUPS)
    np.testing.assert_allclose(priors[1], 1 / len(GROUPS))


def test_an_adjusted_loss_teaches_outputs_of_labels_that_are_equally_often(
    tasks, tmp_path: Path
) -> None:
    model = fine_tuning(tasks, tmp_path, replace(STEPS, logit_adjustment=1.0)).run()
    assert model.head("group").trained_prior == pytest.approx([1 / 3] * 3)
    values = model.answer(np.zeros((4, 1, 32, 32), dtype=np.uint8), np.zeros((4, 2))).values
    np.testing.assert_allclose(values["group"].sum(axis=1), 1)


def learn(images: Path, tasks, folder: Path, settings: FitSettings) -> TrainingReport:
    """A training below a folder, from a small encoder."""
    encoder = Encoder.create("resnet10t", image_size_px=32).save(folder / "encoder")
    return train(
        tasks,
        SCHEMA,
        resolve_image=resolver(images),
        registry=Registry(folder / "models"),
        encoder=encoder,
        settings=settings,
    )


def test_heads_fitted_anew_are_kept_where_the_validation_side_prefers_them(
    images: Path, tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FitSettings(views=1, refit_below=0, retrain_heads=True, fine_tune=STEPS)
    trained, cards = [], []
    for number, losses in enumerate([(1.0, 0.5, 0.2), (1.0, 0.5, 0.7), (1.0, 1.5, 1.2)]):
        monkeypatch.setattr(fit, "validation_loss", Mock(side_effect=cycle(losses)))
        report = learn(images, tasks, tmp_path / str(number), settings)
        trained.append(report.record["trained"])
        cards.append((report.version.folder / "README.md").read_text())
    assert trained == [f"{WHOLE}, then its heads anew", WHOLE, fit.FROZEN]
    said = "Heads were fitted anew on the features of the whole network"
    assert all(said in card for card in cards)
    assert [", and kept, as the validation side chose" in card for card in cards] == [
        True,
        False,
        False,
    ]


def test_the_card_says_whether_the_loss_was_adjusted(
    images: Path, tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = FitSettings(views=1, refit_below=0, cross_fit_below=0, fine_tune=STEPS)
    for losses, said in {
        (1.0, 0.5): "drawn as they come. The loss of the whole network was adjusted by how often",
        (0.5, 1.0): "drawn as they come. A loss adjusted to rare labels (logit adjustment) was tri",
    }.items():
        monkeypatch.setattr(fit, "validation_loss", Mock(side_effect=cycle(losses)))
        report = learn(images, tasks, tmp_path, RARE_WAYS["logit-adjustment"].of(plain))
        assert said in (report.version.folder / "README.md").read_text()
