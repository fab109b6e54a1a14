"""Corrected counts as a table: one row a group and label, with intervals, and how they came about.

Its columns are told in `quantify_columns`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpc_jobs.whole_files import replacing
from label_studio_config.words import counted
from ml_backend.quantify import Counts, checked_prior, draw_counts, log_likelihoods
from ml_backend.quantify_classifier import Correction
from ml_backend.quantify_columns import COLUMNS, data_dictionary
from ml_backend.quantify_groups import Groups
from ml_backend.quantify_predicted import Predicted
from ml_backend.quantify_read import Validated

logger = logging.getLogger(__name__)

SUFFIXES = (".csv", ".parquet", ".png", ".svg")
UNCHECKED = "posterior of the composition; classifier taken as right, no blind validated images"
CHECKED = "posterior of the composition and the classifier; checked on"
CONDITIONAL = (
    "; of the images of which the model asks it, less those where people denied its condition"
)
NOT_KNOWN = "validated images only: the model does not know this label, so others may bear it too"
SEEN_AT_PRIOR_0 = (
    "validated images only: the prior of the predictions is 0, so others are not found"
)
ABSENT_AT_PRIOR_0 = "taken as absent: the prior of the predictions is 0"


def count_labels(
    predicted: Predicted,
    groups: Groups,
    validated: Validated | None = None,
    seed: int = 0,
    blind: np.ndarray | None = None,
    conditional: bool = False,
) -> pd.DataFrame:
    """Count every label in every group.

    Parameters
    ----------
    groups : Groups
        Of the predicted images, in their order.
    validated : Validated, optional
        Their labels are certain, and tell how wrong the classifier may be. Without them, or where
        none bears a label that the model knows, it is taken as right. Of a label that the model
        does not know, or whose prior is 0, they alone are counted: its rows have no interval,
        except where people validated every image of the group.
    blind : bool array (n,), optional
        Images whose predictions are not counted (see `quantify_blind`).
    conditional : bool
        Whether the control is asked only where another has a certain label. Then the images are
        those of which the model asks it, less those of which people denied that condition; how
        often the model is wrong to ask it, or not to, is not corrected. Only said in the table.
    """
    labels = validated.labels if validated is not None else predicted.labels
    n_groups = len(groups.names)
    fixed = np.zeros((n_groups, len(labels)))
    n_validated = np.zeros(n_groups, dtype=int)
    open_rows = np.ones(len(predicted.image_ids), dtype=bool)
    if validated is not None:
        np.add.at(fixed, groups.numbers[validated.rows], validated.shares)
        np.add.at(n_validated, groups.numbers[validated.rows], 1)
        open_rows[validated.rows] = False
    hidden = np.zeros_like(open_rows) if blind is None else blind
    shared_out = np.bincount(groups.numbers[open_rows & hidden], minlength=n_groups)
    open_rows &= ~hidden
    possible = np.flatnonzero(predicted.prior > 0)
    _tell_impossible(predicted, possible, fixed)
    logs = log_likelihoods(predicted.probabilities[:, possible], predicted.prior[possible])
    prior = checked_prior(predicted.prior[possible], len(possible))
    correction, method = _correction(predicted, validated, logs, possible, prior)
    draws = draw_counts(
        logs[open_rows],
        groups.numbers[open_rows],
        n_groups,
        prior=prior,
        validated=fixed[:, possible],
        correction=correction,
        unknown=shared_out,
        seed=seed,
    )
    counts = Counts.of(draws)
    parts = [_spread(part, possible, fixed) for part in (counts.mean, counts.low, counts.high)]
    methods = _methods(predicted, labels, possible, fixed, method + CONDITIONAL * conditional)
    n_images = np.bincount(groups.numbers, minlength=n_groups)
    certain_only = (
        np.isin(methods, (NOT_KNOWN, SEEN_AT_PRIOR_0)) & (n_images > n_validated)[:, None]
    )
    for bound in parts[1:]:
        bound[certain_only] = np.nan
    raw = np.zeros_like(fixed)
    np.add.at(raw, (groups.numbers[~hidden], predicted.suggested[~hidden]), 1)
    return _tidy(
        groups,
        labels,
        {
            "n_images": n_images,
            "n_validated": n_validated,
            "n_shared_out": shared_out,
            "n_not_asked": _or_zeros(groups.n_not_asked, n_groups),
            "n_not_predicted": _or_zeros(groups.n_not_predicted, n_groups),
        },
        raw,
        parts,
        methods,
        predicted,
    )


def method_of(table: pd.DataFrame) -> str:
    """What the intervals of a table rest on, apart from labels that have none."""
    methods = table["method"]
    general = methods[~methods.isin((NOT_KNOWN, SEEN_AT_PRIOR_0, ABSENT_AT_PRIOR_0))]
    return str(general.iloc[0])


def is_checked(table: pd.DataFrame) -> bool:
    """Whether the intervals know of the classifier's own errors."""
    return method_of(table).startswith(CHECKED)


def write_counts(table: pd.DataFrame, output: Path) -> list[Path]:
    """Write a table as CSV and Parquet, and what its columns hold; each file appears whole."""
    contents = {".csv": table, ".parquet": table, ".dictionary.csv": data_dictionary(table)}
    paths = [output_path(output, suffix) for suffix in contents]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents.values(), strict=True):
        write = content.to_parquet if path.suffix == ".parquet" else content.to_csv
        with replacing(path) as temporary:
            write(temporary, index=False)
    return paths


def output_path(output: Path, suffix: str) -> Path:
    """The file of one kind beside the others: `counts` or `counts.csv` → `counts.png`."""
    stem = output.stem if output.suffix.lower() in SUFFIXES else output.name
    return output.with_name(stem + suffix)


def _correction(
    predicted: Predicted,
    validated: Validated | None,
    logs: np.ndarray,
    possible: np.ndarray,
    prior: np.ndarray,
) -> tuple[Correction | None, str]:
    """The classifier's own uncertainty, and in words what the intervals rest on."""
    if validated is None:
        return None, UNCHECKED
    shares = validated.shares[:, possible]
    whole = np.isclose(shares.sum(axis=1), 1)
    if not len(whole):
        return None, UNCHECKED
    if not whole.any():
        bear = "bears" if len(whole) == 1 else "bear"
        return None, (
            "posterior of the composition; classifier taken as right: the "
            f"{counted(len(whole), 'blind validated image')} {bear} only labels that it cannot tell"
        )
    rows = validated.rows[whole]
    units = [predicted.sample_ids[row] or predicted.image_ids[row] for row in rows]
    correction = Correction(logs[rows], shares[whole], prior, np.array(units))
    drawn = "sample" if correction.n_units < len(rows) else "image"
    return correction, (
        f"{CHECKED} {counted(len(rows), 'blind validated image')}, drawn by {drawn}"
    )


def _tell_impossible(predicted: Predicted, possible: np.ndarray, fixed: np.ndarray) -> None:
    impossible = np.setdiff1d(np.arange(len(predicted.labels)), possible)
    if not len(impossible):
        return
    names = [predicted.labels[label] for label in impossible]
    logger.warning("at the prior of the predictions these labels cannot occur: %s", names)
    seen = [predicted.labels[label] for label in impossible if fixed[:, label].any()]
    if seen:
        logger.warning("but people saw %s: only the validated images are counted", seen)


def _methods(
    predicted: Predicted,
    labels: tuple[str, ...],
    possible: np.ndarray,
    fixed: np.ndarray,
    method: str,
) -> np.ndarray:
    """What the count of each label rests on, (k,)."""
    methods = np.full(len(labels), ABSENT_AT_PRIOR_0, dtype=object)
    methods[fixed.any(axis=0)] = SEEN_AT_PRIOR_0
    methods[len(predicted.labels) :] = NOT_KNOWN
    methods[possible] = method
    return methods


def _spread(part: np.ndarray, possible: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """To all labels; what the model cannot tell is counted as validated."""
    full = fixed.copy()
    full[:, possible] = part
    return full


def _or_zeros(counts: np.ndarray | None, n_groups: int) -> np.ndarray:
    return np.zeros(n_groups, dtype=int) if counts is None else counts


def _or_none(sizes: np.ndarray) -> np.ndarray:
    """Without images there are no shares of them either."""
    return np.where(sizes > 0, sizes, np.nan)


def _tidy(
    groups: Groups,
    labels: tuple[str, ...],
    sizes: dict[str, np.ndarray],
    raw: np.ndarray,
    counts: list[np.ndarray],
    methods: np.ndarray,
    predicted: Predicted,
) -> pd.DataFrame:
    n_groups, k = raw.shape
    columns: dict[str, Any] = {
        "control": predicted.control,
        "by": groups.by,
        "group": np.repeat(groups.names, k),
        "label": np.tile(labels, n_groups),
        **{name: np.repeat(size, k) for name, size in sizes.items()},
        "raw_count": raw.ravel().astype(int),
        "raw_frequency": raw.ravel() / np.repeat(_or_none(raw.sum(axis=1)), k),
    }
    for name, part in zip(("count", "count_low95", "count_high95"), counts, strict=True):
        columns["corrected_count" if name == "count" else name] = part.ravel()
    n_images = _or_none(np.repeat(sizes["n_images"], k))
    for name, part in zip(("", "_low95", "_high95"), counts, strict=True):
        columns[f"frequency{name}" if name else "corrected_frequency"] = part.ravel() / n_images
    columns |= {
        "method": np.tile(methods, n_groups),
        "model_version": predicted.model_version,
    }
    return pd.DataFrame(columns)[list(COLUMNS)]
