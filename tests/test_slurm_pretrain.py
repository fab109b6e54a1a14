"""Pretraining in two processes that Slurm starts, beside one process at the same batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hpc_jobs
from label_studio_config.manifest import Manifest
from tests.slurm_fixtures import SlurmForTests
from tests.test_pretrain import draw_shapes
from tests.test_ranks import LOSS_TOLERANCE, learn, losses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parent.parent


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    manifest: Manifest = draw_shapes(tmp_path / "images", 64)[0]
    manifest.write(tmp_path / "manifest.parquet")
    return tmp_path


def test_the_loss_of_two_ranks_follows_one_process(
    slurm: SlurmForTests, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = hpc_jobs.submit(
        learn,
        shapes,
        {"run": "two", "epochs": 3},
        name="pretrain",
        folder=shapes / "jobs",
        executor="slurm",
        parameters={"nodes": 2, "tasks_per_node": 1, "cpus_per_task": 1},
    )
    learn(shapes, {"run": "one", "epochs": 3})
    record = job.wait(240)
    assert record.state == "finished", record.log.read_text()
    assert record.progress is not None
    assert record.progress.done == record.progress.total
    np.testing.assert_allclose(losses(shapes, "two"), losses(shapes, "one"), rtol=LOSS_TOLERANCE)
    weights = [json.loads((shapes / "two" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert weights[0] == weights[1]
