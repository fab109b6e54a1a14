"""Tasks of Label Studio back to a manifest: what cannot be used is listed, and stops nothing."""

from functools import partial

from PIL import Image

from label_studio_config.home import resolve_image
from label_studio_config.schema import LabelSchema
from label_studio_config.task_manifest import manifest_of_tasks
from tests.test_schema import TRAITS


def test_what_cannot_be_used_is_listed(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    datas = [
        {"image": "/data/local-files/?d=a.png", "image_id": "a", "depth_m": "5-10", "blind": "yes"},
        {"image": "/data/local-files/?d=gone.png", "image_id": "b"},
        {"image": "/data/local-files/?d=../a.png", "image_id": "c"},
        {"text": "no image"},
    ]
    tasks = [{"id": number, "data": data} for number, data in enumerate(datas)]
    manifest, skipped = manifest_of_tasks(
        LabelSchema.from_xml(TRAITS), tasks, partial(resolve_image, tmp_path), tmp_path
    )
    assert manifest.image_ids == ["a"]
    assert manifest.table["blind"].tolist() == [True]
    assert manifest.table["depth_m"].isna().all()
    assert len(skipped) == 3
    # Another task of the image, which is not marked, does not unmark it.
    tasks.append({"id": 9, "data": datas[0] | {"blind": "no"}})
    manifest, _ = manifest_of_tasks(
        LabelSchema.from_xml(TRAITS), tasks, partial(resolve_image, tmp_path), tmp_path
    )
    assert manifest.table["blind"].tolist() == [True]


def test_a_pixel_size_that_is_none_is_unknown(tmp_path):
    """Task data may come from anywhere: a wrong size is an unknown one, and stops nothing."""
    sizes = [12.5, "12.5", "12 µm", float("nan"), 0, -3, float("inf"), None, [1]]
    for number in range(len(sizes)):
        Image.new("L", (4, 4)).save(tmp_path / f"{number}.png")
    tasks = [
        {"id": n, "data": {"image": f"/data/local-files/?d={n}.png", "pixel_size_um": size}}
        for n, size in enumerate(sizes)
    ]
    manifest, skipped = manifest_of_tasks(
        LabelSchema.from_xml(TRAITS), tasks, partial(resolve_image, tmp_path), tmp_path
    )
    assert skipped == []
    assert manifest.pixel_sizes_um == [12.5, 12.5] + [None] * 7
