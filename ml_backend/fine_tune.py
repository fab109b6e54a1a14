"""Second step of a training: the whole network, gently, from where the heads left it.

A full fine-tune on few labels forgets what SimCLR learned, so the encoder moves slowly (a small
learning rate), every image is seen turned and scaled anew, batches draw rare labels more often,
and what is kept is the running average of the weights (Tarvainen & Valpola 2017, arXiv
1703.01780).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from hpc_jobs import progress
from ml_backend.calibrate import SMALLEST_PRIOR
from ml_backend.checkpoint import (
    CHECKPOINT,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from ml_backend.fit_heads import head_loss, standard_targets
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.targets import LearningSet
from simclr.augment import Augmentation
from simclr.turned import turned

logger = logging.getLogger(__name__)

SETTLE_BATCH = 128
LAST_EPOCHS = 2
GENTLE = Augmentation(
    scale=(0.8, 1.15), shift=0.06, stretch=0.1, contrast=0.2, gamma=0.2, noise=0.02
)
"""Turned freely, but hardly cropped: what the annotator saw must still be in view."""


@dataclass(frozen=True)
class FineTuneSettings:
    """How the whole network is trained.

    The defaults are for SimCLR features and few labels. On ndsb (21 groups, 1,427 training labels,
    resnet10t at 64 px, SimCLR on 6,500 images, one view, one seed, 1,500 other images) macro recall
    of the suggestions went from .527 to .559, and the likelihood from 1.18 to 1.07. At 3e-4 with
    frozen batch statistics for 12 epochs it fell (.469 to .464, features of six epochs); with
    views of 40 px it was far worse (.309), since objects are then larger when predicting.

    Attributes
    ----------
    epochs : int
        At most; 0 leaves the encoder as it is.
    learned_below : float
        Two epochs in a row with a smaller mean loss (nats) are the last ones: nothing is left to
        learn from. Labels of real images do not come near it.
    encoder_learning_rate, head_learning_rate : float
        Peaks of a warm-up and cosine decay, for AdamW.
    label_smoothing : float
        Share of each target spread over all labels ("one of").
    average : float
        Decay of the running average of weights, per step; 0 keeps the last weights.
    logit_adjustment : float
        Of "one of" controls: so many times the log of how often a label is drawn is added to its
        output in the loss, so that the outputs themselves speak of labels that are equally often
        (1; Menon et al. 2021, arXiv 2007.07314), or nearly so.
    """

    epochs: int = 16
    learned_below: float = 0.002
    batch_size: int = 64
    min_images_per_epoch: int = 512
    encoder_learning_rate: float = 1e-3
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up_share: float = 0.1
    label_smoothing: float = 0.0
    average: float = 0.99
    logit_adjustment: float = 0.0
    freeze_batch_norm: bool = False
    augmentation: Augmentation = field(default_factory=lambda: GENTLE)


class FineTune:
    """One fine-tuning run that can be killed and resumed.

    Parameters
    ----------
    model : TraitModel
        With fitted heads; changed in place.
    data : LearningSet
    images : uint8 array (n, c, s, s)
        Rows as in `data`; a memory map is fine.
    log_extents : float32 array (n, 2)
    weights : array
        How often each image of the training side is drawn; never one that has votes for no head.
    folder : Path
        Holds the checkpoint.
    mark : str
        Says which data, settings and start the run belongs to: a checkpoint with another mark is
        thrown away.
    """

    def __init__(
        self,
        model: TraitModel,
        data: LearningSet,
        images: np.ndarray,
        log_extents: np.ndarray,
        weights: np.ndarray,
        settings: FineTuneSettings,
        folder: Path,
        mark: str,
        seed: int = 0,
    ) -> None:
        self.model, self.data, self.settings = model, data, settings
        self.images, self.log_extents = images, log_extents
        self.rows = data.rows("train")
        self.folder, self.mark, self.seed = folder, mark, seed
        self.targets = {
            head.control: (
                standard_targets(head, data.targets[head.control].shares),
                torch.from_numpy(data.targets[head.control].known),
            )
            for head in model.heads
        }
        voted = torch.stack([known[self.rows] for _, known in self.targets.values()]).any(dim=0)
        # A batch of images that nobody could assess would have no loss.
        self.probabilities = torch.from_numpy(weights / weights.sum()) * voted
        self.adjustment = self._adjust()
        heads, encoder = list(model.classifiers.parameters()), list(model.encoder.parameters())
        self.optimiser = torch.optim.AdamW(
            [
                {"params": encoder, "lr": settings.encoder_learning_rate},
                {"params": heads, "lr": settings.head_learning_rate},
            ],
            weight_decay=settings.weight_decay,
        )
        drawn = max(settings.min_images_per_epoch, len(self.rows))
        self.steps_per_epoch = max(1, drawn // settings.batch_size)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)
        self.averaged = AveragedModel(model, avg_fn=self._average)
        self.epoch = 0
        self.learned_epochs = 0

    def run(self) -> TraitModel:
        """Train to the end, from the checkpoint if there is one that belongs; return the model.

        The checkpoint stays: `remove_checkpoints` once the model is safe elsewhere.

        Raises
        ------
        FloatingPointError
            The loss is no number any more; the checkpoint is gone, since it led there.
        """
        self._resume()
        for _ in self.epochs():
            pass
        self.finish()
        return self.model

    def epochs(self) -> Iterator[float]:
        """Train epoch by epoch; yields the mean loss of each."""
        total = self.settings.epochs if self.probabilities.any() else 0
        while self.epoch < total and self.learned_epochs < LAST_EPOCHS:
            loss = self._train_epoch()
            self.epoch += 1
            learned = loss < self.settings.learned_below
            self.learned_epochs = self.learned_epochs + 1 if learned else 0
            self._save()
            if self.learned_epochs == LAST_EPOCHS:
                logger.info("after epoch %d of %d nothing is left to learn", self.epoch, total)
                progress.report("fine-tune", total, total, f"learned after {self.epoch} epochs")
            else:
                progress.report("fine-tune", self.epoch, total, f"loss {loss:.3f}")
            yield loss

    def finish(self) -> None:
        """Put the averaged weights into the model, and into its heads the prior they speak of."""
        if self.settings.average and self.epoch:
            self.model.load_state_dict(self.averaged.module.state_dict())
        for head in self.model.heads:
            if head.control in self.adjustment:
                prior = np.array(head.trained_prior) / self.adjustment[head.control].exp().numpy()
                self.model.set_head(replace(head, trained_prior=tuple(prior / prior.sum())))
        if self.epoch and not self.settings.freeze_batch_norm:
            settle_batch_norm(self.model, self.images, self.rows)
        self.model.eval()

    def _train_epoch(self) -> float:
        # Seeded by the epoch, so that a resumed run draws what the killed one would have drawn.
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        self.model.train()
        if self.settings.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        count = self.steps_per_epoch * self.settings.batch_size
        drawn = torch.multinomial(
            self.probabilities, count, replacement=True, generator=generator
        ).numpy()
        losses = []
        for batch in np.split(self.rows[drawn], self.steps_per_epoch):
            losses.append(self._step(batch, generator))
        return float(np.mean(losses))

    def _step(self, rows: np.ndarray, generator: torch.Generator) -> float:
        pixels = torch.from_numpy(self.images[rows])
        with torch.no_grad():
            views = self.settings.augmentation(pixels, generator)
        outputs = self.model(views, torch.from_numpy(self.log_extents[rows]), views=1)
        loss = self._loss(outputs, torch.from_numpy(rows))
        if not torch.isfinite(loss):
            remove_checkpoints(self.folder)
            raise FloatingPointError(
                f"the loss became {loss.item()} in epoch {self.epoch + 1} of the fine-tuning"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimiser.step()
        self.schedule.step()
        self.averaged.update_parameters(self.model)
        return float(loss.detach())

    def _loss(self, outputs: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Sum over controls of the mean loss of the images that have votes for it."""
        total = torch.zeros(())
        for head in self.model.heads:
            shares, known = self.targets[head.control]
            if not known[rows].any():
                continue
            said = outputs[head.control] + self.adjustment.get(head.control, 0.0)
            smoothing = self.settings.label_smoothing
            total = total + voted_loss(head, said, shares[rows], known[rows], smoothing)
        return total

    @torch.no_grad()
    def _adjust(self) -> dict[str, Tensor]:
        """What the loss adds to outputs, (k,) by control; taken off the heads, which had it in."""
        adjustment: dict[str, Tensor] = {}
        for head, classifier in zip(self.model.heads, self.model.classifiers, strict=True):
            if head.kind == "one of" and self.settings.logit_adjustment:
                prior = torch.tensor(head.trained_prior).clamp_min(SMALLEST_PRIOR)
                adjustment[head.control] = self.settings.logit_adjustment * prior.log()
                classifier.bias -= adjustment[head.control]  # type: ignore[operator]
        return adjustment

    def _average(self, averaged: Tensor, current: Tensor, n_averaged: Tensor | int) -> Tensor:
        """Running average that forgets faster at first: early weights are no good."""
        n = float(n_averaged)
        keep = min(self.settings.average, (1 + n) / (10 + n))
        return averaged.lerp(current, 1 - keep)

    def _rate(self, step: int) -> float:
        total = max(1, self.settings.epochs * self.steps_per_epoch)
        warm_up = max(1, round(total * self.settings.warm_up_share))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, total - warm_up))))

    def _save(self) -> None:
        state = {
            "mark": self.mark,
            "epoch": self.epoch,
            "learned_epochs": self.learned_epochs,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        write_checkpoint(self.folder, state)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        state = read_checkpoint(self.folder)
        if not state:
            return
        if state.get("mark") != self.mark:
            logger.info("%s belongs to other data or settings: starting clean", path)
            return
        parts: dict[str, Any] = {
            "model": self.model,
            "averaged": self.averaged,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
        }
        before = {name: deepcopy(part.state_dict()) for name, part in parts.items()}
        try:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            self.epoch = int(state["epoch"])
            self.learned_epochs = int(state["learned_epochs"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            for name, part in parts.items():  # some of it may have been loaded
                part.load_state_dict(before[name])
            logger.warning("%s does not fit the model (%s): starting clean", path, error)
            return
        logger.info("training goes on after epoch %d", self.epoch)


def voted_loss(
    head: Head, outputs: Tensor, shares: Tensor, known: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Mean loss of the images that have votes, from outputs and targets (n, k).

    Parameters
    ----------
    known : bool tensor (n,)
        Which of them have; the others change neither the loss nor any gradient.
    label_smoothing : float
        See `FineTuneSettings`.
    """
    wanted = shares[known]
    if head.kind == "one of":
        wanted = wanted * (1 - label_smoothing) + label_smoothing / wanted.shape[1]
    return head_loss(head, outputs[known], wanted).mean()


@torch.no_grad()
def settle_batch_norm(model: TraitModel, images: np.ndarray, rows: np.ndarray) -> None:
    """Measure the batch statistics of the encoder anew, on training images as they are.

    Averaged weights were never run on a batch, and an untrained network has no statistics at all.
    """
    shuffled = np.random.default_rng(0).permutation(rows)
    batches = np.array_split(shuffled, max(1, len(rows) // SETTLE_BATCH))
    loader = (turned(torch.from_numpy(images[b]), i % 8) for i, b in enumerate(batches))
    update_bn(loader, model.encoder)
