"""COCO: boxes, polygons, masks, key points and lines, with the choices as `attributes`.

Layout, beyond the format of cocodataset.org:

- Every task is an image, also one that nobody annotated. `attributes.state` of an image tells
  "labelled", "empty" (an annotator submitted it without marking or answering anything),
  "predicted" (only a model said something) and "unlabelled".
- Each annotator's answers about the whole image are one annotation over the whole image, with
  `attributes.whole_image` true; its category is the label of the config's first choice, so that a
  folder of crops is a data set for classification. Leave these out to train a detector.
- A region is an annotation of its own label's category (`supercategory` is the control). Its
  `attributes` hold who made it, its per-region choices, and the answers about the whole image.
- The key points of one annotator are one annotation of a category named after the control, with
  `keypoints` and a `skeleton` that joins the ends of the lengths of the config.
- A line is a flat polygon there and back again, with `attributes.polyline` as [x, y, x, y, …].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export_tools.coco_shapes import free_slot, shape_of, skeleton_of, slots_of
from export_tools.geometry import FORMULAS, GeometryError, box_px, points_px
from export_tools.rows import Row
from export_tools.traits import TraitValue
from label_studio_config.controls import Control
from label_studio_config.results import Region
from label_studio_config.schema import LabelSchema

ImageSize = Callable[[str], tuple[int, int] | None]
"""From the image's address in a task to (width, height) in pixels, or None."""

WHOLE_IMAGE = "whole image"


def sizes_from_files(resolve_image: Callable[[str], Path]) -> ImageSize:
    """Sizes read from the files' headers; None where a file is absent or no image.

    Parameters
    ----------
    resolve_image
        From an image's address in a task to its path; may raise ValueError.
    """

    def size(address: str) -> tuple[int, int] | None:
        try:
            with Image.open(resolve_image(address)) as image:
                return image.size
        except (OSError, ValueError, Image.DecompressionBombError):
            return None

    return size


class CocoBuilder:
    """Collects tasks into one COCO data set.

    Parameters
    ----------
    image_size
        Asked for images on which nothing was marked, since Label Studio states the size of an
        image only with regions.

    Examples
    --------
    >>> builder = CocoBuilder(schema)  # doctest: +SKIP
    >>> builder.add(rows_of_task(schema, task))  # doctest: +SKIP
    >>> builder.dataset()["images"]  # doctest: +SKIP
    """

    def __init__(self, schema: LabelSchema, image_size: ImageSize | None = None) -> None:
        self._schema = schema
        self._image_size = image_size
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[tuple[str, str], dict[str, Any]] = {}
        self.problems: list[str] = []
        self.without_size = 0
        for control in schema.controls:
            self._add_categories(control)

    def add(self, rows: list[Row]) -> None:
        """Add the rows of one task."""
        if not rows:
            return
        image_id = len(self._images) + 1
        width, height = self._size_of(rows)
        first = rows[0]
        self._images.append(
            {
                "id": image_id,
                "file_name": first.image_id,
                "width": width,
                "height": height,
                "coco_url": first.image,
                "date_captured": str(first.data.get("captured_at") or ""),
                "attributes": {
                    **{k: v for k, v in first.data.items() if k != self._schema.image_key},
                    "task_id": first.task_id,
                    "state": _state(rows),
                    "blind": first.blind,
                    "annotators": [row.annotator for row in rows if row.annotator],
                },
            }
        )
        for row in rows:
            self._add_row(image_id, width, height, row)

    def dataset(self) -> dict[str, Any]:
        """The data set as a JSON-ready dict."""
        categories = list(self._categories.values())
        slots = {c["id"]: len(c["keypoints"]) for c in categories if "keypoints" in c}
        for annotation in self._annotations:
            if "keypoints" in annotation:
                missing = 3 * slots[annotation["category_id"]] - len(annotation["keypoints"])
                annotation["keypoints"] += [0.0] * missing
        return {
            "info": {
                "description": "plankton images, functional groups and traits",
                "version": "1.0",
                "schema_fingerprint": self._schema.fingerprint,
                "formulas": FORMULAS,
                "layout": __doc__,
            },
            "licenses": [],
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }

    def _add_categories(self, control: Control) -> None:
        primary = self._schema.primary
        if control.kind == "key points":
            slots = slots_of(control)
            self._category(
                control.name,
                "key points",
                keypoints=slots,
                skeleton=skeleton_of(control, slots),
            )
        elif control.kind in ("boxes", "line", "polygon", "mask"):
            for label in (*control.labels, *sorted(control.not_assessable)):
                self._category(label, control.name, **control.vocabulary.get(label, {}))
        elif primary is not None and control.name == primary.name:
            for label in control.labels:
                self._category(label, control.name, **control.vocabulary.get(label, {}))

    def _category(self, name: str, supercategory: str, **more: Any) -> int:
        found = self._categories.setdefault(
            (supercategory, name),
            {
                "id": len(self._categories) + 1,
                "name": name,
                "supercategory": supercategory,
                **{key: value for key, value in more.items() if key not in ("id", "name")},
            },
        )
        return int(found["id"])

    def _add_row(self, image_id: int, width: int, height: int, row: Row) -> None:
        answers = {
            name: _attribute(self._schema.control(name), trait)
            for name, trait in row.traits.items()
            if trait.status and not trait.regions
        }
        by_region = _choices_by_region(row)
        common = {
            "annotator": row.annotator,
            "annotation_id": row.annotation_id,
            "status": row.status,
            "model_version": row.model_version,
            "confidence": row.confidence,
            "suggestion_shown": row.suggestion_shown,
        }
        if answers:
            self._annotate(
                image_id,
                self._whole_image_category(row),
                [0, 0, width, height],
                float(width * height),
                [[0, 0, width, 0, width, height, 0, height]] if width else [],
                {"whole_image": True, **common, **answers, **_measured(row)},
            )
        for control in self._schema.controls:
            answer = row.answers.get(control.name)
            if answer is None or not answer.regions:
                continue
            if control.kind == "key points":
                self._add_key_points(image_id, control, answer.regions, common | answers)
                continue
            for region in answer.regions:
                own = by_region.get(region.id, {})
                self._add_region(image_id, control, region, common | answers | own)

    def _add_region(
        self, image_id: int, control: Control, region: Region, attributes: dict[str, Any]
    ) -> None:
        attributes = {"control": control.name, "region": region.id, **attributes}
        try:
            box, area, segmentation, more = shape_of(control, region)
        except GeometryError as error:
            self.problems.append(f"image {self._images[-1]['file_name']}: {error}")
            return
        for label in region.labels or (control.name,):
            category = self._category(label, control.name)
            self._annotate(image_id, category, box, area, segmentation, attributes | more)

    def _add_key_points(
        self,
        image_id: int,
        control: Control,
        regions: tuple[Region, ...],
        attributes: dict[str, Any],
    ) -> None:
        category = self._category(control.name, "key points")
        slots = self._categories["key points", control.name]["keypoints"]
        triples: np.ndarray = np.zeros((len(slots), 3))
        placed = []
        for region in regions:
            for label in region.labels:
                slot = free_slot(slots, label, triples)
                try:
                    point = points_px(region)[0]
                except (GeometryError, IndexError) as error:
                    self.problems.append(f"image {self._images[-1]['file_name']}: {error}")
                    continue
                if slot is None:
                    # More points than the config allows: a slot is added at the end.
                    slots.append(f"{label} {1 + sum(s.startswith(label) for s in slots)}")
                    triples = np.vstack([triples, np.zeros(3)])
                    slot = len(slots) - 1
                triples[slot] = (*point, 2)
                placed.append(point)
        if not placed:
            return
        box = box_px(np.array(placed))
        annotation = self._annotate(
            image_id, category, box, box[2] * box[3], [], {"control": control.name, **attributes}
        )
        annotation["keypoints"] = [round(float(value), 2) for value in triples.ravel()]
        annotation["num_keypoints"] = len(placed)

    def _annotate(
        self,
        image_id: int,
        category_id: int,
        box: list[float],
        area: float,
        segmentation: Any,
        attributes: dict[str, Any],
    ) -> dict[str, Any]:
        annotation = {
            "id": len(self._annotations) + 1,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": box,
            "area": round(float(area), 2),
            "iscrowd": 0,
            "segmentation": segmentation,
            "attributes": attributes,
        }
        if attributes.get("status") == "predicted" and attributes.get("confidence") is not None:
            annotation["score"] = attributes["confidence"]
        self._annotations.append(annotation)
        return annotation

    def _whole_image_category(self, row: Row) -> int:
        primary = self._schema.primary
        answer = row.answers.get(primary.name) if primary is not None else None
        if primary is not None and answer is not None and len(answer.labels) == 1:
            return self._category(answer.labels[0], primary.name)
        return self._category(WHOLE_IMAGE, "image")

    def _size_of(self, rows: list[Row]) -> tuple[int, int]:
        for row in rows:
            for answer in row.answers.values():
                for item in answer.items:
                    if item.get("original_width") and item.get("original_height"):
                        return int(item["original_width"]), int(item["original_height"])
        found = None if self._image_size is None else self._image_size(rows[0].image)
        if found is None:
            self.without_size += 1
            return 0, 0
        return found


def _state(rows: list[Row]) -> str:
    people = [row for row in rows if row.status in ("human", "both")]
    if any(not row.is_empty for row in people):
        return "labelled"
    if people:
        return "empty"
    return rows[0].status


def _attribute(control: Control, trait: TraitValue) -> Any:
    """An answer as an attribute: a label, a list of labels, a number or its state."""
    if trait.state == "not assessable":
        return "not assessable"
    if isinstance(trait.value, tuple):
        single = control.kind == "one of" and len(trait.value) == 1
        return trait.value[0] if single else list(trait.value)
    return trait.value


def _choices_by_region(row: Row) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, answer in row.answers.items():
        for region, labels in answer.by_region.items():
            found.setdefault(region, {})[name] = labels[0] if len(labels) == 1 else list(labels)
    return found


def _measured(row: Row) -> dict[str, float]:
    return {name: round(value, 3) for name, value in row.measures.items()}
