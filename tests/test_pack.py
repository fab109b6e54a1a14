"""Packed images: read where they lie, as the single ones; killed packing goes on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile
from typer.testing import CliRunner

from label_studio_config.home import Home
from label_studio_config.manifest import Manifest, ManifestError
from label_studio_config.pack import PackError, pack, sample_names
from label_studio_config.packed import PackedImage, open_image
from label_studio_config.sources import read_source, showable
from simclr.cache import ImageCache
from simclr.embed import read_embeddings
from simclr.encoder import Encoder
from simclr.preprocessing import Preprocessing, PreprocessingError, read_image
from tests.backend_fixtures import PROJECT, add_version
from tests.test_pretrain import draw_shapes, small_encoder

PREPROCESSING = Preprocessing(image_size_px=32)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    manifest, _ = draw_shapes(tmp_path / "images", 30)
    table = manifest.table.assign(depth_m=np.arange(30.0), station="7")
    return Manifest(table, manifest.root)


def test_packed_images_are_the_single_ones(manifest: Manifest, tmp_path: Path) -> None:
    manifest.paths[3].write_bytes(b"")
    manifest.paths[8].write_bytes(b"no image at all")
    manifest.paths[9].unlink()
    packed = pack(manifest, tmp_path / "packed", shard_bytes=8_000)
    assert packed.images == 27
    assert packed.shards > 2
    # Under the name that folders packed before have.
    assert len(pd.read_csv(packed.folder / "skipped.csv")) == len(packed.skipped)
    assert [(skip.path, skip.reason.split(":")[0]) for skip in packed.skipped] == [
        ("3.png", "empty file (0 bytes)"),
        ("8.png", "unreadable"),
        ("9.png", "cannot be read"),
    ]
    shutil.move(tmp_path / "packed", tmp_path / "scratch")  # as a job copies it to its node
    for source in (tmp_path / "scratch", tmp_path / "scratch" / "index.parquet"):
        read, skipped = read_source(source)
        assert not skipped
        bad = {"3.png", "8.png", "9.png"}
        assert read.image_ids == [name for name in manifest.image_ids if name not in bad]
    kept = read.table["depth_m"].astype(int).tolist()
    assert kept == [row for row in range(30) if row not in (3, 8, 9)]
    for path, row in zip(read.paths, kept, strict=True):
        assert open_image(path).read() == manifest.paths[row].read_bytes()
    single = ImageCache.build(manifest, PREPROCESSING, tmp_path / "one")
    cache = ImageCache.build(read, PREPROCESSING, tmp_path / "two")
    assert cache.image_ids == single.image_ids
    assert np.array_equal(cache.images, single.images)
    assert np.array_equal(cache.log_extents, single.log_extents)
    assert ImageCache.build(read, PREPROCESSING, tmp_path / "two").folder == cache.folder


def test_the_shards_are_what_webdataset_reads(manifest: Manifest, tmp_path: Path) -> None:
    pack(manifest, tmp_path / "packed", shard_bytes=8_000)
    index = pd.read_parquet(tmp_path / "packed" / "index.parquet")
    keys = []
    for shard, rows in index.groupby("shard"):
        with tarfile.open(tmp_path / "packed" / shard) as tar:
            members = tar.getmembers()
            assert [member.offset_data for member in members] == rows["offset"].tolist()
            assert [member.size for member in members] == rows["length"].tolist()
            for member, original in zip(members, rows["unpacked_path"], strict=True):
                found = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", member.name)  # WebDataset's rule
                assert found is not None
                assert found[2] == "png"
                keys.append(found[1])
                assert tar.extractfile(member).read() == (manifest.root / original).read_bytes()
    assert len(set(keys)) == len(keys) == 30


def test_no_two_images_are_one_sample() -> None:
    assert sample_names(["a/x.1.PNG", "a/x_1.png", "b/x.png", "b/x.jpg", "c.d/.y.png"]) == [
        "a/x_1.png",
        "a/x_1_2.png",
        "b/x.png",
        "b/x_2.jpg",
        "c.d/_y.png",
    ]


def test_threads_read_one_shard_at_once(manifest: Manifest, tmp_path: Path) -> None:
    pack(manifest, tmp_path / "packed")
    read, _ = read_source(tmp_path / "packed")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_image, read.paths * 20))
    for image, path in zip(found, manifest.paths * 20, strict=True):
        assert image.tobytes() == read_image(path).tobytes()


def test_what_is_damaged_is_said(manifest: Manifest, tmp_path: Path) -> None:
    packed = pack(manifest, tmp_path / "packed", shard_bytes=8_000)
    read, _ = read_source(packed.folder)
    shards = sorted(packed.folder.glob("*.tar"))
    os.truncate(shards[0], 3000)
    shards[1].unlink()
    cache = ImageCache.build(read, PREPROCESSING, tmp_path / "cache")
    reasons = [skip.reason for skip in cache.skipped]
    assert any("ends inside" in reason for reason in reasons)
    assert any("does not exist" in reason for reason in reasons)
    assert 0 < len(cache) < 30
    with pytest.raises(PreprocessingError, match="not exist"):
        read_image(read.paths[-1].parent / "shard-00099.tar::0+5::a.png")
    assert PackedImage.of("images/a.tar/b::c.png") is None


def test_other_images_are_refused_and_a_finished_folder_is_left(
    manifest: Manifest, tmp_path: Path
) -> None:
    packed = pack(manifest, tmp_path / "packed")
    written_ns = (tmp_path / "packed" / "index.parquet").stat().st_mtime_ns
    assert pack(manifest, tmp_path / "packed") == packed
    assert (tmp_path / "packed" / "index.parquet").stat().st_mtime_ns == written_ns
    with pytest.raises(PackError, match="give a new folder"):
        pack(manifest.select(manifest.image_ids[:5]), tmp_path / "packed")
    with pytest.raises(ManifestError, match="give the folder of the single images"):
        showable(read_source(tmp_path / "packed")[0])


def test_a_killed_packing_goes_on_with_the_same_call(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(1500):
        pixels = generator.integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number:04d}.png")
    names = sorted(path.name for path in images.iterdir())
    manifest = Manifest(pd.DataFrame({"image_id": names, "path": names}), images)
    path = manifest.write(tmp_path / "manifest.parquet")
    code = (
        "from label_studio_config.pack import pack\n"
        "from label_studio_config.manifest import Manifest\n"
        f"pack(Manifest.read({str(path)!r}), {str(tmp_path / 'packed')!r}, shard_bytes=100_000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    end_s = time.monotonic() + 60
    while len(list((tmp_path / "packed").glob("shard-*.tar"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < end_s
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(ManifestError, match="not packed to its end"):
        read_source(tmp_path / "packed")
    first = (tmp_path / "packed" / "shard-00000.tar").stat().st_mtime_ns

    packed = pack(manifest, tmp_path / "packed", shard_bytes=100_000)
    assert packed.images == 1500
    assert (tmp_path / "packed" / "shard-00000.tar").stat().st_mtime_ns == first
    read, _ = read_source(packed.folder)
    assert read.image_ids == names
    for packed_path, single in zip(read.paths, manifest.paths, strict=True):
        assert open_image(packed_path).read() == single.read_bytes()
    left = [file.name for file in packed.folder.iterdir() if file.suffix in (".part", ".jsonl")]
    assert not left


def test_embed_reads_packed_images_as_single_ones(manifest: Manifest, tmp_path: Path) -> None:
    import planktrait

    encoder = small_encoder().save(tmp_path / "encoder")
    assert Encoder.load(encoder).feature_count
    runner = CliRunner()
    for call in (
        ["pack", str(manifest.root), str(tmp_path / "packed")],
        ["embed", str(manifest.root), "--encoder", str(encoder), "--output", str(tmp_path / "a")],
        ["embed", str(tmp_path / "packed"), "--encoder", str(encoder), "--output",
         str(tmp_path / "b")],
    ):  # fmt: skip
        result = runner.invoke(planktrait.app, call)
        assert result.exit_code == 0, result.output
    (ids, features), (packed_ids, packed_features) = map(
        read_embeddings, (tmp_path / "a", tmp_path / "b")
    )
    assert ids == packed_ids
    np.testing.assert_allclose(packed_features, features, atol=1e-6)


@pytest.mark.slow
def test_pretrain_and_predict_read_packed_images_as_single_ones(
    manifest: Manifest, tmp_path: Path
) -> None:
    import planktrait

    home = Home(tmp_path / "home")
    add_version(home)
    learn = ["--epochs", "1", "--backbone", "test_resnet", "--image-size-px", "32"]
    predict = ["--models", str(home.models_folder(PROJECT))]
    calls = [["pack", str(manifest.root), str(tmp_path / "packed")]]
    for name, source in (("single", manifest.root), ("packed", tmp_path / "packed")):
        output = ["--output", str(tmp_path / f"{name}-encoder")]
        calls.append(["pretrain", str(source), "--batch-size", "16", *learn, *output])
        output = ["--output", str(tmp_path / f"{name}-predictions")]
        calls.append(["predict", str(source), *predict, *output])
    for call in calls:
        result = CliRunner().invoke(planktrait.app, call)
        assert result.exit_code == 0, result.output
    features = []
    for name in ("single", "packed"):
        encoder = Encoder.load(tmp_path / f"{name}-encoder" / "encoder")
        features.append([weights.detach().numpy() for weights in encoder.parameters()])
    for single, packed in zip(*features, strict=True):
        np.testing.assert_allclose(packed, single, atol=1e-5)
    single, packed = (
        pd.concat(pd.read_parquet(path) for path in sorted(folder.glob("*.parquet")))
        for folder in (tmp_path / "single-predictions", tmp_path / "packed-predictions")
    )
    assert packed["image_id"].tolist() == single["image_id"].tolist()
    assert packed["group"].tolist() == single["group"].tolist()
    np.testing.assert_allclose(packed["confidence"], single["confidence"], atol=1e-5)


def test_a_folder_is_packed_with_each_image_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import planktrait

    folder = tmp_path / "images"
    draw_shapes(folder, 5)
    Image.new("1", (8000, 6000)).save(folder / "mosaic.png")
    (folder / "broken.png").write_bytes(b"no image")
    (folder / "empty.png").touch()
    decoded = []

    def load(image: ImageFile.ImageFile) -> object:
        decoded.append(image.size)
        return whole(image)

    whole = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    words = ["pack", str(folder), str(tmp_path / "packed")]
    answer = CliRunner().invoke(planktrait.app, words, env={"COLUMNS": "200"})
    assert answer.exit_code == 0, answer.output
    assert len(decoded) == 5
    assert "check images 8/8" in caplog.text
    assert "skipped empty.png: empty file" in answer.output
    assert "skipped broken.png: unreadable: not an image" in answer.output
    assert "skipped mosaic.png: oversized: 8000 × 6000 px" in answer.output
    assert len(read_source(tmp_path / "packed")[0]) == 5
