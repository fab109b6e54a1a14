"""Images decoded once, into one memory-mapped file.

A cache is a folder named by its fingerprint: the images (path, size and time of change of each
file), their pixel sizes and the settings of the decoding. The same images and settings open the
same cache; a killed build goes on where it stopped; images that another cache of the folder holds
are copied instead of decoded.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from label_studio_config.manifest import MAX_PIXELS, Manifest, Skipped
from simclr.decoding import (
    SKIPPED_FILE,
    STATE_FILE,
    CacheError,
    Decoding,
    DecodingPlan,
    remove_cache,
)
from simclr.preprocessing import Preprocessing

__all__ = ["CacheError", "ImageCache"]

logger = logging.getLogger(__name__)


@dataclass
class ImageCache:
    """Preprocessed images of a manifest, without those that cannot be read.

    Attributes
    ----------
    images : uint8 memmap, shape (n, channels, s, s)
    log_extents : float32 array, shape (n, 2)
        Natural logarithms of the longer and the shorter side, in `extent_unit`.
    image_ids : list of str
        Which image each row is, in the order of the manifest.
    skipped : list of Skipped
        Images left out: path and reason.
    extent_unit : "px" or "um"
    folder : Path
        Where the cache is.
    """

    images: np.ndarray
    log_extents: np.ndarray
    image_ids: list[str]
    skipped: list[Skipped]
    extent_unit: str
    folder: Path

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        preprocessing: Preprocessing,
        folder: Path | str,
        *,
        extent_unit: str | None = None,
        workers: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> ImageCache:
        """Decode the images of a manifest, or open what is decoded already.

        Parameters
        ----------
        manifest : Manifest
        preprocessing : Preprocessing
        folder : Path or str
            Holds any number of caches.
        extent_unit : "px" or "um", optional
            Unit of `log_extents`. By default µm where every image has a pixel size, else px. With
            "um", images without a pixel size are skipped.
        workers : int, optional
            Decoding threads; one a core by default.
        max_pixels : int
            Larger images are skipped.

        Raises
        ------
        CacheError
            The unit is unknown, or the disk is too small.
        """
        folder = Path(folder)
        plan = DecodingPlan.make(manifest, preprocessing, extent_unit, max_pixels)
        final = folder / plan.fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{plan.fingerprint}.lock"):
            if (final / STATE_FILE).is_file():
                try:
                    return cls._open(final, plan)
                except (OSError, ValueError) as error:
                    logger.warning("%s cannot be read, decoding anew: %s", final, error)
                    remove_cache(final)
            Decoding(plan, folder, workers or os.cpu_count() or 1).run()
            return cls._open(final, plan)

    @classmethod
    def _open(cls, folder: Path, plan: DecodingPlan) -> ImageCache:
        rows = np.load(folder / "rows.npy")
        lines = (folder / SKIPPED_FILE).read_text().splitlines()
        skipped = [Skipped(**json.loads(line)["image"]) for line in lines]
        if skipped:
            first = skipped[0]
            logger.warning(
                "%d of %d images skipped, e.g. %s: %s",
                *(len(skipped), len(plan.keys), first.path, first.reason),
            )
        return cls(
            images=np.load(folder / "images.npy", mmap_mode="r"),
            log_extents=np.load(folder / "log_extents.npy"),
            image_ids=[plan.image_ids[row] for row in rows],
            skipped=skipped,
            extent_unit=plan.extent_unit,
            folder=folder,
        )
