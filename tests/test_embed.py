"""Embeddings: features of a manifest, in Parquet."""

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from label_studio_config.manifest import Manifest
from simclr.embed import EmbeddingsError, embed, read_embeddings, write_embeddings
from simclr.encoder import Encoder


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
    image_ids, features = embed(encoder, manifest, batch_size=4, cache_folder=tmp_path / "cache")
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
    again, same = embed(encoder, manifest)  # without a cache that stays
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
    def full(table: pa.Table, path: Path) -> None:
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
