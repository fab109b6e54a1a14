"""Phantom plankton: the same for the same seed, and true to what the truth file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from label_studio_config.phantoms import PhantomFolder, contact_sheet, draw_phantoms
from label_studio_config.phantoms.catalogue import KINDS
from label_studio_config.results import write_result
from label_studio_config.schema import LabelSchema
from label_studio_config.sources import read_folder

TRAITS_XML = Path(__file__).parents[1] / "label_studio_config" / "configs" / "traits.xml"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PhantomFolder:
    return draw_phantoms(tmp_path_factory.mktemp("phantoms"), n=90, seed=3)


@pytest.fixture(scope="module")
def truth(drawn: PhantomFolder) -> pd.DataFrame:
    return pd.read_csv(drawn.truth_csv, dtype=str).set_index("image_id")


def test_the_folder_reads_as_a_manifest_with_all_metadata(drawn: PhantomFolder) -> None:
    manifest, skipped = read_folder(drawn.folder, drawn.metadata_csv)
    assert skipped == []
    assert len(manifest) == 90
    known = ["sample_id", "captured_at", "lat", "lon", "depth_m", "pixel_size_um", "instrument"]
    assert manifest.table[known].notna().all(axis=None)
    assert manifest.table["sample_id"].nunique() >= 4
    truth_ids = pd.read_csv(drawn.truth_csv)["image_id"]
    assert set(truth_ids) == set(manifest.image_ids)


def test_the_same_seed_draws_the_same_images(tmp_path: Path) -> None:
    again = draw_phantoms(tmp_path / "again", n=12, seed=3)
    other = draw_phantoms(tmp_path / "other", n=12, seed=4)
    first = sorted((tmp_path / "again").rglob("*.png"))
    twice = draw_phantoms(tmp_path / "twice", n=12, seed=3)
    assert again.truth_csv.read_text() == twice.truth_csv.read_text()
    for path in first:
        same = tmp_path / "twice" / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == same.read_bytes()
    assert again.truth_csv.read_text() != other.truth_csv.read_text()


@pytest.mark.slow
def test_workers_draw_what_one_process_draws(tmp_path: Path) -> None:
    one = draw_phantoms(tmp_path / "one", n=110, seed=1, processes=1)
    two = draw_phantoms(tmp_path / "two", n=110, seed=1, processes=2)
    assert one.truth_csv.read_text() == two.truth_csv.read_text()
    for path in sorted(one.folder.rglob("*.png"))[::10]:
        assert path.read_bytes() == (two.folder / path.relative_to(one.folder)).read_bytes()


def test_what_is_there_is_kept(drawn: PhantomFolder) -> None:
    image = next(drawn.folder.rglob("*.png"))
    before = image.stat().st_mtime_ns
    draw_phantoms(drawn.folder, n=90, seed=3)
    assert image.stat().st_mtime_ns == before


def test_every_trait_is_an_answer_of_the_traits_config(truth: pd.DataFrame) -> None:
    schema = LabelSchema.from_xml(TRAITS_XML.read_text(encoding="utf-8"))
    asked: set[str] = set()
    for _, row in truth.iterrows():
        values: dict[str, str | float] = {}
        for name in [column for column in truth.columns if column in schema]:
            if not pd.isna(row[name]):
                number = schema.control(name).kind == "number"
                values[name] = float(row[name]) if number else row[name]
        result = write_result(schema, values)
        written = {item["from_name"] for item in result}
        assert written == set(values), f"not asked for {row['group']}: {set(values) - written}"
        asked |= written
        assert all(name in schema for name in str(row["not_assessable"]).split() if name != "nan")
    assert {"group", "egg_sac", "chain_cell_count", "snow_type", "antennae"} <= asked
    marks = {"landmarks", "chain_line", "outlines", "boxes"}
    known = {label for name in marks for label in schema.control(name).labels}
    for column in ("key_points_px", "lines_px", "polygons_px", "boxes_px"):
        for cell in truth[column].dropna():
            assert {mark["label"] for mark in json.loads(cell)} <= known


def test_marks_lie_on_the_image_and_lengths_follow_from_them(
    drawn: PhantomFolder, truth: pd.DataFrame
) -> None:
    pixel_size_um = pd.read_csv(drawn.metadata_csv).set_index("filename")["pixel_size_um"]
    checked = 0
    for image_id, row in truth[truth["prosome_length_um"].notna()].iterrows():
        marks = {m["label"]: m["points"][0] for m in json.loads(row["key_points_px"])}
        pixels = np.asarray(Image.open(drawn.folder / str(image_id))).astype(float)
        water = np.median(np.concatenate([pixels[0], pixels[-1]]))
        if {"anterior end", "prosome end"} <= set(marks):
            ends = np.array([marks["anterior end"], marks["prosome end"]])
            length_um = np.linalg.norm(ends[1] - ends[0]) * pixel_size_um[str(image_id)]
            assert length_um == pytest.approx(float(row["prosome_length_um"]), rel=0.01)
            x, y = (ends.mean(axis=0)).astype(int)
            assert pixels[y, x] < 0.9 * water, "the middle of the prosome is not dark"
            checked += 1
    assert checked > 5


def test_groups_are_long_tailed_and_each_kind_can_be_drawn() -> None:
    shares = sorted((kind.share for kind in KINDS), reverse=True)
    assert shares[0] > 20 * shares[-1]
    for kind in KINDS:
        phantom = kind.draw(np.random.default_rng(0))
        low, high = phantom.scene.extent()
        assert np.isfinite(low).all()
        assert 100 < (high - low).max() < 6000, phantom.group


def test_contact_sheet(drawn: PhantomFolder, truth: pd.DataFrame, tmp_path: Path) -> None:
    images = [(group, drawn.folder / str(image_id)) for image_id, group in truth["group"].items()]
    sheet = contact_sheet(images, tmp_path / "sheet.png")
    with Image.open(sheet) as opened:
        assert opened.width > 1000


def test_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n is 0"):
        draw_phantoms(tmp_path, n=0)
