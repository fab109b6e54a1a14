"""Whether a new version may answer: only if it is not worse than the live one.

Rule: mean macro recall over the controls that both serve, both versions on today's held-out
images; promoted unless the 95 % bootstrap interval of the difference lies wholly below zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ml_backend.evaluate import FEW_IMAGES, Judged, bootstrap_weights, interval
from ml_backend.targets import ControlTargets


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
    candidate_macro_recall, live_macro_recall, difference : float
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
    candidate_macro_recall: float = float("nan")
    live_macro_recall: float = float("nan")
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
        Labels chosen, bool (n, k), per control, in the schema's order; `live` is None while there
        is no live version.
    targets : dict
        ControlTargets per control on the same n held-out images.
    units : array (n,)
        Split keys, drawn together in the bootstrap.
    """
    rated = [n for n, t in targets.items() if t.control.kind != "number" and t.known.any()]
    mine = [name for name in rated if name in candidate]
    n_heldout = int(np.any([targets[name].known for name in mine], axis=0).sum()) if mine else 0
    notes = _few(n_heldout)
    if live is None:
        recall = _mean_recall(candidate, targets, mine, units)
        return Promotion(
            True,
            "the first version of this model",
            n_heldout,
            tuple(mine),
            candidate_macro_recall=recall,
            notes=notes,
        )
    notes += [
        f"control {n!r} is served only by the live version" for n in live if n not in candidate
    ]
    notes += [f"control {n!r} is new in this version" for n in candidate if n not in live]
    if not live:
        reason = "no head of the live version fits today's config"
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
    draws = _mean_recall(candidate, targets, shared, units, weights) - _mean_recall(
        live, targets, shared, units, weights
    )
    new = float(_mean_recall(candidate, targets, shared, units))
    old = float(_mean_recall(live, targets, shared, units))
    low, high = interval(np.asarray(draws))
    promoted = not high < 0
    n_heldout = int(np.any([targets[name].known for name in shared], axis=0).sum())
    verdict = "not worse" if promoted else "worse"
    return Promotion(
        promoted,
        f"{verdict} than the live version on {n_heldout} held-out images: mean macro recall "
        f"{new:.3f} against {old:.3f}, difference {new - old:+.3f} [{low:+.3f}, {high:+.3f}]",
        n_heldout,
        tuple(shared),
        new,
        old,
        new - old,
        (low, high),
        notes,
    )


def _mean_recall(
    answers: Mapping[str, np.ndarray],
    targets: Mapping[str, ControlTargets],
    names: Sequence[str],
    units: np.ndarray,
    weights: np.ndarray | None = None,
) -> Any:
    """Mean over controls of macro recall; one number, or one a draw of the bootstrap."""
    recalls = []
    for name in names:
        target = targets[name]
        known = target.known
        judged = Judged.of(
            target.control.kind, answers[name][known], target.shares[known], units[known]
        )
        recalls.append(judged.macro_recall(None if weights is None else weights[:, known]))
    if not recalls:
        return float("nan")
    return np.nanmean(np.array(recalls, dtype=float), axis=0)


def _few(n_heldout: int) -> list[str]:
    if n_heldout >= FEW_IMAGES:
        return []
    return [
        f"only {n_heldout} held-out images: a comparison on fewer than {FEW_IMAGES} says little; "
        "annotate more"
    ]
