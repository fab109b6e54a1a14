"""Which images to leave out of counts: chosen on the error of the community composition.

An image is left out when its suggestion is not sure enough, or when it is too unlike the training
images. That the images left are each more often right says little: what is left out is not a fair
draw of the community, and hard groups go first. So a threshold is chosen on what counts are for:
the Bray-Curtis dissimilarity between the composition counted and the true one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from label_studio_config.schema import LabelSchema
from ml_backend.evaluate import bootstrap_weights, interval
from ml_backend.measure import Answered
from ml_backend.split import clean_ids

Score = Literal["confidence", "novelty"]

DRAWS = 200
MIN_IMAGES = 50
MIN_IMAGES_PER_SAMPLE = 10
MIN_SAMPLES = 2
GRID = np.linspace(0.025, 0.95, 38)
KEEPS_ALL: dict[Score, float] = {"confidence": 0.0, "novelty": 1.0}


@dataclass(frozen=True)
class Communities:
    """The images of one side that have a vote for the control, sample by sample.

    Attributes
    ----------
    shares, chosen : arrays (n, k)
        Votes, and the suggested label one-hot.
    scores : dict
        confidence and novelty, each (n,).
    samples : list of int array
        Rows of each sample; one entry with all rows where samples are not known.
    """

    shares: np.ndarray
    chosen: np.ndarray
    scores: dict[Score, np.ndarray]
    samples: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.shares)


def choose_rejection(answered: Answered, schema: LabelSchema) -> dict[str, Any]:
    """Choose thresholds on the validation side, and try them on the held-out side.

    Returns
    -------
    dict
        control; unit ("sample" or "image"); n_validation, n_test; and per score (confidence,
        novelty) threshold, helps, reason, curve (threshold, rejected, bray_curtis) and test
        (rejected, bray_curtis, bray_curtis_all, difference_interval), or None where the model has
        no such score. Without enough to choose from: control and reason only.

    Notes
    -----
    A confidence below the threshold, or a novelty above it, leaves the image out; 0 and 1 leave
    out none.
    """
    control = _primary(answered, schema)
    if control is None:
        return {"control": None, "reason": "no control with one label an image is served"}
    validation, test = (_communities(answered, control, side) for side in ("validation", "test"))
    if len(validation) < MIN_IMAGES:
        return {
            "control": control,
            "reason": f"{len(validation)} validation images with votes, needs {MIN_IMAGES}",
        }
    record: dict[str, Any] = {
        "control": control,
        "unit": "sample" if len(validation.samples) > 1 else "image",
        "n_validation": len(validation),
        "n_test": len(test),
    }
    for score in KEEPS_ALL:
        known = bool(np.isfinite(validation.scores[score]).all())
        record[score] = _choose(score, validation, test) if known else None
    return record


def composition_errors(
    communities: Communities, score: Score, thresholds: np.ndarray
) -> np.ndarray:
    """Mean Bray-Curtis dissimilarity over samples, (draws, thresholds).

    Both the images of each sample and the samples are drawn with replacement; an image's vote
    counts by its shares. A sample of which nothing is left is wholly wrong (1).

    Notes
    -----
    Of relative frequencies p and q the Bray-Curtis dissimilarity is ½ Σ|p - q| (Bray & Curtis
    1957).
    """
    n_samples = len(communities.samples)
    errors = np.empty((n_samples, DRAWS, len(thresholds)))
    for number, rows in enumerate(communities.samples):
        drawn = bootstrap_weights(rows, seed=number, draws=DRAWS).astype(float)
        truth = _relative(drawn @ communities.shares[rows])
        for position, threshold in enumerate(thresholds):
            kept = keeps(score, communities.scores[score][rows], threshold)
            counted = drawn[:, kept] @ communities.chosen[rows][kept].astype(float)
            distance = 0.5 * np.abs(_relative(counted) - truth).sum(axis=1)
            errors[number, :, position] = np.where(counted.sum(axis=1) > 0, distance, 1.0)
    together = bootstrap_weights(np.arange(n_samples), seed=n_samples, draws=DRAWS)
    weights = together.T[:, :, None] / n_samples
    return (errors * weights).sum(axis=0)


def keeps(score: Score, values: np.ndarray, threshold: float) -> np.ndarray:
    """Which images stay in counts, bool (n,)."""
    return values >= threshold if score == "confidence" else values <= threshold


def _choose(score: Score, validation: Communities, test: Communities) -> dict[str, Any]:
    """The mildest threshold that is within noise of the best, if it beats leaving out none.

    Within noise: one standard deviation over the draws of the difference to the best (the rule of
    one standard error, Breiman et al. 1984). Beats: the 95 % interval of the difference lies below
    zero.
    """
    values = validation.scores[score]
    thresholds = _thresholds(score, values)
    errors = composition_errors(validation, score, thresholds)
    mean = errors.mean(axis=0)
    best = int(mean.argmin())
    near = mean - mean[best] <= (errors - errors[:, [best]]).std(axis=0)
    mildest = int(np.flatnonzero(near)[0])
    low, high = interval(errors[:, mildest] - errors[:, 0])
    helps = mildest > 0 and high < 0
    chosen = float(thresholds[mildest]) if helps else KEEPS_ALL[score]
    return {
        "threshold": chosen,
        "helps": helps,
        "reason": _reason(mean, mildest, best, (low, high), helps),
        "rejected": float(1.0 - keeps(score, values, chosen).mean()),
        "curve": [
            {
                "threshold": float(threshold),
                "rejected": float(1.0 - keeps(score, values, threshold).mean()),
                "bray_curtis": float(error),
            }
            for threshold, error in zip(thresholds, mean, strict=True)
        ],
        "test": _tried(score, chosen, test),
    }


def _reason(
    mean: np.ndarray, mildest: int, best: int, gain: tuple[float, float], helps: bool
) -> str:
    if helps:
        return (
            f"leaving them out lowers the error from {mean[0]:.3f} to {mean[mildest]:.3f} "
            f"(difference [{gain[0]:+.3f}, {gain[1]:+.3f}])"
        )
    if best == 0:
        return f"no threshold has a smaller error than leaving out none ({mean[0]:.3f})"
    return (
        f"the error is {mean[0]:.3f} when none is left out and {mean[best]:.3f} at the best "
        "threshold, which can be chance, so nothing is left out"
    )


def _tried(score: Score, threshold: float, test: Communities) -> dict[str, Any] | None:
    if not len(test):
        return None
    errors = composition_errors(test, score, np.array([KEEPS_ALL[score], threshold]))
    without, with_it = errors.mean(axis=0)
    return {
        "rejected": float(1.0 - keeps(score, test.scores[score], threshold).mean()),
        "bray_curtis": float(with_it),
        "bray_curtis_all": float(without),
        "difference_interval": interval(errors[:, 1] - errors[:, 0]),
    }


def _thresholds(score: Score, values: np.ndarray) -> np.ndarray:
    """From leaving out none to leaving out nearly all, mildest first."""
    shares = GRID if score == "confidence" else 1.0 - GRID
    found = np.unique(np.append(np.quantile(values, shares), KEEPS_ALL[score]))
    return found if score == "confidence" else found[::-1]


def _communities(
    answered: Answered, control: str, side: Literal["validation", "test"]
) -> Communities:
    rows = answered.data.rows(side)
    rows = rows[answered.data.targets[control].known[rows]]
    chosen, values = answered.chosen[control][rows], answered.values[control][rows]
    samples = np.array(clean_ids(list(answered.data.images["sample_id"].iloc[rows])), dtype=object)
    known = [np.flatnonzero(samples == name) for name in sorted(set(samples) - {""})]
    large = [rows_of for rows_of in known if len(rows_of) >= MIN_IMAGES_PER_SAMPLE]
    return Communities(
        answered.data.targets[control].shares[rows].astype(float),
        chosen,
        {"confidence": (values * chosen).sum(axis=1), "novelty": answered.novelty[rows]},
        large if len(large) >= MIN_SAMPLES else [np.arange(len(rows))],
    )


def _primary(answered: Answered, schema: LabelSchema) -> str | None:
    """The schema's primary control, else the first that is served with one label an image."""
    served = [
        control.name
        for control in schema.trainable
        if control.kind == "one of" and control.name in answered.chosen
    ]
    if schema.primary is not None and schema.primary.name in served:
        return schema.primary.name
    return served[0] if served else None


def _relative(counts: np.ndarray) -> np.ndarray:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)
