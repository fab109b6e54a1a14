"""Tell an image's other view from all other images of the batch: SimCLR and DCL."""

from __future__ import annotations

from lightly.loss import NTXentLoss
from lightly.loss.dcl_loss import DCLLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn

from simclr.encoder import Encoder
from simclr.methods.base import Method
from simclr.methods.gradient_cache import in_chunks
from simclr.settings import SimCLRSettings


class SimCLR(Method):
    """NT-Xent: a softmax over the similarities to all other views (arXiv 2002.05709)."""

    def __init__(self, encoder: Encoder, settings: SimCLRSettings) -> None:
        super().__init__(encoder, settings)
        self.projection_head = SimCLRProjectionHead(
            encoder.feature_count, encoder.feature_count, settings.projection_size
        )
        self.loss = self.make_loss()

    def make_loss(self) -> nn.Module:
        return NTXentLoss(self.settings.temperature, gather_distributed=True)

    def project(self, views: Tensor) -> Tensor:
        return self.projection_head(self.encoder(views))

    def loss_of(self, views: Tensor) -> Tensor:
        projections = in_chunks(self.project, views, self.settings.chunk_size)
        with self.in_full_precision():
            first, second = projections.float().chunk(2)  # each of shape (n, projection_size)
            return self.loss(first, second)


class DCL(SimCLR):
    """NT-Xent without the positive pair among the negatives (Yeh et al. 2021, arXiv 2110.06848).

    The pair that is right already then does not weaken the gradient, so small batches do.
    """

    def make_loss(self) -> nn.Module:
        return DCLLoss(self.settings.temperature, gather_distributed=True)
