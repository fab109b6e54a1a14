"""Features to measure with: those of ndsb, and as many more as a large project has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.ndsb import ENCODER, manifest_of, read_table
from simclr.embed import embed, read_embeddings, write_embeddings
from simclr.encoder import Encoder
from simclr.feature_store import unit_length

WORK = Path(__file__).parent / "work"
_ALIKE = 10
_ROWS_AT_ONCE = 20_000


def ndsb_features(folder: Path, encoder: Path = ENCODER) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of ndsb and its features, of unit length; computed once, then read."""
    table = read_table(folder)
    loaded = Encoder.load(encoder)
    path = WORK / f"features-ndsb-{loaded.fingerprint[:16]}.parquet"
    if not path.exists():
        image_ids, features, _ = embed(loaded, manifest_of(table, folder))
        write_embeddings(path, image_ids, features)
    image_ids, features = read_embeddings(path)
    return table.set_index("image").loc[image_ids].reset_index(), unit_length(features)


def grown(features: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Features of `count` images, float16: new ones lie between a real one and those like it.

    Each dimension of a new one is a mixture of its own of a real image's value and that of one of
    its ten nearest, so that there are as many dimensions as in the real ones.
    """
    if count <= len(features):
        return features[np.random.default_rng(seed).permutation(len(features))[:count]].astype(
            np.float16
        )
    random = np.random.default_rng(seed)
    alike = _nearest(features)
    made = np.empty((count, features.shape[1]), dtype=np.float16)
    for first in range(0, count, _ROWS_AT_ONCE):
        n = min(_ROWS_AT_ONCE, count - first)
        one = random.integers(0, len(features), n)
        other = alike[one, random.integers(0, _ALIKE, n)]
        share = 0.8 * random.random((n, features.shape[1]), dtype=np.float32)
        mixed = features[one] + share * (features[other] - features[one])
        made[first : first + n] = unit_length(mixed)
    return made


def _nearest(features: np.ndarray) -> np.ndarray:
    bank = torch.from_numpy(features)
    return np.concatenate(
        [
            torch.topk(bank[first : first + 2048] @ bank.T, _ALIKE + 1).indices[:, 1:].numpy()
            for first in range(0, len(bank), 2048)
        ]
    )
