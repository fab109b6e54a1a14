"""Pretraining in two processes that Slurm starts, beside one process at the same batch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hpc_jobs
from label_studio_config.home import Home
from label_studio_config.manifest import Manifest
from planktrait import app
from simclr.record import read_history
from tests.slurm_fixtures import SlurmForTests, await_true
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


def test_preempted_it_goes_on_after_its_last_epoch(
    slurm: SlurmForTests, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As somebody types it: `planktrait submit --cluster slurm pretrain …`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    home, run, epochs = Home(shapes / "home"), shapes / "run", 60
    words = ["submit", "--cluster", "slurm", "pretrain", str(shapes / "manifest.parquet")]
    words += ["--output", str(run), "--epochs", str(epochs), "--batch-size", "16"]
    words += ["--backbone", "test_resnet", "--image-size-px", "32", "--home", str(home.folder)]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    (record,) = hpc_jobs.list_jobs(home.jobs_folder)
    job: hpc_jobs.Job[None] = hpc_jobs.Job(record.folder)

    def log() -> str:
        return hpc_jobs.read_log(job.record())

    await_true(lambda: len(read_history(run)) >= 2, 120, log)
    slurm.preempt()
    # Lightning answers SIGTERM with an error, which is no failure of the job.
    assert job.wait(240).state == "finished", log()
    assert re.search(rf"pretraining goes on after epoch [1-9]\d* of {epochs}", log())
    assert [row["epoch"] for row in read_history(run)] == [*range(1, epochs + 1)]
