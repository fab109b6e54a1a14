"""A model's encoder in 8-bit integers, kept beside the predictions that it makes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from hpc_jobs import progress
from label_studio_config.manifest import Manifest, Skipped
from ml_backend.images import decoding, read_batches
from ml_backend.model import TraitModel
from simclr.quantise import FEWEST_IMAGES, LOWEST_COSINE, QuantisationError, quantise

logger = logging.getLogger(__name__)

IMAGES = 300


def int8_graph(
    model: TraitModel, manifest: Manifest, folder: Path, lowest_cosine: float = LOWEST_COSINE
) -> Path:
    """Return the file of the model's encoder in integers, which is made where it is missing.

    The first call for a folder and these images quantises, with at most 300 images spread evenly
    over the manifest; later ones, and the other tasks of an array, take what it has written, so
    that all predictions of a folder are of one network.

    Parameters
    ----------
    manifest : Manifest
        All images that are to be predicted. Only their pixels are looked at.
    folder : Path
        Of the predictions.
    lowest_cosine : float
        As for `quantise`.

    Raises
    ------
    simclr.quantise.QuantisationError
    """
    if torch.cuda.is_available():
        logger.warning("int8 runs on the processors: without it, this would run on the GPU")
    # With the underscore, readers of a folder of Parquet files pass it over.
    marks = (model.encoder.fingerprint, manifest.fingerprint)
    path = folder / f"_encoder-int8-{'-'.join(mark[:12] for mark in marks)}.npz"
    if path.exists():
        return path
    some = manifest.spread(IMAGES)
    settings = model.encoder.preprocessing
    pixels = [np.zeros((0, settings.channels, *[settings.image_size_px] * 2), dtype=np.uint8)]
    skipped: list[Skipped] = []
    with decoding():
        for batch in read_batches(some, settings, IMAGES):
            pixels.append(batch.pixels)
            skipped += batch.skipped
    if len(some) - len(skipped) < FEWEST_IMAGES:
        said = "".join(f"; {one.path}: {one.reason}" for one in skipped[:3])
        raise QuantisationError(
            f"int8 needs {FEWEST_IMAGES} images that can be read; of {len(some)} looked at "
            f"{len(some) - len(skipped)} can be{said}: mend that, or predict without int8"
        )
    progress.report("quantise", 0, 1, f"int8, with {sum(map(len, pixels))} images")
    quantise(model.encoder, np.concatenate(pixels), path, lowest_cosine)
    progress.report("quantise", 1, 1)
    return path
