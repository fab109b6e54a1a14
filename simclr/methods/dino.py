"""Sort a view as a teacher sorts the other one: DINO (Caron et al. 2021, arXiv 2104.14294)."""

from __future__ import annotations

import copy
import warnings

import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from torch import Tensor, nn

from simclr.encoder import Encoder
from simclr.methods.teacher import TaughtMethod
from simclr.settings import SimCLRSettings

# Of lightly's benchmarks on small data; the paper's 65,536 groups are for ImageNet.
HIDDEN_SIZE = 2048
BOTTLENECK_SIZE = 256
GROUP_COUNT = 2048
EPOCHS_WITH_FIXED_GROUPS = 1


class DINO(TaughtMethod):
    """Self-distillation over soft groups, with two views and no smaller crops.

    The encoder that is saved is the teacher's: as an average over many steps it is better than its
    student all through the training (section 5.2 of the paper).
    """

    def __init__(self, encoder: Encoder, settings: SimCLRSettings) -> None:
        super().__init__(encoder, settings)
        self.student_encoder = copy.deepcopy(encoder)
        self.student_head = _head(encoder)
        self.projection_head = _head(encoder)
        self.follow(self.encoder, self.student_encoder)
        self.follow(self.projection_head, self.student_head)
        self.loss = DINOLoss(GROUP_COUNT, student_temp=settings.temperature)

    def loss_of(self, views: Tensor) -> Tensor:
        groups = self.student_head(self.student_encoder(views))
        with torch.no_grad():
            targets = self.projection_head(self.encoder(views))
        with self.in_full_precision():
            # Two tensors each, of shape (n, GROUP_COUNT); the loss pairs the unlike ones.
            return self.loss(list(targets.float().chunk(2)), list(groups.float().chunk(2)))

    def on_after_backward(self) -> None:
        self.student_head.cancel_last_layer_gradients(self.current_epoch)


def _head(encoder: Encoder) -> DINOProjectionHead:
    """With batch norm where the backbone has it too, as the paper says."""
    batch_norm = any(isinstance(part, nn.BatchNorm2d) for part in encoder.modules())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*weight_norm.*is deprecated.*")  # lightly 1.6
        return DINOProjectionHead(
            encoder.feature_count,
            HIDDEN_SIZE,
            BOTTLENECK_SIZE,
            GROUP_COUNT,
            batch_norm=batch_norm,
            freeze_last_layer=EPOCHS_WITH_FIXED_GROUPS,
        )
