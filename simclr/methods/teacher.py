"""A teacher: the moving average of a student that learns from it."""

from __future__ import annotations

from typing import Any

from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from simclr.encoder import Encoder
from simclr.methods.base import Method
from simclr.settings import SimCLRSettings

# Of lightly's benchmarks on small data; the papers' 0.996 is for runs of 100 times as many steps.
FIRST_MOMENTUM = 0.99


class TaughtMethod(Method):
    """A method with a teacher, which is in the checkpoint as the student is."""

    def __init__(self, encoder: Encoder, settings: SimCLRSettings) -> None:
        super().__init__(encoder, settings)
        self._followers: list[tuple[nn.Module, nn.Module]] = []

    def follow(self, teacher: nn.Module, student: nn.Module) -> None:
        """Have `teacher` begin as `student`, and follow it from then on; it has no gradient."""
        teacher.load_state_dict(student.state_dict())
        teacher.requires_grad_(False)
        self._followers.append((teacher, student))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        momentum = cosine_schedule(
            step=self.trainer.global_step,
            max_steps=int(self.trainer.estimated_stepping_batches),
            start_value=FIRST_MOMENTUM,
            end_value=1.0,
        )
        for teacher, student in self._followers:
            update_momentum(student, teacher, momentum)
