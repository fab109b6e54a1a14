"""SimCLR: learn features from images without labels (Chen et al. 2020, arXiv 2002.05709).

Two random views of each image go through the encoder and a projection head; NT-Xent pulls the two
together and pushes the other images of the batch away. The head is thrown away at the end.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from label_studio_config.manifest import Manifest
from simclr.augment import Augmentation
from simclr.cache import ImageCache
from simclr.encoder import Encoder
from simclr.precision import fastest_precision
from simclr.record import ENCODER_FOLDER, EpochRecord, readable_checkpoint
from simclr.run_folder import (
    PretrainError,
    alone,
    arguments_digest,
    claim,
    is_finished,
    run_arguments,
)

SMALLEST_DATASET = 8


@dataclass(frozen=True)
class SimCLRSettings:
    """The method's numbers.

    Parameters
    ----------
    batch_size : int
        Images in a batch; less where there are few images.
    temperature : float
        Of NT-Xent.
    learning_rate : float
        Peak of the one-cycle schedule of AdamW.
    weight_decay : float
    warmup : float
        Share of the steps until the peak.
    projection_size : int
        Outputs of the projection head.
    view_share : float
        Side of a view as a share of the image size. Smaller views cost less; convolutional
        backbones then still see whole images at full size. 1 for backbones of a fixed size.
    augmentation : Augmentation
    seed : int
    """

    batch_size: int = 256
    temperature: float = 0.2
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.2
    projection_size: int = 128
    view_share: float = 0.5
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0


class SimCLR(lightning.LightningModule):
    """An encoder with a projection head, trained to recognise an image in its other view."""

    def __init__(self, encoder: Encoder, settings: SimCLRSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.projection_head = SimCLRProjectionHead(
            encoder.feature_count, encoder.feature_count, settings.projection_size
        )
        self.loss = NTXentLoss(settings.temperature, gather_distributed=True)
        self.view_size_px = _view_size_px(encoder, settings.view_share)

    def on_train_epoch_start(self) -> None:
        # A function of the epoch, so that a resumed run draws what it would have drawn.
        seed = hash((self.settings.seed, self.current_epoch, self.global_rank))
        self.generator = torch.Generator(self.device).manual_seed(seed % 2**63)

    def training_step(self, images: Tensor, _: int) -> Tensor:
        """`images`: uint8, shape (n, c, s, s)."""
        augment = self.settings.augmentation
        views = augment(torch.cat([images, images]), self.generator, self.view_size_px)
        projections = self.projection_head(self.encoder(views))  # shape (2n, projection_size)
        # exp(similarity / 0.2) needs more digits than bf16 has.
        with torch.autocast(self.device.type, enabled=False):
            first, second = projections.float().chunk(2)
            loss = self.loss(first, second)
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=settings.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=settings.warmup,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


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
            f"SimCLR needs {SMALLEST_DATASET} or more to compare"
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
    trainer = lightning.Trainer(
        max_epochs=epochs,
        precision=fastest_precision(),
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
            SimCLR(encoder, settings),
            loader,
            ckpt_path=checkpoint,
            weights_only=True,
        )


def _as_it_is(batch: Any) -> Any:
    return batch


def _view_size_px(encoder: Encoder, share: float) -> int:
    """Sides in multiples of 8 px; a backbone of a fixed size sees whole sizes only."""
    config: Any = encoder.backbone.pretrained_cfg
    size = encoder.preprocessing.image_size_px
    return size if config.get("fixed_input_size") else max(8, round(size * share / 8) * 8)
