"""Rows of annotations and predictions, value by value, as CSV, Parquet and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from export_tools import ExportError, export_tasks, read_export
from export_tools.rows import Row, rows_of_task
from label_studio_config.schema import LabelSchema
from tests.export_fixtures import (
    TRAITS_XML,
    annotation,
    choice,
    key_point,
    number,
    prediction,
    region,
    schema,
    task,
)

PREDICTED = [
    choice("group", "Copepod", score=0.9, meta={"novelty": 0.2}),
    choice("egg_sac", "present", meta={"probabilities": {"egg_sac": 1, "present": 0.7}}),
]


def only_row(one: dict[str, Any], **options: Any) -> Row:
    rows = rows_of_task(schema(), one, **options)
    assert len(rows) == 1
    return rows[0]


def test_status_says_who_answered() -> None:
    said = [annotation([choice("group", "Copepod")])]
    assert only_row(task(1, said)).status == "human"
    assert only_row(task(1, said, [prediction(PREDICTED)])).status == "both"
    assert only_row(task(1, [], [prediction(PREDICTED)])).status == "predicted"
    assert only_row(task(1)).status == "unlabelled"


def test_a_person_s_answer_stands_beside_the_model_s() -> None:
    said = annotation([choice("group", "Diatom chain"), number("cells", 7)], "anna@example.org")
    row = only_row(task(1, [said], [prediction(PREDICTED)]))
    group, cells, sac = row.traits["group"], row.traits["cells"], row.traits["egg_sac"]
    assert (group.value, group.predicted, group.status) == (("Diatom chain",), ("Copepod",), "both")
    assert group.confidence == 0.9
    assert (cells.value, cells.status, cells.predicted) == (7, "human", None)
    # The model's egg sac does not become the person's: she saw no copepod.
    assert (sac.value, sac.state, sac.status) == (None, "not asked", "")
    assert (sac.predicted, sac.confidence) == (("present",), 0.7)
    assert (row.model_version, row.confidence, row.novelty) == ("v0001", 0.83, 0.2)
    assert row.annotator == "anna@example.org"


def test_absent_not_assessable_and_empty_differ() -> None:
    def sac(*items: dict[str, Any]) -> str:
        return only_row(task(1, [annotation(list(items))])).traits["egg_sac"].state

    copepod = choice("group", "Copepod")
    assert sac(copepod, choice("egg_sac", "present")) == "answered"
    assert sac(copepod, choice("egg_sac", "absent")) == "absent"
    assert sac(copepod, choice("egg_sac", "Not assessable")) == "not assessable"
    assert sac(copepod) == "empty"
    assert sac(choice("group", "Diatom chain")) == "not asked"
    number_row = only_row(
        task(
            1,
            [
                annotation(
                    [choice("group", "Diatom chain"), choice("cells_assessable", "Not assessable")]
                )
            ],
        )
    )
    assert number_row.traits["cells"].state == "not assessable"
    assert number_row.traits["cells"].value is None


def test_one_box_that_cannot_be_judged_does_not_hide_the_others() -> None:
    xml = """<View><Image name="image" value="$image"/><RectangleLabels name="boxes" toName="image">
      <Label value="Copepod"/><Label value="Not assessable" role="not_assessable"/>
      </RectangleLabels></View>"""
    place = {"x": 1, "y": 1, "width": 2, "height": 2}
    good = region("boxes", "rectanglelabels", "b1", place, "Copepod")
    hazy = region("boxes", "rectanglelabels", "b2", place, "Not assessable")
    frames = LabelSchema.from_xml(xml)
    (both,) = rows_of_task(frames, task(1, [annotation([good, hazy])]))
    assert both.traits["boxes"].state == "answered"
    assert [r["labels"] for r in both.traits["boxes"].regions] == [["Copepod"], ["Not assessable"]]
    (only,) = rows_of_task(frames, task(1, [annotation([hazy])]))
    assert only.traits["boxes"].state == "not assessable"


def test_one_row_a_person_and_the_newest_of_each() -> None:
    old = annotation([choice("group", "Copepod")], 1, id=1, updated_at="2025-03-04T10:00:00Z")
    new = annotation([choice("group", "Diatom chain")], 1, id=2, updated_at="2025-03-05T10:00:00Z")
    other = annotation([choice("group", "Copepod")], 2, id=3)
    skipped = annotation([], 3, id=4, was_cancelled=True)
    rows = rows_of_task(schema(), task(1, [new, old, other, skipped]))
    assert {row.annotator: row.traits["group"].value for row in rows} == {
        "1": ("Diatom chain",),
        "2": ("Copepod",),
    }


def test_whether_a_suggestion_was_shown() -> None:
    shown = annotation([choice("group", "Copepod")], prediction=prediction(PREDICTED, "v0007"))
    row = only_row(task(1, [shown], [5]))
    assert (row.suggestion_shown, row.suggestion_version) == (True, "v0007")
    # Predictions given as ids only: what the annotator saw is still known.
    assert (row.status, row.model_version) == ("both", "v0007")
    hidden = only_row(task(1, [shown], [5]), suggestions_shown=False)
    assert (hidden.suggestion_shown, hidden.suggestion_version) == (False, "")
    assert only_row(task(1, [annotation([choice("group", "Copepod")])])).suggestion_shown is False
    assert only_row(task(1, [], [prediction(PREDICTED)])).suggestion_shown is None


def test_the_newest_prediction_counts_unless_a_version_is_named() -> None:
    old = prediction([choice("group", "Diatom chain")], "v1", created_at="2025-01-01T00:00:00Z")
    new = prediction([choice("group", "Copepod")], "v2", created_at="2025-02-01T00:00:00Z")
    assert only_row(task(1, [], [new, old])).model_version == "v2"
    assert only_row(task(1, [], [new, old]), model_version="v1").model_version == "v1"


def all_kinds() -> list[dict[str, Any]]:
    box = {"x": 5, "y": 10, "width": 10, "height": 20, "rotation": 0}
    return [
        choice("group", "Copepod"),
        choice("egg_sac", "absent"),
        choice("behaviour", "feeding", "moulting"),
        key_point("anterior end", 20, 20),
        key_point("prosome end", 50, 60),
        region("boxes", "rectanglelabels", "b1", box, "prey"),
        {
            "id": "b1",
            "from_name": "prey_kind",
            "to_name": "image",
            "type": "choices",
            "value": box | {"choices": ["diatom"]},
        },
        {
            "id": "t",
            "from_name": "remark",
            "to_name": "image",
            "type": "textarea",
            "value": {"text": ["a fine one", "really"]},
        },
    ]


def some_tasks() -> list[dict[str, Any]]:
    said = [
        annotation(all_kinds(), "anna@example.org"),
        annotation([choice("group", "Copepod")], 2),
    ]
    return [
        task(1, said, [prediction(PREDICTED)]),
        task(2, [], [prediction(PREDICTED)], pixel_size_um=None, ship="Sonne"),
        task(3),
        task(4, [annotation([], 2)]),
    ]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_tables_hold_every_value(tmp_path: Path, format: str) -> None:
    out = tmp_path / "new" / f"traits.{format}"
    report = export_tasks(some_tasks(), schema(), format, out)
    assert (report.images, report.rows) == (4, 5)
    assert dict(report.by_status) == {"both": 2, "predicted": 1, "unlabelled": 1, "human": 1}
    table = pd.read_csv(out) if format == "csv" else pd.read_parquet(out)
    first = table.iloc[0]
    assert first["image_id"] == "crops/1.png"
    assert first[["sample_id", "depth_m", "pixel_size_um"]].tolist() == ["S1", 20.0, 10.0]
    assert first["captured_at"] == "2025-03-04T06:20:00+00:00"
    assert first["source_cruise"] == "AS25"
    assert table["source_ship"].tolist()[2] == "Sonne"
    assert first["annotator"] == "anna@example.org"
    assert first[["group", "group__status", "group__predicted"]].tolist() == [
        "Copepod",
        "both",
        "Copepod",
    ]
    assert first[["egg_sac", "egg_sac__state"]].tolist() == ["absent", "absent"]
    several = first["behaviour"]
    assert (several if format == "csv" else "|".join(several)) == "feeding|moulting"
    remark = first["remark"]
    assert (remark if format == "csv" else "|".join(remark)) == "a fine one|really"
    assert first["prosome_length_um"] == pytest.approx(500)
    marks = json.loads(first["boxes__regions"])
    assert marks[0]["labels"] == ["prey"]
    assert marks[0]["points_px"] == [[10, 10], [30, 10], [30, 30], [10, 30]]
    assert json.loads(first["prey_kind__regions"]) == [{"region": "b1", "labels": ["diatom"]}]
    assert table["status"].tolist() == ["both", "both", "predicted", "unlabelled", "human"]
    assert table["group"].tolist()[:3] == ["Copepod"] * 3
    assert table["group__state"].tolist()[3:] == ["empty", "empty"]
    predicted = table.iloc[2]
    assert predicted["group__confidence"] == 0.9
    assert pd.isna(predicted["annotator"])
    assert bool(first["suggestion_shown"]) is False
    assert table["cells__unit"].tolist() == ["count"] * 5


def test_every_column_is_in_the_data_dictionary(tmp_path: Path) -> None:
    report = export_tasks(some_tasks(), schema(), "csv", tmp_path / "t.csv")
    assert report.dictionary is not None
    dictionary = pd.read_csv(report.dictionary, keep_default_na=False).set_index("column")
    assert dictionary.index.tolist() == pd.read_csv(tmp_path / "t.csv").columns.tolist()
    assert dictionary["unit"]["prosome_length_um"] == "um"
    assert dictionary["unit"]["cells"] == "count"
    assert "pi / 6" in dictionary["meaning"]["lipid_sac_biovolume_um3"]
    assert "1080" in dictionary["vocabulary"]["group"]
    assert (dictionary["meaning"] != "").all()
    export_tasks(some_tasks(), schema(), "parquet", tmp_path / "t.parquet")
    field = pq.read_schema(tmp_path / "t.parquet").field("prosome_length_um")
    assert field.metadata[b"unit"] == b"um"


def test_json_nests_the_same_rows(tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    export_tasks(some_tasks(), schema(), "json", out)
    rows = json.loads(out.read_text("utf-8"))
    assert len(rows) == 5
    first = rows[0]
    assert first["traits"]["group"] == {
        "value": "Copepod",
        "unit": None,
        "state": "answered",
        "status": "both",
        "predicted": "Copepod",
        "confidence": 0.9,
        "regions": [],
    }
    assert first["traits"]["behaviour"]["value"] == ["feeding", "moulting"]
    assert first["measures"]["prosome_length_um"] == pytest.approx(500)
    assert first["source"] == {"cruise": "AS25"}
    assert rows[2]["measure_note"] is None
    empty = tmp_path / "empty.json"
    export_tasks([], schema(), "json", empty)
    assert json.loads(empty.read_text()) == []


def test_a_control_named_like_a_column_keeps_its_own_column(tmp_path: Path) -> None:
    xml = """<View><Image name="img" value="$image"/><Choices name="status" toName="img">
      <Choice value="dead"/><Choice value="alive"/></Choices></View>"""
    said = annotation([choice("status", "dead") | {"to_name": "img"}])
    out = tmp_path / "t.csv"
    export_tasks([task(1, [said])], LabelSchema.from_xml(xml), "csv", out)
    table = pd.read_csv(out)
    assert table[["status", "control_status"]].iloc[0].tolist() == ["human", "dead"]


def test_bad_tasks_and_unknown_labels_never_stop_an_export(tmp_path: Path) -> None:
    unknown = annotation([choice("group", "Unicorn"), choice("egg_sac", "absent")])
    gone = annotation([choice("no_such_control", "x"), choice("group", "Copepod")])
    tasks: list[Any] = [
        task(1, [unknown]),
        "not a task",
        {"id": 2},
        {"id": 3, "data": {"image": "x"}, "annotations": [{"result": "nonsense"}]},
        task(4, [gone]),
    ]
    report = export_tasks(iter(tasks), schema(), "csv", tmp_path / "t.csv")
    assert report.images == 2
    assert [item.task for item in report.skipped] == ["not a task", "2", "3"]
    assert any("no label 'Unicorn'" in problem for problem in report.problems)
    assert any("no control 'no_such_control'" in problem for problem in report.problems)
    assert "skipped" in report.facts
    assert pd.read_csv(tmp_path / "t.csv")["group"].tolist()[1] == "Copepod"


def test_what_is_not_counted_is_said(tmp_path: Path) -> None:
    old = annotation([choice("group", "Copepod")], 1, updated_at="2024-01-01T00:00:00Z")
    new = annotation([choice("group", "Copepod")], 1)
    tasks = [task(1, [old, new, annotation([], 2, was_cancelled=True)], [11, 12])]
    report = export_tasks(tasks, schema(), "csv", tmp_path / "t.csv")
    assert dict(report.not_counted) == {
        "skipped by annotators": 1,
        "older annotations by the same person": 1,
        "predictions given as ids only": 2,
    }
    assert "ids only" in report.notes[0]


def test_a_file_is_replaced_only_when_complete(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    out.write_text("the last good export")

    def breaking() -> Any:
        yield task(1)
        raise RuntimeError("the server went away")

    with pytest.raises(RuntimeError, match="went away"):
        export_tasks(breaking(), schema(), "csv", out)
    assert out.read_text() == "the last good export"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]
    with pytest.raises(ExportError, match="no format 'xlsx'"):
        export_tasks([], schema(), "xlsx", out)
    with pytest.raises(ExportError, match="cannot be written"):
        export_tasks([task(1)], schema(), "csv", out / "below" / "a-file.csv")


def test_the_traits_config_exports_many_rows_quickly(tmp_path: Path) -> None:
    traits = LabelSchema.from_xml(TRAITS_XML.read_text("utf-8"))
    said = [choice("group", "Copepod"), choice("egg_sac", "absent"), choice("sex", "female")]
    tasks = [task(k, [annotation(said)], [prediction(said)]) for k in range(300)]
    calls: list[int] = []
    report = export_tasks(
        tasks,
        traits,
        "parquet",
        tmp_path / "t.parquet",
        report=lambda stage, done, total: calls.append(done),
    )
    assert report.rows == 300
    assert report.problems == []
    assert calls[-1] == 300
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert {f"{control.name}__state" for control in traits.controls} <= set(table)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_saved_export_is_read(tmp_path: Path) -> None:
    tasks = some_tasks()
    assert read_export(write(tmp_path / "e.json", json.dumps(tasks))) == tasks
    assert read_export(write(tmp_path / "e.json", "[]")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(some_tasks())[:-300], "cut off"),
        (json.dumps(some_tasks())[:-1], "cut off"),
        ("", "is empty"),
        ("id,group\n1,Copepod\n", "not JSON"),
        (b"PK\x03\x04rest", "zip file"),
        (json.dumps({"images": [], "annotations": []}), "COCO"),
        (json.dumps({"detail": "no permission"}), "one object"),
        (json.dumps([{"image": "a", "id": 1, "group": "Copepod", "annotator": 1}]), "JSON-MIN"),
        (json.dumps([1, 2]), "none of its 2 items is a task"),
        ("[{'a': 1}]", "not valid JSON"),
    ],
)
def test_other_files_are_refused_with_the_remedy(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        read_export(write(tmp_path / "e.json", content))
    with pytest.raises(ExportError, match="cannot be read"):
        read_export(tmp_path / "absent.json")
