"""A manifest's images as tasks of a project: in batches, once each, some of them blind."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from label_studio_config.api import Api
from label_studio_config.blind import can_say_blind, is_blind_data
from label_studio_config.home import Home, OutsideRootError, image_url
from label_studio_config.manifest import Manifest, ManifestError
from label_studio_config.source_images import Report

logger = logging.getLogger(__name__)

BATCH_SIZE = 5000
RESERVED_COLUMNS = ("image", "task_id")
"""A task's address of the image, and the name of its own number in tables."""

_NOT_UNDER = "is not under the images root"
_ANOTHER_ROOT = "restart `planktrait serve --images ROOT` with a ROOT that holds them"


@dataclass(frozen=True)
class ImportReport:
    """Tasks added, images that were tasks already, and how many of the added are blind."""

    project_id: int
    added: int
    present: int
    blind: int


def import_manifest(
    home: Home,
    project_id: int,
    manifest: Manifest,
    *,
    blind_share: float = 0.0,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    report: Report | None = None,
) -> ImportReport:
    """Load a manifest's images into a project; those that are there already stay as they are.

    An image is there already if a task has its address. Where its id is its path, as a folder's
    reader gives it, the id becomes the path below the images root: the same from whatever folder
    it is imported, and another one for a file of the same name in another folder.

    Parameters
    ----------
    home : Home, being served
    manifest : its root must lie under the home's images root; a column `blind` marks further
        images as blind
    blind_share : share of the images, 0 to 1, that never get a suggestion and never train
    seed : another seed chooses other blind images
    report : told of the progress as `report(stage, done, total)`

    Raises
    ------
    OutsideRootError
        If an image does not lie under the images root; nothing is loaded then.
    ManifestError
        For a column that a task cannot hold, or an id that another image of the project has.
    ApiError
        If Label Studio refuses; a repeat goes on where it stopped.
    """
    manifest, addresses, _ = ready(home.images_root, manifest, blind_share)
    api = Api(home)
    path = f"/api/planktrait/projects/{project_id}"
    with one_at_a_time(home, project_id):
        new = new_rows(manifest, addresses, api.get(f"{path}/images")["images"])
        api.post(f"{path}/images-folder")
        blind = _load(
            api, project_id, manifest, addresses, new, blind_share, seed, batch_size, report
        )
    keep_manifest(home, project_id, manifest)
    present = len(manifest) - len(new)
    logger.info("Project %d: %d images added, %d were there", project_id, len(new), present)
    return ImportReport(project_id, len(new), present, blind)


def what_is_new(
    home: Home,
    project_id: int,
    manifest: Manifest,
    *,
    blind_share: float = 0.0,
    seed: int = 0,
) -> ImportReport:
    """What `import_manifest` would add now; nothing is changed.

    Raises
    ------
    OutsideRootError, ManifestError, ApiError
        As `import_manifest`.
    """
    manifest, addresses, _ = ready(home.images_root, manifest, blind_share)
    known = Api(home).get(f"/api/planktrait/projects/{project_id}/images")["images"]
    new = new_rows(manifest, addresses, known)
    ids, marked = manifest.image_ids, manifest.table.get("blind")
    blind = sum(
        is_blind(ids[row], blind_share, seed) or (marked is not None and marked.iloc[row] == "yes")
        for row in new
    )
    return ImportReport(project_id, len(new), len(manifest) - len(new), blind)


def is_blind(image_id: str, share: float, seed: int = 0) -> bool:
    """Whether an image is blind: a pure function, and a larger share keeps the blind ones blind."""
    digest = hashlib.sha256(f"blind:{seed}:{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def task_data(row: dict[str, Any], address: str, blind: bool) -> dict[str, Any]:
    """A task's data from a row of a manifest: what is unknown is left out."""
    data = {key: _plain(value) for key, value in row.items() if key not in ("path", "blind")}
    known = {key: value for key, value in data.items() if value is not None}
    marked = blind or is_blind_data({"blind": _plain(row.get("blind"))})
    return {**known, "image": address, "blind": "yes" if marked else "no"}


def checked_columns(manifest: Manifest) -> Manifest:
    """The manifest with `blind`, if it has it, as yes or no."""
    for column in RESERVED_COLUMNS:
        if column in manifest.table:
            raise ManifestError(
                f"column {column!r} has a meaning of its own in a task: rename it in your table"
            )
    if "blind" not in manifest.table:
        return manifest
    values = [_plain(value) for value in manifest.table["blind"]]
    for image_id, value in zip(manifest.image_ids, values, strict=True):
        if not can_say_blind(value):
            raise ManifestError(
                f"image {image_id!r}: blind is {value!r}: write yes or no, or leave it empty"
            )
    marked = ["yes" if is_blind_data({"blind": value}) else "no" for value in values]
    return Manifest(manifest.table.assign(blind=marked), manifest.root)


def keep_manifest(home: Home, project_id: int, manifest: Manifest) -> None:
    """Write the manifest of what a project was given into the home."""
    name = f"project-{project_id}-{manifest.fingerprint[:12]}.parquet"
    manifest.write(home.manifests_folder / name)


def new_rows(manifest: Manifest, addresses: list[str], known: Iterable[Sequence[str]]) -> list[int]:
    """Rows whose address no task has yet, each address once.

    Parameters
    ----------
    known : the image id and the address of every task that is there

    Raises
    ------
    ManifestError
        Another image of the project has the id of one of them.
    """
    address_of: dict[str, str] = dict(known)  # type: ignore[arg-type]
    seen = {address for _, address in known}
    new = []
    for row, (image_id, address) in enumerate(zip(manifest.image_ids, addresses, strict=True)):
        if address in seen:
            continue
        if image_id in address_of:
            raise ManifestError(
                f"image_id {image_id!r} of {address} is that of {address_of[image_id]} in this "
                f"project already: give one of them another image_id in its manifest, or import "
                f"into another project"
            )
        seen.add(address)
        new.append(row)
    return new


def ready(
    images_root: Path, manifest: Manifest, blind_share: float = 0.0
) -> tuple[Manifest, list[str], list[str]]:
    """The manifest as its tasks will hold it, each image's address, and the ids it had before.

    Parameters
    ----------
    images_root : of the home whose Label Studio shows the images

    Raises
    ------
    OutsideRootError, ManifestError
        As `import_manifest`.
    """
    if not 0.0 <= blind_share <= 1.0:
        raise ValueError(f"blind_share is {blind_share}: a share from 0 to 1")
    manifest, ids_before = _with_stable_ids(images_root, checked_columns(manifest))
    addresses = [image_url(path) for path in _paths_below_root(images_root, manifest)]
    return manifest, addresses, ids_before


def require_near(images_root: Path, source: Path) -> None:
    """Refuse, before it is read, a folder or table whose images cannot lie under the images root.

    Raises
    ------
    OutsideRootError
    """
    folder = os.path.realpath(source if source.is_dir() else source.parent)
    root = os.path.realpath(images_root)
    if os.path.commonpath([folder, root]) not in {folder, root}:
        raise OutsideRootError(f"{source} {_NOT_UNDER} {root}: {_ANOTHER_ROOT}")


def tasks_of_rows(
    manifest: Manifest, addresses: list[str], rows: list[int], blind_share: float, seed: int
) -> list[dict[str, Any]]:
    """The data of the tasks of some rows."""
    tasks = []
    records = manifest.table.iloc[rows].to_dict("records")
    for row, record in zip(rows, records, strict=True):
        blind = is_blind(str(record["image_id"]), blind_share, seed)
        columns = {str(key): value for key, value in record.items()}
        tasks.append(task_data(columns, addresses[row], blind))
    return tasks


def _load(
    api: Api,
    project_id: int,
    manifest: Manifest,
    addresses: list[str],
    new: list[int],
    blind_share: float,
    seed: int,
    batch_size: int,
    report: Report | None,
) -> int:
    n_blind = 0
    # disable=None: a bar on a terminal only; a log line a batch elsewhere.
    with tqdm(total=len(new), desc="Importing", unit="image", disable=None) as bar:
        for start in range(0, len(new), batch_size):
            rows = new[start : start + batch_size]
            tasks = tasks_of_rows(manifest, addresses, rows, blind_share, seed)
            n_blind += sum(data["blind"] == "yes" for data in tasks)
            body = [{"data": data} for data in tasks]
            api.post(f"/api/projects/{project_id}/import?return_task_ids=false", body)
            bar.update(len(rows))
            done = start + len(rows)
            if report is not None:
                report("import images", done, len(new))
            logger.info("Imported %d of %d images", done, len(new))
    return n_blind


def _with_stable_ids(images_root: Path, manifest: Manifest) -> tuple[Manifest, list[str]]:
    """The manifest with ids that do not depend on which folder was given; the ids it had."""
    is_path = manifest.table["image_id"] == manifest.table["path"]
    if not is_path.any():
        return manifest, manifest.image_ids
    below_root = pd.Series(_paths_below_root(images_root, manifest), index=manifest.table.index)
    image_ids = manifest.table["image_id"].where(~is_path, below_root)
    # Two names of one file, by a link, are one image.
    twin = is_path & image_ids.duplicated()
    before = manifest.table["image_id"][~twin].tolist()
    return Manifest(manifest.table.assign(image_id=image_ids)[~twin], manifest.root), before


def _paths_below_root(images_root: Path, manifest: Manifest) -> list[str]:
    """Each image's path below the images root, links followed; none may lie outside."""
    root = os.path.realpath(images_root)
    below_root = root if root.endswith(os.sep) else f"{root}{os.sep}"
    real_folders: dict[str, str] = {}
    paths = []
    for path in manifest.paths:
        folder, name = os.path.split(path)
        if folder not in real_folders:
            real_folders[folder] = os.path.realpath(folder)
        real = f"{real_folders[folder]}{os.sep}{name}"
        if name in ("", os.curdir, os.pardir) or os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(below_root):
            raise OutsideRootError(f"image {path} {_NOT_UNDER} {root}: {_ANOTHER_ROOT}")
        paths.append(real[len(below_root) :])
    return paths


def _plain(value: Any) -> Any:
    """A value that JSON can hold; None for what is unknown."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool, list, dict)):
        return None if value == "" else value
    text = str(value)
    return None if text in ("NaT", "<NA>", "nan") else text


@contextmanager
def one_at_a_time(home: Home, project_id: int) -> Iterator[None]:
    """Two imports into one project would each find the images missing."""
    with (home.cache_folder / f"import-project-{project_id}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
