"""SimCLR's pairs a second, from decoded images to the step, beside lightly's example and the limit.

    python -m benchmarks.simclr_speed path/to/ndsb

Three ways in the same run, for each backbone, with views of 64 px and the same batches of 256:

- ours: `simclr.pretrain` as it is, in its second and third epoch: memory-mapped cache, views drawn
  on whole batches, bf16; without what comes once (decoding) and after an epoch (saving, judging);
- lightly: the loop of its `examples/pytorch/simclr.py` (its SimCLRTransform on PIL images, a
  DataLoader of two workers, fp32, its head and loss) with our backbone and our AdamW;
- compute only: our bf16 step over and over on one tensor of views: no loading, no augmentation.

Rounds alternate; medians of the speeds, and of the ratios within a round. With `--epochs`, instead,
ours and lightly's learn from the subset for that many epochs: the kNN accuracy (leave one out, 21
groups) of both, with the speed of the epochs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.machine import circumstances
from benchmarks.ndsb import manifest_of, read_table
from hpc_jobs.whole_files import write_text
from label_studio_config.manifest import Manifest
from simclr.cache import ImageCache
from simclr.embed import features_of
from simclr.encoder import Encoder
from simclr.knn import knn_accuracy
from simclr.methods import make_method
from simclr.precision import cpu_learns_in_bf16
from simclr.pretrain import pretrain
from simclr.settings import SimCLRSettings

RESULT = Path(__file__).parent / "results" / "simclr_speed.json"
BACKBONES = ("resnet10t", "resnet18")
SIZE_PX = 64
BATCH = 256
ROUNDS = 3
LABEL = "functional_group"


class PilPairs(Dataset[list[torch.Tensor]]):
    """Files, opened by Pillow and augmented by lightly's transform, as its example does."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        # As the example, with the rotation and flip that images of plankton allow.
        self.transform = SimCLRTransform(
            input_size=SIZE_PX, vf_prob=0.5, rr_prob=0.5, gaussian_blur=0.0, hf_prob=0.5
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> list[torch.Tensor]:
        return self.transform(Image.open(self.paths[row]).convert("RGB"))


class LightlyExample:
    """The model and loop of lightly's example."""

    def __init__(self, backbone: str, paths: list[Path], steps: int) -> None:
        torch.manual_seed(0)
        self.encoder = Encoder.create(backbone, SIZE_PX, channels=3, pretrained=False)
        features = self.encoder.feature_count
        self.head = SimCLRProjectionHead(features, features, 128)
        self.loss = NTXentLoss(temperature=0.2)
        weights = [*self.encoder.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.2
        )
        self.loader = DataLoader(
            PilPairs(paths), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=2
        )

    def steps(self) -> Iterator[None]:
        """One epoch; the transform has normalised, so the bare backbone is what it goes to."""
        self.encoder.train()
        for first, second in self.loader:
            z0 = self.head(self.encoder.backbone(first))
            z1 = self.head(self.encoder.backbone(second))
            loss = self.loss(z0, z1)
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
            yield

    def features(self, paths: list[Path]) -> np.ndarray:
        """Of whole images, normalised as in training."""
        mean, std = (
            torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
        self.encoder.eval()
        found = []
        with torch.inference_mode():
            for first in range(0, len(paths), BATCH):
                images = [
                    Image.open(path).convert("RGB").resize((SIZE_PX, SIZE_PX))
                    for path in paths[first : first + BATCH]
                ]
                pixels = (
                    torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(
                        0, 3, 1, 2
                    )
                    / 255.0
                )
                found.append(self.encoder.backbone((pixels - mean) / std))
        return torch.cat(found).numpy()


class ComputeOnly:
    """The step that `simclr.pretrain` makes, over and over with one tensor of views."""

    def __init__(self, backbone: str) -> None:
        torch.manual_seed(0)
        self.method = make_method(Encoder.create(backbone, SIZE_PX), SimCLRSettings(view_share=1.0))
        self.method.train()
        self.optimizer = torch.optim.AdamW(self.method.parameters(), lr=1e-4, weight_decay=1e-4)
        self.views = torch.rand(2 * BATCH, 1, SIZE_PX, SIZE_PX)

    def steps(self) -> Iterator[None]:
        """Forward, loss, backward and optimizer, in `pretrain`'s precision, for ever."""
        in_bf16 = cpu_learns_in_bf16(self.method, SIZE_PX)
        while True:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bf16):
                loss = self.method.loss_of(self.views)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            yield


def pretrained(
    manifest: Manifest, backbone: str, cache_folder: Path, epochs: int
) -> tuple[float, Encoder]:
    """Pairs a second in the median epoch after the first, as `pretrain` says; the encoder."""
    with tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(0)
        folder = pretrain(
            manifest,
            Encoder.create(backbone, SIZE_PX),
            scratch,
            epochs,
            cache_folder=cache_folder,
            settings=SimCLRSettings(view_share=1.0, batch_size=BATCH),
        )
        history = pd.read_csv(Path(scratch) / "metrics.csv")
        return float(history["images_per_second"][1:].median()), Encoder.load(folder)


def pairs_a_second(
    backbone: str, manifest: Manifest, cache_folder: Path, rounds: int
) -> dict[str, list[float]]:
    """Of alternating rounds, each after steps that do not count."""
    rates: dict[str, list[float]] = {name: [] for name in ("ours", "lightly", "compute_only")}
    example, compute_only = LightlyExample(backbone, manifest.paths, 10_000), ComputeOnly(backbone)
    steps = len(manifest) // BATCH - 1  # of the example's epoch, after the one that does not count
    for _ in range(rounds):
        rates["ours"].append(pretrained(manifest, backbone, cache_folder, epochs=3)[0])
        rates["lightly"].append(_rate(example.steps(), steps))
        rates["compute_only"].append(_rate(compute_only.steps(), steps))
    return rates


def _rate(steps: Iterator[None], count: int) -> float:
    next(steps)
    began_s = time.perf_counter()
    for _ in range(count):
        next(steps)
    return count * BATCH / (time.perf_counter() - began_s)


def learned(
    backbone: str, manifest: Manifest, labels: np.ndarray, cache_folder: Path, epochs: int
) -> dict[str, dict[str, float]]:
    """Speed of whole epochs and kNN accuracy, ours and lightly's, on the same images."""
    rate, encoder = pretrained(manifest, backbone, cache_folder, epochs)
    cache = ImageCache.build(manifest, encoder.preprocessing, cache_folder)
    found = knn_accuracy(features_of(encoder, cache.images), labels)
    ours = {"pairs_per_second": rate, "knn_macro": found.macro, "knn_micro": found.micro}
    example = LightlyExample(backbone, manifest.paths, epochs * (len(manifest) // BATCH))
    rates = []
    for _ in range(epochs):
        began_s = time.perf_counter()
        count = BATCH * sum(1 for _ in example.steps())
        rates.append(count / (time.perf_counter() - began_s))
    found = knn_accuracy(example.features(manifest.paths), labels)
    theirs = {
        "pairs_per_second": float(np.median(rates)),
        "knn_macro": found.macro,
        "knn_micro": found.micro,
    }
    return {"ours": ours, "lightly": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of ndsb, with labels.csv")
    parser.add_argument("--images", type=int, default=2048, help="a random subset of this size")
    parser.add_argument("--epochs", type=int, default=0, help="learn, for the kNN accuracy")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="more where the machine is noisy"
    )
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    data = arguments.data.resolve()
    rows = read_table(data).sample(arguments.images, random_state=0).reset_index(drop=True)
    manifest, labels = manifest_of(rows, data), rows[LABEL].to_numpy(dtype=str)
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    facts = {"batch": BATCH, "view_px": SIZE_PX, "threads": torch.get_num_threads()}
    result["settings"] = facts
    with tempfile.TemporaryDirectory() as scratch:
        for backbone in arguments.backbones:
            load = os.getloadavg()[0]
            if arguments.epochs:
                found = learned(backbone, manifest, labels, Path(scratch), arguments.epochs)
                note = {"epochs": arguments.epochs, "images": len(rows), "labels": LABEL}
                row: dict[str, Any] = {"learned": {**note, **found, **circumstances()}}
            else:
                rates = pairs_a_second(backbone, manifest, Path(scratch), arguments.rounds)
                ours = np.array(rates["ours"])
                row = {
                    "pairs_per_second": {
                        name: round(float(np.median(found)), 1) for name, found in rates.items()
                    },
                    "of_compute_only": round(float(np.median(ours / rates["compute_only"])), 3),
                    "of_lightly": round(float(np.median(ours / rates["lightly"])), 2),
                    "rounds": {name: np.round(found, 1).tolist() for name, found in rates.items()},
                    "images": len(rows),
                    "load_before": round(load, 2),
                    **circumstances(),
                }
            print(backbone, json.dumps(row), flush=True)
            result[backbone] = {**result.get(backbone, {}), **row}
            write_text(RESULT, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
