"""Regions in the terms of COCO: boxes, areas, segmentations, and the slots of key points."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from export_tools.geometry import (
    GeometryError,
    area_px,
    box_px,
    mask_px,
    outline_px,
    points_px,
)
from export_tools.measures import key_lengths
from label_studio_config.controls import Control
from label_studio_config.results import Region


def slots_of(control: Control) -> list[str]:
    """The names of the key points: a label that may be set twice has two."""
    slots = []
    for label in control.labels:
        usages = control.vocabulary.get(label, {}).get("maxUsages", "1")
        number = int(usages) if usages.isdigit() else 1
        slots += [label] if number <= 1 else [f"{label} {k + 1}" for k in range(number)]
    return slots


def free_slot(slots: list[str], label: str, triples: np.ndarray) -> int | None:
    """The first slot of that label that holds no point yet."""
    for slot, name in enumerate(slots):
        stem, _, number = name.rpartition(" ")
        is_mine = name == label or (number.isdigit() and stem == label)
        if is_mine and not triples[slot, 2]:
            return slot
    return None


def skeleton_of(control: Control, slots: list[str]) -> list[list[int]]:
    """Pairs of key points (counted from 1) that a length of the config joins."""
    pairs = []
    for start, ends in key_lengths(control).values():
        for end in ends.split("|"):
            if start in slots and end in slots:
                pairs.append([slots.index(start) + 1, slots.index(end) + 1])
    return pairs


def shape_of(control: Control, region: Region) -> tuple[list[float], float, Any, dict[str, Any]]:
    """Box, area, segmentation and further attributes of a region.

    Raises
    ------
    GeometryError
        The region cannot be placed on its image.
    """
    if not region.points:
        mask = mask_px(region)
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        box = [float(value) for value in coco_mask.toBbox(encoded)]
        encoded["counts"] = encoded["counts"].decode("ascii")
        return box, float(mask.sum()), encoded, {}
    if control.kind == "line":
        points = points_px(region)
        polyline = points.ravel().round(2).tolist()
        flat = np.concatenate([points, points[::-1]]).ravel().round(2).tolist()
        return box_px(points), 0.0, [flat], {"polyline": polyline}
    outline = outline_px(region)
    if len(outline) < 3:
        raise GeometryError(f"region {region.id!r} has fewer than three points")
    return box_px(outline), area_px(region), [outline.ravel().round(2).tolist()], {}
