"""Weights of annotators: the file beside the versions, and what a training makes of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from label_studio_config.home import Home
from label_studio_config.kept_files import list_kept
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import WeightError, read_votes
from ml_backend import count_project, training_jobs
from ml_backend.annotators import (
    WEIGHTS_FILE,
    AnnotatorError,
    parse_weights,
    read_weights,
    update_weights,
    weight_notes,
)
from ml_backend.fit_heads import TrainingRefused
from ml_backend.registry import Registry
from ml_backend.split import SplitRule
from ml_backend.targets import learning_set, task_images
from ml_backend.train import _read, train
from tests.backend_fixtures import CONFIG, PROJECT, add_version, home, image_task
from tests.trait_fixtures import GROUPS, XML, item, make_tasks, resolver

__all__ = ["home"]

SCHEMA = LabelSchema.from_xml(XML)


def test_weights_are_written_read_and_forgotten(tmp_path: Path) -> None:
    assert read_weights(tmp_path) == {}
    update_weights(tmp_path / "models", {"b@x.org": 0.5, "a@x.org": 2})
    assert update_weights(tmp_path / "models", {"a@x.org": 1, "c@x.org": 0}) == {
        "b@x.org": 0.5,
        "c@x.org": 0.0,
    }
    assert read_weights(tmp_path / "models") == {"b@x.org": 0.5, "c@x.org": 0.0}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / WEIGHTS_FILE).write_text(text)
    with pytest.raises(AnnotatorError, match=WEIGHTS_FILE):
        read_weights(tmp_path)


def test_options_are_read_or_refused_by_name() -> None:
    assert parse_weights(["ann@x.org=0.5", "a=b@x.org=0"]) == {"ann@x.org": 0.5, "a=b@x.org": 0.0}
    for text in ("ann@x.org", "=1", "ann@x.org=much", "ann@x.org="):
        with pytest.raises(AnnotatorError, match=r"ann@example\.org=0\.5"):
            parse_weights([text])
    for text in ("ann@x.org=-1", "ann@x.org=nan"):
        with pytest.raises(WeightError, match=r"'ann@x\.org'"):
            parse_weights([text])


def test_a_name_that_never_voted_is_told() -> None:
    notes = weight_notes({"ann@x.org": 0.5, "typo@x.org": 2}, ["bob@x.org", "ann@x.org"])
    assert "ann@x.org (0.5)" in notes[0]
    assert "nobody of that name voted. Voters are ann@x.org, bob@x.org" in notes[1]
    assert "--annotator-weight typo@x.org=1" in notes[1]
    assert weight_notes({}, ["ann@x.org"]) == []


def test_who_is_left_out_neither_teaches_nor_judges(tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, 40, annotators=2)
    for number, task in enumerate(tasks):
        task["annotations"] = task["annotations"][number % 2 :]  # 0 saw every second image only
    votes, images = read_votes(SCHEMA, tasks), task_images(SCHEMA, tasks)
    rule = SplitRule(unit="image")
    data = learning_set(SCHEMA, images, votes, rule, {"1": 0})
    alone = learning_set(SCHEMA, images, votes[votes["annotator"] == "0"], rule)
    assert len(data) == 20
    assert data.fingerprint == alone.fingerprint
    half = learning_set(SCHEMA, images, votes, rule, {"1": 0.5})
    assert half.fingerprint != learning_set(SCHEMA, images, votes, rule).fingerprint
    np.testing.assert_allclose(half.targets["group"].shares.sum(axis=1), 1, rtol=1e-6)


def test_a_training_reads_them_and_records_what_was_said(tmp_path: Path) -> None:
    tasks = make_tasks(tmp_path, 30, annotators=2)
    again = json.loads(json.dumps(tasks[0]))
    (said,) = again["annotations"][0]["result"][0]["value"]["choices"]
    other = GROUPS[(GROUPS.index(said) + 1) % 3]
    again["id"], again["annotations"][0]["result"] = 99, [item("group", "choices", [other])]
    registry = Registry(tmp_path / "project-1")
    update_weights(registry.folder, {"1": 0.5, "nobody": 2})
    data, facts = _read([*tasks, again], SCHEMA, registry, True)
    assert facts["annotator_weights"] == {"1": 0.5}
    assert facts["self_agreement"]["repeated"] > facts["self_agreement"]["same"]
    assert facts["agreement"]["group"]["n_images"] == 30
    assert 0 < facts["agreement"]["group"]["alpha"] < 1
    assert facts["agreement"]["flags"]["alpha"] is None
    told = "\n".join(facts["vote_notes"])
    assert all(text in told for text in ("1 (0.5)", "nobody of that name", "weigh as one vote"))
    # Image 0: person 0 said both (one vote, halved), person 1 the right one (half a vote).
    share = data.targets["group"].shares[0][GROUPS.index(said)]
    agreed = tasks[0]["annotations"][1]["result"][0]["value"]["choices"] == [said]
    assert share == pytest.approx(2 / 3 if agreed else 1 / 3)
    assert data.targets["group"].n_votes[0] == 2


def test_everybody_left_out_is_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "project-1")
    update_weights(registry.folder, {"0": 0})
    with pytest.raises(TrainingRefused, match=r"annotators.json gives everybody .* the weight 0"):
        train(make_tasks(tmp_path, 5), SCHEMA, resolve_image=resolver(tmp_path), registry=registry)


@pytest.fixture
def fetched(home: Home, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Twelve tasks, and a Label Studio that has them: person 0 said bar of all, 1 disc of some."""
    tasks = [image_task(n, f"image-{n:05d}.png", sample_id="haul") for n in range(12)]
    for task in tasks:
        said = {0: "bar"} if task["id"] < 9 else {0: "bar", 1: "disc"}
        task["annotations"] = [
            {
                "id": 20 * task["id"] + i,
                "completed_by": i,
                "result": [item("group", "choices", [s])],
            }
            for i, s in said.items()
        ]
    for module in (count_project, training_jobs):
        monkeypatch.setattr(module, "fetch_tasks", lambda *_, **__: tasks)
        monkeypatch.setattr(module, "fetch_project", lambda *_: {"label_config": CONFIG})
    return tasks


def test_the_count_of_a_project_leaves_them_out(home: Home, fetched: list[dict[str, Any]]) -> None:
    for task in fetched[6:]:
        task["data"]["blind"] = "yes"
    add_version(home)
    assert count_project.count_project(home.folder, PROJECT)["validated"] == 6
    update_weights(home.models_folder(PROJECT), {"0": 0})
    counted = count_project.count_project(home.folder, PROJECT)
    assert counted["validated"] == 3
    kept = list_kept(home.kept_folder(count_project.COUNTS_FOLDER, PROJECT))
    (notes,) = [one["notes"] for one in kept if one["id"] == counted["kept"]]
    assert "the answers of 1 person with weight 0 are left out" in notes


def test_features_are_judged_by_who_counts(home: Home, fetched: list[dict[str, Any]]) -> None:
    update_weights(home.models_folder(PROJECT), {"0": 0})
    _, labels = training_jobs.fetch_images(home, PROJECT)
    assert labels == {f"image-{n:05d}.png": "disc" for n in (9, 10, 11)}
