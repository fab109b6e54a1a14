"""Which row of a feature store the image of each task is, and which tasks are blind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from hpc_jobs.whole_files import replacing
from label_studio_config.schema import LabelSchema
from label_studio_config.votes import image_id_of, is_blind

TABLE_FILE = "tasks.npz"
_LOCK_FILE = ".tasks.lock"
NO_ROW = -1


@dataclass(frozen=True)
class TaskTable:
    """The tasks of a project, by id.

    Attributes
    ----------
    task_ids : int64 array (n,)
        Ascending.
    rows : int64 array (n,)
        In the feature store; -1 for an image that cannot be read.
    blind : bool array (n,)
        The task, or another one of the same image, is blind.
    last_task : int
        All tasks up to this id were looked at.
    """

    task_ids: np.ndarray
    rows: np.ndarray
    blind: np.ndarray
    last_task: int = 0

    def __len__(self) -> int:
        return len(self.task_ids)

    @classmethod
    def empty(cls) -> TaskTable:
        """Of a project that was not looked at."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none, none, np.zeros(0, dtype=bool))

    @classmethod
    def read(cls, folder: Path) -> TaskTable:
        """From a store's folder; empty where there is none yet."""
        path = folder / TABLE_FILE
        if not path.is_file():
            return cls.empty()
        with np.load(path) as file:
            return cls(file["task_ids"], file["rows"], file["blind"], int(file["last_task"]))

    def write(self, folder: Path) -> None:
        """Into a store's folder, whole."""
        with replacing(folder / TABLE_FILE) as temporary:
            np.savez(temporary, **vars(self))

    def places(self, task_ids: np.ndarray) -> np.ndarray:
        """Where tasks stand in the table, -1 for those that do not."""
        if not len(self):
            return np.full(len(task_ids), -1)
        found = np.searchsorted(self.task_ids, task_ids).clip(max=len(self) - 1)
        return np.where(self.task_ids[found] == task_ids, found, -1)

    def open_rows(self, n_rows: int) -> np.ndarray:
        """Which rows of the store are the image of a task and of no blind one, bool (n_rows,)."""
        return self.any_row(~self.blind, n_rows) & ~self.any_row(self.blind, n_rows)

    def any_row(self, chosen: np.ndarray, n_rows: int) -> np.ndarray:
        """Which rows of the store are the image of a chosen task, bool (n_rows,)."""
        mask = np.zeros(n_rows, dtype=bool)
        mask[self._rows(chosen, n_rows)] = True
        return mask

    def _rows(self, chosen: np.ndarray, n_rows: int) -> np.ndarray:
        rows = self.rows[chosen]
        return rows[(rows >= 0) & (rows < n_rows)]

    def and_new(self, new: TaskTable) -> TaskTable:
        """With tasks that came later; what is known of a task already gives way."""
        kept = ~np.isin(self.task_ids, new.task_ids)
        task_ids = np.concatenate([self.task_ids[kept], new.task_ids])
        order = np.argsort(task_ids, kind="stable")
        rows = np.concatenate([self.rows[kept], new.rows])[order]
        blind = np.concatenate([self.blind[kept], new.blind])[order]
        hidden = np.isin(rows, rows[blind & (rows >= 0)])
        last_task = max(self.last_task, new.last_task)
        return TaskTable(task_ids[order], rows, blind | hidden, last_task)


class TaskReader:
    """Passes tasks on and keeps of each what the table needs, so that no more stays in memory."""

    def __init__(self, schema: LabelSchema) -> None:
        self.schema = schema
        self.done: list[bool] = []
        self._ids: list[int] = []
        self._image_ids: list[str] = []
        self._blind: list[bool] = []

    def through(self, tasks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The tasks, ascending by id."""
        for task in tasks:
            self._ids.append(int(task["id"]))
            self._image_ids.append(image_id_of(self.schema, task))
            self._blind.append(is_blind(task))
            self.done.append(bool(task.get("total_annotations") and task.get("is_labeled", True)))
            yield task

    def table(self, rows_by_image: dict[str, int]) -> TaskTable:
        """The table, once the features are there."""
        hidden = {i for i, blind in zip(self._image_ids, self._blind, strict=True) if blind}
        return TaskTable(
            np.array(self._ids, dtype=np.int64),
            np.array([rows_by_image.get(i, NO_ROW) for i in self._image_ids], dtype=np.int64),
            np.array([i in hidden for i in self._image_ids], dtype=bool),
            max(self._ids, default=0),
        )


def table_lock(folder: Path) -> FileLock:
    """Held by who reads the table of a store to write it anew."""
    return FileLock(folder / _LOCK_FILE)
