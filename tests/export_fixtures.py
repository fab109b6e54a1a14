"""Tasks as Label Studio exports them, for the tests of the exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from label_studio_config.schema import LabelSchema

TRAITS_XML = Path(__file__).parents[1] / "label_studio_config" / "configs" / "traits.xml"
SIZE = {"original_width": 200, "original_height": 100, "image_rotation": 0}

CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <Choices name="group" toName="image" choice="single">
    <Choice value="Copepod" aphia="1080"/><Choice value="Diatom chain" aphia="148899"/>
    <Choice value="Not assessable" role="not_assessable"/>
  </Choices>
  <View visibleWhen="choice-selected" whenTagName="group" whenChoiceValue="Copepod">
    <Choices name="egg_sac" toName="image" choice="single">
      <Choice value="present"/><Choice value="absent" role="absent"/>
      <Choice value="Not assessable" role="not_assessable"/>
    </Choices>
  </View>
  <View visibleWhen="choice-selected" whenTagName="group" whenChoiceValue="Diatom chain">
    <Number name="cells" toName="image" unit="count"/>
    <Choices name="cells_assessable" toName="image" choice="single" notAssessableFor="cells">
      <Choice value="Not assessable" role="not_assessable"/>
    </Choices>
  </View>
  <Choices name="behaviour" toName="image" choice="multiple">
    <Choice value="feeding"/><Choice value="moulting"/>
  </Choices>
  <KeyPointLabels name="landmarks" toName="image">
    <Label value="anterior end" starts="body_length prosome_length" maxUsages="1"/>
    <Label value="prosome end" ends="prosome_length" maxUsages="1"/>
    <Label value="urosome end" ends="body_length" maxUsages="1"/>
    <Label value="antenna tip" maxUsages="2"/>
  </KeyPointLabels>
  <VectorLabels name="chain_line" toName="image"><Label value="chain"/></VectorLabels>
  <PolygonLabels name="outlines" toName="image"><Label value="lipid sac"/></PolygonLabels>
  <BrushLabels name="masks" toName="image"><Label value="body"/></BrushLabels>
  <RectangleLabels name="boxes" toName="image"><Label value="prey"/></RectangleLabels>
  <EllipseLabels name="ovals" toName="image"><Label value="egg"/></EllipseLabels>
  <Choices name="prey_kind" toName="image" choice="single" perRegion="true">
    <Choice value="diatom"/><Choice value="ciliate"/>
  </Choices>
  <TextArea name="remark" toName="image"/>
</View>
"""


def schema() -> LabelSchema:
    """The small config of these tests, with every kind of control."""
    return LabelSchema.from_xml(CONFIG)


def choice(name: str, *labels: str, **more: Any) -> dict[str, Any]:
    """A result item of a Choices control."""
    return {
        "id": f"c-{name}",
        "from_name": name,
        "to_name": "image",
        "type": "choices",
        "value": {"choices": list(labels)},
        **more,
    }


def number(name: str, value: float, **more: Any) -> dict[str, Any]:
    """A result item of a Number control."""
    return {
        "id": f"n-{name}",
        "from_name": name,
        "to_name": "image",
        "type": "number",
        "value": {"number": value},
        **more,
    }


def region(name: str, type_: str, region_id: str, value: dict[str, Any], *labels: str) -> Any:
    """A result item of something marked on an image of 200 × 100 px."""
    labelled = value | ({type_: list(labels)} if labels else {})
    common = {"id": region_id, "from_name": name, "to_name": "image", "type": type_}
    return common | {"value": labelled} | SIZE


def key_point(label: str, x_px: float, y_px: float) -> dict[str, Any]:
    """A key point, given in pixels."""
    value = {"x": x_px / 2, "y": y_px, "width": 0.5}
    return region("landmarks", "keypointlabels", f"k-{label}-{x_px}", value, label)


def annotation(result: list[dict[str, Any]], who: int | str = 1, **more: Any) -> dict[str, Any]:
    """An annotation as in a JSON export."""
    user = who if isinstance(who, int) else {"id": len(who), "email": who}
    return {
        "id": more.pop("id", 10),
        "completed_by": user,
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2025-03-04T10:00:00Z",
        "updated_at": "2025-03-04T10:00:05Z",
        "lead_time": 4.5,
        "prediction": {},
        **more,
    }


def prediction(result: list[dict[str, Any]], version: str = "v0001", **more: Any) -> dict[str, Any]:
    """A prediction in full."""
    return {
        "id": more.pop("id", 5),
        "model_version": version,
        "score": 0.83,
        "result": result,
        "created_at": "2025-03-04T09:00:00Z",
        **more,
    }


def task(
    task_id: int,
    annotations: list[dict[str, Any]] | None = None,
    predictions: list[Any] | None = None,
    **data: Any,
) -> dict[str, Any]:
    """A task whose image has a pixel size of 10 µm unless said otherwise."""
    known = {
        "image": f"/data/local-files/?d=crops/{task_id}.png",
        "image_id": f"crops/{task_id}.png",
        "sample_id": "S1",
        "captured_at": "2025-03-04T06:20:00+00:00",
        "lat": 22.6,
        "lon": 60.4,
        "depth_m": 20.0,
        "pixel_size_um": 10.0,
        "instrument": "camera A",
        "blind": "no",
        "cruise": "AS25",
    } | data
    return {
        "id": task_id,
        "data": {name: value for name, value in known.items() if value is not None},
        "annotations": annotations or [],
        "predictions": predictions or [],
    }
