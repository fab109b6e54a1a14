"""Learn features from images without labels: SimCLR (Chen et al. 2020, arXiv 2002.05709).

Two random views of each image go through the encoder and a projection head; NT-Xent pulls the two
together and pushes the other images of the batch away. The head is thrown away at the end.
Other losses over the two views are in `simclr.methods`; everything here is the same for them.

Several processes (`simclr.ranks`) share each batch and learn as one would: the same images in each
batch with the same views but for their noise, losses and batch norms over the images of all ranks
(`simclr.batch_norm`), gradients averaged.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import lightning
import torch

from label_studio_config.manifest import Manifest
from simclr.batch_norm import GlobalBatchNorm
from simclr.batches import EpochBatches, batches_of
from simclr.cache import ImageCache
from simclr.encoder import Encoder
from simclr.methods import make_method
from simclr.precision import fastest_precision
from simclr.ranks import RankEnvironment, Ranks
from simclr.record import ENCODER_FOLDER, EpochRecord, readable_checkpoint
from simclr.run_folder import (
    alone,
    arguments_digest,
    claim,
    is_finished,
    list_skipped,
    run_arguments,
)
from simclr.settings import PretrainError, SimCLRSettings

__all__ = ["PretrainError", "SimCLRSettings", "fitting_batch_size", "pretrain"]

SMALLEST_DATASET = 8


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
) -> Path:
    """Learn features from the images of a manifest.

    The folder holds, after every epoch, `encoder/` (usable), `checkpoint.ckpt`, `metrics.csv` and
    `progress.png`. Called again with the same arguments, a killed run goes on after its last whole
    epoch, and a finished one returns at once.

    Called by every process that Slurm or torchrun has started, it trains in all of them; folders
    are then on a file system that all see, and rank 0 alone writes. A run may go on with another
    number of processes.

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

    Returns
    -------
    Path
        Folder of the encoder, for `Encoder.load`.

    Raises
    ------
    PretrainError
        Too few images, no epochs, a batch that the processes cannot share equally, or the folder
        holds a run with other arguments.
    """
    folder, settings, ranks = Path(folder), settings or SimCLRSettings(), Ranks.here()
    if epochs < 1:
        raise PretrainError(f"epochs {epochs}: give 1 or more")
    with ranks.connected():
        return _pretrain(
            *(manifest, encoder, folder, epochs, dict(labels or {})),
            *(cache_folder or folder / "cache", settings, fresh, own_folder, ranks),
        )


def _pretrain(
    manifest: Manifest,
    encoder: Encoder | None,
    folder: Path,
    epochs: int,
    labels: dict[str, str],
    cache_folder: Path | str,
    settings: SimCLRSettings,
    fresh: bool,
    own_folder: bool,
    ranks: Ranks,
) -> Path:
    lightning.seed_everything(settings.seed, verbose=False)
    encoder = copy.deepcopy(encoder) if encoder is not None else Encoder.create()
    cache = _decoded(manifest, encoder, cache_folder, ranks)
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
    batch_size = _shared_batch_size(len(cache), settings, ranks)
    with ExitStack() as held:

        def finished() -> bool:
            held.enter_context(alone(folder))
            claim(folder, arguments, fresh)
            list_skipped(folder, cache)
            return is_finished(folder, epochs)

        if not ranks.first(finished):
            _train(encoder, cache, folder, epochs, labels, settings, batch_size, ranks)
    return folder / ENCODER_FOLDER


def _decoded(
    manifest: Manifest, encoder: Encoder, cache_folder: Path | str, ranks: Ranks
) -> ImageCache:
    """The images, decoded by the first rank; the others open what it leaves."""
    caches = []

    def build() -> None:
        caches.append(ImageCache.build(manifest, encoder.preprocessing, cache_folder))

    ranks.first(build)
    if not caches:
        build()
    return caches[0]


def _shared_batch_size(image_count: int, settings: SimCLRSettings, ranks: Ranks) -> int:
    """Images in a batch of all ranks together."""
    size = fitting_batch_size(image_count, settings.batch_size)
    if size % ranks.size or size < 2 * ranks.size:
        raise PretrainError(
            f"a batch of {size} images ({image_count} there are) cannot be shared by {ranks.size} "
            f"processes: start a number of them that divides it, with 2 images or more each"
        )
    return size


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
    batch_size: int,
    ranks: Ranks,
) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    method = make_method(encoder, settings)
    batches = EpochBatches(len(cache), batch_size, settings.seed, ranks)
    several = ranks.size > 1
    with warnings.catch_warnings():
        # One process gathers a batch from the memory map in well under a millisecond.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 with torch 2.14
        warnings.filterwarnings("ignore", ".*`srun` command is available.*")
        trainer = lightning.Trainer(
            max_epochs=epochs,
            precision=fastest_precision(encoder, method.view_size_px),
            devices=[ranks.device] if torch.cuda.is_available() else 1,
            strategy="ddp" if several else "auto",
            plugins=[RankEnvironment(ranks), *([GlobalBatchNorm()] if several else [])],
            use_distributed_sampler=False,  # EpochBatches shares each batch
            callbacks=[EpochRecord(folder, cache, labels, epochs, batch_size)],
            logger=False,
            enable_checkpointing=False,  # EpochRecord saves, so that all files of an epoch agree
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(
            method,
            batches_of(cache.images, batches),
            ckpt_path=readable_checkpoint(folder),
            weights_only=True,
        )
