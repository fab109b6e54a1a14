"""More like this: the images whose features are most like those of one or several.

Every image is compared in 64 dimensions, the principal ones of the features, which are kept in a
memory-mapped file of their own; the best of them are ranked by their whole features. Measured by
`benchmarks/neighbours.py`, this finds what the exact search finds and reads an eighth as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from hpc_jobs.files import read_json, write_json
from simclr.append import RowFile
from simclr.feature_store import FeatureStore, unit_length

REDUCED_COUNT = 64
CANDIDATES = 1000
"""So many at least are ranked by their whole features; five times the limit if that is more."""

CANDIDATES_A_RESULT = 5
MOST_QUERIES = 50
"""Of more, so many are taken, spread evenly: they say what is meant, and the time stays short."""

TEMPERATURE = 0.1
INDEX_FILE = "index.json"
_LOCK_FILE = ".index.lock"
_FITTED_ROWS = 50_000
_ROWS_AT_ONCE = 20_000
_FORMAT = 1


@dataclass(frozen=True)
class Ranked:
    """What a search found, best first.

    Attributes
    ----------
    rows : int array (n,)
        In the feature store.
    similarity : float32 array (n,)
        Cosine to the query; between the largest and the mean one where there are several.
    """

    rows: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class Neighbours:
    """An index over the rows of a feature store; `open` makes it or brings it up to date.

    Attributes
    ----------
    features : float16 array (n, d)
    reduced : float32 array (n, k)
    projection : float32 array (d, k)
    """

    features: np.ndarray
    reduced: np.ndarray
    projection: np.ndarray

    def __len__(self) -> int:
        return len(self.reduced)

    @classmethod
    def open(cls, store: FeatureStore) -> Neighbours:
        """The index of a store, with every row that the store has now."""
        features = store.features
        if not len(features):
            nothing = np.zeros((0, REDUCED_COUNT), dtype=np.float32)
            return cls(
                features, nothing, np.zeros((store.feature_count, REDUCED_COUNT), np.float32)
            )
        with FileLock(store.folder / _LOCK_FILE):
            index = read_json(store.folder / INDEX_FILE) or {}
            fitted = int(index.get("fitted_on", 0)) if index.get("format") == _FORMAT else 0
            # An encoder's principal dimensions settle early; a few images do not show them.
            if not fitted or (fitted < _FITTED_ROWS and len(features) >= 2 * fitted):
                _fit(store.folder, features)
            elif int(index["rows"]) < len(features):
                projection = np.load(store.folder / f"projection-{fitted}.npy")
                _append(store.folder, features, projection, fitted, int(index["rows"]))
            index = read_json(store.folder / INDEX_FILE) or {}
            rows, fitted = int(index["rows"]), int(index["fitted_on"])
            projection = np.load(store.folder / f"projection-{fitted}.npy")
            reduced = np.load(_reduced_file(store.folder, fitted), mmap_mode="r")[:rows]
        # Another process may have added rows between the two looks.
        rows = min(len(features), len(reduced))
        return cls(features[:rows], reduced[:rows], projection)

    def search(
        self,
        queries: np.ndarray,
        limit: int,
        *,
        allowed: np.ndarray | None = None,
        candidates: int = CANDIDATES,
    ) -> Ranked:
        """The nearest rows of one query or of several together.

        Of several, a row's similarity is t log mean exp(s / t) over its cosines s with them,
        t = 0.1: near the largest, but what is like many of them comes first. On ndsb that finds
        more of the same class than the largest or the mean.

        Parameters
        ----------
        queries : float array, shape (q, d)
            Of unit length.
        limit : int
        allowed : bool array, shape (n,), optional
            Rows that may be found.
        candidates : int
        """
        queries = np.ascontiguousarray(np.atleast_2d(queries), dtype=np.float32)
        if not len(self):
            return Ranked(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        if len(queries) > MOST_QUERIES:
            queries = queries[np.linspace(0, len(queries) - 1, MOST_QUERIES).astype(int)]
        rough = self._rough(queries)
        if allowed is not None:
            rough[~allowed] = -np.inf
        count = min(len(rough), max(candidates, CANDIDATES_A_RESULT * limit))
        chosen = np.argpartition(rough, len(rough) - count)[len(rough) - count :]
        # In the order of the file, which is mapped, not read.
        chosen = np.sort(chosen[np.isfinite(rough[chosen])])
        similarity = together(self.features[chosen].astype(np.float32) @ queries.T)
        order = np.argsort(-similarity, kind="stable")[:limit]
        return Ranked(chosen[order], similarity[order])

    def _rough(self, queries: np.ndarray) -> np.ndarray:
        projected = (queries @ self.projection).T
        rough = np.empty(len(self.reduced), dtype=np.float32)
        for first in range(0, len(rough), _ROWS_AT_ONCE):
            part = self.reduced[first : first + _ROWS_AT_ONCE] @ projected
            rough[first : first + len(part)] = _in_the_order_of_together(part)
        return rough


def together(cosines: np.ndarray) -> np.ndarray:
    """One similarity from the cosines with several queries, shape (n, q) to (n,)."""
    if cosines.shape[1] == 1:
        return np.asarray(cosines[:, 0])
    mean = np.exp((cosines - 1) / TEMPERATURE).mean(axis=1)
    return np.asarray(1 + TEMPERATURE * np.log(np.maximum(mean, np.finfo(np.float32).tiny)))


def _in_the_order_of_together(cosines: np.ndarray) -> np.ndarray:
    """Numbers that rank as `together` does, in a third of its time; the cosines are lost."""
    if cosines.shape[1] == 1:
        return np.asarray(cosines[:, 0])
    np.multiply(cosines, 1 / TEMPERATURE, out=cosines)
    return np.asarray(np.exp(cosines, out=cosines).sum(axis=1))


def principal(features: np.ndarray, count: int) -> np.ndarray:
    """The directions that hold most of the features' length, float32 (d, count), best first."""
    step = max(1, len(features) // _FITTED_ROWS)
    sample = np.asarray(features[::step], dtype=np.float32)
    _, vectors = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(vectors[:, ::-1][:, :count], dtype=np.float32)


def reduced_to_unit(features: np.ndarray, count: int) -> np.ndarray:
    """Features in their `count` principal directions, of unit length, float32 (n, count)."""
    projection = principal(features, count)
    points = np.empty((len(features), projection.shape[1]), dtype=np.float32)
    for first in range(0, len(features), _ROWS_AT_ONCE):
        part = np.asarray(features[first : first + _ROWS_AT_ONCE], dtype=np.float32)
        points[first : first + len(part)] = unit_length(part @ projection)
    return points


def _fit(folder: Path, features: np.ndarray) -> None:
    fitted = len(features)
    projection = principal(features, REDUCED_COUNT)
    path = folder / f"projection-{fitted}.npy"
    temporary = folder / f".{path.name}"
    with temporary.open("wb") as file:
        np.save(file, projection)
    temporary.replace(path)
    _append(folder, features, projection, fitted, 0)
    # Who has an older one open goes on reading it.
    for other in [*folder.glob("projection-*.npy"), *folder.glob("reduced-*.npy")]:
        if other not in (path, _reduced_file(folder, fitted)):
            other.unlink(missing_ok=True)


def _append(
    folder: Path, features: np.ndarray, projection: np.ndarray, fitted: int, rows: int
) -> None:
    """Write the rows from `rows` on; the index names them once they are whole."""
    file = RowFile(_reduced_file(folder, fitted), np.float32, (projection.shape[1],))
    file.truncate(rows)
    for first in range(rows, len(features), _ROWS_AT_ONCE):
        part = np.asarray(features[first : first + _ROWS_AT_ONCE], dtype=np.float32)
        file.append(part @ projection)
    file.finish()
    index = {"format": _FORMAT, "rows": file.count, "fitted_on": fitted}
    write_json(folder / INDEX_FILE, index)


def _reduced_file(folder: Path, fitted: int) -> Path:
    return folder / f"reduced-{fitted}.npy"
