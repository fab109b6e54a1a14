"""From a saved export, or a table of images, to what pretraining takes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from label_studio_config.home import LOCAL_FILES_URL, resolve_image
from label_studio_config.manifest import Manifest, ManifestError, Skipped
from label_studio_config.schema import LabelSchema
from label_studio_config.task_manifest import manifest_of_tasks
from label_studio_config.votes import is_blind


def images_of_export(
    tasks: Iterable[dict[str, Any]], images_root: Path
) -> tuple[Manifest, list[Skipped]]:
    """The images of a saved Label Studio export, labelled or not, without the blind ones.

    Raises
    ------
    ManifestError
        No task has an image under our address.
    """
    tasks = [task for task in tasks if not is_blind(task)]
    schema = LabelSchema.from_xml(
        f'<View><Image name="image" value="${_image_key(tasks)}"/></View>'
    )
    return manifest_of_tasks(schema, tasks, partial(resolve_image, images_root), images_root)


def labels_of_export(tasks: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The first choice that anybody made on each image, for a signal of progress."""
    labels: dict[str, str] = {}
    for task in tasks:
        for annotation in task.get("annotations") or []:
            for item in annotation.get("result") or []:
                chosen = (item.get("value") or {}).get("choices")
                image_id = (task.get("data") or {}).get("image_id")
                if chosen and image_id and not is_blind(task):
                    labels.setdefault(str(image_id), str(chosen[0]))
    return labels


def column_labels(manifest: Manifest, column: str | None) -> dict[str, str]:
    """The labels that a column of the manifest gives, by image id.

    Raises
    ------
    ManifestError
        There is no such column.
    """
    if column is None:
        return {}
    if column not in manifest.table:
        raise ManifestError(
            f"there is no column {column!r}; the images have {list(manifest.table.columns)}"
        )
    known = manifest.table[manifest.table[column].notna()]
    return dict(zip(known["image_id"], known[column].astype(str), strict=True))


def _image_key(tasks: list[dict[str, Any]]) -> str:
    for task in tasks:
        for key, value in (task.get("data") or {}).items():
            if isinstance(value, str) and value.startswith(LOCAL_FILES_URL):
                return key
    raise ManifestError(
        f"no task of the export has an image under {LOCAL_FILES_URL}: "
        "was it exported from a project of `planktrait import`?"
    )
