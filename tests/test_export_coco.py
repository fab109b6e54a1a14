"""COCO that pycocotools loads, with traits in `attributes` and nothing left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import mask2rle
from PIL import Image
from pycocotools.coco import COCO

from export_tools import export_tasks, sizes_from_files
from label_studio_config.schema import LabelSchema
from tests.export_fixtures import (
    TRAITS_XML,
    annotation,
    choice,
    key_point,
    prediction,
    region,
    schema,
    task,
)


def body_mask() -> np.ndarray:
    mask = np.zeros((100, 200), np.uint8)
    mask[20:60, 30:150] = 255
    return mask


def everything() -> list[dict[str, Any]]:
    box = {"x": 5, "y": 10, "width": 10, "height": 20, "rotation": 0}
    rle = {"format": "rle", "rle": [int(v) for v in mask2rle(body_mask())]}
    line = {"vertices": [{"id": "a", "x": 0, "y": 0}, {"id": "b", "x": 15, "y": 40}]}
    triangle = {"points": [[0, 0], [50, 0], [0, 100]], "closed": True}
    oval = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 0}
    return [
        choice("group", "Copepod"),
        choice("egg_sac", "Not assessable"),
        choice("behaviour", "feeding"),
        key_point("anterior end", 20, 20),
        key_point("prosome end", 50, 60),
        key_point("antenna tip", 5, 5),
        key_point("antenna tip", 6, 90),
        region("boxes", "rectanglelabels", "b1", box, "prey"),
        {**choice("prey_kind", "diatom"), "id": "b1", "value": box | {"choices": ["diatom"]}},
        region("outlines", "polygonlabels", "p1", triangle, "lipid sac"),
        region("masks", "brushlabels", "m1", rle, "body"),
        region("chain_line", "vectorlabels", "v1", line, "chain"),
        region("ovals", "ellipselabels", "e1", oval, "egg"),
    ]


@pytest.fixture
def coco(tmp_path: Path) -> COCO:
    tasks = [
        task(1, [annotation(everything(), "anna@example.org")]),
        task(2, [], [prediction([choice("group", "Diatom chain", score=0.9)])]),
        task(3),
        task(4, [annotation([], 2)]),
    ]
    out = tmp_path / "coco.json"
    report = export_tasks(tasks, schema(), "coco", out, image_size=lambda address: (64, 48))
    assert report.problems == []
    return COCO(str(out))


def of_category(coco: COCO, name: str, image_id: int = 1) -> list[dict[str, Any]]:
    categories = coco.getCatIds(catNms=[name])
    return coco.loadAnns(coco.getAnnIds(imgIds=[image_id], catIds=categories))


def test_every_task_is_an_image_and_empty_is_not_unlabelled(coco: COCO) -> None:
    images = {image["id"]: image for image in coco.loadImgs(coco.getImgIds())}
    states = [images[k]["attributes"]["state"] for k in (1, 2, 3, 4)]
    assert states == ["labelled", "predicted", "unlabelled", "empty"]
    assert (images[1]["width"], images[1]["height"]) == (200, 100)
    assert (images[3]["width"], images[3]["height"]) == (64, 48)
    assert images[1]["file_name"] == "crops/1.png"
    assert images[1]["attributes"]["depth_m"] == 20.0
    assert images[4]["attributes"]["annotators"] == ["2"]


def test_boxes_polygons_masks_and_ellipses(coco: COCO) -> None:
    (prey,) = of_category(coco, "prey")
    assert (prey["bbox"], prey["area"]) == ([10, 10, 20, 20], 400)
    (sac,) = of_category(coco, "lipid sac")
    assert (sac["bbox"], sac["area"]) == ([0, 0, 100, 100], 5000)
    assert sac["segmentation"] == [[0, 0, 100, 0, 0, 100]]
    (body,) = of_category(coco, "body")
    assert body["area"] == 40 * 120
    assert (coco.annToMask(body) == (body_mask() > 0)).all()
    (egg,) = of_category(coco, "egg")
    assert egg["area"] == pytest.approx(np.pi * 20 * 10, abs=0.01)
    assert coco.annToMask(prey).sum() == 400


def test_key_points_have_slots_and_a_skeleton(coco: COCO) -> None:
    (category,) = coco.loadCats(coco.getCatIds(catNms=["landmarks"]))
    assert category["keypoints"] == [
        "anterior end",
        "prosome end",
        "urosome end",
        "antenna tip 1",
        "antenna tip 2",
    ]
    assert sorted(category["skeleton"]) == [[1, 2], [1, 3]]
    (points,) = of_category(coco, "landmarks")
    assert points["num_keypoints"] == 4
    assert points["keypoints"] == [20, 20, 2, 50, 60, 2, 0, 0, 0, 5, 5, 2, 6, 90, 2]
    assert points["bbox"] == [5, 5, 45, 85]


def test_choices_are_attributes(coco: COCO) -> None:
    (whole,) = of_category(coco, "Copepod")
    attributes = whole["attributes"]
    assert whole["bbox"] == [0, 0, 200, 100]
    assert attributes["whole_image"] is True
    assert attributes["group"] == "Copepod"
    assert attributes["egg_sac"] == "not assessable"
    assert attributes["behaviour"] == ["feeding"]
    assert attributes["annotator"] == "anna@example.org"
    assert attributes["prosome_length_um"] == 500
    assert "cells" not in attributes, "what was not asked is no attribute"
    (prey,) = of_category(coco, "prey")
    assert prey["attributes"]["prey_kind"] == "diatom"
    assert prey["attributes"]["group"] == "Copepod"
    (predicted,) = of_category(coco, "Diatom chain", image_id=2)
    assert predicted["attributes"]["status"] == "predicted"
    assert predicted["score"] == 0.83


def test_a_line_keeps_its_vertices(coco: COCO) -> None:
    (line,) = of_category(coco, "chain")
    assert line["attributes"]["polyline"] == [0, 0, 30, 40]
    assert (line["bbox"], line["area"]) == ([0, 0, 30, 40], 0)
    assert coco.annToMask(line).shape == (100, 200)


def test_vocabulary_ids_stand_in_the_categories(coco: COCO) -> None:
    (category,) = coco.loadCats(coco.getCatIds(catNms=["Copepod"]))
    assert category["supercategory"] == "group"
    assert category["aphia"] == "1080"
    assert len({c["id"] for c in coco.loadCats(coco.getCatIds())}) == len(coco.getCatIds())


def test_a_damaged_mask_is_listed_and_left_out(tmp_path: Path) -> None:
    damaged = region("masks", "brushlabels", "m", {"format": "rle", "rle": [1, 2, 3]}, "body")
    said = annotation([choice("group", "Copepod"), damaged])
    out = tmp_path / "coco.json"
    report = export_tasks([task(1, [said])], schema(), "coco", out)
    assert any("mask of region 'm'" in problem for problem in report.problems)
    assert len(json.loads(out.read_text())["annotations"]) == 1


def test_more_points_than_the_config_allows_get_slots_of_their_own(tmp_path: Path) -> None:
    many = [key_point("antenna tip", x, 5) for x in (1, 2, 3)]
    tasks = [task(1, [annotation([key_point("anterior end", 9, 9)])]), task(2, [annotation(many)])]
    out = tmp_path / "coco.json"
    export_tasks(tasks, schema(), "coco", out)
    coco = COCO(str(out))
    (category,) = coco.loadCats(coco.getCatIds(catNms=["landmarks"]))
    assert category["keypoints"][-1] == "antenna tip 3"
    for points in coco.loadAnns(coco.getAnnIds()):
        assert len(points["keypoints"]) == 3 * len(category["keypoints"])


def test_no_images_and_unknown_sizes(tmp_path: Path) -> None:
    out = tmp_path / "coco.json"
    export_tasks([], schema(), "coco", out)
    assert COCO(str(out)).getImgIds() == []
    report = export_tasks([task(1)], schema(), "coco", out)
    assert "1 images without a known size" in report.notes[0]


def test_the_traits_config_makes_a_coco_of_its_labels(tmp_path: Path) -> None:
    traits = LabelSchema.from_xml(TRAITS_XML.read_text("utf-8"))
    out = tmp_path / "coco.json"
    export_tasks([task(1, [annotation([choice("group", "Copepod")])])], traits, "coco", out)
    coco = COCO(str(out))
    names = {category["name"] for category in coco.loadCats(coco.getCatIds())}
    assert {"Copepod", "landmarks", "lipid sac", "egg", "prey", "chain"} <= names


def test_sizes_are_read_from_the_files(tmp_path: Path) -> None:
    Image.new("L", (31, 17)).save(tmp_path / "a.png")
    size = sizes_from_files(lambda address: tmp_path / address)
    assert size("a.png") == (31, 17)
    assert size("absent.png") is None
