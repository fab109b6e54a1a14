"""Features of images, and the Parquet file that holds them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hpc_jobs import progress
from hpc_jobs.whole_files import remove_abandoned, replacing
from label_studio_config.manifest import Manifest, Skipped
from simclr.cache import ImageCache
from simclr.encoder import Encoder
from simclr.inference import FeatureExtractor
from simclr.marked_shards import RECORD_KEY, only, read_mark, shards_of_part

BATCH_SIZE = 256
FEW_IMAGES = 2000
"""For more it pays to make the encoder ready for many."""
SHARD_SIZE = 20_000


class EmbeddingsError(ValueError):
    """Embeddings that cannot be written or read; the message says why."""


def features_of(
    encoder: Encoder, images: np.ndarray, *, batch_size: int = BATCH_SIZE, stage: str | None = None
) -> np.ndarray:
    """Features of preprocessed images, on the fastest device there is.

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
    # One that is being trained changes from call to call.
    if len(images) > FEW_IMAGES and not encoder.training:
        starts = range(0, len(images), batch_size)
        stream = FeatureExtractor(encoder).stream(
            starts, lambda start: np.array(images[start : start + batch_size])
        )
        for start, found in stream:
            features[start : start + len(found)] = found
            if stage:
                progress.report(stage, start + len(found), len(images))
        return features
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
) -> tuple[list[str], np.ndarray, list[Skipped]]:
    """Features of the images of a manifest, without those that cannot be read.

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
    skipped : list of Skipped
    """
    with tempfile.TemporaryDirectory() as scratch:
        cache = ImageCache.build(manifest, encoder.preprocessing, cache_folder or scratch)
        features = features_of(encoder, cache.images, batch_size=batch_size, stage="embed")
        return cache.image_ids, features, cache.skipped


def write_embedding_shards(
    encoder: Encoder,
    manifest: Manifest,
    folder: Path | str,
    *,
    source: str = "",
    shard_size: int = SHARD_SIZE,
    part: tuple[int, int] = (0, 1),
) -> tuple[list[Path], list[Skipped]]:
    """Features of a manifest as Parquet shards; goes on where a killed run stopped.

    Shards that are damaged, or hold none of their images, are made anew.

    Parameters
    ----------
    encoder : Encoder
    manifest : Manifest
    folder : Path or str
        Gets `part-00000.parquet` and so on, each as `write_embeddings` writes it.
    source : str
        As there.
    part : (int, int)
        (k, n): only every nth shard, from the kth on, so that n calls share the work.

    Returns
    -------
    shards : list of Path
    skipped : list of Skipped

    Raises
    ------
    ShardsError
        The folder holds a shard of another encoder, of other images or of another size, or more
        shards than these images give.
    """
    folder, shards, skipped = Path(folder), [], []
    for number in shards_of_part(folder, manifest, shard_size, part):
        images = only(manifest, range(number * shard_size, (number + 1) * shard_size))
        mark = f"{encoder.fingerprint} {images.fingerprint}"
        path = folder / f"part-{number:05d}.parquet"
        remove_abandoned(path)
        known = read_mark(path, mark, "features of another encoder or of other images")
        if known is None:
            image_ids, features, known = embed(encoder, images)
            write_embeddings(path, image_ids, features, source=source, mark=mark, skipped=known)
        skipped += known
        shards.append(path)
    return shards, skipped


def write_embedding_file(
    encoder: Encoder, manifest: Manifest, path: Path | str, *, source: str = ""
) -> tuple[list[Path], list[Skipped]]:
    """Features of a manifest as one file.

    Returns
    -------
    files : list of Path
        That one; none where no image can be read.
    skipped : list of Skipped
    """
    image_ids, features, skipped = embed(encoder, manifest)
    written = image_ids and write_embeddings(path, image_ids, features, source=source)
    return [written] if written else [], skipped


def write_embeddings(
    path: Path | str,
    image_ids: list[str],
    features: np.ndarray,
    *,
    source: str = "",
    half: bool = False,
    mark: str = "",
    skipped: Sequence[Skipped] = (),
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
    mark : str
        By which `write_embedding_shards` knows a shard again.
    skipped : sequence of Skipped
        Images of the shard that could not be read.

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
    told = {
        "source": source,
        "feature_count": features.shape[1],
        "mark": mark,
        "skipped": [[skip.path, skip.reason] for skip in skipped],
    }
    note = json.dumps(told).encode()
    table = pa.table({"image_id": pa.array(image_ids, pa.string()), "embedding": vectors})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        table = table.replace_schema_metadata({RECORD_KEY: note})
        pq.write_table(table, temporary, write_page_checksum=True)
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
