"""What is asked of one training on the command line reaches it, and stands in its card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from label_studio_config.home import Home
from ml_backend import training_jobs
from ml_backend.encoders import set_newest_encoder
from ml_backend.fit import FROM_SCRATCH, FitSettings
from ml_backend.fit_heads import TrainingRefused
from ml_backend.ways import RARE_WAYS, Ways, WaysError
from planktrait import Rare, app
from simclr.encoder import Encoder
from tests.backend_fixtures import CONFIG, PROJECT, home
from tests.trait_fixtures import XML, make_tasks

__all__ = ["home"]

STEPS = FitSettings().fine_tune
STUDENT = replace(
    FitSettings(),
    most_unlabelled=500,
    fine_tune=replace(STEPS, epochs=10, min_images_per_epoch=8192),
)
ASKED: dict[tuple[str, ...], FitSettings] = {
    (): FitSettings(),
    ("--rare", "square-root"): FitSettings(),
    ("--rare", "as-they-come"): FitSettings(balance=0.0),
    ("--rare", "even"): FitSettings(balance=1.0),
    ("--rare", "logit-adjustment"): FitSettings(
        balance=0.0, fine_tune=replace(STEPS, logit_adjustment=1.0)
    ),
    ("--rare", "retrain-heads"): FitSettings(retrain_heads=True),
    ("--self-train", "500"): STUDENT,
    ("--self-train", "500", "--rare", "even"): replace(STUDENT, balance=1.0),
    ("--calibrate-by-all",): FitSettings(cross_fit_below=None),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[FitSettings]:
    """The settings of the trainings that would have begun."""
    settings: list[FitSettings] = []

    def refuses(*_: Any, **options: Any) -> None:
        settings.append(options["settings"])
        raise TrainingRefused("kept back")

    monkeypatch.setattr("ml_backend.train.train", refuses)
    return settings


def type_train(*words: object) -> Any:
    return CliRunner().invoke(app, ["train", *map(str, words)], env={"COLUMNS": "250"})


def test_the_names_are_those_that_there_are() -> None:
    assert tuple(Rare) == tuple(RARE_WAYS)
    answer = type_train("--export", "e.json", "--rare", "focal")
    assert answer.exit_code == 2
    assert "focal" in answer.output
    assert all(name in answer.output for name in RARE_WAYS)
    with pytest.raises(WaysError, match="'focal' is unknown: give square-root, as-they-come"):
        Ways("focal")
    with pytest.raises(WaysError, match="self_train -1: give a number of images"):
        Ways(self_train=-1)


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_what_is_asked_reaches_the_training(
    words: tuple[str, ...], asked: list[FitSettings], tmp_path: Path
) -> None:
    (tmp_path / "export.json").write_text("[]")
    export = ("--export", tmp_path / "export.json", "--images", tmp_path)
    assert "kept back" in type_train(*export, "--encoder", "e", *words).output
    assert asked == [ASKED[words]]


def test_an_untrained_network_keeps_its_steps(asked: list[FitSettings], tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("[]")
    export = ("--export", tmp_path / "export.json", "--images", tmp_path)
    type_train(*export)
    type_train(*export, "--rare", "logit-adjustment")
    steps = replace(FROM_SCRATCH.fine_tune, logit_adjustment=1.0)
    assert asked == [FROM_SCRATCH, replace(FROM_SCRATCH, balance=0.0, fine_tune=steps)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--self-train", 9], "run `planktrait pretrain` first, or give --encoder"),
        (
            ["--self-train", 9, "--calibrate-by-all"],
            "--calibrate-by-all does not go with --self-tr",
        ),
        (["--rare", "retrain-heads", "--calibrate-by-all"], "does not go with --rare retrain-head"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[object], said: str, asked: list[FitSettings], tmp_path: Path
) -> None:
    (tmp_path / "export.json").write_text("[]")
    export = ("--export", tmp_path / "export.json", "--images", tmp_path)
    answer = type_train(*export, *words)
    assert answer.exit_code == 1
    assert said in " ".join(answer.output.split())
    assert asked == []


def test_a_projects_training_starts_from_its_encoder_in_the_way_that_is_asked(
    home: Home, asked: list[FitSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_jobs, "fetch_project", lambda *_: {"label_config": CONFIG})
    monkeypatch.setattr(training_jobs, "fetch_for_training", lambda *_: (None, []))
    with pytest.raises(WaysError, match="an untrained network cannot say"):
        training_jobs.train_project(home.folder, PROJECT, ways=Ways(self_train=500))
    encoders = home.encoders_folder(PROJECT)
    set_newest_encoder(encoders, Encoder.create("test_resnet", 32).save(encoders / "a" / "encoder"))
    for ways in (None, Ways(self_train=500), Ways("even"), Ways(calibrate_by_all=True)):
        with pytest.raises(TrainingRefused):
            training_jobs.train_project(home.folder, PROJECT, ways=ways)
    words = [(), ("--self-train", "500"), ("--rare", "even"), ("--calibrate-by-all",)]
    assert asked == [ASKED[one] for one in words]


@pytest.mark.slow
def test_the_version_says_how_it_was_trained(tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, 90)
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    (tmp_path / "config.xml").write_text(XML)
    torch.manual_seed(0)
    encoder = Encoder.create("test_resnet", 32).save(tmp_path / "encoder")
    answer = type_train(
        "--export", tmp_path / "export.json", "--images", tmp_path, "--models", tmp_path / "models",
        "--config", tmp_path / "config.xml", "--encoder", encoder,
        "--rare", "even", "--calibrate-by-all",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    (folder,) = (tmp_path / "models").glob("*-v0001")
    settings = json.loads((folder / "metrics.json").read_text())["settings"]
    assert (settings["balance"], settings["cross_fit_below"]) == (1.0, None)
    card = (folder / "README.md").read_text()
    assert "fully balanced, every label equally often" in card
    assert "each fifth judged by a model that the other four taught" in card
