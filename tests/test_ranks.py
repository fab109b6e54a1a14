"""Several processes learn as one: same losses, equal weights, and a run goes on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch

from label_studio_config.manifest import Manifest
from label_studio_config.processes import free_port
from simclr.augment import Augmentation
from simclr.batches import EpochBatches
from simclr.encoder import Encoder
from simclr.methods import make_method
from simclr.pretrain import PretrainError, _shared_batch_size, pretrain
from simclr.ranks import Ranks
from simclr.record import EpochRecord
from simclr.settings import METHODS, SimCLRSettings
from tests.test_pretrain import draw_shapes

# In fp32, without noise, ranks differ from one process by the order of sums alone.
LOSS_TOLERANCE = 2e-3

LEARN = """
import json, os, sys
from pathlib import Path
from tests.test_ranks import learn
for options in json.loads(sys.argv[2]):
    if "port" in options:
        # The launcher's own store still holds where the ranks of the last run met.
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
        os.environ["MASTER_PORT"] = str(options["port"])
    learn(Path(sys.argv[1]), options)
"""
# With activations inside the batch norms; and the chunks of a batch projected twice.
CASES: list[dict[str, Any]] = [
    *({"method": name} for name in METHODS),
    {"backbone": "test_efficientnet"},
    {"method": "dcl", "chunk_size": 8, "epochs": 1},
]


def learn(folder: Path, options: dict[str, Any]) -> None:
    """Pretrain, as each rank does it, and leave the sums of this rank's weights."""
    run = folder / options.get("run", "run")

    def keep_sums(record: EpochRecord, trainer: Any, method: Any) -> None:
        sums = {name: float(value.double().sum()) for name, value in method.state_dict().items()}
        (run / f"rank{trainer.global_rank}.json").write_text(json.dumps(sums))

    settings = SimCLRSettings.of(
        options.get("method", "simclr"),
        batch_size=16,
        augmentation=Augmentation(noise=0.0),
        chunk_size=options.get("chunk_size"),
    )
    torch.manual_seed(0)
    encoder = Encoder.create(options.get("backbone", "test_resnet"), image_size_px=32)
    manifest = Manifest.read(folder / "manifest.parquet")
    with patch.object(EpochRecord, "on_train_end", keep_sums):
        pretrain(
            manifest,
            encoder,
            run,
            options["epochs"],
            cache_folder=folder / "cache",
            settings=settings,
        )


def start(folder: Path, ranks: int, *runs: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Ranks that learn one run after the other: most of a short one is starting its processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    (folder / "learn.py").write_text(LEARN)
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, *launcher, str(folder / "learn.py"), str(folder), json.dumps(runs)],
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        stdout=(folder / "log").open("ab"),
        stderr=subprocess.STDOUT,
    )


def losses(folder: Path, run: str) -> np.ndarray:
    return pd.read_csv(folder / run / "metrics.csv")["loss"].to_numpy()


def with_shapes(folder: Path) -> Path:
    manifest, _ = draw_shapes(folder / "images", 64)
    manifest.write(folder / "manifest.parquet")
    return folder


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return with_shapes(tmp_path)


def name_of(case: dict[str, Any]) -> str:
    return "-".join(map(str, case.values()))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where two ranks learned all cases."""
    folder = with_shapes(tmp_path_factory.mktemp("ranks"))
    runs = [
        {"epochs": 3, **case, "run": f"two-{name_of(case)}", "port": free_port()} for case in CASES
    ]
    assert start(folder, 2, *runs).wait(900) == 0, (folder / "log").read_text()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_two_ranks_learn_what_one_process_learns(case: dict[str, Any], two_ranks: Path) -> None:
    name = name_of(case)
    alone = {"epochs": 3, **case, "run": f"one-{name}"}
    if "chunk_size" in case:
        # A rank's chunk of both views is half of what one process projects at once.
        alone["chunk_size"] = 2 * case["chunk_size"]
    learn(two_ranks, alone)
    one, two = losses(two_ranks, f"one-{name}"), losses(two_ranks, f"two-{name}")
    assert len(two) == alone["epochs"]
    np.testing.assert_allclose(two, one, rtol=LOSS_TOLERANCE)
    weights = [
        json.loads((two_ranks / f"two-{name}" / f"rank{rank}.json").read_text()) for rank in (0, 1)
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_the_next_goes_on(shapes: Path) -> None:
    epochs = 15
    process = start(shapes, 2, {"epochs": epochs})
    metrics = shapes / "run" / "metrics.csv"
    end_s = time.monotonic() + 300
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None, (shapes / "log").read_text()
        assert time.monotonic() < end_s
        time.sleep(0.05)
    os.kill(second_rank(process.pid), signal.SIGKILL)
    assert process.wait(120) != 0
    done = len(losses(shapes, "run"))
    assert done < epochs
    assert not list((shapes / "run").glob("rank*.json"))

    assert start(shapes, 2, {"epochs": epochs}).wait(300) == 0, (shapes / "log").read_text()
    assert pd.read_csv(metrics)["epoch"].tolist() == list(range(1, epochs + 1))
    learn(shapes, {"run": "one", "epochs": epochs})
    two, one = losses(shapes, "run"), losses(shapes, "one")
    np.testing.assert_allclose(two[: done + 1], one[: done + 1], rtol=0.02)
    weights = [json.loads((shapes / "run" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert weights[0] == weights[1]


def second_rank(launcher: int) -> int:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in map(int, children):
        if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return child
    raise AssertionError(f"no rank 1 among {children}")


def test_a_resumed_run_is_the_run_that_was_not_killed(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(shapes, {"run": "whole", "epochs": 3})
    epoch_starts = EpochRecord.on_train_epoch_start

    def ended(record: Any, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 2:
            raise InterruptedError
        epoch_starts(record, trainer, module)

    with monkeypatch.context() as context:
        context.setattr(EpochRecord, "on_train_epoch_start", ended)
        with pytest.raises(InterruptedError):
            learn(shapes, {"run": "resumed", "epochs": 3})
    learn(shapes, {"run": "resumed", "epochs": 3})
    np.testing.assert_allclose(losses(shapes, "resumed"), losses(shapes, "whole"), rtol=1e-5)


MEET = """
import sys, time
from pathlib import Path
import torch
from simclr.ranks import Ranks
ranks, folder = Ranks.here(), Path(sys.argv[1])
try:
    with ranks.connected():
        if ranks.rank == 1:
            raise ValueError("as asked")
        torch.distributed.all_reduce(torch.zeros(1))
        sys.exit("nobody was missed")
except ValueError:
    time.sleep(2)  # the error is on its way to where it is told
    (folder / "told").touch()
except RuntimeError:
    (folder / "missed").write_text(str((folder / "told").exists()))
"""


@pytest.mark.slow
def test_an_error_is_told_before_the_other_processes_miss_this_one(tmp_path: Path) -> None:
    (tmp_path / "meet.py").write_text(MEET)
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    where["PYTHONPATH"] = str(Path(__file__).parents[1])
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "meet.py"), str(tmp_path)],
            env=os.environ | where | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert (tmp_path / "missed").read_text() == "True"


def test_ranks_share_each_batch() -> None:
    whole = EpochBatches(50, 16, seed=3, ranks=Ranks())
    shares = [EpochBatches(50, 16, seed=3, ranks=Ranks(rank, 4)) for rank in range(4)]
    for epoch in (0, 5):
        for batches in (whole, *shares):
            batches.set_epoch(epoch)
        assert len(whole) == len(list(whole)) == 3
        for batch, *parts in zip(whole, *shares, strict=True):
            assert np.array_equal(batch, np.concatenate(parts))
    orders = []
    for epoch in (0, 1):
        whole.set_epoch(epoch)
        orders.append(np.concatenate(list(whole)))
    assert len(set(orders[0])) == 48
    assert not np.array_equal(*orders)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(PretrainError, match=r"batch of 16 images .* shared by 3 processes"):
        _shared_batch_size(64, SimCLRSettings(batch_size=16), Ranks(0, 3))
    assert _shared_batch_size(64, SimCLRSettings(batch_size=16), Ranks(0, 4)) == 16


def test_ranks_are_found_where_the_launcher_says_them() -> None:
    assert Ranks.here({}) == Ranks(0, 1)
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert Ranks.here(torchrun | {"MASTER_ADDR": "a", "MASTER_PORT": "9"}) == Ranks(
        5, 8, local_rank=1, local_size=4, address="a", port=9
    )
    slurm = {
        "SLURM_JOB_ID": "12",
        "SLURM_NTASKS": "7",
        "SLURM_PROCID": "6",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "3",
        "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
        "SLURM_STEP_NODELIST": "node-that-no-resolver-knows[04-07]",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.4",
    }
    assert Ranks.here(slurm) == Ranks(0, 1)  # a batch script without srun
    found = Ranks.here(slurm | {"SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_ID": "0"})
    assert (found.rank, found.size, found.local_rank, found.local_size) == (6, 7, 0, 1)
    assert (found.node, found.address) == (3, "10.0.0.4")
    first = Ranks.here(slurm | {"SLURM_STEP_NUM_TASKS": "7", "SLURM_NODEID": "2"})
    assert first.local_size == 2
    assert first.port == found.port
    assert not first.is_first


def test_a_method_draws_the_same_views_in_any_number_of_ranks() -> None:
    """Each rank's views are its images' of the whole batch."""

    class Told:
        current_epoch = 4

        def __init__(self, size: int, rank: int) -> None:
            self.world_size, self.global_rank = size, rank

    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    settings = SimCLRSettings(augmentation=Augmentation(noise=0.0))
    encoder = Encoder.create("test_resnet", image_size_px=32)
    seen = {}
    for size in (1, 4):
        for rank in range(size):
            method = make_method(encoder, settings)
            method._trainer = Told(size, rank)  # type: ignore[assignment]
            method.log = lambda *args, **options: None  # type: ignore[method-assign]

            def keep(views: torch.Tensor, at: tuple[int, int] = (size, rank)) -> torch.Tensor:
                seen[at] = views
                return views.sum()

            method.loss_of = keep  # type: ignore[method-assign]
            method.on_train_epoch_start()
            share = 8 // size
            method.training_step(images[rank * share : (rank + 1) * share], 0)
    first, second = seen[1, 0].chunk(2)
    parts = [seen[4, rank].chunk(2) for rank in range(4)]
    torch.testing.assert_close(first, torch.cat([part[0] for part in parts]))
    torch.testing.assert_close(second, torch.cat([part[1] for part in parts]))
    assert not torch.equal(first, second)
