"""Features from OpenVINO are those of PyTorch, in order, whatever the batches."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from label_studio_config.manifest import Manifest
from ml_backend.images import read_batches
from simclr.embed import features_of
from simclr.encoder import Encoder
from simclr.inference import FeatureExtractor
from simclr.preprocessing import Preprocessing
from tests.trait_fixtures import make_tasks


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder.create("resnet10t", 32).eval()


def pixels(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("views", [1, 4])
def test_openvino_agrees_with_pytorch(encoder: Encoder, views: int) -> None:
    quick = FeatureExtractor(encoder, views, "openvino")
    assert quick.description.startswith("OpenVINO")
    expected = FeatureExtractor(encoder, views, "torch")(pixels(70))
    found = quick(pixels(70))
    assert found.shape == (70, encoder.feature_count)
    assert found.dtype == np.float32
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(cosine / np.linalg.norm(expected, axis=1), 1.0, atol=1e-3)


def test_batches_come_back_in_order_also_empty_ones(encoder: Encoder) -> None:
    quick = FeatureExtractor(encoder, 2, "openvino", threads=2)
    sizes = [3, 0, 70, 1, 33, 5, 0]
    batches = [pixels(n, seed) for seed, n in enumerate(sizes)]
    seen = list(quick.stream(iter(batches), lambda batch: batch))
    assert [len(features) for _, features in seen] == sizes
    for (batch, features), given in zip(seen, batches, strict=True):
        assert batch is given
        if len(given):
            np.testing.assert_allclose(features, quick(given), atol=0.05)


def test_it_keeps_the_weights_of_the_moment(encoder: Encoder) -> None:
    torch.manual_seed(1)
    other = Encoder.create("resnet10t", 32).eval()
    quick = FeatureExtractor(other, 1, "openvino")
    before = quick(pixels(4))
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    np.testing.assert_allclose(quick(pixels(4)), before)
    assert other.training is False


class Odd(torch.nn.Module):
    """Sorts by a number that only shows when it runs: no graph can hold it."""

    pretrained_cfg = {"architecture": "odd"}  # noqa: RUF012

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = torch.from_numpy(np.asarray([image.mean().item() for image in images]))
        return means.float()[:, None].repeat(1, 2)


def test_a_network_that_openvino_cannot_run_is_run_by_pytorch(caplog) -> None:
    odd = Encoder(Odd(), Preprocessing(32))
    with caplog.at_level(logging.WARNING):
        extractor = FeatureExtractor(odd)
        features = extractor(pixels(3))
    assert "PyTorch does" in caplog.text
    odd.train()
    with pytest.raises(RuntimeError, match="choose the runtime 'torch'"):
        FeatureExtractor(odd, runtime="openvino")
    assert odd.training
    inputs = (pixels(3).astype(np.float32) / 255.0 - 0.5) / 0.25
    np.testing.assert_allclose(features[:, 0], inputs.mean(axis=(1, 2, 3)), atol=0.05)


def manifest_of(folder: Path, n: int) -> Manifest:
    make_tasks(folder, n)
    (folder / "2.png").write_bytes(b"")
    ids = [f"image-{number}" for number in range(n)]
    table = pd.DataFrame({"image_id": ids, "path": [f"{number}.png" for number in range(n)]})
    return Manifest(table, folder)


def test_processes_decode_as_threads_do(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, 20)
    one = list(read_batches(manifest, Preprocessing(32), 8, processes=0, borders=[3, 11]))
    many = list(read_batches(manifest, Preprocessing(32), 8, processes=2, borders=[3, 11]))
    assert [len(batch) for batch in one] == [3, 8, 8, 1]
    assert len(one) == len(many)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.pixels, b.pixels)
        np.testing.assert_array_equal(a.log_extents, b.log_extents)
        assert a.skipped == b.skipped
    assert [Path(s.path).name for batch in many for s in batch.skipped] == ["2.png"]


def test_the_features_of_many_images_are_those_of_few(encoder: Encoder) -> None:
    many = np.concatenate([pixels(50)] * 41)
    few = features_of(encoder, many[:50])
    found = features_of(encoder, many)
    assert found.shape == (2050, encoder.feature_count)
    np.testing.assert_allclose(found[:50], found[-50:], atol=0.05)
    error = np.linalg.norm(found[:50] - few) / np.linalg.norm(few)
    assert error < 0.02
