"""Predict what a teacher makes of the other view: BYOL (Grill et al. 2020, arXiv 2006.07733)."""

from __future__ import annotations

import copy

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor

from simclr.encoder import Encoder
from simclr.methods.teacher import TaughtMethod
from simclr.settings import SimCLRSettings

HIDDEN_SIZE = 4096
PROJECTION_SIZE = 256


class BYOL(TaughtMethod):
    """No image is compared with another; that the teacher moves slowly keeps features apart.

    The encoder that is saved is the student's (the online network), as in the paper.
    """

    def __init__(self, encoder: Encoder, settings: SimCLRSettings) -> None:
        super().__init__(encoder, settings)
        sizes = (encoder.feature_count, HIDDEN_SIZE, PROJECTION_SIZE)
        self.projection_head = BYOLProjectionHead(*sizes)
        self.prediction_head = BYOLPredictionHead(PROJECTION_SIZE, HIDDEN_SIZE, PROJECTION_SIZE)
        self.teacher_encoder = copy.deepcopy(encoder)
        self.teacher_head = BYOLProjectionHead(*sizes)
        self.follow(self.teacher_encoder, encoder)
        self.follow(self.teacher_head, self.projection_head)
        self.loss = NegativeCosineSimilarity()

    def loss_of(self, views: Tensor) -> Tensor:
        predictions = self.prediction_head(self.projection_head(self.encoder(views)))
        with torch.no_grad():
            targets = self.teacher_head(self.teacher_encoder(views))
        with self.in_full_precision():
            first, second = predictions.float().chunk(2)  # each of shape (n, PROJECTION_SIZE)
            first_target, second_target = targets.float().chunk(2)
            return (self.loss(first, second_target) + self.loss(second, first_target)) / 2
