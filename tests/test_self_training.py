"""Images that nobody labelled help to train the network; held-out and blind ones never do."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from label_studio_config.schema import LabelSchema
from label_studio_config.votes import read_votes
from ml_backend import fit
from ml_backend.fine_tune import FineTuneSettings
from ml_backend.fit import STUDENT, WHOLE, FitSettings
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.registry import Registry
from ml_backend.self_training import with_soft_labels
from ml_backend.split import SplitRule
from ml_backend.targets import LearningSet, learning_set, task_images
from ml_backend.train import TrainingRefused, train
from simclr.encoder import Encoder
from tests.trait_fixtures import GROUPS, XML, make_tasks, resolver

SCHEMA = LabelSchema.from_xml(XML)
RULE = SplitRule(unit="image")
SETTINGS = FitSettings(
    views=1,
    most_unlabelled=1000,
    refit_below=0,
    fine_tune=FineTuneSettings(
        epochs=2, min_images_per_epoch=128, encoder_learning_rate=2e-3, head_learning_rate=2e-3
    ),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def tasks(images: Path) -> list[dict[str, Any]]:
    """300 tasks; every third has votes, and one in ten is blind."""
    tasks = make_tasks(images, 300, blind_share=0.1)
    return [
        task if number % 3 == 0 else task | {"annotations": []} for number, task in enumerate(tasks)
    ]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return Encoder.create("resnet10t", image_size_px=32).save(tmp_path_factory.mktemp("encoder"))


def data_of(tasks: list[dict[str, Any]], most_unlabelled: int) -> LearningSet:
    votes = read_votes(SCHEMA, tasks)
    return learning_set(
        SCHEMA, task_images(SCHEMA, tasks), votes, RULE, most_unlabelled=most_unlabelled
    )


def of_training_side(task: dict[str, Any]) -> bool:
    return task["data"]["blind"] == "no" and RULE.side(task["data"]["image_id"]) == "train"


def test_unlabelled_images_are_of_the_training_side_alone(tasks) -> None:
    free = {
        task["data"]["image_id"]
        for task in tasks
        if of_training_side(task) and not task["annotations"]
    }
    data = data_of(tasks, 1000)
    some = data.images.iloc[data.rows("unlabelled")]
    assert set(some["image_id"]) == free
    assert not any(target.known[data.rows("unlabelled")].any() for target in data.targets.values())
    few = data_of(tasks, 20)
    assert few.counts["unlabelled"] == 20
    assert few.fingerprint == data_of(tasks, 20).fingerprint
    assert data_of(tasks, 0).counts.get("unlabelled") is None


def a_teacher(data: LearningSet) -> TraitModel:
    """Heads with random weights over random features, at a prior that draws what is rare."""
    torch.manual_seed(0)
    spot = ("with spot", "no spot")
    priors = {"trained_prior": (0.4, 0.35, 0.25), "deployed_prior": (0.5, 0.3, 0.2)}
    even = {"trained_prior": (0.5, 0.5), "deployed_prior": (0.5, 0.5)}
    heads = [
        Head("group", "one of", GROUPS, **priors),
        Head("spot", "one of", spot, **even),
        Head("diameter", "number"),
    ]
    model = TraitModel(Encoder.create("resnet10t", image_size_px=32), heads, SCHEMA, 1)
    for classifier in model.classifiers:
        torch.nn.init.normal_(classifier.weight, std=0.2)
    return model.eval()


def test_votes_stay_and_unlabelled_images_get_the_teachers_probabilities(tasks) -> None:
    data = data_of(tasks, 1000)
    model = a_teacher(data)
    inputs = torch.randn(len(data), len(model.input_mean))
    rows, votes = data.rows("unlabelled"), data.rows("train", "validation", "test", "blind")
    weights = np.random.default_rng(0).uniform(1, 2, len(data.rows("train")))
    taught, drawn = with_soft_labels(model, data, inputs, weights, labelled_share=0.25)

    group = taught.targets["group"]
    np.testing.assert_array_equal(group.shares[votes], data.targets["group"].shares[votes])
    np.testing.assert_allclose(group.shares[rows].sum(axis=1), 1, rtol=1e-5)
    logits = model.classify(inputs[rows])["group"].detach()
    np.testing.assert_allclose(group.shares[rows], logits.softmax(dim=1), rtol=1e-4)

    disc = model.head("group").answer(logits.numpy()).argmax(axis=1) == GROUPS.index("Disc")
    np.testing.assert_array_equal(taught.targets["spot"].known[rows], disc)
    assert not taught.targets["diameter"].known[rows].any()

    assert len(drawn) == len(taught.rows("train")) == len(weights) + len(rows)
    labelled = np.isin(taught.rows("train"), data.rows("train"))
    assert drawn[labelled].sum() / drawn.sum() == pytest.approx(0.25)
    np.testing.assert_allclose(
        drawn[labelled] / drawn[labelled].sum(), weights / weights.sum(), rtol=1e-6
    )


def learn(tmp_path: Path, tasks, images: Path, encoder: Path | None, name: str, **changes: Any):
    return train(
        tasks,
        SCHEMA,
        resolve_image=resolver(images),
        registry=Registry(tmp_path / name),
        encoder=encoder,
        settings=replace(SETTINGS, **changes),
    )


def test_a_training_uses_them_says_so_and_sees_no_held_out_image(
    tmp_path: Path, tasks, images: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A few drawn discs are too easy for heads to lose: what is fine-tuned shall win here.
    losses = cycle([1.0, 0.5])
    monkeypatch.setattr(fit, "validation_loss", lambda *_: next(losses))
    report = learn(tmp_path, tasks, images, encoder, "all")
    count = report.record["images"]["unlabelled"]
    assert count == data_of(tasks, 1000).counts["unlabelled"]
    assert report.record["trained"] == STUDENT
    card = (report.version.folder / "README.md").read_text()
    assert f"{count} helped to train the whole network" in card

    seen = [task for task in tasks if task["annotations"] or of_training_side(task)]
    assert len(seen) < len(tasks) - 20
    again = learn(tmp_path, seen, images, encoder, "seen")
    models = [TraitModel.load(r.version.folder) for r in (report, again)]
    assert models[0].fingerprint == models[1].fingerprint

    without = learn(tmp_path, tasks, images, encoder, "without", most_unlabelled=0)
    assert without.record["images"].get("unlabelled") is None
    assert without.record["trained"] == WHOLE
    assert TraitModel.load(without.version.folder).fingerprint != models[0].fingerprint


def test_it_is_said_where_they_do_not_help(
    tmp_path: Path, tasks, images: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = cycle([0.5, 1.0])
    monkeypatch.setattr(fit, "validation_loss", lambda *_: next(losses))
    report = learn(tmp_path, tasks, images, encoder, "not better")
    count = report.record["images"]["unlabelled"]
    card = (report.version.folder / "README.md").read_text()
    assert f"{count} were to help, but what serves is taught by votes alone" in card


def test_without_images_to_learn_from_it_is_refused(
    tmp_path: Path, tasks, images: Path, encoder: Path
) -> None:
    annotated = [task for task in tasks if task["annotations"]]
    with pytest.raises(TrainingRefused, match=r"no image without votes .* without --self-train"):
        learn(tmp_path, annotated, images, encoder, "none")


def test_an_untrained_network_learns_from_votes_alone(tmp_path: Path, tasks, images: Path) -> None:
    report = learn(tmp_path, tasks, images, None, "scratch", untrained=True)
    assert report.record["images"].get("unlabelled") is None
