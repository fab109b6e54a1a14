"""What benchmarks measure on kept inputs is what a training measures on its blind images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import training
from benchmarks.ndsb import CONTROL
from ml_backend.fit import FitSettings
from ml_backend.model import TraitModel
from simclr.encoder import Encoder
from tests.trait_fixtures import GROUPS, draw


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    names = [f"{number:03d}.png" for number in range(90)]
    groups = [GROUPS[number % 3] for number in range(90)]
    for name, group in zip(names, groups, strict=True):
        draw(tmp_path / name, group, bool(rng.random() < 0.5), int(rng.integers(16, 64)), rng)
    held_out = np.arange(90) % 4 == 0
    return pd.DataFrame({"image": names, "functional_group": groups, "held_out": held_out})


def test_the_same_figures_as_of_blind_images(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "WORK", tmp_path / "work")
    monkeypatch.setattr(training, "CACHE", tmp_path / "cache")
    encoder = Encoder.create("resnet10t", image_size_px=32).save(tmp_path / "encoder")
    settings = FitSettings(views=1)
    settings = replace(settings, fine_tune=replace(settings.fine_tune, epochs=0))
    report = training.train_on(table, "groups", tmp_path, tmp_path / "home", encoder, settings)
    model = TraitModel.load(report.version.folder)
    held_out = np.flatnonzero(table["held_out"])
    truth = table["functional_group"].to_numpy(dtype=str)[held_out]
    blind = report.metrics["blind"][CONTROL]
    for rows in (held_out[:10], held_out):  # what is kept of the first is not made again
        inputs = training.inputs_of(model, table, rows, tmp_path, keep=True)
    afresh = training.inputs_of(model, table, held_out, tmp_path, keep=False)
    np.testing.assert_allclose(inputs[held_out], afresh[held_out], rtol=1e-4, atol=1e-4)
    measured = training.evaluate_on(model, inputs[held_out], truth)
    assert measured["n_images"] == blind["n_images"] == len(held_out)
    for figure in ("macro_recall", "micro_accuracy", "macro_f1"):
        assert measured[figure] == blind[figure]
    for figure in ("ece", "nll"):
        assert measured[figure] == pytest.approx(blind[figure], abs=1e-3)
