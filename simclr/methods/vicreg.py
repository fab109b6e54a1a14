"""Alike, varied and not redundant: VICReg (Bardes et al. 2022, arXiv 2105.04906)."""

from __future__ import annotations

from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from torch import Tensor

from simclr.encoder import Encoder
from simclr.methods.base import Method
from simclr.settings import SimCLRSettings

# The paper's 8192 is for ResNet-50 on ImageNet; lightly's benchmarks of small networks have 2048.
PROJECTION_SIZE = 2048


class VICReg(Method):
    """The views of an image agree, each output varies over the batch, and no two say the same.

    The three parts weigh 25, 25 and 1. No image is compared with another.
    """

    def __init__(self, encoder: Encoder, settings: SimCLRSettings) -> None:
        super().__init__(encoder, settings)
        self.projection_head = VICRegProjectionHead(
            encoder.feature_count, PROJECTION_SIZE, PROJECTION_SIZE
        )
        self.loss = VICRegLoss(gather_distributed=True)

    def loss_of(self, views: Tensor) -> Tensor:
        projections = self.projection_head(self.encoder(views))
        with self.in_full_precision():
            first, second = projections.float().chunk(2)  # each of shape (n, PROJECTION_SIZE)
            return self.loss(first, second)
