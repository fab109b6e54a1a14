"""Limits of a mean of recalls that know that a label without an error may still have one."""

from __future__ import annotations

import numpy as np

NORMAL_95 = 1.959964


def wilson(hits: np.ndarray, support: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % score interval of proportions (Wilson 1927; advised for few by Brown et al. 2001).

    Parameters
    ----------
    hits, support : arrays (k,)
        Support above 0.

    >>> low, high = wilson(np.array([18]), np.array([18]))
    >>> print(f"{low[0]:.2f} {high[0]:.2f}")
    0.82 1.00
    """
    share, z2 = hits / support, NORMAL_95**2
    middle = (share + z2 / (2 * support)) / (1 + z2 / support)
    spread = np.sqrt(share * (1 - share) / support + z2 / (4 * support**2))
    reach = NORMAL_95 * spread / (1 + z2 / support)
    return middle - reach, middle + reach


def mean_limits(hits: np.ndarray, support: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean of recalls, each from images of its own.

    Each recall's distance to its Wilson limits is what it may be off; such distances add up as
    independent errors do (MOVER: Zou, Huang & Zhang 2009, Comput. Stat. Data Anal. 53, 1080).

    Parameters
    ----------
    hits, support : arrays (sides, k)
        Of each label; the mean is over the sides that occur first, then over labels.

    Returns
    -------
    (float, float)
        NaN where nothing occurs.
    """
    there = support > 0
    if not there.any():
        return (float("nan"), float("nan"))
    weight = (there / np.maximum(there.sum(axis=0), 1) / there.any(axis=0).sum())[there]
    recall = hits[there] / support[there]
    low, high = wilson(hits[there], support[there])
    mean = float(weight @ recall)
    below = np.sqrt(((weight * (recall - low)) ** 2).sum())
    above = np.sqrt(((weight * (high - recall)) ** 2).sum())
    return (max(mean - float(below), 0.0), min(mean + float(above), 1.0))
