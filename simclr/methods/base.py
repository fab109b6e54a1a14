"""What all methods share: two random views of each image, AdamW on a one-cycle schedule."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor

from simclr.encoder import Encoder
from simclr.settings import SimCLRSettings


class Method(lightning.LightningModule):
    """A way to learn without labels: a subclass makes its heads, and says `loss_of` two views.

    Attributes
    ----------
    encoder : Encoder
        The one that is judged after each epoch, and saved.
    """

    def __init__(self, encoder: Encoder, settings: SimCLRSettings) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = settings
        self.view_size_px = _view_size_px(encoder, settings.view_share)

    def loss_of(self, views: Tensor) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        views : Tensor, shape (2n, c, v, v), floating point in 0 to 1
            The first views of all images, then the second ones in the same order.

        Returns
        -------
        Tensor, a number
        """
        raise NotImplementedError

    def in_full_precision(self) -> torch.autocast:
        """For losses: exp(similarity / 0.2) needs more digits than bf16 has."""
        return torch.autocast(self.device.type, enabled=False)

    def on_train_epoch_start(self) -> None:
        # Functions of the epoch, so that a resumed run draws what it would have drawn; and but for
        # the noise the same in all ranks, so that any number of them draws the same views.
        seed = hash((self.settings.seed, self.current_epoch))
        self.draws = torch.Generator().manual_seed(seed % 2**63)
        seed = hash((self.settings.seed, self.current_epoch, self.global_rank))
        self.noise = torch.Generator(self.device).manual_seed(seed % 2**63)

    def training_step(self, images: Tensor, _: int) -> Tensor:
        """`images`: uint8, shape (n, c, s, s), of n images in each rank."""
        augment, ranks = self.settings.augmentation, self.trainer.world_size
        draws = augment.draw(2 * ranks * len(images), self.draws)
        own = draws.view(2, ranks, len(images), -1)[:, self.global_rank].flatten(0, 1)
        views = augment(
            torch.cat([images, images]), self.noise, self.view_size_px, own.to(images.device)
        )
        loss = self.loss_of(views)
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            [weights for weights in self.parameters() if weights.requires_grad],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
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


def _view_size_px(encoder: Encoder, share: float) -> int:
    """Sides in multiples of 8 px; a backbone of a fixed size sees whole sizes only."""
    config: Any = encoder.backbone.pretrained_cfg
    size = encoder.preprocessing.image_size_px
    return size if config.get("fixed_input_size") else max(8, round(size * share / 8) * 8)
