"""Whether a new version may answer: only if it is not worse than the live one.

Rule: mean score over the controls that both serve, both versions on today's held-out images;
promoted unless the 95 % bootstrap interval of the difference lies wholly below zero. The score of
a control with labels is its macro recall; that of a number is its skill, 1 - MAE / MAE of always
answering the mean, held within [-1, 1] so that one number cannot outweigh every other control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ml_backend.evaluate import FEW_IMAGES, Judged, bootstrap_weights, interval, nan_mean
from ml_backend.targets import ControlTargets

FEW_UNITS = 5


@dataclass(frozen=True)
class Promotion:
    """The decision on a new version, and all it rests on.

    Attributes
    ----------
    promoted : bool
    reason : str
        One sentence for people.
    n_heldout : int
        Images both versions were evaluated on.
    shared_controls : tuple of str
    candidate_score, live_score, difference : float
        Means over the shared controls; NaN where there was nothing to compare.
    difference_interval : (float, float)
        95 % bootstrap interval of the difference (candidate minus live).
    notes : list of str
        What a reader must know: too few images, controls that one of the two does not serve.
    """

    promoted: bool
    reason: str
    n_heldout: int
    shared_controls: tuple[str, ...] = ()
    candidate_score: float = float("nan")
    live_score: float = float("nan")
    difference: float = float("nan")
    difference_interval: tuple[float, float] = (float("nan"), float("nan"))
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def decide(
    candidate: Mapping[str, np.ndarray],
    live: Mapping[str, np.ndarray] | None,
    targets: Mapping[str, ControlTargets],
    units: np.ndarray,
    seed: int = 0,
) -> Promotion:
    """Decide on a candidate from both versions' answers on the same held-out images.

    Parameters
    ----------
    candidate, live : dict
        Per control: labels chosen, bool (n, k), in the schema's order, or numbers (n, 1); `live`
        is None while there is no live version.
    targets : dict
        ControlTargets per control on the same n held-out images.
    units : array (n,)
        Split keys, drawn together in the bootstrap.
    """
    mine = [name for name, t in targets.items() if t.known.any() and name in candidate]
    judged = np.any([targets[name].known for name in mine], axis=0) if mine else np.zeros(0, bool)
    n_heldout = int(judged.sum())
    notes = _few(n_heldout, len(np.unique(units[judged])) if mine else 0)
    if live is None:
        score = float(_mean_score(candidate, targets, mine, units))
        return Promotion(
            True,
            "the first version of this model",
            n_heldout,
            tuple(mine),
            candidate_score=score,
            notes=notes,
        )
    notes += [
        f"control {n!r} is served only by the live version" for n in live if n not in candidate
    ]
    notes += [f"control {n!r} is new in this version" for n in candidate if n not in live]
    if not live:
        reason = "no head of the live version serves today's config"
        return Promotion(True, reason, n_heldout, tuple(mine), notes=notes)
    shared = [name for name in mine if name in live]
    if not shared:
        return Promotion(
            False,
            "no held-out image has a vote for a control that both versions serve, so the new "
            "version cannot be shown to be as good: annotate more images, or promote it by hand",
            n_heldout,
            notes=notes,
        )
    return _compare(candidate, live, targets, units, shared, notes, seed)


def _compare(
    candidate: Mapping[str, np.ndarray],
    live: Mapping[str, np.ndarray],
    targets: Mapping[str, ControlTargets],
    units: np.ndarray,
    shared: Sequence[str],
    notes: list[str],
    seed: int,
) -> Promotion:
    weights = bootstrap_weights(units, seed)
    draws = _mean_score(candidate, targets, shared, units, weights) - _mean_score(
        live, targets, shared, units, weights
    )
    new = float(_mean_score(candidate, targets, shared, units))
    old = float(_mean_score(live, targets, shared, units))
    low, high = interval(np.asarray(draws))
    n_heldout = int(np.any([targets[name].known for name in shared], axis=0).sum())
    promoted = high >= 0  # not so for NaN: what cannot be compared is not shown to be as good
    if np.isnan(high):
        reason = (
            f"the {n_heldout} held-out images do not differ in what both versions serve, so the "
            "new version cannot be shown to be as good: annotate more images, or promote it by hand"
        )
    else:
        reason = (
            f"{'not worse' if promoted else 'worse'} than the live version on {n_heldout} held-out "
            f"images: mean {_measure(targets, shared)} {new:.3f} against {old:.3f}, difference "
            f"{new - old:+.3f} [{low:+.3f}, {high:+.3f}]"
        )
    return Promotion(
        bool(promoted),
        reason,
        n_heldout,
        tuple(shared),
        new,
        old,
        new - old,
        (low, high),
        notes,
    )


def _mean_score(
    answers: Mapping[str, np.ndarray],
    targets: Mapping[str, ControlTargets],
    names: Sequence[str],
    units: np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Mean over controls of what they score; one number, or one a draw of the bootstrap."""
    scores = []
    for name in names:
        target = targets[name]
        known = target.known
        mine, shares = answers[name][known], target.shares[known]
        drawn = None if weights is None else weights[:, known]
        if target.control.kind == "number":
            scores.append(_skill(mine[:, 0], shares[:, 0], drawn))
        else:
            judged = Judged.of(target.control.kind, mine, shares, units[known])
            scores.append(judged.macro_recall(drawn))
    if not scores:
        return np.array(float("nan"))
    return nan_mean(np.array(scores, dtype=float).T)


def _skill(
    predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray | float:
    """1 - MAE / MAE of the mean of the truth, within [-1, 1]; NaN where the truth is constant."""
    drawn = np.ones((1, len(truth))) if weights is None else weights
    error = drawn @ np.abs(predicted - truth)
    spread = drawn @ np.abs(truth - truth.mean(dtype=np.float64))
    share = np.divide(error, spread, out=np.full(len(drawn), np.nan), where=spread > 0)
    skill = np.clip(1.0 - share, -1.0, 1.0)
    return float(skill[0]) if weights is None else skill


def _measure(targets: Mapping[str, ControlTargets], names: Sequence[str]) -> str:
    kinds = {targets[name].control.kind == "number" for name in names}
    if kinds == {False}:
        return "macro recall"
    return "skill" if kinds == {True} else "macro recall and skill"


def _few(n_heldout: int, n_units: int) -> list[str]:
    notes = []
    if n_heldout < FEW_IMAGES:
        notes.append(
            f"only {n_heldout} held-out images: a comparison on fewer than {FEW_IMAGES} says "
            "little; annotate more"
        )
    if n_units < FEW_UNITS:
        notes.append(
            f"the held-out images come from {n_units} sample(s): intervals over fewer than "
            f"{FEW_UNITS} are too narrow"
        )
    return notes
