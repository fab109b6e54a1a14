"""What was drawn comes out again: marks set at their true places give the true lengths in µm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from export_tools import export_tasks
from label_studio_config.phantoms import draw_phantoms
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema
from tests.export_fixtures import TRAITS_XML, annotation


def marked_by_hand(row: dict[str, str], width: int, height: int) -> list[dict[str, Any]]:
    """The truth's marks as an annotator's regions in percent."""

    def percent(points: list[list[float]]) -> list[list[float]]:
        return [[100 * x / width, 100 * y / height] for x, y in points]

    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    items: list[dict[str, Any]] = []

    def add(control: str, type_: str, value: dict[str, Any], label: str) -> None:
        item = {"id": f"r{len(items)}", "from_name": control, "to_name": "image", "type": type_}
        items.append(item | size | {"value": value | {type_: [label]}})

    for mark in json.loads(row["key_points_px"] or "[]"):
        (x, y) = percent(mark["points"])[0]
        add("landmarks", "keypointlabels", {"x": x, "y": y, "width": 0.5}, mark["label"])
    for mark in json.loads(row["lines_px"] or "[]"):
        points = percent(mark["points"])
        vertices = [{"id": str(k), "x": x, "y": y} for k, (x, y) in enumerate(points)]
        add("chain_line", "vectorlabels", {"vertices": vertices}, mark["label"])
    for mark in json.loads(row["polygons_px"] or "[]"):
        polygon = {"points": percent(mark["points"]), "closed": True}
        add("outlines", "polygonlabels", polygon, mark["label"])
    for mark in json.loads(row["boxes_px"] or "[]"):
        x, y, w, h = mark["box"]
        box = {"x": 100 * x / width, "y": 100 * y / height, "rotation": 0}
        box |= {"width": 100 * w / width, "height": 100 * h / height}
        add("boxes", "rectanglelabels", box, mark["label"])
    return items


def test_truth_survives_marking_and_export(tmp_path: Path) -> None:
    schema = LabelSchema.from_xml(TRAITS_XML.read_text("utf-8"))
    drawn = draw_phantoms(tmp_path / "phantoms", n=80, seed=5)
    truth = pd.read_csv(drawn.truth_csv, dtype=str, keep_default_na=False)
    metadata = pd.read_csv(drawn.metadata_csv).set_index("filename")
    tasks = []
    for number, record in enumerate(truth.to_dict("records")):
        row = {str(name): str(cell) for name, cell in record.items()}
        with Image.open(drawn.folder / row["image_id"]) as image:
            width, height = image.size
        values: dict[str, Any] = {
            name: float(cell) if schema.control(name).kind == "number" else cell
            for name, cell in row.items()
            if name in schema and cell
        }
        result = write_result(schema, values) + marked_by_hand(row, width, height)
        data = {
            "image": row["image_id"],
            "image_id": row["image_id"],
            "pixel_size_um": float(metadata["pixel_size_um"][row["image_id"]]),
        }
        tasks.append({"id": number, "data": data, "annotations": [annotation(result)]})
    report = export_tasks(tasks, schema, "parquet", tmp_path / "traits.parquet")
    assert (report.skipped, report.problems) == ([], [])
    table = pd.read_parquet(tmp_path / "traits.parquet")

    traits = [name for name in map(str, truth) if name in schema]
    for name in traits:
        is_number = schema.control(name).kind == "number"
        for cell, known in zip(table[name], truth[name], strict=True):
            if known == "" or (not is_number and known in schema.control(name).not_assessable):
                assert pd.isna(cell), name
            else:
                assert (float(known) == cell) if is_number else (known == cell), name
    # Straight key points repeat the truth; a chain and an outline are drawn with few vertices.
    tolerances = {
        "body_length_um": 0.01,
        "prosome_length_um": 0.01,
        "chain_length_um": 0.06,
        "lipid_sac_area_um2": 0.02,
        "prosome_area_um2": 0.02,
        "body_area_um2": 0.02,
    }
    for name, tolerance in tolerances.items():
        found = table[name].notna().to_numpy()
        assert found.any() or name == "lipid_sac_area_um2", name
        known = pd.to_numeric(truth[name]).to_numpy()[found]
        compared = ~pd.isna(known)
        measured = table[name].to_numpy()[found][compared]
        assert measured == pytest.approx(known[compared], rel=tolerance), name
