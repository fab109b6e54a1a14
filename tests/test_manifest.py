"""The table of images says what is wrong with it, and survives the disk."""

from pathlib import Path

import pandas as pd
import pytest

from label_studio_config.manifest import Manifest, ManifestError


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
    ],
)
def test_refused_with_the_row(wrong, named):
    with pytest.raises(ManifestError, match=named):
        Manifest(table(**wrong), Path("/images"))


def test_not_a_manifest(tmp_path):
    (tmp_path / "m.parquet").write_text("no")
    with pytest.raises(ManifestError, match="not a Parquet manifest"):
        Manifest.read(tmp_path / "m.parquet")
