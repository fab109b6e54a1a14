"""Embeddings: features of a manifest, in Parquet."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import planktrait
from label_studio_config.manifest import Manifest
from simclr.embed import (
    EmbeddingsError,
    embed,
    read_embeddings,
    write_embedding_shards,
    write_embeddings,
)
from simclr.encoder import Encoder
from simclr.marked_shards import ShardsError


def test_features_are_those_of_each_image_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(7)]
    for name in names:
        Image.fromarray(generator.integers(0, 255, (20, 30)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / names[3]).write_text("no image")
    table = pd.DataFrame({"image_id": [f"id {name}" for name in names], "path": names})
    manifest = Manifest(table, tmp_path)
    encoder = Encoder.create("test_resnet", image_size_px=32)
    assert encoder.training
    image_ids, features, skipped = embed(
        encoder, manifest, batch_size=4, cache_folder=tmp_path / "cache"
    )
    assert [Path(skip.path).name for skip in skipped] == [names[3]]
    assert encoder.training
    assert image_ids == [f"id {name}" for name in names if name != names[3]]
    assert features.shape == (6, encoder.feature_count)
    assert features.dtype == np.float32
    encoder.eval()
    for row, image_id in enumerate(image_ids):
        image = Image.open(tmp_path / image_id.removeprefix("id "))
        pixels, _ = encoder.preprocessing.preprocess_image(image)
        with torch.no_grad():
            alone = encoder(torch.from_numpy(pixels)[None])[0].numpy()
        np.testing.assert_allclose(features[row], alone, atol=1e-4)
    again, same, _ = embed(encoder, manifest)  # without a cache that stays
    assert again == image_ids
    np.testing.assert_allclose(same, features, atol=1e-4)


@pytest.mark.parametrize("half", [False, True])
def test_parquet_holds_ids_and_vectors_of_fixed_size(half: bool, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    image_ids = [f"image-{row}" for row in range(5)]
    path = write_embeddings(tmp_path / "out" / "e.parquet", image_ids, features, half=half)
    schema = pq.read_schema(path)
    number = pa.float16() if half else pa.float32()
    assert schema.field("embedding").type.value_type == number
    assert schema.field("embedding").type.list_size == 12
    read_ids, read_features = read_embeddings(path)
    assert read_ids == image_ids
    np.testing.assert_allclose(read_features, features, atol=2e-3 if half else 0)
    assert [file.name for file in path.parent.iterdir()] == ["e.parquet"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    def full(table: pa.Table, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("simclr.embed.pq.write_table", full)
    with pytest.raises(OSError, match="No space"):
        write_embeddings(tmp_path / "e.parquet", ["a"], np.zeros((1, 3)))
    assert not list(tmp_path.iterdir())


def test_wrong_embeddings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    with pytest.raises(EmbeddingsError, match="give one row each"):
        write_embeddings(path, ["a"], np.zeros((2, 3)))
    broken = np.zeros((2, 3))
    broken[1, 2] = np.nan
    with pytest.raises(EmbeddingsError, match="'b'"):
        write_embeddings(path, ["a", "b"], broken)
    assert not path.exists()
    path.write_text("no parquet")
    with pytest.raises(EmbeddingsError, match="holds no embeddings"):
        read_embeddings(path)


@pytest.fixture
def nine(tmp_path: Path) -> Manifest:
    names = [f"{number}.png" for number in range(9)]
    (tmp_path / "images").mkdir()
    for name in names:
        Image.new("L", (20, 30), int(name[0]) * 20).save(tmp_path / "images" / name)
    return Manifest(pd.DataFrame({"image_id": names, "path": names}), tmp_path / "images")


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.create("test_resnet", image_size_px=32)


def test_shards_without_any_of_their_images_are_made_anew(
    nine: Manifest, encoder: Encoder, tmp_path: Path
) -> None:
    def write() -> tuple[list[int], list[str]]:
        files, skipped = write_embedding_shards(encoder, nine, tmp_path / "out", shard_size=3)
        return [pq.read_metadata(file).num_rows for file in files], [one.path for one in skipped]

    away = nine.root.rename(tmp_path / "away")  # as on a node that has not mounted them
    assert write() == ([0, 0, 0], nine.image_ids)
    away.rename(nine.root)
    nine.paths[4].write_text("no image")
    assert write() == ([3, 2, 3], ["4.png"])
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").iterdir())]
    assert write() == ([3, 2, 3], ["4.png"]), "what was skipped is still told"
    assert times == [path.stat().st_mtime_ns for path in sorted((tmp_path / "out").iterdir())]


def test_shards_that_do_not_say_what_they_skipped_are_made_anew(
    nine: Manifest, encoder: Encoder, tmp_path: Path
) -> None:
    nine.paths[4].write_text("no image")
    (path,), skipped = write_embedding_shards(encoder, nine, tmp_path / "out")
    table = pq.read_table(path)
    told = json.loads(table.schema.metadata[b"planktrait"])
    del told["skipped"]
    pq.write_table(table.replace_schema_metadata({"planktrait": json.dumps(told)}), path)
    assert write_embedding_shards(encoder, nine, tmp_path / "out") == ([path], skipped)
    assert [one.path for one in skipped] == ["4.png"]


def test_damaged_shards_are_made_anew_and_foreign_ones_refused(
    nine: Manifest, encoder: Encoder, tmp_path: Path
) -> None:
    files, _ = write_embedding_shards(encoder, nine, tmp_path / "out", shard_size=3)
    whole = [read_embeddings(file)[1] for file in files]
    with files[1].open("r+b") as file:  # in the pages; the footer is whole
        file.seek(200)
        file.write(bytes(100))
    write_embedding_shards(encoder, nine, tmp_path / "out", shard_size=3)
    np.testing.assert_allclose([read_embeddings(file)[1] for file in files], whole, atol=1e-4)
    with pytest.raises(ShardsError, match=r"of another --shard-size: .* give --shard-size 3,"):
        write_embedding_shards(encoder, nine, tmp_path / "out", shard_size=4)
    other = nine.select(nine.image_ids[::-1])
    with pytest.raises(ShardsError, match="of other images"):
        write_embedding_shards(encoder, other, tmp_path / "out", shard_size=3)
    few = nine.select(nine.image_ids[:6])
    with pytest.raises(ShardsError, match=r"part-00002\.parquet is left from a run with more"):
        write_embedding_shards(encoder, few, tmp_path / "out", shard_size=3)


@pytest.mark.parametrize(
    ("output", "listed"), [("out", "out/_skipped.csv"), ("e.parquet", "e.skipped.csv")]
)
def test_the_command_counts_and_lists(
    output: str, listed: str, nine: Manifest, encoder: Encoder, tmp_path: Path
) -> None:
    table = nine.write(tmp_path / "cruise.parquet")
    call = ["embed", str(table), "--encoder", str(encoder.save(tmp_path / "encoder"))]
    call += ["--output", str(tmp_path / output)]
    nine.paths[4].write_text("no image")
    told = CliRunner().invoke(planktrait.app, call)
    assert told.exit_code == 0, told.output
    assert "8" in next(line for line in told.stdout.splitlines() if "images" in line)
    assert pd.read_csv(tmp_path / listed)["path"].tolist() == ["4.png"]
    assert len(pd.read_parquet(tmp_path / output)) == 8

    for path in nine.paths:
        path.unlink()
    call[-1] = str(tmp_path / "new" / output)
    told = CliRunner().invoke(planktrait.app, call)
    assert told.exit_code == 1
    assert "none of 9 images can be read" in " ".join(told.output.split())
    assert len(pd.read_csv(tmp_path / "new" / listed)) == 9
    assert not list((tmp_path / "new").rglob("*.parquet"))


def test_a_part_of_bad_images_only_is_no_error_where_the_images_are(
    nine: Manifest, encoder: Encoder, tmp_path: Path
) -> None:
    table = nine.write(tmp_path / "cruise.parquet")
    call = ["embed", str(table), "--encoder", str(encoder.save(tmp_path / "encoder"))]
    call += ["--output", str(tmp_path / "out"), "--shard-size", "4", "--part", "2/3"]
    nine.paths[8].write_text("no image")
    told = CliRunner().invoke(planktrait.app, call)
    assert told.exit_code == 0, told.output
    (empty,) = (tmp_path / "out").glob("*.parquet")
    assert pq.read_metadata(empty).num_rows == 0
    nine.root.rename(tmp_path / "away")  # as on a node that has not mounted them
    told = CliRunner().invoke(planktrait.app, call)
    assert told.exit_code == 1
    assert "none of 1 images can be read" in " ".join(told.output.split())
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_what_is_left_out_is_listed_once_and_by_the_last_split_only(
    nine: Manifest, encoder: Encoder, tmp_path: Path
) -> None:
    nine.paths[4].write_text("no image")
    call = ["embed", str(nine.root), "--encoder", str(encoder.save(tmp_path / "encoder"))]
    call += ["--output", str(tmp_path / "out"), "--shard-size", "4"]

    def lists(*parts: str) -> dict[str, list[str]]:
        for part in parts:
            told = CliRunner().invoke(planktrait.app, call + ["--part", part] * bool(part))
            assert told.exit_code == 0, told.output
        found = (tmp_path / "out").glob("_*")
        return {path.name: pd.read_csv(path)["path"].tolist() for path in found}

    two = {"_skipped-0-of-2.csv": ["4.png"], "_skipped-1-of-2.csv": []}
    assert lists("0/2", "1/2") == two
    assert lists("") == {"_skipped.csv": ["4.png"]}
    assert lists("0/3") == {"_skipped-0-of-3.csv": ["4.png"]}
    assert lists("1/2", "0/2") == two
