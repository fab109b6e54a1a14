"""The image cache: decoded once, resumed when killed, bad images skipped with a reason."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from label_studio_config.manifest import Manifest
from simclr import decoding
from simclr.append import RowFile
from simclr.cache import CacheError, ImageCache
from simclr.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(16)


def draw_images(folder: Path, count: int, **columns: list[object]) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    names = [f"{number:05d}.png" for number in range(count)]
    for number, name in enumerate(names):
        pixels = generator.integers(0, 255, (10 + number % 20, 20)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    ids = [f"image-{name}" for name in names]
    return Manifest(pd.DataFrame({"image_id": ids, "path": names, **columns}), folder)


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Paths of the images decoded from now on."""
    paths: list[Path] = []
    read_image = decoding.read_image

    def noted(path: Path, limit: int) -> Image.Image:
        paths.append(path)
        return read_image(path, limit)

    monkeypatch.setattr(decoding, "read_image", noted)
    return paths


def test_rows_are_the_preprocessed_images(tmp_path: Path) -> None:
    manifest = draw_images(tmp_path / "images", 20)
    cache = ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    assert (len(cache), cache.skipped, cache.extent_unit) == (20, [], "px")
    assert isinstance(cache.images, np.memmap)
    assert cache.image_ids == manifest.image_ids
    for row, path in enumerate(manifest.paths):
        pixels, log_extent = PREPROCESSING.preprocess_image(Image.open(path))
        np.testing.assert_array_equal(cache.images[row], pixels)
        np.testing.assert_array_equal(cache.log_extents[row], log_extent)


def test_the_same_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = draw_images(tmp_path / "images", 10)
    paths = decoded(monkeypatch)
    first = ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    again = ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    assert len(paths) == 10
    assert again.folder == first.folder
    # Normalisation happens in the encoder: another one is no reason to decode again.
    normalised = Preprocessing(16, mean=(0.9,), std=(0.1,))
    assert ImageCache.build(manifest, normalised, tmp_path / "cache").folder == first.folder
    ImageCache.build(manifest, Preprocessing(24), tmp_path / "cache")
    assert len(paths) == 20


def test_only_new_and_changed_images_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = draw_images(tmp_path / "images", 10)
    few = manifest.select(manifest.image_ids[:6])
    ImageCache.build(few, PREPROCESSING, tmp_path / "cache")
    Image.new("L", (30, 30), 77).save(manifest.paths[2])
    paths = decoded(monkeypatch)
    cache = ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    assert {path.name for path in paths} == {f"{number:05d}.png" for number in (2, 6, 7, 8, 9)}
    assert (cache.images[2] == 77).all()
    expected, _ = PREPROCESSING.preprocess_image(Image.open(manifest.paths[5]))
    np.testing.assert_array_equal(cache.images[5], expected)


def test_a_cache_within_another_gives_its_room_back(tmp_path: Path) -> None:
    manifest = draw_images(tmp_path / "images", 10)
    few = ImageCache.build(
        manifest.select(manifest.image_ids[:6]), PREPROCESSING, tmp_path / "cache"
    )
    pixels = few.images.copy()
    ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    assert not few.folder.exists()
    np.testing.assert_array_equal(few.images, pixels)  # who has it open goes on reading


def test_a_removal_that_was_killed_harms_no_later_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = draw_images(tmp_path / "images", 10)
    few = manifest.select(manifest.image_ids[:6])
    contained = ImageCache.build(few, PREPROCESSING, tmp_path / "cache").folder
    removed: list[Path] = []

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        removed.append(Path(folder))
        (Path(folder) / "keys.npy").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoding.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    assert removed
    assert not contained.exists()
    assert removed[0].name.startswith(".")
    assert len(ImageCache.build(few, PREPROCESSING, tmp_path / "cache")) == 6
    more = draw_images(tmp_path / "images", 12)
    assert len(ImageCache.build(more, PREPROCESSING, tmp_path / "cache")) == 12
    assert not removed[0].exists()


@pytest.mark.parametrize("name", ["keys.npy", "images.npy", "rows.npy", "state.json"])
def test_a_damaged_cache_is_neither_copied_from_nor_opened(tmp_path: Path, name: str) -> None:
    manifest = draw_images(tmp_path / "images", 10)
    few = manifest.select(manifest.image_ids[:6])
    damaged = ImageCache.build(few, PREPROCESSING, tmp_path / "cache").folder / name
    damaged.write_bytes(b"{") if name == "state.json" else damaged.unlink()
    whole = ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    assert len(whole) == 10
    again = ImageCache.build(few, PREPROCESSING, tmp_path / "cache")
    np.testing.assert_array_equal(again.images, whole.images[:6])


def test_bad_images_are_skipped_listed_and_counted(tmp_path: Path) -> None:
    manifest = draw_images(tmp_path / "images", 8)
    paths = manifest.paths
    paths[1].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    paths[4].unlink()
    Image.new("L", (400, 400)).save(paths[7])
    cache = ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache", max_pixels=100_000)
    assert cache.image_ids == [manifest.image_ids[row] for row in (0, 2, 5, 6)]
    assert len(cache.images) == len(cache.log_extents) == 4
    assert [skipped.path for skipped in cache.skipped] == [paths[row].name for row in (1, 3, 4, 7)]
    reasons = [skipped.reason for skipped in cache.skipped]
    assert "empty" in reasons[0]
    assert "decoded" in reasons[1]
    assert "not exist" in reasons[2]
    assert "400×400 px is above the limit" in reasons[3]


def test_no_readable_image_makes_an_empty_cache(tmp_path: Path) -> None:
    manifest = draw_images(tmp_path / "images", 2)
    for path in manifest.paths:
        path.write_text("no image")
    cache = ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    assert (len(cache), cache.images.shape, len(cache.skipped)) == (0, (0, 1, 16, 16), 2)


def test_extents_are_in_micrometres_where_every_pixel_size_is_known(tmp_path: Path) -> None:
    known = draw_images(tmp_path / "images", 3, pixel_size_um=[10.0, 10.0, 20.0])
    cache = ImageCache.build(known, PREPROCESSING, tmp_path / "cache")
    assert cache.extent_unit == "um"
    np.testing.assert_allclose(np.exp(cache.log_extents[2]), [400, 240], rtol=1e-5)
    in_px = ImageCache.build(known, PREPROCESSING, tmp_path / "cache", extent_unit="px")
    np.testing.assert_allclose(np.exp(in_px.log_extents[2]), [20, 12], rtol=1e-5)

    partly = draw_images(tmp_path / "images", 3, pixel_size_um=[10.0, np.nan, 20.0])
    assert ImageCache.build(partly, PREPROCESSING, tmp_path / "cache").extent_unit == "px"
    strict = ImageCache.build(partly, PREPROCESSING, tmp_path / "cache", extent_unit="um")
    assert strict.image_ids == [known.image_ids[0], known.image_ids[2]]
    assert "pixel_size_um" in strict.skipped[0].reason
    with pytest.raises(CacheError, match="extent_unit 'mm'"):
        ImageCache.build(partly, PREPROCESSING, tmp_path / "cache", extent_unit="mm")


def test_a_disk_that_is_too_small_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = draw_images(tmp_path / "images", 4)
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CacheError, match="make room"):
        ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")


def test_a_killed_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = draw_images(tmp_path / "images", 400)
    manifest.paths[3].write_bytes(b"")
    path = manifest.write(tmp_path / "manifest.parquet")
    code = f"""
import time
from simclr import cache, decoding
from simclr.preprocessing import Preprocessing
from label_studio_config.manifest import Manifest
decoding.CHUNK_ROWS = 20
read_image = decoding.read_image
decoding.read_image = lambda path, limit: time.sleep(0.02) or read_image(path, limit)
cache.ImageCache.build(Manifest.read({str(path)!r}), Preprocessing(16),
                       {str(tmp_path / "cache")!r}, workers=1)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline_s = time.monotonic() + 120
    while not list((tmp_path / "cache").glob("*.part/state.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "cache").glob("*.part"))

    paths = decoded(monkeypatch)
    cache = ImageCache.build(manifest, PREPROCESSING, tmp_path / "cache")
    assert 0 < len(paths) <= 380
    assert cache.image_ids == manifest.image_ids[:3] + manifest.image_ids[4:]
    assert [skipped.path for skipped in cache.skipped] == ["00003.png"]
    assert not list((tmp_path / "cache").glob("*.part"))
    for row in (0, 10, 200, 398):
        image = Image.open(tmp_path / "images" / cache.image_ids[row].removeprefix("image-"))
        np.testing.assert_array_equal(cache.images[row], PREPROCESSING.preprocess_image(image)[0])


def test_a_row_file_is_cut_back_and_read_by_numpy(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows.npy", np.float32, (2, 3))
    rows = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    file.append(rows)
    file.truncate(1)
    file.append(rows[2:])
    file.finish()
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), rows[[0, 2, 3]])


def test_real_images_of_both_backgrounds(tmp_path: Path) -> None:
    data = Path(os.environ.get("PLANKTRAIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "ndsb" / "labels.csv").is_file():
        pytest.skip(f"no real images in {data}")
    for name, channels, light in (("ndsb", 1, True), ("spc", 3, False)):
        paths = pd.read_csv(data / name / "labels.csv")["image"].iloc[::97]
        manifest = Manifest(pd.DataFrame({"image_id": paths, "path": paths}), data / name)
        cache = ImageCache.build(manifest, Preprocessing(32, channels), tmp_path / "cache")
        assert len(cache) == len(manifest)
        corners = np.median(cache.images[:, :, 0, 0])
        assert corners > 200 if light else corners < 30
