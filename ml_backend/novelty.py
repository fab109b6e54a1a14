"""How unlike the training images an image is: distance to its nearest neighbours among them.

Distances are cosine distances in the encoder's features, averaged over the five nearest training
images (Sun et al. 2022, arXiv 2204.06507), and given as a share: 0.99 means farther off than 99 %
of the validation images, which are as ordinary as images get.

`benchmarks/novelty.py` compared it with fifteen other scores on ndsb, each label once left out of
1,045 to 1,449 annotated images: on held-out images it tells those of groups that nobody taught
with a macro AUROC of .795, of source classes with .740 (heads on frozen features). Its raw
distances and the distance to the 10th neighbour are as good, ViM is at .786 and .729, Mahalanobis
at .761 and .702, the largest probability at .701 and .682, energy at .612 and .609. It needs no
labels, so it serves models without a "one of" control too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

NEIGHBOURS = 5
MAX_REFERENCES = 5000
MIN_ORDINARY = 20
BATCH_SIZE = 512  # 10 MB of similarities at a time
FILE = "novelty.safetensors"


class Novelty:
    """Reference features, and the distances that ordinary images have to them.

    Parameters
    ----------
    references : Tensor, shape (m, d)
        Unit-length features of training images, m at least 5.
    ordinary : Tensor, shape (v,)
        Sorted distances of the validation images.
    """

    def __init__(self, references: Tensor, ordinary: Tensor) -> None:
        self.references = references.half()
        self.ordinary = ordinary.float()

    @classmethod
    def fit(cls, training: np.ndarray, validation: np.ndarray, seed: int = 0) -> Novelty | None:
        """From embeddings (n, d) and (v, d); None when there are too few to say what is usual."""
        if len(training) < NEIGHBOURS or len(validation) < MIN_ORDINARY:
            return None
        rows = np.random.default_rng(seed).permutation(len(training))[:MAX_REFERENCES]
        references = functional.normalize(torch.from_numpy(training[rows]).float(), dim=1)
        novelty = cls(references, torch.zeros(1))
        return cls(references, novelty.distances(validation).sort().values)

    def distances(self, embeddings: np.ndarray) -> Tensor:
        """Mean cosine distance to the nearest references, (n,)."""
        references = self.references.float().T
        distances = torch.empty(len(embeddings))
        for first in range(0, len(embeddings), BATCH_SIZE):
            rows = slice(first, first + BATCH_SIZE)
            unit = functional.normalize(torch.from_numpy(embeddings[rows]).float(), dim=1)
            similarity = unit @ references  # (batch, m)
            distances[rows] = 1 - similarity.topk(NEIGHBOURS, dim=1).values.mean(dim=1)
        return distances

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Share of ordinary images that are nearer to the training images, float32 (n,)."""
        rank = torch.searchsorted(self.ordinary, self.distances(embeddings))
        return (rank / len(self.ordinary)).numpy().astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write novelty.safetensors into a model folder."""
        save_file({"references": self.references, "ordinary": self.ordinary}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Novelty | None:
        """Read what `save` wrote; None where there is none."""
        if not (folder / FILE).exists():
            return None
        tensors = load_file(folder / FILE)
        return cls(tensors["references"], tensors["ordinary"])
