"""Lengths, areas and volumes in µm, from what was marked and the pixel size.

What is measured follows from the config: a label of a key point control that `starts` a length and
one that `ends` it give that length; every label of a line gives a length; every label of a polygon
or a mask gives an area, an equivalent spherical diameter and a biovolume.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from export_tools.geometry import (
    FORMULAS,
    GeometryError,
    angle_deg,
    area_px,
    equivalent_diameter,
    path_length,
    points_px,
    sphere_volume,
)
from label_studio_config.controls import Control
from label_studio_config.results import Answer, Region
from label_studio_config.schema import LabelSchema

NO_PIXEL_SIZE = "pixel_size_um is unknown"


@dataclass(frozen=True)
class Measure:
    """A column of measurements: its unit, and how it comes about."""

    name: str
    unit: str
    meaning: str


def slug(label: str) -> str:
    """A label as part of a column name: "lipid sac" becomes `lipid_sac`."""
    return "_".join("".join(c if c.isalnum() else " " for c in label.lower()).split())


@lru_cache(maxsize=16)
def measures_of(schema: LabelSchema) -> tuple[Measure, ...]:
    """The measurements that annotations of this config can give, in the order of the config."""
    found: list[Measure] = []
    for control in schema.controls:
        if control.kind == "key points":
            for length, (start, end) in key_lengths(control).items():
                between = f"{control.name}: {start} to {end}"
                found += _length_measures(length, f"{between}; {FORMULAS['length']}")
                found.append(
                    Measure(f"{length}_angle_deg", "degree", f"{between}; {FORMULAS['angle']}")
                )
        for label in control.labels:
            name, where = _name(schema, control, label), f"{control.name}: {label}"
            if control.kind == "line":
                found += _length_measures(f"{name}_length", f"{where}; {FORMULAS['length']}")
            elif control.kind in ("polygon", "mask"):
                area = f"{where}, summed over its regions; {FORMULAS['area']}"
                found += [
                    Measure(f"{name}_area_px", "px^2", area),
                    Measure(f"{name}_area_um2", "um^2", area),
                    Measure(f"{name}_esd_um", "um", f"{where}; {FORMULAS['esd']}"),
                    Measure(f"{name}_biovolume_um3", "um^3", f"{where}; {FORMULAS['biovolume']}"),
                ]
            elif control.kind == "boxes":
                found.append(Measure(f"{name}_marked", "count", f"{where}: how many were marked"))
    return tuple(found)


def measure(
    schema: LabelSchema, answers: Mapping[str, Answer], pixel_size_um: float | None
) -> tuple[dict[str, float], str]:
    """The measurements of one annotation.

    Returns
    -------
    values, note
        By the name of the `Measure`; `note` says why something that was marked has no value in
        µm ("" if nothing is missing).
    """
    values: dict[str, float] = {}
    notes: list[str] = []
    for control in schema.controls:
        answer = answers.get(control.name)
        if answer is None or not answer.regions:
            continue
        if any(item.get("image_rotation") for item in answer.items):
            notes.append(f"{control.name}: the image was rotated while marking")
            continue
        try:
            values |= _of_control(schema, control, answer.regions)
        except GeometryError as error:
            notes.append(str(error))
    known = pixel_size_um is not None and math.isfinite(pixel_size_um) and pixel_size_um > 0
    if not known:
        if any(name.endswith("_px") for name in values):
            notes.append(NO_PIXEL_SIZE)
    else:
        values |= _in_um(values, float(pixel_size_um))  # type: ignore[arg-type]
    return values, "; ".join(dict.fromkeys(notes))


def _length_measures(name: str, meaning: str) -> list[Measure]:
    return [Measure(f"{name}_px", "px", meaning), Measure(f"{name}_um", "um", meaning)]


def key_lengths(control: Control) -> dict[str, tuple[str, str]]:
    """By length, the labels that start and end it."""
    starts: dict[str, str] = {}
    ends: dict[str, str] = {}
    for label in control.labels:
        attributes = control.vocabulary.get(label, {})
        for length in attributes.get("starts", "").split():
            starts.setdefault(length, label)
        for length in attributes.get("ends", "").split():
            # Several labels may end a length (the urosome of a copepod, the tail of a worm).
            ends[length] = f"{ends[length]}|{label}" if length in ends else label
    return {length: (starts[length], ends[length]) for length in starts if length in ends}


def _name(schema: LabelSchema, control: Control, label: str) -> str:
    """A label's name in columns; with its control where another control of the kind has it too."""
    kinds = ("polygon", "mask") if control.kind in ("polygon", "mask") else (control.kind,)
    sharing = [c for c in schema.controls if c.kind in kinds and label in c.labels]
    return slug(label) if len(sharing) == 1 else f"{control.name}_{slug(label)}"


def _of_control(
    schema: LabelSchema, control: Control, regions: tuple[Region, ...]
) -> dict[str, float]:
    by_label: dict[str, list[Region]] = {}
    for region in regions:
        for label in region.labels:
            by_label.setdefault(label, []).append(region)
    if control.kind == "key points":
        return _key_point_measures(control, by_label)
    values: dict[str, float] = {}
    for label, marked in by_label.items():
        if label not in control.labels:
            continue
        name = _name(schema, control, label)
        if control.kind == "line":
            values[f"{name}_length_px"] = sum(path_length(points_px(region)) for region in marked)
        elif control.kind in ("polygon", "mask"):
            values[f"{name}_area_px"] = sum(area_px(region) for region in marked)
        elif control.kind == "boxes":
            values[f"{name}_marked"] = float(len(marked))
    return values


def _key_point_measures(control: Control, by_label: dict[str, list[Region]]) -> dict[str, float]:
    values: dict[str, float] = {}
    for length, (start, end) in key_lengths(control).items():
        first = by_label.get(start, [])
        last = [region for label in end.split("|") for region in by_label.get(label, [])]
        # Two points with the same label would make the length a guess.
        if len(first) == len(last) == 1:
            a, b = points_px(first[0])[0], points_px(last[0])[0]
            values[f"{length}_px"] = path_length(np.stack([a, b]))
            values[f"{length}_angle_deg"] = angle_deg(a, b)
    return values


def _in_um(values: dict[str, float], pixel_size_um: float) -> dict[str, float]:
    converted: dict[str, float] = {}
    for name, value in values.items():
        if name.endswith("_area_px"):
            base, area = name.removesuffix("_area_px"), value * pixel_size_um**2
            diameter = equivalent_diameter(area)
            converted[f"{base}_area_um2"] = area
            converted[f"{base}_esd_um"] = diameter
            converted[f"{base}_biovolume_um3"] = sphere_volume(diameter)
        elif name.endswith("_px"):
            converted[f"{name.removesuffix('_px')}_um"] = value * pixel_size_um
    return converted
