"""A network in integers answers nearly as before, and all shards of a folder are of one network."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from label_studio_config.manifest import Manifest
from label_studio_config.schema import LabelSchema
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.predict import write_predictions
from simclr.encoder import Encoder
from simclr.graph import GraphError
from simclr.inference import FeatureExtractor
from simclr.marked_shards import ShardsError
from simclr.preprocessing import Preprocessing
from simclr.quantise import QuantisationError, quantise
from tests.backend_fixtures import CONFIG, draw_images
from tests.test_inference import Odd

IMAGES = 60


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("images")
    names = [name for name, _ in draw_images(folder, IMAGES)]
    return Manifest(pd.DataFrame({"image_id": names, "path": names}), folder)


@pytest.fixture(scope="module")
def model() -> TraitModel:
    torch.manual_seed(0)
    schema = LabelSchema.from_xml(CONFIG)
    labels = schema.control("group").labels
    even = (1 / len(labels),) * len(labels)
    head = Head("group", "one of", labels, trained_prior=even, deployed_prior=even)
    return TraitModel(Encoder.create("resnet10t", 32), [head], schema).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: TraitModel, manifest: Manifest) -> Path:
    """The first and third of three shards in integers: one of two tasks of an array."""
    path = tmp_path_factory.mktemp("int8")
    write_predictions(model, manifest, path, shard_size=25, part=(0, 2), int8=True)
    return path


def embeddings(*shards: Path) -> np.ndarray:
    columns = [pq.read_table(path).column("embedding").to_pylist() for path in shards]
    return np.concatenate([np.array(rows, dtype=np.float32) for rows in columns])


def test_predictions_are_nearly_those_of_the_network_itself(
    folder: Path, model: TraitModel, manifest: Manifest, tmp_path: Path
) -> None:
    plain, _ = write_predictions(model, manifest, tmp_path, shard_size=25, part=(0, 2))
    mine = [folder / path.name for path in plain]
    before, after = embeddings(*plain), embeddings(*mine)
    assert before.shape == after.shape == (35, model.encoder.feature_count)
    assert not np.array_equal(before, after)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.98
    a, b = (
        np.concatenate([pq.read_table(path).column("confidence") for path in paths])
        for paths in (plain, mine)
    )
    np.testing.assert_allclose(a, b, atol=0.05)


def test_the_other_task_takes_the_network_that_is_there(
    folder: Path, model: TraitModel, manifest: Manifest
) -> None:
    (network,) = folder.glob("_encoder-int8-*.npz")
    os.utime(network, ns=(1, 1))
    shards, skipped = write_predictions(
        model, manifest, folder, shard_size=25, part=(1, 2), int8=True
    )
    assert [path.name for path in shards] == ["part-00001.parquet"]
    assert (skipped, network.stat().st_mtime_ns) == ([], 1)
    assert set(pd.read_parquet(folder)["image_id"]) == set(manifest.image_ids)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    quick = FeatureExtractor(model.encoder, model.views, graph=network)
    assert quick.description.startswith("OpenVINO, int8")


def test_a_folder_holds_one_precision(
    folder: Path, model: TraitModel, manifest: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(ShardsError, match="precision"):
        write_predictions(model, manifest, folder, shard_size=25)
    write_predictions(model, manifest, tmp_path, shard_size=60)
    with pytest.raises(ShardsError, match="precision"):
        write_predictions(model, manifest, tmp_path, shard_size=60, int8=True)


def test_a_damaged_network_is_told_with_the_remedy(
    folder: Path, model: TraitModel, manifest: Manifest, tmp_path: Path
) -> None:
    (whole,) = folder.glob("_encoder-int8-*.npz")
    damaged = tmp_path / whole.name
    damaged.write_bytes(whole.read_bytes()[:-5000])
    with pytest.raises(GraphError, match=f"{damaged.name} cannot be read .* remove it"):
        write_predictions(model, manifest, tmp_path, int8=True)
    damaged.unlink()
    (shard,), _ = write_predictions(model, manifest, tmp_path, int8=True)
    assert pq.read_metadata(shard).num_rows == IMAGES


def test_a_network_of_other_images_is_not_taken(
    folder: Path, model: TraitModel, manifest: Manifest, tmp_path: Path
) -> None:
    (known,) = folder.glob("_encoder-int8-*.npz")
    (tmp_path / known.name).write_bytes(known.read_bytes())
    write_predictions(model, manifest.select(manifest.image_ids[:40]), tmp_path, int8=True)
    assert len(list(tmp_path.glob("_encoder-int8-*.npz"))) == 2


def test_others_go_on_warning(
    model: TraitModel, manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_predictions(model, manifest, tmp_path, int8=True)
    logging.getLogger("ml_backend.priors").warning("still heard")
    assert "still heard" in caplog.text


def test_too_few_images_are_refused_with_the_remedy(
    model: TraitModel, manifest: Manifest, tmp_path: Path
) -> None:
    few = manifest.select(manifest.image_ids[:19])
    with pytest.raises(QuantisationError, match=r"20 images .* of 19 looked at 19 can"):
        write_predictions(model, few, tmp_path, int8=True)
    assert not list(tmp_path.iterdir())


def test_a_network_that_does_not_go_in_integers_is_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 32, 32), dtype=np.uint8)
    with pytest.raises(QuantisationError, match="predict without int8"):
        quantise(Encoder(Odd(), Preprocessing(32)), images, tmp_path / "odd.npz")
    assert not list(tmp_path.iterdir())
