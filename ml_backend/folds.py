"""Folds for cross-validation: what is kept together is in one of them."""

from __future__ import annotations

import numpy as np

FOLDS = 5


def folds_of(units: np.ndarray) -> np.ndarray:
    """Return the fold of each image, int (n,) from 0 to `FOLDS` - 1, the same every time.

    Parameters
    ----------
    units : array of str (n,)
        Split keys: images of one sample are in one fold.
    """
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    return np.random.default_rng(0).permutation(len(names))[unit] % FOLDS
