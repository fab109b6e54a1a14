"""The features of each project in this process: loaded when first asked, and again when changed."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpc_jobs import progress
from hpc_jobs.files import read_json
from label_studio_config.home import Home
from label_studio_config.schema import LabelSchema
from label_studio_config.task_manifest import manifest_of_tasks
from ml_backend.project_features import (
    CURRENT_FILE,
    FINGERPRINT_LETTERS,
    current_store,
    features_folder,
    set_current,
    store_of,
    wanted_encoder,
)
from ml_backend.task_features import TABLE_FILE, TaskReader, TaskTable, table_lock
from ml_backend.what_next import Strategy, choose_next
from simclr.embed import features_of
from simclr.encoder import Encoder
from simclr.feature_store import FeatureStore, unit_length
from simclr.neighbours import Neighbours
from simclr.preprocessing import read_image

logger = logging.getLogger(__name__)

PROJECTS_KEPT = 4

Found = list[dict[str, Any]]


class UnknownTaskError(ValueError):
    """A task without features; the message says which and why."""


class LoadedFeatures:
    """A store, its index and its tasks, as they were when it was loaded.

    Attributes
    ----------
    store : FeatureStore
    table : TaskTable
    index : Neighbours
    """

    def __init__(self, store: FeatureStore, encoder: Encoder | None = None) -> None:
        self.mark = _mark(store.folder)
        self.store = store
        self.table = TaskTable.read(store.folder)
        self.index = Neighbours.open(store)
        self._open_rows = self.table.open_rows(len(self.index))
        self._order = np.argsort(self.table.rows, kind="stable")
        self._sorted_rows = self.table.rows[self._order]
        self._encoder = encoder

    @property
    def encoder(self) -> Encoder:
        """The store's encoder, loaded when it is first asked for."""
        if self._encoder is None:
            self._encoder = self.store.load_encoder()
        return self._encoder

    def changed(self, store: FeatureStore) -> LoadedFeatures:
        """Loaded again; with the same encoder where the store is the same."""
        same = store.fingerprint == self.store.fingerprint
        return LoadedFeatures(store, self._encoder if same else None)

    def like_tasks(self, task_ids: Sequence[int], limit: int, without: Sequence[int] = ()) -> Found:
        """The tasks whose images are most like those of some tasks, which are left out.

        Parameters
        ----------
        without : sequence of int
            Tasks that are left out, too.

        Raises
        ------
        UnknownTaskError
            A task is not known yet, or none of their images can be read.
        """
        rows = self.readable_rows(task_ids)
        queries = unit_length(self.index.features[rows])
        return self._search(queries, limit, without, rows)

    def readable_rows(self, task_ids: Sequence[int]) -> np.ndarray:
        """The rows of those of some tasks whose image can be read; raises as `like_tasks`."""
        asked = np.array(task_ids, dtype=np.int64)
        places = self.table.places(asked)
        if (places < 0).any():
            raise UnknownTaskError(f"task {asked[places < 0][0]} has no features yet")
        rows = self.table.rows[places]
        readable = (rows >= 0) & (rows < len(self.index))
        if not readable.any():
            raise UnknownTaskError(f"the image of task {asked[0]} cannot be read")
        return rows[readable]

    def like_image(self, content: bytes, limit: int, without: Sequence[int] = ()) -> Found:
        """The tasks whose images are most like an image file.

        Raises
        ------
        PreprocessingError
            It cannot be read as an image.
        """
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            image = read_image(file.name)
        pixels, _ = self.encoder.preprocessing.preprocess_image(image)
        with progress.quiet():
            features = features_of(self.encoder, pixels[None])
        return self._search(unit_length(features), limit, without)

    def next_tasks(
        self,
        strategy: Strategy,
        open_ids: Sequence[int],
        confidence: Sequence[float],
        labelled_ids: Sequence[int],
        limit: int,
    ) -> list[int]:
        """Which of some open tasks to label next, the most useful first (see `choose_next`).

        Tasks whose image has no features yet are left out.

        Parameters
        ----------
        confidence : sequence of float
            Of each open task; empty without a model.
        """
        asked = np.array([*open_ids, *labelled_ids], dtype=np.int64)
        if not len(self.table) or not len(asked):
            return []
        places = self.table.places(asked)
        rows = np.where(places < 0, -1, self.table.rows[np.maximum(places, 0)])
        known = (rows >= 0) & (rows < len(self.index))
        if not known.any():
            return []
        labelled = np.arange(len(asked)) >= len(open_ids)
        sure = np.ones(len(asked))
        sure[: len(confidence)] = confidence
        chosen = choose_next(
            strategy,
            unit_length(self.index.features[rows[known]]),
            sure[known] if len(confidence) else None,
            labelled[known],
            limit,
        )
        return asked[known][chosen].tolist()

    def _search(
        self,
        queries: np.ndarray,
        limit: int,
        without: Sequence[int],
        asked_rows: np.ndarray | None = None,
    ) -> Found:
        places = self.table.places(np.array(without, dtype=np.int64))
        kept = np.ones(len(self.table), dtype=bool)
        kept[places[places >= 0]] = False
        allowed = self._open_rows
        if len(places):
            # One image may be that of several tasks.
            allowed = allowed & self.table.any_row(kept, len(allowed))
        if asked_rows is not None:
            allowed = allowed.copy()
            allowed[asked_rows] = False
        ranked = self.index.search(queries, limit, allowed=allowed)
        first = np.searchsorted(self._sorted_rows, ranked.rows)
        last = np.searchsorted(self._sorted_rows, ranked.rows, side="right")
        tasks = [
            {"task": int(self.table.task_ids[place]), "similarity": round(float(similarity), 4)}
            for start, end, similarity in zip(first, last, ranked.similarity, strict=True)
            for place in self._order[start:end]
            if kept[place]
        ]
        return tasks[:limit]


class FeatureCache:
    """Loaded features by project; safe to share between threads.

    Parameters
    ----------
    home : Home
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._loaded: OrderedDict[int, LoadedFeatures] = OrderedDict()
        self._locks: dict[int, threading.RLock] = {}
        self._lock = threading.Lock()
        self._fingerprints: dict[Path, str] = {}

    def get(self, project_id: int) -> LoadedFeatures:
        """The features of a project as they are now; begun, empty, where there are none.

        Raises
        ------
        NoFeaturesError
            The project has no encoder yet.
        """
        known = self._loaded.get(project_id)
        if known is not None and known.mark == self._current_mark(project_id):
            return known
        with self._lock_of(project_id):
            store = current_store(self.home, project_id)
            if store is None:
                encoder = Encoder.load(wanted_encoder(self.home, project_id)).eval()
                store = store_of(self.home, project_id, encoder)
                set_current(self.home, project_id, store)
            known = self._loaded.get(project_id)
            if known is not None and known.mark == _mark(store.folder):
                return known
            loaded = LoadedFeatures(store) if known is None else known.changed(store)
            with self._lock:
                self._loaded[project_id] = loaded
                self._loaded.move_to_end(project_id)
                while len(self._loaded) > PROJECTS_KEPT:
                    self._loaded.popitem(last=False)
            return loaded

    def add(
        self, project_id: int, schema: LabelSchema, tasks: Sequence[dict[str, Any]]
    ) -> LoadedFeatures:
        """Embed the images of some new tasks now, in this call."""
        loaded = self.get(project_id)
        with self._lock_of(project_id), progress.quiet():
            reader = TaskReader(schema)
            ordered = sorted(tasks, key=lambda task: int(task["id"]))
            manifest, _ = manifest_of_tasks(
                schema, reader.through(ordered), self.home.resolve_image, self.home.images_root
            )
            loaded.store.add(manifest, loaded.encoder, threads=1)
            new = reader.table(loaded.store.rows)
            with table_lock(loaded.store.folder):
                TaskTable.read(loaded.store.folder).and_new(new).write(loaded.store.folder)
        return self.get(project_id)

    def is_stale(self, project_id: int, store: FeatureStore) -> bool:
        """Whether the project is to have the features of another encoder than the store's."""
        folder = wanted_encoder(self.home, project_id)
        if folder not in self._fingerprints:
            self._fingerprints[folder] = Encoder.load(folder).fingerprint
        return self._fingerprints[folder] != store.fingerprint

    def _lock_of(self, project_id: int) -> threading.RLock:
        with self._lock:
            return self._locks.setdefault(project_id, threading.RLock())

    def _current_mark(self, project_id: int) -> tuple[str, int]:
        folder = features_folder(self.home, project_id)
        current = read_json(folder / CURRENT_FILE) or {}
        return _mark(folder / str(current.get("store")))


def _mark(store_folder: Path) -> tuple[str, int]:
    """Changes when another store answers, or this one has other tasks."""
    try:
        changed_ns = (store_folder / TABLE_FILE).stat().st_mtime_ns
    except OSError:
        changed_ns = 0
    return store_folder.name[:FINGERPRINT_LETTERS], changed_ns
