"""What is true of a phantom image, in the terms of `configs/traits.xml`.

A row holds the group, the image quality, each trait under the name of its control (empty where it
does not apply), lengths and areas in µm, the marks of an annotator as JSON in pixels
(`[{"label", "points": [[x, y], …]}]`, a box with `"box": [x, y, width, height]`), and in
`not_assessable` the controls that the picture does not show although their truth is known.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from label_studio_config.phantoms.catalogue import Sample
from label_studio_config.phantoms.curves import Points
from label_studio_config.phantoms.scene import Phantom, Scene

_NOT_LIVING = frozenset({"Marine snow", "Artefact"})
_PROTISTS = frozenset({"Diatom chain", "Noctiluca scintillans", "Trichodesmium", "Rhizaria"})

_FINE_DETAIL = (
    "sex",
    "egg_count",
    "gut_fullness",
    "lipid_sac",
    "epibionts",
    "epibiont_count",
    "chain_cell_count",
    "noctiluca_gut_content",
    "prey_count",
    "parasites",
    "damage",
    "feeding",
)
"""Traits that a blurred picture does not show."""

_AT_THE_TAIL = ("egg_sac", "egg_sac_count", "egg_count", "sex")


def truth_of(
    phantom: Phantom,
    image_id: str,
    quality: str,
    scene: Scene,
    shape: tuple[int, ...],
    sample: Sample,
) -> dict[str, Any]:
    """One row of the truth; `scene` is in µm from the upper left corner of the image."""
    traits: dict[str, str | int] = {"group": phantom.group, "image_quality": quality}
    if phantom.group not in _NOT_LIVING:
        traits |= {"parasites": "absent", "epibionts": "absent"}
        if phantom.group not in _PROTISTS:
            traits |= {"feeding": "absent", "carcass": "absent", "damage": "0"}
    if phantom.group == "Copepod":
        traits |= {"lipid_sac": "absent", "moulting": "absent"}
    traits |= phantom.traits
    traits["completeness"] = "partial" if quality == "Cropped" else "complete"
    orientation = _orientation(scene)
    if orientation:
        traits["orientation"] = orientation
    if traits.get("gut_fullness") in ("1", "2", "3"):
        traits["gut_colour"] = "Not assessable"
    marks = _marks(scene, shape[1], shape[0], sample.pixel_size_um)
    hidden = _hidden(traits, quality, marks)
    return {
        "image_id": image_id,
        **traits,
        **{name: round(value, 1) for name, value in phantom.measures.items()},
        **{name: json.dumps(found) if found else "" for name, found in marks.items()},
        "not_assessable": " ".join(hidden),
    }


def _orientation(scene: Scene) -> str | None:
    ends = dict(scene.key_points)
    tail = ends.get("urosome end", ends.get("posterior end"))
    if tail is None:
        return None
    x, y = ends["anterior end"] - tail
    if abs(x) >= abs(y):
        return "horizontal"
    return "head down" if y > 0 else "head up"


def _hidden(
    traits: dict[str, str | int], quality: str, marks: dict[str, list[dict[str, Any]]]
) -> list[str]:
    if quality == "Blurry":
        return [name for name in _FINE_DETAIL if name in traits]
    if quality != "Cropped":
        return []
    labels = {mark["label"] for mark in marks["key_points_px"]}
    hidden = []
    if traits["group"] == "Copepod" and "urosome end" not in labels:
        hidden += [name for name in _AT_THE_TAIL if name in traits]
    if traits["group"] == "Diatom chain" and not marks["lines_px"]:
        hidden.append("chain_cell_count")
    return hidden


def _marks(
    scene: Scene, width: int, height: int, pixel_size_um: float
) -> dict[str, list[dict[str, Any]]]:
    """What an annotator could mark; what the crop cuts off is left out."""

    def visible(marks: list[tuple[str, Points]]) -> list[tuple[str, np.ndarray]]:
        in_px = [(label, np.atleast_2d(points) / pixel_size_um) for label, points in marks]
        return [
            (label, points)
            for label, points in in_px
            if (points >= 0).all() and (points <= [width, height]).all()
        ]

    def listed(marks: list[tuple[str, Points]]) -> list[dict[str, Any]]:
        return [
            {"label": label, "points": points.round(2).tolist()} for label, points in visible(marks)
        ]

    boxes = [
        {
            "label": label,
            "box": np.concatenate([points.min(axis=0), np.ptp(points, axis=0)]).round(2).tolist(),
        }
        for label, points in visible(scene.boxes)
    ]
    return {
        "key_points_px": listed(scene.key_points),
        "lines_px": listed(list(scene.lines.items())),
        "polygons_px": listed(list(scene.polygons.items())),
        "boxes_px": boxes,
    }
