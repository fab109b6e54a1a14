"""Geometry of marked regions in pixels, and lengths and areas in µm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from label_studio_sdk.converter.brush import mask2rle

from export_tools.geometry import (
    GeometryError,
    angle_deg,
    area_px,
    box_px,
    mask_px,
    outline_px,
    path_length,
    points_px,
)
from export_tools.measures import NO_PIXEL_SIZE, measure, measures_of
from label_studio_config.results import Answer, Region, read_result
from label_studio_config.schema import LabelSchema
from tests.export_fixtures import TRAITS_XML, key_point, region, schema


def first_region(item: dict) -> Region:
    answer = read_result(schema(), [item])[item["from_name"]]
    return answer.regions[0]


def test_points_are_in_pixels_of_the_original_image() -> None:
    item = region(
        "outlines",
        "polygonlabels",
        "p",
        {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "closed": True},
        "lipid sac",
    )
    found = first_region(item)
    assert points_px(found).tolist() == [[0, 0], [100, 0], [100, 100], [0, 100]]
    assert area_px(found) == pytest.approx(10_000)
    assert box_px(outline_px(found)) == [0, 0, 100, 100]


def test_a_turned_box_turns_in_pixels_about_its_upper_left_corner() -> None:
    box = {"x": 50, "y": 10, "width": 20, "height": 10, "rotation": 90}
    found = first_region(region("boxes", "rectanglelabels", "b", box, "prey"))
    # 40 × 10 px, its corner at (100, 10), turned clockwise by a right angle.
    expected = [[100, 10], [100, 50], [90, 50], [90, 10]]
    assert outline_px(found) == pytest.approx(np.array(expected, float))
    assert area_px(found) == pytest.approx(400)


def test_an_ellipse_has_its_exact_area_and_a_turned_outline() -> None:
    oval = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 90}
    found = first_region(region("ovals", "ellipselabels", "e", oval, "egg"))
    assert area_px(found) == pytest.approx(math.pi * 20 * 10)
    _, _, width, height = box_px(outline_px(found))
    assert (width, height) == pytest.approx((20, 40), abs=0.3)


def test_a_brush_mask_comes_back_pixel_by_pixel() -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[20:60, 30:150] = 255
    mask[30:40, 50:60] = 0
    value = {"format": "rle", "rle": [int(v) for v in mask2rle(mask)]}
    found = first_region(region("masks", "brushlabels", "m", value, "body"))
    assert (mask_px(found) == (mask > 0)).all()
    assert area_px(found) == (mask > 0).sum()
    broken = first_region(
        region("masks", "brushlabels", "m", {"format": "rle", "rle": [1, 2]}, "body")
    )
    with pytest.raises(GeometryError, match="mask of region 'm' cannot be read"):
        mask_px(broken)


def test_a_region_without_the_size_of_its_image_is_refused() -> None:
    item = key_point("anterior end", 10, 10) | {"original_width": None}
    with pytest.raises(GeometryError, match="size of its image"):
        points_px(first_region(item))


def test_lengths_and_angles() -> None:
    assert path_length(np.array([[0, 0], [3, 4], [3, 10]])) == 11
    assert angle_deg(np.array([10, 0]), np.array([0, 0])) == 0
    assert angle_deg(np.array([0, 0]), np.array([0, 10])) == 90, "the head is up on the screen"


def answers_of(items: list[dict]) -> dict[str, Answer]:
    return read_result(schema(), items)


def marked() -> list[dict]:
    return [
        key_point("anterior end", 20, 20),
        key_point("prosome end", 50, 60),
        key_point("urosome end", 80, 100),
        key_point("antenna tip", 5, 5),
        region(
            "chain_line",
            "vectorlabels",
            "v",
            {"vertices": [{"id": "a", "x": 0, "y": 0}, {"id": "b", "x": 15, "y": 40}]},
            "chain",
        ),
        region(
            "outlines",
            "polygonlabels",
            "p",
            {"points": [[0, 0], [5, 0], [5, 10], [0, 10]], "closed": True},
            "lipid sac",
        ),
        region("boxes", "rectanglelabels", "b1", {"x": 1, "y": 1, "width": 2, "height": 2}, "prey"),
        region("boxes", "rectanglelabels", "b2", {"x": 9, "y": 9, "width": 2, "height": 2}, "prey"),
    ]


def test_measures_in_um_follow_from_marks_and_pixel_size() -> None:
    values, note = measure(schema(), answers_of(marked()), 10.0)
    assert note == ""
    assert values["prosome_length_um"] == pytest.approx(500)
    assert values["body_length_um"] == pytest.approx(1000)
    assert values["chain_length_um"] == pytest.approx(500)
    assert values["lipid_sac_area_um2"] == pytest.approx(100 * 100)
    diameter = 2 * math.sqrt(10_000 / math.pi)
    assert values["lipid_sac_esd_um"] == pytest.approx(diameter)
    assert values["lipid_sac_biovolume_um3"] == pytest.approx(math.pi / 6 * diameter**3)
    assert values["prey_marked"] == 2
    assert values["body_length_angle_deg"] == pytest.approx(126.87, abs=0.01)
    assert set(values) <= {m.name for m in measures_of(schema())}


@pytest.mark.parametrize("pixel_size_um", [None, float("nan"), 0.0])
def test_without_a_pixel_size_there_are_pixels_and_a_reason(pixel_size_um: float | None) -> None:
    values, note = measure(schema(), answers_of(marked()), pixel_size_um)
    assert note == NO_PIXEL_SIZE
    assert values["body_length_px"] == pytest.approx(100)
    assert not [name for name in values if "_um" in name]


def test_a_length_between_ambiguous_points_is_not_guessed() -> None:
    twice = [*marked(), key_point("anterior end", 30, 30)]
    values, _ = measure(schema(), answers_of(twice), 10.0)
    assert "body_length_um" not in values


def test_marks_on_a_rotated_image_are_not_measured() -> None:
    turned = [item | {"image_rotation": 90} for item in marked()]
    values, note = measure(schema(), answers_of(turned), 10.0)
    assert values == {}
    assert "rotated" in note


def test_the_traits_config_gives_the_lengths_of_the_issue() -> None:
    names = {m.name for m in measures_of(LabelSchema.from_xml(TRAITS_XML.read_text("utf-8")))}
    assert {
        "body_length_um",
        "prosome_length_um",
        "chain_length_um",
        "lipid_sac_area_um2",
        "body_esd_um",
        "body_biovolume_um3",
        "egg_sac_marked",
    } <= names
