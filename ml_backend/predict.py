"""Predictions for images: a table for files, and results for Label Studio.

>>> predictions = predict(model, manifest, model_version="project-7-v0003")  # doctest: +SKIP
>>> predictions.table().column("confidence")  # doctest: +SKIP
>>> predictions.suggestions()["image-1"]["result"]  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.whole_files import remove_abandoned, replacing
from label_studio_config.manifest import Manifest, Skipped
from label_studio_config.schema import LabelSchema
from ml_backend.images import decoding
from ml_backend.int8 import int8_graph
from ml_backend.model import TraitModel
from ml_backend.predict_pieces import BATCH_SIZE, extractor_of, predict_in_pieces
from ml_backend.predictions import Predictions
from simclr.inference import FeatureExtractor
from simclr.marked_shards import RECORD_KEY, only, read_mark, shards_of_part

SHARD_SIZE = 20_000
IMAGES_A_PIECE = 1024
OTHERS = "predictions of another version or precision, of other images or at other pixel sizes"


def predict(
    model: TraitModel,
    manifest: Manifest,
    *,
    schema: LabelSchema | None = None,
    model_version: str = "",
    batch_size: int = BATCH_SIZE,
    extractor: Callable[[], FeatureExtractor] | None = None,
) -> Predictions:
    """Predict every image of a manifest that can be read.

    Parameters
    ----------
    model : TraitModel
    manifest : Manifest
        The images, with their pixel sizes where they were known in training too.
    schema : LabelSchema, optional
        The config as it is now; by default the one the model was trained for. Heads that do not
        fit it are named in the log.
    extractor : callable, optional
        Makes the model's encoder ready for many images (see `extractor_of`); by default PyTorch
        computes its features.

    Returns
    -------
    Predictions
        In the order of the manifest, without the skipped images.
    """
    pieces = predict_in_pieces(
        model,
        manifest,
        max(len(manifest), 1),
        schema=schema,
        model_version=model_version,
        batch_size=batch_size,
        extractor=extractor,
        counted=len(manifest),
    )
    return next(pieces)


def write_predictions(
    model: TraitModel,
    manifest: Manifest,
    folder: str | Path,
    *,
    schema: LabelSchema | None = None,
    model_version: str = "",
    shard_size: int = SHARD_SIZE,
    part: tuple[int, int] = (0, 1),
    int8: bool = False,
) -> tuple[list[Path], list[Skipped]]:
    """Predict a manifest into Parquet shards; goes on where a killed run stopped.

    Each shard appears whole or not at all, and says which images, at which pixel sizes, of which
    weights it holds: a version's name may come again in another models folder. A shard that was
    cut off or damaged since, or none of whose images could be read, is made anew.

    Parameters
    ----------
    part : (int, int)
        (k, n): only every nth shard, from the kth on, so that n calls share the work.
    int8 : bool
        The network in 8-bit integers, on processors: see `ml_backend.int8`.

    Returns
    -------
    shards : list of Path
        `part-00000.parquet` and so on, in the order of the manifest.
    skipped : list of Skipped

    Raises
    ------
    ShardsError
        The folder holds shards of another model, other images, another config or another size, or
        more shards than these images give.
    simclr.quantise.QuantisationError
        With `int8`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    schema = schema or model.schema
    numbers = shards_of_part(folder, manifest, shard_size, part)
    graph = int8_graph(model, manifest, folder) if int8 and numbers else None
    of_graph = None if graph is None else _digest(graph)
    marks = _Marks(model.fingerprint, model_version, schema.fingerprint, of_graph)
    shards = [_Shard.of(folder, number, shard_size, len(manifest)) for number in numbers]
    skipped: dict[Path, list[Skipped]] = {}
    for shard in shards:
        remove_abandoned(shard.path)
        if shard.path.exists():
            known = read_mark(shard.path, marks.of(only(manifest, shard.places)), OTHERS)
            if known is not None:
                skipped[shard.path] = known
    # All that are to be made in one go: else the processors wait where one ends.
    to_make = [shard for shard in shards if shard.path not in skipped]
    if to_make:
        pieces = predict_in_pieces(
            model,
            only(manifest, *(shard.places for shard in to_make)),
            IMAGES_A_PIECE,
            schema=schema,
            model_version=model_version,
            extractor=partial(extractor_of, model, graph=graph),
            shards=[shard.places for shard in to_make],
            counted=len(manifest),
        )
        with decoding(), closing(pieces):
            for shard in to_make:
                mark = marks.of(only(manifest, shard.places))
                skipped[shard.path] = _write(shard, pieces, mark)
    return [shard.path for shard in shards], [
        image for shard in shards for image in skipped[shard.path]
    ]


@dataclass(frozen=True)
class _Marks:
    """What a shard says of itself, so that nothing else is taken for it."""

    weights: str
    model_version: str
    config: str
    graph: str | None

    def of(self, images: Manifest) -> str:
        sizes = images.pixel_sizes_um
        facts = (images.fingerprint, sizes, self.model_version, self.weights, self.config)
        told = repr((*facts, self.graph) if self.graph else facts)
        return hashlib.sha256(told.encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class _Shard:
    """One file, and the places of its images among all."""

    path: Path
    places: range

    @classmethod
    def of(cls, folder: Path, number: int, size: int, n_images: int) -> _Shard:
        places = range(number * size, min((number + 1) * size, n_images))
        return cls(folder / f"part-{number:05d}.parquet", places)


def _write(shard: _Shard, pieces: Iterator[Predictions], mark: str) -> list[Skipped]:
    """Write what is predicted as it comes, while the next images are at work; what was skipped."""
    piece = next(pieces)
    table, skipped, done = piece.table(), piece.skipped, piece.n_images
    # No two numbers are alike: to look for those that are takes longer than all the rest, and the
    # least and the largest of an embedding's tell nobody where to look.
    words = [field.name for field in table.schema if pa.types.is_string(field.type)]
    single = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    with (
        replacing(shard.path) as temporary,
        pq.ParquetWriter(
            temporary,
            table.schema,
            compression="zstd",
            use_dictionary=words,
            write_statistics=single,
            write_page_checksum=True,
        ) as writer,
    ):
        writer.write_table(table)
        while done < len(shard.places):
            piece = next(pieces)
            writer.write_table(piece.table())
            skipped = skipped + piece.skipped
            done += piece.n_images
        reasons = [[skip.path, skip.reason] for skip in skipped]
        record = json.dumps({"mark": mark, "skipped": reasons})
        writer.add_key_value_metadata({RECORD_KEY: record})
    return skipped
