"""Features of images, and the Parquet file that holds them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hpc_jobs import progress
from label_studio_config.manifest import Manifest
from simclr.cache import ImageCache
from simclr.encoder import Encoder

BATCH_SIZE = 256


class EmbeddingsError(ValueError):
    """Embeddings that cannot be written or read; the message says why."""


def features_of(
    encoder: Encoder, images: np.ndarray, *, batch_size: int = BATCH_SIZE, stage: str | None = None
) -> np.ndarray:
    """Features of preprocessed images, on the encoder's device.

    Parameters
    ----------
    encoder : Encoder
    images : uint8 array, shape (n, channels, s, s)
        As in an `ImageCache`.
    batch_size : int
    stage : str, optional
        Report progress under this name.

    Returns
    -------
    float32 array, shape (n, feature_count)
    """
    features = np.empty((len(images), encoder.feature_count), dtype=np.float32)
    training, device = encoder.training, encoder.mean.device
    encoder.eval()
    try:
        with torch.inference_mode():
            for first in range(0, len(images), batch_size):
                batch = torch.from_numpy(np.array(images[first : first + batch_size])).to(device)
                features[first : first + len(batch)] = encoder(batch).float().cpu().numpy()
                if stage:
                    progress.report(stage, min(first + batch_size, len(images)), len(images))
    finally:
        encoder.train(training)
    return features


def embed(
    encoder: Encoder,
    manifest: Manifest,
    *,
    cache_folder: Path | str | None = None,
    batch_size: int = BATCH_SIZE,
) -> tuple[list[str], np.ndarray]:
    """Features of the images of a manifest; images that cannot be read are logged and left out.

    Parameters
    ----------
    encoder : Encoder
    manifest : Manifest
    cache_folder : Path or str, optional
        Where decoded images are kept for the next time; by default they are not kept.
    batch_size : int

    Returns
    -------
    image_ids : list of str
    features : float32 array, shape (n, feature_count)
    """
    with tempfile.TemporaryDirectory() as scratch:
        cache = ImageCache.build(manifest, encoder.preprocessing, cache_folder or scratch)
        features = features_of(encoder, cache.images, batch_size=batch_size, stage="embed")
        return cache.image_ids, features


def write_embeddings(
    path: Path | str,
    image_ids: list[str],
    features: np.ndarray,
    *,
    source: str = "",
    half: bool = False,
) -> Path:
    """Write features as Parquet: `image_id`, and `embedding`, a list of fixed size.

    Parameters
    ----------
    path : Path or str
        Replaced atomically.
    image_ids : list of str
    features : float array, shape (n, d)
    source : str
        What made them (an encoder's folder or a model version), kept in the file's metadata.
    half : bool
        16 bits a number instead of 32: half the size, enough to compare images.

    Raises
    ------
    EmbeddingsError
        Ids and features differ in number, or a feature is not finite.
    """
    path = Path(path)
    if features.ndim != 2 or len(image_ids) != len(features):
        raise EmbeddingsError(
            f"{len(image_ids)} image ids and features of shape {features.shape}: give one row each"
        )
    numbers = np.ascontiguousarray(features, dtype=np.float16 if half else np.float32)
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers).all(axis=1)))
        raise EmbeddingsError(
            f"image {image_ids[row]!r} has features that are not finite{' in 16 bits' * half}"
        )
    values = pa.array(numbers.ravel())
    vectors = pa.FixedSizeListArray.from_arrays(values, features.shape[1])
    note = json.dumps({"source": source, "feature_count": features.shape[1]}).encode()
    table = pa.table({"image_id": pa.array(image_ids, pa.string()), "embedding": vectors})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table.replace_schema_metadata({b"planktrait": note}), temporary)
    temporary.replace(path)
    return path


def read_embeddings(path: Path | str) -> tuple[list[str], np.ndarray]:
    """Read what `write_embeddings` wrote: image ids, and features, float32, shape (n, d).

    Raises
    ------
    EmbeddingsError
        The file is not one of ours.
    """
    try:
        table = pq.read_table(path, columns=["image_id", "embedding"])
        vectors = table["embedding"].combine_chunks()
        width = vectors.type.list_size
    except (OSError, pa.ArrowInvalid, AttributeError) as error:
        raise EmbeddingsError(f"{path} holds no embeddings: {error}") from error
    numbers = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return table["image_id"].to_pylist(), numbers.reshape(-1, width)
