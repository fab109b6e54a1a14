"""A manifest's images as tasks of a project: in batches, once each, some of them blind."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from label_studio_config.api import Api
from label_studio_config.home import Home, OutsideRootError
from label_studio_config.manifest import Manifest

logger = logging.getLogger(__name__)

BATCH_SIZE = 5000


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
) -> ImportReport:
    """Load a manifest's images into a project; those that are there already stay as they are.

    Parameters
    ----------
    home : Home, being served
    manifest : its root must lie under the home's images root
    blind_share : share of the images, 0 to 1, that never get a suggestion and never train
    seed : another seed chooses other blind images

    Raises
    ------
    OutsideRootError
        If an image does not lie under the images root; nothing is loaded then.
    ApiError
        If Label Studio refuses; a repeat goes on where it stopped.
    """
    if not 0.0 <= blind_share <= 1.0:
        raise ValueError(f"blind_share is {blind_share}: a share from 0 to 1")
    addresses = _addresses(home, manifest)
    api = Api(home)
    path = f"/api/planktrait/projects/{project_id}"
    api.post(f"{path}/images-folder")
    with _one_at_a_time(home, project_id):
        known = set(api.get(f"{path}/image-ids")["image_ids"])
        new = [row for row, image_id in enumerate(manifest.image_ids) if image_id not in known]
        blind = _load(api, project_id, manifest, addresses, new, blind_share, seed, batch_size)
    name = f"project-{project_id}-{manifest.fingerprint[:12]}.parquet"
    manifest.write(home.manifests_folder / name)
    logger.info("Project %d: %d images added, %d were there", project_id, len(new), len(known))
    return ImportReport(project_id, len(new), len(manifest) - len(new), blind)


def is_blind(image_id: str, share: float, seed: int = 0) -> bool:
    """Whether an image is blind: a pure function, and a larger share keeps the blind ones blind."""
    digest = hashlib.sha256(f"blind:{seed}:{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def task_data(row: dict[str, Any], address: str, blind: bool) -> dict[str, Any]:
    """A task's data from a row of a manifest: what is unknown is left out."""
    data = {key: _plain(value) for key, value in row.items() if key != "path"}
    known = {key: value for key, value in data.items() if value is not None}
    return {"image": address, **known, "blind": "yes" if blind else "no"}


def _load(
    api: Api,
    project_id: int,
    manifest: Manifest,
    addresses: list[str],
    new: list[int],
    blind_share: float,
    seed: int,
    batch_size: int,
) -> int:
    n_blind = 0
    # disable=None: a bar on a terminal only; a log line a batch elsewhere.
    with tqdm(total=len(new), desc="Importing", unit="image", disable=None) as bar:
        for start in range(0, len(new), batch_size):
            rows = new[start : start + batch_size]
            records = manifest.table.iloc[rows].to_dict("records")
            tasks = []
            for row, record in zip(rows, records, strict=True):
                blind = is_blind(str(record["image_id"]), blind_share, seed)
                n_blind += blind
                columns = {str(key): value for key, value in record.items()}
                tasks.append({"data": task_data(columns, addresses[row], blind)})
            api.post(f"/api/projects/{project_id}/import?return_task_ids=false", tasks)
            bar.update(len(rows))
            logger.info("Imported %d of %d images", start + len(rows), len(new))
    return n_blind


def _addresses(home: Home, manifest: Manifest) -> list[str]:
    """The address of each image, after a check that none lies outside the images root."""
    root = Path(os.path.realpath(home.images_root))
    remedy = "restart `planktrait serve --images ROOT` with a ROOT that holds them"
    real_folders: dict[str, str] = {}
    addresses = []
    for path in manifest.paths:
        folder, name = os.path.split(path)
        if folder not in real_folders:
            real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(real_folders[folder], name)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(f"{root}{os.sep}"):
            raise OutsideRootError(f"image {path} is not under the images root {root}: {remedy}")
        addresses.append(home.image_url(os.path.relpath(real, root)))
    return addresses


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
def _one_at_a_time(home: Home, project_id: int) -> Iterator[None]:
    """Two imports into one project would each find the images missing."""
    with (home.cache_folder / f"import-project-{project_id}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
