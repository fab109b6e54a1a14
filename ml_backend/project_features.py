"""The features of a project on disk, and the jobs that bring them up to date and use them all.

`home/cache/features/project-N/` holds a feature store for each encoder (its folder is named by the
fingerprint; `current.json` says which one answers), `clusters.npz` and `map.npz`.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hpc_jobs.files import read_json, write_json
from hpc_jobs.processors import processors
from hpc_jobs.whole_files import replacing
from label_studio_config.home import Home
from label_studio_config.manifest import Skipped
from label_studio_config.schema import LabelSchema
from label_studio_config.server_tasks import fetch_project, fetch_tasks
from label_studio_config.task_manifest import manifest_of_tasks
from ml_backend.encoders import newest_encoder
from ml_backend.registry import Registry, RegistryError
from ml_backend.stored_clusters import StoredClusters
from ml_backend.task_features import TaskReader, TaskTable, table_lock
from ml_backend.training_jobs import TASKS_PER_LIGHT_PAGE
from simclr.encoder import Encoder
from simclr.feature_store import FeatureStore
from simclr.neighbours import Neighbours

logger = logging.getLogger(__name__)

CURRENT_FILE = "current.json"
CLUSTERS_FILE = "clusters.npz"
MAP_FILE = "map.npz"
FINGERPRINT_LETTERS = 16
REASONS_LOGGED = 20
ONE_THREAD_IMAGES = 50_000
"""Up to so many, a map is made by one thread and always the same; more are worth all threads."""


class NoFeaturesError(ValueError):
    """A project that has no encoder yet, or too few images; the message says the remedy."""


def features_key(project_id: int) -> str:
    """The job key under which the features of a project are brought up to date."""
    return f"features project {project_id}"


def clusters_key(project_id: int) -> str:
    """The job key under which a project gets its clusters."""
    return f"clusters project {project_id}"


def map_key(project_id: int) -> str:
    """The job key under which a project gets its map."""
    return f"map project {project_id}"


def features_folder(home: Home, project_id: int) -> Path:
    """Where all of this is kept for a project."""
    return home.cache_folder / "features" / f"project-{int(project_id)}"


def wanted_encoder(home: Home, project_id: int) -> Path:
    """The folder of the encoder whose features a project is to have.

    That of the live version; before the first one, the newest that SimCLR has made.

    Raises
    ------
    NoFeaturesError
        There is neither, or the registry cannot be read.
    """
    try:
        live = Registry(home.models_folder(project_id)).live
    except RegistryError as error:
        raise NoFeaturesError(str(error)) from error
    folder = newest_encoder(home.encoders_folder(project_id)) if live is None else live.folder
    if folder is None:
        raise NoFeaturesError(
            f"project {project_id} has no features yet: run “Learn features from all images”, or "
            "a training"
        )
    return folder / "encoder" if (folder / "encoder").is_dir() else folder


def current_store(home: Home, project_id: int) -> FeatureStore | None:
    """The store that answers now; None before the first."""
    folder = features_folder(home, project_id)
    current = read_json(folder / CURRENT_FILE)
    if not isinstance(current, dict):
        return None
    try:
        return FeatureStore.open(folder / str(current["store"]))
    except (ValueError, KeyError) as error:
        logger.warning("the features of project %d cannot be read: %s", project_id, error)
        return None


def store_of(home: Home, project_id: int, encoder: Encoder) -> FeatureStore:
    """The store of an encoder; begun where there is none."""
    name = encoder.fingerprint[:FINGERPRINT_LETTERS]
    return FeatureStore.create(features_folder(home, project_id) / name, encoder)


def set_current(home: Home, project_id: int, store: FeatureStore) -> None:
    """Have a store answer from now on; those of other encoders are removed."""
    folder = features_folder(home, project_id)
    write_json(folder / CURRENT_FILE, {"store": store.folder.name})
    for other in folder.iterdir():
        if other.is_dir() and other != store.folder:
            shutil.rmtree(other, ignore_errors=True)


@dataclass(frozen=True)
class UpToDate:
    """A project's features as they are now.

    Attributes
    ----------
    done : bool array (n,)
        Which of the tasks in `table` have as many annotations as are wanted.
    added : int
        Images whose features are new.
    bad : list of Skipped
        Images that are not there, or cannot be read.
    """

    store: FeatureStore
    table: TaskTable
    done: np.ndarray
    added: int
    bad: list[Skipped]

    def counts(self) -> dict[str, Any]:
        """For the record of a job."""
        first = [f"{skip.path}: {skip.reason}" for skip in self.bad[:REASONS_LOGGED]]
        return {"images": len(self.store.rows), "added": self.added, "bad": len(self.bad)} | (
            {"first_bad": first} if first else {}
        )


def bring_up_to_date(home: Home, project_id: int) -> UpToDate:
    """Embed what is missing of a project, blind images too; its store answers from now on.

    Raises
    ------
    NoFeaturesError
        There is no encoder yet.
    ApiError
        Label Studio cannot be reached.
    """
    encoder = Encoder.load(wanted_encoder(home, project_id)).eval()
    store = store_of(home, project_id, encoder)
    schema = LabelSchema.from_xml(fetch_project(home, project_id)["label_config"])
    reader = TaskReader(schema)
    tasks = fetch_tasks(home, project_id, full=False, page_size=TASKS_PER_LIGHT_PAGE)
    manifest, skipped = manifest_of_tasks(
        schema, reader.through(tasks), home.resolve_image, home.images_root
    )
    added = store.add(manifest, encoder)
    Neighbours.open(store)  # so that no query waits for it
    table = reader.table(store.rows)
    with table_lock(store.folder):
        table.write(store.folder)
    set_current(home, project_id, store)
    bad = skipped + [
        Skipped(path, store.bad[image_id])
        for image_id, path in zip(manifest.image_ids, manifest.table["path"], strict=True)
        if image_id in store.bad
    ]
    return UpToDate(store, table, np.array(reader.done, dtype=bool), added.added, bad)


def update_features(home_folder: str | Path, project_id: int) -> dict[str, Any]:
    """A job: see `bring_up_to_date`. Returns images, added and bad, for its record."""
    return bring_up_to_date(Home(home_folder), project_id).counts()


def cluster_project(
    home_folder: str | Path, project_id: int, count: int | None = None, done_too: bool = False
) -> dict[str, Any]:
    """A job: clusters of the images that are not blind and want further annotations.

    Where several are wanted, whoever looks leaves out what that person has judged.

    Parameters
    ----------
    count : about how many clusters
    done_too : also images with all the annotations that are wanted: those may answer one question
        and leave another one open

    Raises
    ------
    NoFeaturesError
        There is no encoder yet, or no such image.
    ApiError
        Label Studio cannot be reached.
    """
    from simclr.clusters import find_clusters

    home = Home(home_folder)
    now = bring_up_to_date(home, project_id)
    rows, row_of_task, task_ids = _open_images(now, ~now.done | done_too)
    if not len(rows):
        raise NoFeaturesError(f"project {project_id} has no image left to judge")
    found = find_clusters(now.store.features[rows], count)
    labels, distances = found.labels[row_of_task], found.distances[row_of_task]
    order = np.lexsort((task_ids, distances, labels))
    within, aside = order[labels[order] >= 0], order[labels[order] < 0]
    starts = np.searchsorted(labels[within], np.arange(found.count + 1))
    facts = {"n_images": len(rows), "outliers": int((found.labels < 0).sum())}
    StoredClusters(task_ids[within], starts, task_ids[aside], _now(), **facts).write(
        features_folder(home, project_id) / CLUSTERS_FILE
    )
    return now.counts() | facts | {"clusters": found.count}


def map_project(home_folder: str | Path, project_id: int) -> dict[str, Any]:
    """A job: the map of all images that are not blind.

    Raises
    ------
    NoFeaturesError
        There is no encoder yet, or no image.
    ApiError
        Label Studio cannot be reached.
    """
    from simclr.feature_map import lay_out

    home = Home(home_folder)
    now = bring_up_to_date(home, project_id)
    rows, row_of_task, task_ids = _open_images(now, np.ones(len(now.table), dtype=bool))
    if not len(rows):
        raise NoFeaturesError(f"project {project_id} has no image for a map")
    threads = processors() if len(rows) > ONE_THREAD_IMAGES else 1
    places = lay_out(now.store.features[rows], threads=threads)[row_of_task]
    with replacing(features_folder(home, project_id) / MAP_FILE) as temporary:
        np.savez(
            temporary,
            task=task_ids,
            x=places[:, 0],
            y=places[:, 1],
            made_at=_now(),
            last_task=now.table.last_task,
        )
    return now.counts() | {"points": len(task_ids)}


def _open_images(now: UpToDate, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the store, each once; for each task the place of its image among them; the tasks.

    Of a row all of whose tasks are not among the chosen, nothing is used.
    """
    table = now.table
    refused = np.unique(table.rows[~chosen | table.blind])
    usable = chosen & ~table.blind & (table.rows >= 0) & ~np.isin(table.rows, refused)
    rows, row_of_task = np.unique(table.rows[usable], return_inverse=True)
    return rows, row_of_task, table.task_ids[usable]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
