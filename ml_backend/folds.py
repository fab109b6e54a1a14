"""Folds for cross-validation: what is kept together is in one of them."""

from __future__ import annotations

import numpy as np

FOLDS = 5


def folds_of(units: np.ndarray) -> np.ndarray:
    """Return the fold of each image, int (n,) from 0 to `FOLDS` - 1, the same every time.

    The largest units are dealt out first, each to the smallest fold.

    Parameters
    ----------
    units : array of str (n,)
        Split keys: images of one sample are in one fold.
    """
    names, unit, sizes = np.unique(np.asarray(units), return_inverse=True, return_counts=True)
    fold_of, filled = np.zeros(len(names), dtype=int), np.zeros(FOLDS, dtype=int)
    for one in np.lexsort((np.random.default_rng(0).permutation(len(names)), -sizes)):
        fold_of[one] = filled.argmin()
        filled[fold_of[one]] += sizes[one]
    return fold_of[unit]
