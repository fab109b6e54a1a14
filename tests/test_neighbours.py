"""The feature store, the search in it, clusters and the map: without a server, in seconds."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from hpc_jobs.files import read_json
from label_studio_config.manifest import Manifest
from simclr import feature_store, neighbours
from simclr.clusters import find_clusters, usual_count
from simclr.embed import embed
from simclr.encoder import Encoder
from simclr.feature_map import lay_out
from simclr.feature_store import FeatureStore, FeatureStoreError, unit_length
from simclr.neighbours import Neighbours, together
from tests.backend_fixtures import draw_images


def small_encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder.create("resnet10t", 32)


def drawn(folder: Path, count: int) -> Manifest:
    names = [name for name, _ in draw_images(folder, count)]
    return Manifest(pd.DataFrame({"image_id": names, "path": names}), folder)


def random_features(count: int, width: int = 64, seed: int = 0) -> np.ndarray:
    """Some blobs with wide borders, of unit length, in float16 as they are kept."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, width))
    points = centres[random.integers(0, 20, count)] + random.normal(size=(count, width))
    return unit_length(points).astype(np.float16)


class OnDisk:
    """Stands for a feature store whose features are given."""

    def __init__(self, folder: Path, features: np.ndarray) -> None:
        self.folder, self.features = folder, features
        self.feature_count = features.shape[1]
        folder.mkdir(parents=True, exist_ok=True)


def exact(features: np.ndarray, query: np.ndarray, limit: int) -> list[int]:
    similarity = features.astype(np.float32) @ query.astype(np.float32)
    return np.argsort(-similarity, kind="stable")[:limit].tolist()


def test_the_store_holds_what_the_encoder_says(tmp_path: Path) -> None:
    manifest, encoder = drawn(tmp_path / "images", 12), small_encoder()
    store = FeatureStore.create(tmp_path / "store", encoder)
    assert len(store.features) == 0
    assert len(store.missing(manifest)) == 12
    assert store.add(manifest, chunk_rows=5).added == 12
    image_ids, expected, _ = embed(encoder, manifest)
    rows = [store.rows[image_id] for image_id in image_ids]
    np.testing.assert_allclose(store.features[rows], unit_length(expected), atol=1e-3)
    assert len(np.load(store.folder / "features.npy")) == 12  # a whole file for any reader
    assert store.load_encoder().fingerprint == encoder.fingerprint
    assert store.add(manifest).added == 0


def test_new_and_changed_images_are_added_and_bad_ones_are_listed(tmp_path: Path) -> None:
    manifest, encoder = drawn(tmp_path / "images", 8), small_encoder()
    store = FeatureStore.create(tmp_path / "store", encoder)
    manifest.paths[3].write_bytes(b"no image")
    added = store.add(manifest.select(manifest.image_ids[:6]))
    assert added.added == 5
    assert [skip.path for skip in added.bad] == ["image-00003.png"]
    reader = FeatureStore.open(store.folder)  # another process, which has read it before
    assert set(reader.rows) == {f"image-{n:05d}.png" for n in (0, 1, 2, 4, 5)}
    assert "not an image" in reader.bad["image-00003.png"]
    assert len(store.missing(manifest)) == 2  # a bad image is not tried again

    before = np.array(store.features)
    Image.new("L", (40, 20), 200).save(manifest.paths[3])
    Image.new("L", (40, 20), 200).save(manifest.paths[0])
    assert store.add(manifest).added == 4
    np.testing.assert_array_equal(reader.features[:5], before)
    assert reader.bad == {}
    assert len(reader.rows) == 8
    same = [reader.rows["image-00000.png"], reader.rows["image-00003.png"]]
    np.testing.assert_array_equal(*reader.features[same])


def test_a_store_is_one_encoders(tmp_path: Path) -> None:
    FeatureStore.create(tmp_path, small_encoder())
    with pytest.raises(FeatureStoreError, match="another encoder"):
        FeatureStore.create(tmp_path, small_encoder(1))
    with pytest.raises(FeatureStoreError, match="holds no features"):
        FeatureStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("point", ["rows", "journal"])
def test_a_killed_writer_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Killed after the rows are written, or after the journal is: the next one goes on."""
    manifest, encoder = drawn(tmp_path / "images", 9), small_encoder()
    store = FeatureStore.create(tmp_path / "store", encoder)
    store.add(manifest.select(manifest.image_ids[:3]))

    finish = feature_store.RowFile.finish

    def dies(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dies_for_features(file: feature_store.RowFile) -> None:
        (dies if file.path.name == "features.npy" else finish)(file)

    def write() -> None:
        torch.set_num_threads(1)
        if point == "rows":
            feature_store.RowFile.finish = dies_for_features  # type: ignore[method-assign]
        else:
            feature_store.write_json = dies
        FeatureStore.open(tmp_path / "store").add(manifest, encoder, chunk_rows=4)

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert os.path.getsize(store.folder / "features.npy") > 128 + 3 * 2 * store.feature_count
    assert len(store) == len(store.rows) == len(store.features) == 3
    assert store.add(manifest).added == 6
    image_ids, expected, _ = embed(encoder, manifest)
    rows = [store.rows[image_id] for image_id in image_ids]
    np.testing.assert_allclose(store.features[rows], unit_length(expected), atol=1e-3)
    lines = (store.folder / "images.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == manifest.image_ids


def test_two_writers_at_once_write_each_image_once(tmp_path: Path) -> None:
    manifest, encoder = drawn(tmp_path / "images", 30), small_encoder()
    FeatureStore.create(tmp_path / "store", encoder)
    added = []

    def write() -> None:
        store = FeatureStore.open(tmp_path / "store")
        added.append(store.add(manifest, chunk_rows=7).added)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(added) == [0, 0, 30]
    assert len(FeatureStore.open(tmp_path / "store")) == 30


def test_the_search_finds_what_the_exact_search_finds(tmp_path: Path) -> None:
    features = random_features(6000, width=200)
    index = Neighbours.open(OnDisk(tmp_path, features))  # type: ignore[arg-type]
    for row in range(0, 6000, 600):
        found = index.search(features[row], 50)
        assert found.rows[0] == row
        right = exact(features, features[row], 50)
        assert len(set(right) & set(found.rows.tolist())) >= 48
        assert (np.diff(found.similarity) <= 0).all()
    # With as many candidates as images it is the exact search itself.
    found = index.search(features[7], 50, candidates=6000)
    assert found.rows.tolist() == exact(features, features[7], 50)


def test_what_is_not_allowed_is_never_found(tmp_path: Path) -> None:
    features = random_features(500)
    index = Neighbours.open(OnDisk(tmp_path, features))  # type: ignore[arg-type]
    allowed = np.arange(500) % 3 == 0
    found = index.search(features[1], 500, allowed=allowed)
    assert sorted(found.rows.tolist()) == np.flatnonzero(allowed).tolist()
    assert len(index.search(features[1], 5, allowed=np.zeros(500, dtype=bool)).rows) == 0


def test_several_queries_lie_between_the_largest_and_the_mean() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (100, 4)).astype(np.float32)
    similarity = together(cosines)
    assert (similarity <= cosines.max(axis=1) + 1e-5).all()
    assert (similarity >= cosines.mean(axis=1) - 1e-5).all()
    # Like two of the queries comes before like one of them.
    assert np.diff(together(np.array([[0.8, 0.8], [0.8, 0.2]])))[0] < 0
    np.testing.assert_array_equal(together(cosines[:, :1]), cosines[:, 0])


def test_the_order_of_the_images_does_not_matter(tmp_path: Path) -> None:
    features = random_features(800)
    order = np.random.default_rng(1).permutation(800)
    plain = Neighbours.open(OnDisk(tmp_path / "a", features))  # type: ignore[arg-type]
    mixed = Neighbours.open(OnDisk(tmp_path / "b", features[order]))  # type: ignore[arg-type]
    queries = features[[3, 5]]
    found = plain.search(queries, 40)
    again = mixed.search(queries, 40)
    assert set(order[again.rows].tolist()) == set(found.rows.tolist())
    np.testing.assert_allclose(again.similarity, found.similarity, atol=1e-5)


def test_an_index_grows_with_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = random_features(1000)
    first = Neighbours.open(OnDisk(tmp_path, features[:400]))  # type: ignore[arg-type]
    refits: list[int] = []
    fit = neighbours._fit
    monkeypatch.setattr(
        neighbours, "_fit", lambda folder, rows: (refits.append(len(rows)), fit(folder, rows))
    )
    grown = Neighbours.open(OnDisk(tmp_path, features[:700]))  # type: ignore[arg-type]
    assert refits == []  # appended to
    np.testing.assert_allclose(
        grown.reduced, features[:700].astype(np.float32) @ grown.projection, atol=1e-5
    )
    whole = Neighbours.open(OnDisk(tmp_path, features))  # type: ignore[arg-type]
    assert refits == [1000]  # more than doubled: other dimensions may be the principal ones
    assert len(first.search(features[0], 10).rows) == 10  # who has the old one open reads on
    assert whole.search(features[900], 1).rows.tolist() == [900]
    assert len(list(tmp_path.glob("reduced-*.npy"))) == 1


def test_an_index_whose_writer_was_killed_goes_on(tmp_path: Path) -> None:
    features = random_features(900)
    Neighbours.open(OnDisk(tmp_path, features[:600]))  # type: ignore[arg-type]
    with next(tmp_path.glob("reduced-*.npy")).open("ab") as file:
        file.write(b"x" * 1000)
    index = Neighbours.open(OnDisk(tmp_path, features))  # type: ignore[arg-type]
    assert read_json(tmp_path / "index.json")["rows"] == len(index) == 900
    np.testing.assert_allclose(
        index.reduced, features.astype(np.float32) @ index.projection, atol=1e-5
    )


def test_an_empty_store_finds_nothing(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path, small_encoder())
    index = Neighbours.open(store)
    assert len(index.search(np.ones(store.feature_count), 5).rows) == 0


def test_clusters_find_the_blobs_and_leave_the_far_ones_aside() -> None:
    random = np.random.default_rng(0)
    kinds = random.integers(0, 6, 1200)
    centres = random.normal(size=(6, 32)) * 2
    features = unit_length(centres[kinds] + random.normal(size=(1200, 32)))
    clusters = find_clusters(features, 6, outliers=0.25)
    assert clusters.count == 6
    assert (clusters.labels < 0).mean() == pytest.approx(0.25, abs=0.01)
    for cluster in range(6):
        rows = clusters.members(cluster)
        assert len(set(kinds[rows])) == 1
        assert (np.diff(clusters.distances[rows]) >= 0).all()
    sizes = [len(clusters.members(cluster)) for cluster in range(6)]
    assert sizes == sorted(sizes, reverse=True)
    again = find_clusters(features, 6, outliers=0.25)
    np.testing.assert_array_equal(again.labels, clusters.labels)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 40])
def test_few_images_make_few_clusters(count: int) -> None:
    clusters = find_clusters(random_features(count))
    assert len(clusters.labels) == count
    assert clusters.count <= usual_count(max(1, count))
    assert clusters.count == 0 or min(np.bincount(clusters.labels[clusters.labels >= 0])) >= 5


def test_the_same_features_are_one_cluster() -> None:
    clusters = find_clusters(np.tile(random_features(1), (30, 1)))
    assert clusters.labels.tolist() == [0] * 30


def test_a_map_keeps_what_is_alike_together() -> None:
    random = np.random.default_rng(0)
    kinds = random.integers(0, 4, 400)
    centres = random.normal(size=(4, 32)) * 2
    features = unit_length(centres[kinds] + random.normal(size=(400, 32)))
    places = lay_out(features)
    assert places.shape == (400, 2)
    assert np.abs(places).max() == pytest.approx(1.0)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    nearest = apart.argsort(axis=1)[:, 1:6]
    assert (kinds[nearest] == kinds[:, None]).mean() > 0.95
    np.testing.assert_array_equal(lay_out(features), places)


@pytest.mark.parametrize("count", [0, 1, 3, 9, 10, 40])
def test_few_images_have_a_map_too(count: int) -> None:
    places = lay_out(random_features(count))
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
