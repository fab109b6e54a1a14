"""The table of images says what is wrong with it, and survives the disk."""

from pathlib import Path

import pandas as pd
import pytest

from label_studio_config.manifest import Manifest, ManifestError, pixel_size


def table(**columns):
    return pd.DataFrame({"image_id": ["a", "b"], "path": ["d/a.png", "d/b.png"]} | columns)


def test_written_and_read_back(tmp_path):
    manifest = Manifest(table(depth_m=[1.5, None], station=["P1", "P2"]), Path("/images"))
    again = Manifest.read(manifest.write(tmp_path / "m.parquet"))
    assert again.paths == [Path("/images/d/a.png"), Path("/images/d/b.png")]
    assert again.fingerprint == manifest.fingerprint
    assert again.table["station"].tolist() == ["P1", "P2"]
    assert Manifest.read(tmp_path / "m.parquet", root="/elsewhere").root == Path("/elsewhere")


def test_select_by_ids_and_mask():
    manifest = Manifest(table(), Path("/images"))
    assert manifest.select(["b"]).image_ids == ["b"]
    assert manifest.select(manifest.table["image_id"] == "a").image_ids == ["a"]
    with pytest.raises(ManifestError, match="'c'"):
        manifest.select(["c"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"image_id": ["a", "a"]}, "'a' stands twice"),
        ({"path": ["/etc/passwd", "b"]}, "leaves the root"),
        ({"path": ["../a.png", "b"]}, "leaves the root"),
        ({"depth_m": ["12", "deep"]}, "image 'b': depth_m is 'deep'"),
        ({"image_id": ["a", None]}, "no image_id"),
        ({"pixel_size_um": [10.0, 0.0]}, "image 'b': pixel_size_um is 0: leave it empty"),
        ({"pixel_size_um": [-3.0, None]}, "image 'a': pixel_size_um is -3: leave it empty"),
        ({"pixel_size_um": [10.0, float("inf")]}, "image 'b': pixel_size_um is inf: leave it"),
        ({"pixel_size_um": ["10", "10 um"]}, "image 'b': pixel_size_um is '10 um', not a number"),
    ],
)
def test_refused_with_the_row(wrong, named):
    with pytest.raises(ManifestError, match=named):
        Manifest(table(**wrong), Path("/images"))


def test_a_pixel_size_that_is_not_there_is_unknown():
    stated = Manifest(table(pixel_size_um=["10", float("nan")]), Path("/images"))
    assert stated.pixel_sizes_um == [10.0, None]
    assert Manifest(table(), Path("/images")).pixel_sizes_um == [None, None]


@pytest.mark.parametrize("value", [None, "", "12 µm", "nan", float("nan"), 0, -1, "-inf", 10**400])
def test_what_is_no_pixel_size(value):
    assert pixel_size(value) is None


def test_not_a_manifest(tmp_path):
    (tmp_path / "m.parquet").write_text("no")
    with pytest.raises(ManifestError, match="not a Parquet manifest"):
        Manifest.read(tmp_path / "m.parquet")
