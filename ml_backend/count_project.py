"""Counts of a whole project: every image predicted by the live version, then counted."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

from hpc_jobs import progress
from label_studio_config.home import Home
from label_studio_config.kept_files import keep
from label_studio_config.manifest import Manifest
from label_studio_config.schema import LabelSchema
from label_studio_config.server_tasks import fetch_project, fetch_tasks
from label_studio_config.task_manifest import manifest_of_tasks
from ml_backend.annotators import read_weights
from ml_backend.registry import ModelVersion, Registry, RegistryError

logger = logging.getLogger(__name__)

COUNTS_FOLDER = "counts"
NO_MODEL = "there is no model yet: annotate some images and start a training"
TASKS_PER_LIGHT_PAGE = 5000


def count_project(
    home_folder: str | Path,
    project_id: int,
    by: str = "sample_id",
    depth_bin_m: float = 10.0,
    control: str | None = None,
) -> dict[str, Any]:
    """Predict every image of a project with its live version and count labels by group.

    Predictions are kept until the images or the live version change: a killed run goes on where
    it stopped, and counting by another column predicts nothing again. What is predicted of blind
    images stays in them: the counts do not tell it.

    Returns
    -------
    dict
        kept (id of the files), images, groups, validated, checked, for the record of the job.

    Raises
    ------
    RegistryError
        No version is live yet.
    QuantifyError
        The images have no such column, or the model no such control.
    AnnotatorError, WeightError
        The weights of annotators cannot be read.
    ApiError
        Label Studio cannot be reached.
    """
    from ml_backend.counting import count_images
    from ml_backend.quantify_groups import group_images

    home = Home(home_folder)
    version = Registry(home.models_folder(project_id)).live
    if version is None:
        raise RegistryError(NO_MODEL)
    schema = LabelSchema.from_xml(fetch_project(home, project_id)["label_config"])
    manifest = _images(home, project_id, schema)
    group_images(manifest, manifest.image_ids, by, depth_bin_m)  # refuses before the long work
    weights = read_weights(home.models_folder(project_id))
    predictions = _predict(home, project_id, version, manifest)
    progress.report("count", 0, 0)
    annotated = list(fetch_tasks(home, project_id, annotated_only=True))
    found: dict[str, Any] = {}

    def make(folder: Path) -> dict[str, Any]:
        counted = count_images(
            predictions,
            manifest,
            schema,
            annotated,
            folder / "counts",
            control=control,
            by=by,
            depth_bin_m=depth_bin_m,
            blind=set(manifest.table["image_id"][manifest.table["blind"].astype(bool)]),
            weights=weights,
        )
        found.update(
            images=counted.images,
            groups=counted.groups,
            validated=counted.validated,
            checked=counted.checked,
        )
        return {
            **found,
            "control": counted.control,
            "by": by,
            "depth_bin_m": depth_bin_m if by == "depth" else None,
            "version": version.name,
            "method": counted.method,
            "notes": counted.notes,
        }

    kept = keep(home.kept_folder(COUNTS_FOLDER, project_id), "counts", make)
    return {"kept": kept, **found}


def _images(home: Home, project_id: int, schema: LabelSchema) -> Manifest:
    progress.report("fetch images", 0, 0)
    tasks = fetch_tasks(home, project_id, full=False, page_size=TASKS_PER_LIGHT_PAGE)
    manifest, skipped = manifest_of_tasks(
        schema, tasks, home.resolve_image, home.images_root, other_columns=True
    )
    for skip in skipped:
        logger.warning("skipped %s: %s", skip.path, skip.reason)
    return manifest


def _predict(home: Home, project_id: int, version: ModelVersion, manifest: Manifest) -> Path:
    from ml_backend.deploy import deploy
    from ml_backend.model import TraitModel
    from ml_backend.predict import write_predictions

    model = TraitModel.load(version.folder)
    place = home.cache_folder / "counts" / f"project-{project_id}"
    folder = place / f"{version.name}-{model.fingerprint[:8]}-{_mark(manifest)}"
    folder.mkdir(parents=True, exist_ok=True)
    for other in place.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    deployed, _ = deploy(model, manifest, "natural", folder, version.metrics)
    _, unreadable = write_predictions(deployed, manifest, folder, model_version=version.name)
    for skip in unreadable:
        logger.warning("skipped %s: %s", skip.path, skip.reason)
    return folder


def _mark(manifest: Manifest) -> str:
    """Another one where the images, or what the model is told of them, are others."""
    told = (manifest.fingerprint, manifest.pixel_sizes_um)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]
