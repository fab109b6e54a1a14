"""Learn features from images without labels: SimCLR (Chen et al. 2020, arXiv 2002.05709).

Two random views of each image go through the encoder and a projection head; NT-Xent pulls the two
together and pushes the other images of the batch away. The head is thrown away at the end.
Other losses over the two views are in `simclr.methods`; everything here is the same for them.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from label_studio_config.manifest import Manifest
from simclr.cache import ImageCache
from simclr.encoder import Encoder
from simclr.methods import make_method
from simclr.precision import fastest_precision
from simclr.record import ENCODER_FOLDER, EpochRecord, readable_checkpoint
from simclr.run_folder import alone, arguments_digest, claim, is_finished, run_arguments
from simclr.settings import PretrainError, SimCLRSettings

__all__ = ["PretrainError", "SimCLRSettings", "fitting_batch_size", "pretrain"]

SMALLEST_DATASET = 8


class _CachedImages(Dataset[Tensor]):
    """Whole batches of a cache: one read of the memory map each."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, rows: list[int]) -> Tensor:
        # Sorted reads are neighbours on the disk; the order inside a batch means nothing.
        return torch.from_numpy(self.images[np.sort(rows)])


def pretrain(
    manifest: Manifest,
    encoder: Encoder | None,
    folder: Path | str,
    epochs: int = 20,
    *,
    labels: Mapping[str, str] | None = None,
    cache_folder: Path | str | None = None,
    settings: SimCLRSettings | None = None,
    fresh: bool = False,
    own_folder: bool = False,
    devices: int | str = 1,
    node_count: int = 1,
) -> Path:
    """Learn features from the images of a manifest.

    The folder holds, after every epoch, `encoder/` (usable), `checkpoint.ckpt`, `metrics.csv` and
    `progress.png`. Called again with the same arguments, a killed run goes on after its last whole
    epoch, and a finished one returns at once.

    Parameters
    ----------
    manifest : Manifest
    encoder : Encoder, optional
        Where to start, left as it is; a new one of the default backbone otherwise.
    folder : Path or str
        Of this run.
    epochs : int
    labels : mapping of image id to label, optional
        For the kNN accuracy after each epoch; nothing is learned from them.
    cache_folder : Path or str, optional
        Where decoded images are kept; `cache` in the folder by default.
    settings : SimCLRSettings, optional
        The method is among them; SimCLR by default.
    fresh : bool
        Throw away what an earlier run left in the folder.
    own_folder : bool
        Run in a sub-folder that is named by all arguments: changed images or settings then start
        a run of their own instead of being refused.
    devices, node_count
        As Lightning's Trainer takes them; several devices train on shares of each epoch.

    Returns
    -------
    Path
        Folder of the encoder, for `Encoder.load`.

    Raises
    ------
    PretrainError
        Too few images, no epochs, or the folder holds a run with other arguments.
    """
    folder, settings = Path(folder), settings or SimCLRSettings()
    if epochs < 1:
        raise PretrainError(f"epochs {epochs}: give 1 or more")
    lightning.seed_everything(settings.seed, verbose=False)
    encoder = copy.deepcopy(encoder) if encoder is not None else Encoder.create()
    cache = ImageCache.build(manifest, encoder.preprocessing, cache_folder or folder / "cache")
    if len(cache) < SMALLEST_DATASET:
        raise PretrainError(
            f"{len(cache)} readable images ({len(cache.skipped)} skipped): "
            f"it takes {SMALLEST_DATASET} or more to compare"
        )
    if not encoder.trained:
        encoder.fit_normalisation(cache.images[:: max(1, len(cache) // 2000)])
    arguments = run_arguments(encoder, cache, epochs, settings)
    if own_folder:
        folder = folder / f"{epochs}-epochs-{arguments_digest(arguments)}"
    with alone(folder):
        claim(folder, arguments, fresh)
        if not is_finished(folder, epochs):
            _train(
                encoder, cache, folder, epochs, dict(labels or {}), settings, devices, node_count
            )
    return folder / ENCODER_FOLDER


def fitting_batch_size(image_count: int, batch_size: int) -> int:
    """At most `batch_size`, and where images are few, small enough for several steps an epoch.

    Eight batches an epoch, but 32 images in each where there are: others to be told apart from.
    """
    most = max(image_count // 8, min(image_count // 2, 32), SMALLEST_DATASET)
    return int(min(batch_size, 2 ** int(math.log2(most))))


def _train(
    encoder: Encoder,
    cache: ImageCache,
    folder: Path,
    epochs: int,
    labels: dict[str, str],
    settings: SimCLRSettings,
    devices: int | str,
    node_count: int,
) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    method = make_method(encoder, settings)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        precision=fastest_precision(method.view_size_px),
        devices=devices,
        num_nodes=node_count,
        callbacks=[EpochRecord(folder, cache, labels, epochs)],
        logger=False,
        enable_checkpointing=False,  # EpochRecord saves, so that all files of an epoch agree
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    loader = DataLoader(
        _CachedImages(cache.images),
        batch_size=fitting_batch_size(len(cache), settings.batch_size),
        shuffle=True,
        drop_last=True,
        collate_fn=_as_it_is,
    )
    checkpoint = readable_checkpoint(folder)
    with warnings.catch_warnings():
        # One process gathers a batch from the memory map in well under a millisecond.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 with torch 2.14
        trainer.fit(
            method,
            loader,
            ckpt_path=checkpoint,
            weights_only=True,
        )


def _as_it_is(batch: Any) -> Any:
    return batch
