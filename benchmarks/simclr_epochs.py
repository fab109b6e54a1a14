"""What SimCLR learns from a few thousand images, and how long it takes.

    python benchmarks/simclr_epochs.py path/to/ndsb --images 6500 --labelled 2000 --epochs 12

Features are judged as a user would use them: a logistic regression from the labelled images, on
the features and the logarithm of the size, scored on images that were neither learned from nor
labelled.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from label_studio_config.manifest import Manifest
from simclr.cache import ImageCache
from simclr.embed import features_of
from simclr.encoder import Encoder
from simclr.pretrain import SimCLRSettings, pretrain

HELD_OUT = 4000


def linear_probe(encoder: Encoder, cache: ImageCache, labels: np.ndarray, train_rows: int) -> float:
    """Macro recall on the last 4,000 rows of a regression from the first `train_rows`."""
    inputs = np.hstack([features_of(encoder, cache.images), cache.log_extents])
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.05, max_iter=1000, class_weight="balanced")
    )
    model.fit(inputs[:train_rows], labels[:train_rows])
    return float(balanced_accuracy_score(labels[-HELD_OUT:], model.predict(inputs[-HELD_OUT:])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with labels.csv (image, functional_group)")
    parser.add_argument("--images", type=int, default=6500, help="learned from, without labels")
    parser.add_argument("--labelled", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=SimCLRSettings.batch_size)
    parser.add_argument("--view-share", type=float, default=SimCLRSettings.view_share)
    parser.add_argument("--learning-rate", type=float, default=SimCLRSettings.learning_rate)
    arguments = parser.parse_args()

    table = pd.read_csv(arguments.data / "labels.csv").sample(frac=1, random_state=0)
    table = table.iloc[: arguments.images + HELD_OUT]
    manifest = Manifest(
        pd.DataFrame({"image_id": table["image"], "path": table["image"]}), arguments.data
    )
    labels = table["functional_group"].to_numpy()
    learned_from = manifest.select(manifest.image_ids[: arguments.images])
    settings = SimCLRSettings(
        batch_size=arguments.batch_size,
        view_share=arguments.view_share,
        learning_rate=arguments.learning_rate,
    )
    with tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(0)
        untrained = Encoder.create()
        cache = ImageCache.build(manifest, untrained.preprocessing, Path(scratch) / "cache")
        assert cache.image_ids == manifest.image_ids, cache.skipped
        before = linear_probe(untrained, cache, labels, arguments.labelled)
        print(f"untrained: linear probe macro recall {before:.3f}")
        wall_s, processor_s = time.monotonic(), time.process_time()
        folder = pretrain(
            learned_from,
            untrained,
            Path(scratch) / "run",
            arguments.epochs,
            labels=dict(zip(table["image"], labels, strict=True)),
            cache_folder=Path(scratch) / "cache",
            settings=settings,
        )
        wall_s, processor_s = time.monotonic() - wall_s, time.process_time() - processor_s
        print(pd.read_csv(Path(scratch) / "run" / "metrics.csv").round(4).to_string(index=False))
        after = linear_probe(Encoder.load(folder), cache, labels, arguments.labelled)
        print(f"{wall_s:.0f} s, {processor_s:.0f} processor seconds")
        print(f"after {arguments.epochs} epochs: linear probe macro recall {after:.3f}")


if __name__ == "__main__":
    main()
