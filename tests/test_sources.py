"""Images in: folders and EcoTaxa tables become manifests; what is bad is listed, not fatal."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from label_studio_config.manifest import ManifestError
from label_studio_config.sources import read_ecotaxa, read_folder, read_source, showable

REAL = Path(__file__).parents[2] / "shared" / "data"


def save_image(path: Path, size: tuple[int, int] = (20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_image(tmp_path / "a" / "one.png")
    save_image(tmp_path / "a" / "two.jpg")
    save_image(tmp_path / "b" / "one.png")
    return tmp_path


def test_ids_are_relative_posix_paths_and_do_not_depend_on_the_moment(folder: Path) -> None:
    first, skipped = read_folder(folder)
    again, _ = read_folder(str(folder))
    assert first.image_ids == ["a/one.png", "a/two.jpg", "b/one.png"] == again.image_ids
    assert all(path.is_file() for path in first.paths)
    assert skipped == []


def test_bad_images_are_listed_with_their_reason(folder: Path) -> None:
    (folder / "a" / "empty.png").touch()
    (folder / "a" / "text.png").write_text("no image at all")
    whole = (folder / "a" / "two.jpg").read_bytes()
    (folder / "a" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    save_image(folder / "a" / "huge.png", (500, 300))
    (folder / "a" / "notes.txt").write_text("not an image, and not named as one")
    (folder / "a" / "._one.png").write_bytes(b"resource fork")
    outside = save_image(folder.parent / f"{folder.name}-outside.png")
    os.symlink(outside, folder / "a" / "link.png")
    os.symlink("circle.png", folder / "circle.png")
    manifest, skipped = read_folder(folder, max_pixels=100_000)
    assert len(manifest) == 3
    reasons = {Path(item.path).name: item.reason for item in skipped}
    assert set(reasons) == {
        "empty.png",
        "text.png",
        "cut.jpg",
        "huge.png",
        "link.png",
        "circle.png",
    }
    assert "0 bytes" in reasons["empty.png"]
    assert "not an image" in reasons["text.png"]
    assert "unreadable" in reasons["cut.jpg"]
    assert "500 × 300" in reasons["huge.png"]
    assert "outside" in reasons["link.png"]
    assert reasons["circle.png"].startswith("unreadable: ")


def test_no_usable_image_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "only.png").touch()
    with pytest.raises(ManifestError, match=r"no usable image.*only\.png: empty"):
        read_folder(tmp_path)
    with pytest.raises(ManifestError, match="is not a folder"):
        read_folder(tmp_path / "absent")


def test_metadata_in_known_and_further_columns(folder: Path) -> None:
    table = folder / "metadata.csv"
    table.write_text(
        "\ufefffilename;sample;captured_at;lat;lon;depth_m;pixel_size_um;cruise\n"
        "a/one.png;S1;2016-06-09T21:32:13Z;54,1;7.9;12.5;15;HE1\n".replace("54,1", "54.1")
        + "two.jpg;S1;2016-06-09;;;;;\n"
        "gone.png;S1;;;;;;\n",
        encoding="utf-8",
    )
    manifest, skipped = read_folder(folder, table, pixel_size_um=20)
    rows = manifest.table.set_index("image_id")
    assert rows.loc["a/one.png", "captured_at"] == "2016-06-09T21:32:13+00:00"
    assert rows.loc["a/two.jpg", "captured_at"] == "2016-06-09"
    assert rows[["lat", "lon", "depth_m"]].to_numpy()[0].tolist() == [54.1, 7.9, 12.5]
    assert rows["pixel_size_um"].tolist() == [15, 20, 20]
    assert rows["sample_id"].tolist()[:2] == ["S1", "S1"]
    assert rows["sample_id"].isna().tolist() == [False, False, True]
    assert rows.loc["a/one.png", "cruise"] == "HE1"
    assert [item.path for item in skipped] == ["gone.png"]
    assert "line 4" in skipped[0].reason
    manifest.write(folder / "manifest.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,captured_at\na/one.png,09/06/2016\n", r"line 2: captured_at is '09/06/2016'"),
        ("filename,lat\na/two.jpg,95\n", r"line 2: lat is 95, outside"),
        ('filename,lat\na/two.jpg,"54,1"\n', r"line 2: lat is '54,1', not a number"),
        ("filename,pixel_size_um\na/two.jpg,0\n", r"pixel_size_um is 0; leave it empty"),
        ("filename,pixel_size_um\na/two.jpg,-2\n", r"pixel_size_um is -2; leave it empty"),
        ("filename,pixel_size_um\na/two.jpg,inf\n", r"line 2: pixel_size_um is inf, not a finite"),
        ("filename,pixel_size_um\na/two.jpg,9 um\n", r"pixel_size_um is '9 um', not a number"),
        ("filename,sample_id\none.png,S1\n", r"'one\.png' is the name of 2 images"),
        ("filename,sample_id\ntwo.jpg,S1\na/two.jpg,S2\n", r"line 3: a second row for 'a/two.jpg'"),
        ("crop,sample_id\na/one.png,S1\n", r"no column that names the image.*crop, sample_id"),
        ("filename,lat,lat\na/one.png,1,2\n", r"column 'lat' stands twice"),
        ("filename,lat\na/one.png,54,1\n", r"line 2: 3 cells under 2 columns"),
        ("", r"is empty"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(folder: Path, text: str, message: str) -> None:
    table = folder / "metadata.csv"
    table.write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_folder(folder, table)


def test_a_manifest_takes_no_second_table(folder: Path) -> None:
    table = folder / "metadata.csv"
    table.write_text("filename,depth_m\na/one.png,5\n")
    path = read_folder(folder)[0].write(folder / "cruise.parquet")
    with pytest.raises(ManifestError, match="give the folder of its images instead"):
        read_source(path, table)


def test_a_pixel_size_of_nan_is_unknown_and_one_for_all_must_be_one(folder: Path) -> None:
    table = folder / "metadata.csv"
    table.write_text("filename,pixel_size_um\na/one.png,NaN\na/two.jpg,20\n")
    manifest, _ = read_folder(folder, table)
    sizes = dict(zip(manifest.image_ids, manifest.pixel_sizes_um, strict=True))
    assert (sizes["a/one.png"], sizes["a/two.jpg"]) == (None, 20.0)
    for wrong in (float("nan"), 0.0, -1.0, float("inf")):
        with pytest.raises(ManifestError, match="it must be above 0"):
            read_folder(folder, pixel_size_um=wrong)


def test_names_in_any_unicode_form_are_found(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Größe ñ 海 #1.png")
    save_image(tmp_path / decomposed)
    table = tmp_path / "metadata.csv"
    table.write_text("filename,sample_id\nGröße ñ 海 #1.png,S1\n", encoding="utf-8")
    manifest, skipped = read_folder(tmp_path, table)
    assert manifest.table["sample_id"].tolist() == ["S1"]
    assert manifest.paths[0].is_file()
    assert skipped == []


def test_progress_is_reported(folder: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    read_folder(folder, report=lambda stage, done, total: calls.append((stage, done, total)))
    assert calls[-1] == ("check images", 3, 3)


ECOTAXA_HEADER = (
    "object_id\timg_file_name\timg_rank\tobject_lat\tobject_lon\tobject_date\tobject_time\t"
    "object_depth_min\tobject_depth_max\tobject_annotation_category\tobject_annotation_status\t"
    "sample_id\tacq_instrument\tobject_area\tobject_annotation_person_email"
)
ECOTAXA_TYPES = "\t".join(f"[{kind}]" for kind in "ttfffttffttttft")


def ecotaxa_row(name: str, time: str = "213213", sample: str = "S1", day: str = "20160609") -> str:
    return (
        f"o_{name}\t{name}\t0\t54.1\t-7.9\t{day}\t{time}\t10\t20\tCalanoida\tvalidated\t"
        f"{sample}\tuvp5\t120\tsomeone@example.org"
    )


def write_ecotaxa(path: Path, rows: list[str], extra: tuple[str, str] | None = None) -> Path:
    lines = [ECOTAXA_HEADER, ECOTAXA_TYPES, *rows]
    if extra is not None:
        name, value = extra
        lines = [f"{ECOTAXA_HEADER}\t{name}", f"{ECOTAXA_TYPES}\t[f]"]
        lines += [f"{row}\t{value}" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_an_ecotaxa_folder_with_several_tables(tmp_path: Path) -> None:
    save_image(tmp_path / "s1" / "x.png")
    save_image(tmp_path / "s2" / "images" / "x.png")
    write_ecotaxa(tmp_path / "s1" / "ecotaxa_s1.tsv", [ecotaxa_row("x.png")])
    write_ecotaxa(
        tmp_path / "s2" / "ecotaxa_s2.tsv",
        [
            ecotaxa_row("images/x.png", "93015", "S2"),
            ecotaxa_row("gone.png"),
            ecotaxa_row("images/x.png"),
            ecotaxa_row("../../etc/x.png"),
            ecotaxa_row(""),
        ],
    )
    manifest, skipped = read_ecotaxa(tmp_path)
    rows = manifest.table
    assert manifest.image_ids == ["s1/x.png", "s2/images/x.png"]
    assert rows["captured_at"].tolist() == [
        "2016-06-09T21:32:13+00:00",
        "2016-06-09T09:30:15+00:00",
    ]
    assert rows["depth_m"].tolist() == [15, 15]
    assert rows["object_annotation_category"].tolist() == ["Calanoida"] * 2
    assert rows["object_annotation_status"].tolist() == ["validated"] * 2
    assert rows["instrument"].tolist() == ["uvp5"] * 2
    assert "object_area" not in rows
    assert "object_annotation_person_email" not in rows
    reasons = " | ".join(item.reason for item in skipped)
    assert len(skipped) == 4
    for said in ("not found", "more than one row", "outside", "no img_file_name: line 7"):
        assert said in reasons
    every, _ = read_ecotaxa(tmp_path, extras="all")
    assert every.table["object_area"].tolist() == ["120", "120"]


@pytest.mark.parametrize(
    ("column", "value", "expected_um"),
    [
        ("acq_pixel", "0.073", 73.0),
        ("process_particle_pixel_size_mm", "0.0106", 10.6),
        ("process_pixel_um", "3.4", 3.4),
        ("acq_resolution_pixel_per_micron", "2.5", 0.4),
        ("process_pixel", "0.088", 88.0),
        ("object_area_exc", "3", float("nan")),
    ],
)
def test_pixel_sizes_of_the_instruments(
    tmp_path: Path, column: str, value: str, expected_um: float
) -> None:
    save_image(tmp_path / "x.png")
    table = write_ecotaxa(tmp_path / "t.tsv", [ecotaxa_row("x.png")], (column, value))
    manifest, _ = read_ecotaxa(table)
    assert manifest.table["pixel_size_um"].tolist() == pytest.approx([expected_um], nan_ok=True)


def test_wrong_ecotaxa_input_is_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "x.png")
    table = write_ecotaxa(tmp_path / "t.tsv", [ecotaxa_row("x.png", day="20161309")])
    with pytest.raises(ManifestError, match=r"t\.tsv, line 3: object_date '20161309'"):
        read_ecotaxa(table)
    table.write_text("object_id\tobject_lat\no1\t3\n")
    with pytest.raises(ManifestError, match="no column 'img_file_name'"):
        read_ecotaxa(table)
    table.unlink()
    with pytest.raises(ManifestError, match=r"no \.tsv file"):
        read_ecotaxa(tmp_path)
    with pytest.raises(ManifestError, match="unpack it"):
        read_ecotaxa(tmp_path / "export.zip")


def test_real_plankton_camera_images() -> None:
    if not (REAL / "spc" / "labels.csv").exists():
        pytest.skip("shared/data/spc is not on this machine")
    manifest, skipped = read_folder(REAL / "spc", REAL / "spc" / "labels.csv")
    assert len(manifest) == 3040
    assert skipped == []
    table = manifest.table
    assert table["sample_id"].notna().all()
    assert table["captured_at"].str.startswith("2016-").all()
    assert (table["captured_at"].str[:10] == table["sample_id"]).all()


@pytest.mark.slow
def test_real_isiis_images_are_checked_in_seconds() -> None:
    if not (REAL / "ndsb" / "labels.csv").exists():
        pytest.skip("shared/data/ndsb is not on this machine")
    manifest, skipped = read_folder(REAL / "ndsb", REAL / "ndsb" / "labels.csv")
    assert (len(manifest), skipped) == (24352, [])
    assert manifest.table["functional_group"].nunique() == 21


def test_a_source_is_recognised(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert "sample_id" not in read_source(tmp_path)[0].table
    (tmp_path / "ecotaxa_export.tsv").write_text(
        "img_file_name\tobject_id\tsample_id\n[t]\t[t]\t[t]\na.png\to1\tP1\n"
    )
    manifest, _ = read_source(tmp_path)
    assert manifest.table["sample_id"].tolist() == ["P1"]
    assert read_source(manifest.write(tmp_path / "m.parquet"))[0].image_ids == manifest.image_ids
    with pytest.raises(ManifestError, match="no folder of images"):
        read_source(tmp_path / "nothing")


def test_what_a_browser_cannot_show_is_listed(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (8, 8)).save(tmp_path / "b.TIF", format="TIFF")
    manifest, skipped = showable(read_folder(tmp_path)[0])
    assert manifest.table["path"].tolist() == ["a.png"]
    assert [skip.path for skip in skipped] == ["b.TIF"]


def test_without_decoding_only_what_can_be_told_at_once_is_left_out(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    save_image(folder / "good.png")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "empty.png").touch()
    save_image(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    manifest, skipped = read_source(folder, decode=False)
    assert manifest.image_ids == ["broken.png", "good.png"]
    assert sorted(one.path for one in skipped) == ["empty.png", "link.png"]
