"""What a model says about many images, some hundred at a time, while the next ones are at work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd

from hpc_jobs import progress
from label_studio_config.manifest import Manifest, Skipped
from label_studio_config.schema import LabelSchema
from ml_backend.images import ImageBatch, deaths_told_later, decoding, read_batches
from ml_backend.model import TraitModel
from ml_backend.predictions import Predictions
from ml_backend.schema_change import ServedHead, serve
from simclr.graph import one_thread
from simclr.inference import FeatureExtractor, Runtime

logger = logging.getLogger(__name__)

BATCH_SIZE = 64


def extractor_of(
    model: TraitModel, runtime: Runtime = "auto", graph: Path | None = None
) -> FeatureExtractor:
    """The model's encoder made ready for many images, which takes a second or two.

    `graph` is a file of it, as from `ml_backend.int8`.
    """
    return FeatureExtractor(model.encoder, model.views, runtime, graph=graph)


def predict_in_pieces(
    model: TraitModel,
    manifest: Manifest,
    images_a_piece: int,
    *,
    schema: LabelSchema | None = None,
    model_version: str = "",
    batch_size: int = BATCH_SIZE,
    extractor: Callable[[], FeatureExtractor] | None = None,
    shards: Sequence[range] = (),
    counted: int | None = None,
) -> Generator[Predictions, None, None]:
    """As `predict`, but about so many images at a time, while the next ones are at work.

    Yields at least once a shard, also for no images.

    Parameters
    ----------
    extractor : callable, optional
        Makes the encoder ready (see `extractor_of`), while the first images are decoded already;
        by default PyTorch computes its features.
    shards : sequence of range
        No piece holds images of two of them. Their lengths add up to the manifest's; they are told
        as places among all images, of which the manifest may be a part. By default one of all.
    counted : int, optional
        All images: the progress among them is told then.

    Raises
    ------
    DecodingError
        A process that decodes images was killed.
    """
    schema = schema or model.schema
    shards = shards or [range(len(manifest))]
    served, unfit = serve(model.heads, schema)
    for control, reason in unfit.items():
        logger.info("control %r gets no prediction: %s", control, reason)
    table = manifest.table.reindex(columns=["image_id", "sample_id", "path"]).astype(object)
    with decoding():
        batches = read_batches(
            manifest,
            model.encoder.preprocessing,
            batch_size,
            model.extent_unit,
            borders=list(accumulate(map(len, shards[:-1]))),
        )
        with deaths_told_later():
            ready = (extractor or partial(extractor_of, model, "torch"))()
        n_skipped = 0
        stream = ready.stream(batches, _pixels)
        for shard in shards:
            done = 0
            piece = _Piece(model, served)
            while done < len(shard):
                batch, features = next(stream)
                if len(piece) and len(piece) + len(batch) > images_a_piece:
                    yield piece.predictions(table, schema, unfit, model_version)
                    piece = _Piece(model, served)
                piece.add(batch, features)
                done, n_skipped = done + len(batch), n_skipped + len(batch.skipped)
                if counted is not None:
                    progress.report("predict", shard.start + done, counted, f"{n_skipped} skipped")
            yield piece.predictions(table, schema, unfit, model_version)


class _Piece:
    """Features of some batches. The heads see them at once: their threads are the network's."""

    def __init__(self, model: TraitModel, served: list[ServedHead]) -> None:
        self.model, self.served = model, served
        self.skipped: list[Skipped] = []
        self._rows: list[np.ndarray] = [np.zeros(0, dtype=int)]
        self._features = [np.zeros((0, model.encoder.feature_count), dtype=np.float32)]
        self._log_extents = [np.zeros((0, 2), dtype=np.float32)]

    def __len__(self) -> int:
        return sum(map(len, self._rows)) + len(self.skipped)

    def add(self, batch: ImageBatch, features: np.ndarray) -> None:
        self.skipped += batch.skipped
        self._rows.append(batch.rows)
        self._features.append(features)
        self._log_extents.append(batch.log_extents)

    def predictions(
        self,
        table: pd.DataFrame,
        schema: LabelSchema,
        unfit: dict[str, str],
        model_version: str,
    ) -> Predictions:
        embedding, novelty = np.concatenate(self._features), self.model.novelty
        log_extents = np.concatenate(self._log_extents)
        unknown = np.full(len(embedding), np.nan, dtype=np.float32)
        with one_thread():
            values = self.model.answer_features(embedding, log_extents).values
            scores = novelty.score(embedding) if novelty is not None else unknown
        return Predictions(
            images=table.iloc[np.concatenate(self._rows)].reset_index(drop=True),
            schema=schema,
            served=self.served,
            unfit=unfit,
            values={s.head.control: s.narrow(values[s.head.control]) for s in self.served},
            embedding=embedding,
            novelty=scores,
            model_version=model_version,
            skipped=self.skipped,
        )


def _pixels(batch: ImageBatch) -> np.ndarray:
    return batch.pixels
