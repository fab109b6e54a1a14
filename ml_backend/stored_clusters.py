"""The clusters of a project's images as one file keeps them, by task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_jobs.whole_files import replacing


@dataclass(frozen=True)
class StoredClusters:
    """What a job has made.

    Attributes
    ----------
    task : int64 array (n,)
        Those of the first cluster, then those of the second, …; nearest to the centre first.
    starts : int array (clusters + 1,)
        Where each cluster begins in `task`, and where the last one ends.
    aside : int64 array
        The tasks of the outliers, the most typical first; of none in files that are older than it.
    outliers : int
        Images; one may be that of several tasks.
    """

    task: np.ndarray
    starts: np.ndarray
    aside: np.ndarray
    made_at: str
    n_images: int
    outliers: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def tasks_of(self, number: int | None) -> np.ndarray:
        """Of a cluster; with None those of the outliers."""
        if number is None:
            return self.aside
        return self.task[self.starts[number] : self.starts[number + 1]]

    def write(self, path: Path) -> None:
        """Into a file, whole."""
        with replacing(path) as temporary:
            np.savez(temporary, **vars(self))

    @classmethod
    def read(cls, path: Path) -> StoredClusters | None:
        """From a file; None where there is none."""
        if not path.is_file():
            return None
        with np.load(path) as file:
            return cls(
                file["task"],
                file["starts"],
                file["aside"] if "aside" in file else np.zeros(0, dtype=np.int64),
                str(file["made_at"]),
                int(file["n_images"]),
                int(file["outliers"]),
            )
