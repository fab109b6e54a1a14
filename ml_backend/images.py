"""Images in batches, decoded while the model computes; a bad image is skipped and listed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from label_studio_config.manifest import Manifest, Skipped
from simclr.preprocessing import Preprocessing, PreprocessingError, read_image

logger = logging.getLogger(__name__)

DECODERS = 2
BATCHES_AHEAD = 2

Decoded = tuple[np.ndarray, np.ndarray] | str


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a manifest, ready for an encoder.

    Attributes
    ----------
    rows : int array (n,)
        Their rows in the manifest.
    pixels : uint8 array (n, c, s, s)
    log_extents : float32 array (n, 2)
    skipped : list of Skipped
        Images of this stretch of the manifest that could not be read.
    """

    rows: np.ndarray
    pixels: np.ndarray
    log_extents: np.ndarray
    skipped: list[Skipped]


def read_batches(
    manifest: Manifest, preprocessing: Preprocessing, batch_size: int, extent_unit: str = "px"
) -> Iterator[ImageBatch]:
    """Yield the images of a manifest in its order, at most `batch_size` at a time.

    With `extent_unit` "um", images without a pixel size are skipped: their size would be read as
    if a pixel were a micrometre.
    """
    paths = manifest.paths
    sizes_um = manifest.pixel_sizes_um if extent_unit == "um" else [None] * len(paths)

    def decode(row: int) -> Decoded:
        if extent_unit == "um" and sizes_um[row] is None:
            return "has no pixel_size_um, and the model measures sizes in µm"
        try:
            return preprocessing.preprocess_image(read_image(paths[row]), sizes_um[row])
        except (PreprocessingError, OSError) as error:
            return str(error)

    starts = range(0, len(paths), batch_size)
    with ThreadPoolExecutor(DECODERS) as pool:
        ahead: deque[tuple[np.ndarray, list[Future[Decoded]]]] = deque()
        for start in starts:
            rows = np.arange(start, min(start + batch_size, len(paths)))
            ahead.append((rows, [pool.submit(decode, int(row)) for row in rows]))
            if len(ahead) > BATCHES_AHEAD:
                yield _gather(*ahead.popleft(), paths, preprocessing)
        while ahead:
            yield _gather(*ahead.popleft(), paths, preprocessing)


def _gather(
    rows: np.ndarray,
    futures: list[Future[Decoded]],
    paths: list[Path],
    preprocessing: Preprocessing,
) -> ImageBatch:
    kept, pixels, extents, skipped = [], [], [], []
    for row, future in zip(rows, futures, strict=True):
        decoded = future.result()
        if isinstance(decoded, str):
            skipped.append(Skipped(str(paths[row]), decoded))
            logger.warning("skipped %s: %s", paths[row], decoded)
            continue
        kept.append(row)
        pixels.append(decoded[0])
        extents.append(decoded[1])
    shape = (0, preprocessing.channels, preprocessing.image_size_px, preprocessing.image_size_px)
    return ImageBatch(
        np.array(kept, dtype=int),
        np.stack(pixels) if pixels else np.zeros(shape, dtype=np.uint8),
        np.stack(extents) if extents else np.zeros((0, 2), dtype=np.float32),
        skipped,
    )
