"""What the backend's jobs do, without a server: turns, what is fetched, and what they tell."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from hpc_jobs import progress
from label_studio_config.api import ApiError
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest
from ml_backend import suggestions, training_jobs, turns
from ml_backend.encoders import newest_encoder
from ml_backend.live_model import LiveModel
from ml_backend.novelty import Novelty
from ml_backend.promote import Promotion
from ml_backend.registry import ModelVersion
from ml_backend.report import TrainingReport
from tests.backend_fixtures import CONFIG, PROJECT, add_version, draw_images, home, image_task

__all__ = ["home"]


def test_a_training_waits_for_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setenv("PLANKTRAIT_JOB_FOLDER", str(tmp_path))
    lock_file = tmp_path / ".work" / "lock"
    assert turns.await_turn(lock_file)
    turn: list[bool] = []
    waiting = threading.Thread(target=lambda: turn.append(turns.await_turn(lock_file)))
    with FileLock(lock_file):
        assert not turns.await_turn(lock_file, longest_wait_s=0)
        waiting.start()
        end_s = time.monotonic() + 10
        while (seen := progress.read(tmp_path)) is None:
            assert time.monotonic() < end_s
            time.sleep(0.01)
        assert seen.stage == "waiting for another training"
        assert turn == []
    waiting.join(10)
    assert turn == [True]


def test_a_training_takes_its_turn_before_it_fetches(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waited(Exception):
        pass

    def waits(lock_file: Path) -> None:
        raise Waited(lock_file)

    monkeypatch.setattr(training_jobs, "await_turn", waits)
    with pytest.raises(Waited) as waited:
        training_jobs.train_project(home.folder, PROJECT)
    assert waited.value.args[0] == home.models_folder(PROJECT) / ".work" / "lock"


def test_annotated_tasks_are_fetched_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [image_task(number, f"{number}.png") for number in range(5)]
    calls: list[dict[str, Any]] = []

    def fetch(home: Home, project_id: int, **options: Any) -> list[dict[str, Any]]:
        calls.append(options)
        return tasks[3:] if options.get("annotated_only") else tasks[:3]

    monkeypatch.setattr(training_jobs, "fetch_tasks", fetch)
    monkeypatch.setattr(training_jobs, "fetch_project", lambda *_: {"label_config": CONFIG})
    _, fetched = training_jobs.fetch_for_training(home, PROJECT)
    assert fetched == tasks
    assert [bool(call.get("unannotated_only")) for call in calls] == [True, False]
    assert calls[0]["full"] is False


def test_the_record_of_a_job_has_notes_and_the_verdict(tmp_path: Path) -> None:
    version = ModelVersion("project-7-v0002", tmp_path)
    refused = Promotion(False, "worse", 9, ("group",), notes=["only 9 held-out images"])
    outcome = training_jobs.outcome_of(TrainingReport(version, refused, {}))
    assert (outcome["version"], outcome["promoted"]) == (version.name, False)
    assert (outcome["reason"], outcome["notes"]) == ("worse", ["only 9 held-out images"])
    assert outcome["verdict"]["n_heldout"] == 9
    assert outcome["verdict"]["difference"] is None
    json.dumps(outcome, allow_nan=False)
    promoted = Promotion(True, "the first version of this model", 9, notes=["few"])
    outcome = training_jobs.outcome_of(TrainingReport(version, promoted, {}))
    assert outcome["notes"] == ["few"]
    assert "verdict" not in outcome


def test_touched_images_learn_features_again_instead_of_failing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name, _ in draw_images(home.images_root, 12)]
    manifest = Manifest(pd.DataFrame({"image_id": names, "path": names}), home.images_root)
    monkeypatch.setattr(training_jobs, "fetch_images", lambda *_: (manifest, {}))
    settings = {"epochs": 1, "backbone": "test_resnet", "image_size_px": 32}
    first = training_jobs.pretrain_project(home.folder, PROJECT, **settings)
    assert training_jobs.pretrain_project(home.folder, PROJECT, **settings) == first
    os.utime(manifest.paths[0], (0, 0))
    touched = training_jobs.pretrain_project(home.folder, PROJECT, **settings)
    assert touched["encoder"] != first["encoder"]
    folder = home.encoders_folder(PROJECT)
    assert newest_encoder(folder) == folder / touched["encoder"] / "encoder"


def test_novelty_is_scored_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1500, 8)).astype(np.float32)
    novelty = Novelty.fit(features[:200], features[200:300])
    assert novelty is not None
    rows: list[int] = []
    topk = torch.Tensor.topk

    def noted(similarity: torch.Tensor, *args: Any, **options: Any) -> Any:
        rows.append(len(similarity))
        return topk(similarity, *args, **options)

    monkeypatch.setattr(torch.Tensor, "topk", noted)
    scores = novelty.score(features[300:])
    assert rows == [512, 512, 176]
    one_by_one = [novelty.score(row[None])[0] for row in features[300:340]]
    np.testing.assert_allclose(scores[:40], one_by_one, atol=0.011)
    assert novelty.score(features[:0]).shape == (0,)


def test_a_changed_config_is_suggested_for_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where nobody has annotated, and again when it was interrupted."""
    config = {"label_config": CONFIG}
    calls: list[dict[str, Any]] = []

    def fetch(home: Home, project_id: int, **options: Any) -> Iterator[dict[str, Any]]:
        calls.append(options)
        if config.get("interrupted"):
            raise ApiError("Label Studio is gone")
        return iter(())

    monkeypatch.setattr(suggestions, "fetch_project", lambda *_: config)
    monkeypatch.setattr(suggestions, "fetch_tasks", fetch)
    monkeypatch.setattr(suggestions, "set_model_version", lambda *_: None)
    monkeypatch.setattr(suggestions, "delete_old_suggestions", lambda *_: 0)

    def asked(live: Any) -> list[str | None]:
        calls.clear()
        suggestions.refresh_suggestions(home, PROJECT, live)
        return [call["missing_version"] for call in calls]

    first = LiveModel(add_version(home))
    name = first.version.name
    assert asked(first) == [name, name]
    assert asked(first) == [name, name]
    config["label_config"] = CONFIG.replace('<Choice value="disc"/>', "")
    config["interrupted"] = "yes"
    with pytest.raises(ApiError):
        asked(first)
    del config["interrupted"]
    assert asked(first) == [None, name]
    assert calls[0]["unannotated_only"]
    assert calls[1]["annotated_only"]
    assert asked(first) == [name, name]
    second = LiveModel(add_version(home))
    assert asked(second) == [second.version.name] * 2
