"""Which images each step learns from: the same for any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from simclr.ranks import Ranks


class EpochBatches(Sampler[np.ndarray]):
    """Rows of a cache by batch, in an order that is a function of seed and epoch.

    Each rank gets its share of each batch; the incomplete batch at the end is left out.

    Parameters
    ----------
    count : int
        Images in the cache.
    batch_size : int
        Images in a batch of all ranks together.
    seed : int
    ranks : Ranks
    """

    def __init__(self, count: int, batch_size: int, seed: int, ranks: Ranks) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.share = batch_size // ranks.size
        self.first = ranks.rank * self.share
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """For Lightning, before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        for batch in order[: len(self) * self.batch_size].reshape(-1, self.batch_size):
            # Sorted reads are neighbours on the disk; the order inside a batch means nothing.
            yield np.sort(batch)[self.first : self.first + self.share]


class _CachedImages(Dataset[Tensor]):
    """Whole batches of a cache: one read of the memory map each."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self.images[rows])


def batches_of(images: np.ndarray, batches: EpochBatches) -> DataLoader[Tensor]:
    """This rank's images, uint8, batch by batch."""
    return DataLoader(_CachedImages(images), sampler=batches, batch_size=None)
