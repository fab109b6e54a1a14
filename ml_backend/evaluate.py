"""How good a model is on images that it never learned from. Macro first, always.

A label that no evaluated image has cannot be recalled, so macro figures are means over the labels
that occur; how many those are is reported beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_backend.calibrate import brier_score, expected_calibration_error
from ml_backend.reliability import (
    adaptive_calibration_error,
    classwise_calibration_error,
    reliability_bins,
    risk_coverage,
)
from ml_backend.score_interval import mean_limits

N_BOOTSTRAP = 1000
INTERVAL_PERCENT = (2.5, 97.5)
FEW_IMAGES = 100
SAME_SHARE = 1e-6
INTERVAL_SD = 1.6449  # ± this many standard deviations hold 90 % of a normal distribution


def modal_labels(shares: np.ndarray) -> np.ndarray:
    """Which labels most annotators chose, bool (n, k), from votes (n, k); several in a tie."""
    return shares >= shares.max(axis=1, keepdims=True) - SAME_SHARE


@dataclass(frozen=True)
class Judged:
    """Truth and prediction of one control on the same images, label by label.

    Attributes
    ----------
    truth, predicted : bool arrays (n, k)
        One-hot for "one of". The truth of several annotators is their modal label; where several
        labels are, the predicted one if it is among them, else the first.
    units : array (n,)
        What is drawn together in the bootstrap: the split key of each image.
    both_ways : bool
        "any of": a label's recall is the mean of the recall of its presence and of its absence,
        since always answering "present" would otherwise be perfect.
    """

    truth: np.ndarray
    predicted: np.ndarray
    units: np.ndarray
    both_ways: bool = False

    @classmethod
    def of(cls, kind: str, chosen: np.ndarray, shares: np.ndarray, units: np.ndarray) -> "Judged":
        """From the labels chosen, bool (n, k), and the votes' shares (n, k)."""
        if kind == "any of":
            return cls(shares >= 0.5, chosen, units, True)
        modal = modal_labels(shares)
        right = (modal & chosen).any(axis=1)
        truth = np.where(right, chosen.argmax(axis=1), modal.argmax(axis=1))
        return cls(np.eye(shares.shape[1], dtype=bool)[truth], chosen, units, False)

    def macro_recall(self, weights: np.ndarray | None = None) -> np.ndarray | float:
        """Mean recall over the labels that occur.

        Parameters
        ----------
        weights : array (draws, n), optional
            How often each image is drawn; by default once.

        Returns
        -------
        float, or array (draws,) when weights are given; NaN where nothing occurs.
        """
        drawn = np.ones((1, len(self.truth))) if weights is None else weights
        recalls = _recalls(drawn, self.truth, self.predicted)
        if self.both_ways:
            absent = _recalls(drawn, ~self.truth, ~self.predicted)
            recalls = np.where(np.isnan(recalls), absent, recalls)
            recalls = (recalls + np.where(np.isnan(absent), recalls, absent)) / 2
        means = nan_mean(recalls)
        return float(means[0]) if weights is None else means

    def macro_recall_interval(self) -> tuple[float, float]:
        """The 95 % interval of the macro recall, at each end the wider of two.

        The bootstrap of whole units knows that images of a sample are alike, but takes a label
        without an error to have none: from 18 images that are all right it would say [1, 1].
        `mean_limits` knows better, but takes images to be independent. Simulated, of 200 images
        and 21 labels with few errors the bootstrap held in 82 %, the wider in 99 %; of 300 images
        and 2 labels in 94 and 96 %.
        """
        drawn = interval(np.asarray(self.macro_recall(bootstrap_weights(self.units))))
        truth, said = self.truth[None], self.predicted[None]
        if self.both_ways:
            truth, said = np.concatenate([truth, ~truth]), np.concatenate([said, ~said])
        low, high = mean_limits((truth & said).sum(axis=1), truth.sum(axis=1))
        return (min(drawn[0], low), max(drawn[1], high))


def _recalls(drawn: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Recall per draw and label, (draws, k); NaN where the label does not occur."""
    support = drawn @ truth.astype(float)
    hits = drawn @ (truth & predicted).astype(float)
    return np.divide(hits, support, out=np.full_like(hits, np.nan), where=support > 0)


def nan_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is (without a warning)."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def bootstrap_weights(units: np.ndarray, seed: int = 0, draws: int = N_BOOTSTRAP) -> np.ndarray:
    """Draw whole units with replacement; return how often each image is drawn, (draws, n)."""
    names, index = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, index].astype(np.float32)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap values, NaN left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return (float("nan"), float("nan"))
    low, high = np.percentile(values, INTERVAL_PERCENT)
    return (float(low), float(high))


def evaluate_labels(
    kind: str,
    labels: Sequence[str],
    probabilities: np.ndarray,
    uncorrected: np.ndarray,
    chosen: np.ndarray,
    shares: np.ndarray,
    units: np.ndarray,
    ordinal: bool = False,
) -> dict[str, Any]:
    """Evaluate one "one of" or "any of" control.

    Parameters
    ----------
    probabilities, shares : arrays (n, k)
        Calibrated probabilities, and the share of annotators who chose each label.
    uncorrected : array (n, k)
        The probabilities before they were moved from the training prior to the deployment prior.
    chosen : bool array (n, k)
        What is suggested.
    units : array (n,)
        Split keys, drawn together in the bootstrap.
    ordinal : bool
        The labels of a "one of" control are steps, in their order.

    Returns
    -------
    dict
        n_images, macro_recall with its 95 % interval, macro_precision, macro_f1, micro_accuracy,
        agreement (share of annotators for the predicted label over the share for the modal one,
        Schanz et al. 2023), ece, ece_before_correction, ece_adaptive, ece_classwise, nll, kl,
        brier, labels_evaluated and per_label; reliability (bins: confidence, accuracy, n) and
        risk_coverage (aurc, coverage, risk; the answer of "any of" is the whole set); for "one of"
        confusion (k × k counts, a row per true label), and if ordinal mae_steps and
        quadratic_kappa.
    """
    judged = Judged.of(kind, chosen, shares, units)
    confidence, right = _answered(kind, probabilities, judged)
    per_label = _per_label(labels, judged.truth, judged.predicted)
    occurring = [entry for entry in per_label.values() if entry["support"]]
    metrics: dict[str, Any] = {
        "kind": kind,
        "n_images": len(shares),
        "few_images": len(shares) < FEW_IMAGES,
        "labels_evaluated": len(occurring),
        "macro_recall": judged.macro_recall(),
        "macro_recall_interval": judged.macro_recall_interval(),
        "macro_precision": float(np.mean([entry["precision"] for entry in occurring] or [np.nan])),
        "macro_f1": float(np.mean([entry["f1"] for entry in occurring] or [np.nan])),
        "micro_accuracy": float((judged.truth == judged.predicted).all(axis=1).mean()),
        "ece": expected_calibration_error(confidence, right),
        "ece_before_correction": expected_calibration_error(*_answered(kind, uncorrected, judged)),
        "ece_adaptive": adaptive_calibration_error(confidence, right),
        "ece_classwise": classwise_calibration_error(probabilities, judged.truth),
        **_likelihoods(kind, probabilities, shares),
        "reliability": reliability_bins(confidence, right),
        "risk_coverage": _risk_coverage(probabilities, judged),
        "per_label": per_label,
    }
    if kind == "one of":
        agreeing = (shares * chosen).sum(axis=1)
        metrics["agreement"] = float((agreeing / shares.max(axis=1)).mean())
        majority = np.zeros_like(judged.predicted)
        majority[:, shares.sum(axis=0).argmax()] = True
        metrics["majority_macro_recall"] = Judged.of(kind, majority, shares, units).macro_recall()
        metrics |= _confused(judged, ordinal)
    return metrics


def _answered(
    kind: str, probabilities: np.ndarray, judged: Judged
) -> tuple[np.ndarray, np.ndarray]:
    """Probability and truth of the suggested label ("one of"), or of every label ("any of")."""
    if kind == "any of":
        return probabilities.ravel(), judged.truth.ravel()
    chosen = judged.predicted  # one a row
    return probabilities[chosen], judged.truth[chosen]


def _risk_coverage(probabilities: np.ndarray, judged: Judged) -> dict[str, Any]:
    """An answer is as sure as its least sure label, and right when the whole of it is."""
    right = (judged.truth == judged.predicted).all(axis=1)
    if judged.both_ways:
        sure = np.where(judged.predicted, probabilities, 1.0 - probabilities).min(axis=1)
    else:
        sure = probabilities[judged.predicted]
    return risk_coverage(sure, right)


def _confused(judged: Judged, ordinal: bool) -> dict[str, Any]:
    """Which label was taken for which; how many steps apart, if labels are steps."""
    from sklearn.metrics import cohen_kappa_score, confusion_matrix  # here: it takes a second

    truth, predicted = judged.truth.argmax(axis=1), judged.predicted.argmax(axis=1)
    every = np.arange(judged.truth.shape[1])
    confused: dict[str, Any] = {
        "confusion": confusion_matrix(truth, predicted, labels=every).tolist()
    }
    if ordinal:
        constant = len(np.unique([truth, predicted])) < 2  # kappa is then 0 / 0
        confused["mae_steps"] = float(np.abs(truth - predicted).mean())
        confused["quadratic_kappa"] = (
            float("nan")
            if constant
            else float(cohen_kappa_score(truth, predicted, labels=every, weights="quadratic"))
        )
    return confused


def _per_label(
    labels: Sequence[str], truth: np.ndarray, predicted: np.ndarray
) -> dict[str, dict[str, float]]:
    support, answered = truth.sum(axis=0), predicted.sum(axis=0)
    hits = (truth & predicted).sum(axis=0)
    per_label = {}
    for k, label in enumerate(labels):
        recall = hits[k] / support[k] if support[k] else float("nan")
        precision = hits[k] / answered[k] if answered[k] else 0.0
        per_label[label] = {
            "support": int(support[k]),
            "recall": float(recall),
            "precision": float(precision),
            "f1": float(2 * hits[k] / max(support[k] + answered[k], 1)),
        }
    return per_label


def _likelihoods(kind: str, probabilities: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    p = np.clip(probabilities, 1e-12, 1.0)
    q = np.clip(1.0 - probabilities, 1e-12, 1.0)
    losses = -shares * np.log(p)
    entropy = -shares * np.log(np.clip(shares, 1e-12, 1.0))
    if kind == "any of":
        losses = losses - (1 - shares) * np.log(q)
        entropy = entropy - (1 - shares) * np.log(np.clip(1 - shares, 1e-12, 1.0))
    nll = losses.sum(axis=1).mean()
    return {
        "nll": float(nll),
        "kl": float(nll - entropy.sum(axis=1).mean()),
        "brier": brier_score(probabilities, shares),
    }


def evaluate_number(
    predicted: np.ndarray,
    truth: np.ndarray,
    sd: float,
    unit: str | None = None,
    half_widths: np.ndarray | None = None,
) -> dict[str, Any]:
    """Evaluate one number control: errors in its own unit, and whether its interval is honest.

    Parameters
    ----------
    predicted, truth : arrays (n,)
    sd : float
        The model's predictive standard deviation; its 90 % interval should hold 90 % of the truth.
    half_widths : array (n,), optional
        Half the width of each 95 % interval. Without them interval_95_coverage and
        interval_95_width (the mean) are None.
    """
    error = predicted - truth
    reach = np.full(len(truth), np.nan) if half_widths is None else half_widths
    told = bool(np.isfinite(reach).all())
    spread = float(((truth - truth.mean()) ** 2).sum())
    return {
        "kind": "number",
        "unit": unit,
        "n_images": len(truth),
        "few_images": len(truth) < FEW_IMAGES,
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": 1.0 - float((error**2).sum()) / spread if spread > 0 else float("nan"),
        "interval_90_coverage": float((np.abs(error) <= INTERVAL_SD * sd).mean()),
        "interval_95_coverage": float((np.abs(error) <= reach).mean()) if told else None,
        "interval_95_width": float(2 * reach.mean()) if told else None,
    }
