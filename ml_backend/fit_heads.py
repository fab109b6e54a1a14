"""First step of a training: heads on frozen features. Convex, quick, the same every time.

Per head: KL(vote shares ‖ softmax) for one-of controls (up to a constant, cross-entropy with soft
targets; Schanz et al. 2023), its counterpart on cumulative shares for ordinal ones, binary
cross-entropy on shares for any-of controls, the Huber loss of standardised numbers (of counts, the
square roots); an L2 penalty; images weighted so that rare labels count. Images without a vote for a
control, and those it was judged "not assessable" on, are masked for that control.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ml_backend.calibrate import (
    MIN_IMAGES_FOR_TEMPERATURE,
    estimate_prior,
    fit_temperature,
)
from ml_backend.head import Head
from ml_backend.model import TraitModel
from ml_backend.targets import ControlTargets, LearningSet

logger = logging.getLogger(__name__)

PENALTIES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
MAX_ITERATIONS = 80
COUNT_UNIT = "count"


class TrainingRefused(ValueError):
    """There is nothing to learn from yet; the message says what is missing."""


def make_heads(data: LearningSet, min_images: int) -> tuple[list[Head], dict[str, str]]:
    """Which controls can be learned from the training side, and why the others cannot.

    Raises
    ------
    TrainingRefused
        None can.
    """
    rows = data.rows("train")
    heads: list[Head] = []
    left_out: dict[str, str] = {}
    for name, target in data.targets.items():
        mine = target.take(rows)
        reason = _why_not(mine, min_images)
        if reason:
            left_out[name] = reason
            continue
        votes = mine.shares[mine.known].sum(axis=0)
        labels = target.control.labels if target.control.kind != "number" else ()
        heads.append(
            Head(
                control=name,
                kind=target.control.kind,
                labels=tuple(labels),
                ordinal=target.control.kind == "one of" and target.control.ordinal,
                unit=target.control.unit if target.control.kind == "number" else None,
                n_images=int(mine.known.sum()),
                n_per_label=tuple(votes.round(2).tolist()) if labels else (),
            )
        )
    if not heads:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise TrainingRefused(
            f"nothing to learn from {len(rows)} training images yet. {reasons or 'No votes.'} "
            "Annotate images of at least two labels of one control and train again."
        )
    return heads, left_out


def _why_not(target: ControlTargets, min_images: int) -> str | None:
    n_images = int(target.known.sum())
    if n_images == 0:
        return "no votes on training images"
    shares = target.shares[target.known]
    kind, labels = target.control.kind, target.control.labels
    if kind == "number" and np.ptp(shares) == 0:
        return f"every vote is {shares[0, 0]:g}, needs different numbers"
    if kind == "one of":
        voted = [
            label for label, any_vote in zip(labels, shares.any(axis=0), strict=True) if any_vote
        ]
        if len(voted) < 2:
            return f"votes for one label only ({', '.join(voted)}), needs two"
    if kind == "any of" and not ((shares > 0).any(axis=0) & (shares < 1).any(axis=0)).any():
        return "no label is there on some images and not on others"
    if n_images < min_images:
        return f"{n_images} training images with votes, needs {min_images}"
    return None


def image_weights(data: LearningSet, rows: np.ndarray, balance: float) -> np.ndarray:
    """How often each image is drawn, mean 1, float64 (n,).

    Parameters
    ----------
    balance : float
        0 draws images as they come, 1 gives every label of a one-of control the same share.

    Notes
    -----
    With several one-of controls the weights are averaged over those the image has votes for.
    """
    total, count = np.zeros(len(rows)), np.zeros(len(rows))
    for target in data.targets.values():
        mine = target.take(rows)
        if target.control.kind != "one of" or not mine.known.any():
            continue
        shares = mine.shares[mine.known].astype(float)
        rarity = np.maximum(shares.mean(axis=0), 0.5 / len(shares)) ** -balance
        weights = shares @ rarity
        total[mine.known] += weights / weights.mean()
        count[mine.known] += 1
    weights = np.where(count > 0, total / np.maximum(count, 1), 1.0)
    return weights / weights.mean()


def head_loss(head: Head, outputs: Tensor, shares: Tensor) -> Tensor:
    """Loss of each image, (n,), from outputs and targets (n, k)."""
    if head.kind == "one of" and head.ordinal:
        return ordinal_loss(outputs, shares)
    if head.kind == "one of":
        return -(shares * functional.log_softmax(outputs, dim=1)).sum(dim=1)
    if head.kind == "any of":
        losses = functional.binary_cross_entropy_with_logits(outputs, shares, reduction="none")
        return losses.sum(dim=1)
    return functional.huber_loss(outputs, shares, reduction="none").sum(dim=1)


def ordinal_loss(outputs: Tensor, shares: Tensor) -> Tensor:
    """Loss of each image, (n,), for k labels that are steps of a scale, outputs and shares (n, k).

    At each of the k - 1 thresholds between steps, the binary cross-entropy of the share of
    annotators at or below it and the softmax probability of being there; the mean over thresholds.
    Like the KL it has its minimum only where the softmax equals the shares, but votes cost more the
    further away they are.

    Notes
    -----
    The ranked probability score (Epstein 1969, doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2)
    sums squared differences at the same thresholds; with the logarithm, sure mistakes keep a
    gradient, and for two labels it is the KL of other one-of controls.
    """
    log_p = functional.log_softmax(outputs, dim=1)
    below = torch.logcumsumexp(log_p, dim=1)[:, :-1]
    above = torch.logcumsumexp(log_p.flip(1), dim=1).flip(1)[:, 1:]
    at_or_below = shares.cumsum(dim=1)[:, :-1].clamp(0, 1)
    return -(at_or_below * below + (1 - at_or_below) * above).mean(dim=1)


def set_priors(model: TraitModel, data: LearningSet, rows: np.ndarray, weights: np.ndarray) -> None:
    """Record how often each label was seen in training, and how often it naturally occurs.

    Numbers get the offset and scale that standardise them, or the roots of counts.
    """
    for head in model.heads:
        mine = data.targets[head.control].take(rows)
        shares = mine.shares[mine.known].astype(float)
        if head.kind == "number":
            lowest, highest = float(shares.min()), float(shares.max())
            root = head.unit == COUNT_UNIT and lowest >= 0
            learned = np.sqrt(shares) if root else shares
            model.set_head(
                replace(
                    head,
                    lowest=lowest,
                    highest=highest,
                    root=root,
                    offset=float(learned.mean()),
                    scale=float(learned.std()),
                )
            )
            continue
        model.set_head(with_priors(head, shares, weights[mine.known]))


def with_priors(head: Head, shares: np.ndarray, weights: np.ndarray) -> Head:
    """The head with the priors of votes (n, k): as drawn with weights (n,), and as they are."""
    return replace(
        head,
        trained_prior=tuple(estimate_prior(shares, weights).tolist()),
        deployed_prior=tuple(estimate_prior(shares).tolist()),
    )


def standard_targets(head: Head, shares: np.ndarray) -> Tensor:
    """What the outputs should be: shares as they are, numbers standardised; float32 (n, k)."""
    if head.kind == "number":
        shares = head.wanted_output(shares)
    return torch.from_numpy(np.asarray(shares, dtype=np.float32))


def fit_heads(
    model: TraitModel,
    data: LearningSet,
    inputs: Tensor,
    weights: np.ndarray,
    penalties: tuple[float, ...] = PENALTIES,
) -> dict[str, float]:
    """Fit every head on the training side; choose its penalty on the validation side.

    Parameters
    ----------
    inputs : Tensor, shape (n, d)
        As from `TraitModel.describe`, for all rows of `data`.
    weights : array
        One a training image.

    Returns
    -------
    dict
        The penalty chosen, by control.
    """
    train, validation = data.rows("train"), data.rows("validation")
    standard = (inputs - model.input_mean) / model.input_scale
    chosen = {}
    for head, classifier in zip(model.heads, model.classifiers, strict=True):
        target = data.targets[head.control]
        known = target.known
        learn, check = train[known[train]], validation[known[validation]]
        fitted = solve_path(
            head,
            standard[learn],
            standard_targets(head, target.shares[learn]),
            torch.from_numpy(weights[known[train]]).float(),
            penalties,
        )
        best = _choose(head, fitted, standard[check], target.shares[check])
        chosen[head.control] = penalties[best]
        set_weights(classifier, fitted[best])
    return chosen


def solve_path(
    head: Head, inputs: Tensor, shares: Tensor, weights: Tensor, penalties: tuple[float, ...]
) -> list[Tensor]:
    """Solutions (d + 1, k), strongest penalty first, each started from the one before."""
    rows = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    shared = (weights / weights.sum()).detach()
    solution = torch.zeros(rows.shape[1], head.n_outputs)
    path = []
    for penalty in penalties:
        solution = solution.clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [solution], max_iter=MAX_ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure(current: Tensor = solution, strength: float = penalty) -> Tensor:
            current.grad = None
            loss = (shared * head_loss(head, rows @ current, shares)).sum()
            loss = loss + strength * (current[:-1] ** 2).sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        solution = solution.detach()
        path.append(solution)
    return path


def _choose(head: Head, fitted: list[Tensor], inputs: Tensor, shares: np.ndarray) -> int:
    """Position of the solution with the lowest loss on held-out images; the middle one without.

    Each is tempered first, as it will be when it serves: a weak penalty is then not punished for
    its overconfidence, only for what it confuses.
    """
    if len(inputs) < MIN_IMAGES_FOR_TEMPERATURE:
        return len(fitted) // 2
    rows = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    losses = [tempered_loss(head, (rows @ solution).numpy(), shares) for solution in fitted]
    return int(np.argmin(losses))


def tempered_loss(head: Head, logits: np.ndarray, shares: np.ndarray) -> float:
    """Mean loss on held-out images, (n, k), with the temperature that serves them best."""
    wanted = standard_targets(head, shares)
    if head.kind == "number":
        return float(head_loss(head, torch.from_numpy(logits), wanted).mean())
    temperature = fit_temperature(head.kind, logits, shares, head.prior_weights(shares))
    served = logits.astype(np.float64) / temperature + head.shift()
    return float(head_loss(head, torch.from_numpy(served), wanted.double()).mean())


@torch.no_grad()
def set_weights(classifier: nn.Module, solution: Tensor) -> None:
    classifier.weight.copy_(solution[:-1].T)  # type: ignore[operator]
    classifier.bias.copy_(solution[-1])  # type: ignore[operator]
