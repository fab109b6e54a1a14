"""The groups in which images are counted, and how many of their images have no prediction."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from label_studio_config.manifest import Manifest
from label_studio_config.words import counted, have
from ml_backend.quantify import QuantifyError
from ml_backend.split import clean_ids

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
COLUMN_OF = {"depth": "depth_m", "day": "captured_at"}
_DAY = re.compile(r"(\d{4})(-?)(\d{2})\2(\d{2})(?!\d)")


@dataclass(frozen=True)
class Groups:
    """Which group each of n images is in.

    Attributes
    ----------
    by : str
        As `group_images` takes it.
    names : list of str
        In the order of the numbers; groups without any of the n images are among them.
    numbers : int array (n,)
    n_not_asked, n_not_predicted : int array (g,), optional
        Further images of each group: those that were predicted but are not counted, and those
        without a prediction. By default none.
    notes : list of str
        What is missing, for people.
    """

    by: str
    names: list[str]
    numbers: np.ndarray
    n_not_asked: np.ndarray | None = None
    n_not_predicted: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def group_images(
    manifest: Manifest,
    image_ids: Sequence[str],
    by: str = "sample_id",
    depth_bin_m: float = 10.0,
    not_asked: Sequence[str] = (),
) -> Groups:
    """Group predicted images by what the manifest says of them.

    Images that it does not know, or whose cell is empty, form the group "unknown", the last one.
    A group without images to count stays, so that it is not taken for one that was never there.

    Parameters
    ----------
    by
        "depth" (bins of `depth_bin_m`), "day" (of captured_at, as written), or a column.
    not_asked
        Ids of images that were predicted too, but are not to be counted.

    Raises
    ------
    QuantifyError
        No such column, a bin that is not above 0, or no image in common.
    """
    column = COLUMN_OF.get(by, by)
    table = manifest.table
    if column not in table:
        others = [name for name in table.columns if name not in ("image_id", "path")]
        raise QuantifyError(
            f"the images have no column {column!r} to count by (they have "
            f"{', '.join(others) or 'none'}): choose --by among these, or give a table that has it "
            "with --metadata"
        )
    if not 0 < depth_bin_m < np.inf:
        raise QuantifyError(f"a depth bin of {depth_bin_m} m: give a number above 0")
    cells = pd.Series(
        _names(table[column], by, depth_bin_m), index=table["image_id"].to_numpy(), dtype=object
    )
    looked_at = pd.Index([*image_ids, *not_asked])
    known = looked_at.isin(cells.index)
    if not known.any():
        raise QuantifyError(
            "no predicted image is in --source: give the folder or manifest that was predicted"
        )
    if not known.all():
        logger.warning("%s not in --source: unknown", _are((~known).sum(), "predicted image"))
    mine = cells.reindex(looked_at).fillna(UNKNOWN)
    missing = cells[~cells.index.isin(looked_at)]
    names = sorted({*mine, *missing}, key=_sorting)
    _tell_unknown(mine, missing, names, column)
    number_of = {name: number for number, name in enumerate(names)}
    numbers = mine.iloc[: len(image_ids)].map(number_of).to_numpy(dtype=int)
    return Groups(
        by,
        names,
        numbers,
        n_not_asked=_counts(mine.iloc[len(image_ids) :], names),
        n_not_predicted=_counts(missing, names),
        notes=_missing_note(missing, len(cells)),
    )


def _counts(groups: pd.Series, names: list[str]) -> np.ndarray:
    return groups.value_counts().reindex(names, fill_value=0).to_numpy(dtype=int)


def _tell_unknown(mine: pd.Series, missing: pd.Series, names: list[str], column: str) -> None:
    predicted = set(mine)
    empty = [name for name in names if name not in predicted]
    if empty:
        shown = ", ".join(empty[:5]) + (" …" if len(empty) > 5 else "")
        said = counted(len(empty), "group")
        logger.warning("%s %s no predicted image: %s", said, have(len(empty)), shown)
    n_unknown = int((mine == UNKNOWN).sum())
    if n_unknown:
        said = counted(n_unknown, "image")
        logger.warning("%s %s no %s: group %r", said, have(n_unknown), column, UNKNOWN)


def _missing_note(missing: pd.Series, n_all: int) -> list[str]:
    if not len(missing):
        return []
    return [
        f"{len(missing)} of {counted(n_all, 'image')} {have(len(missing))} no prediction, e.g. "
        f"{missing.index[0]!r}, and {'is' if len(missing) == 1 else 'are'} not counted: predicting "
        "was not run to its end, or could not read them, which it lists. n_not_predicted in the "
        "table tells how many each group lacks."
    ]


def _are(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def _names(cells: pd.Series, by: str, depth_bin_m: float) -> list[str]:
    if by == "depth":
        bins = np.floor(cells.to_numpy(dtype=float) / depth_bin_m)
        return [
            f"{b * depth_bin_m:.10g} to {(b + 1) * depth_bin_m:.10g} m"
            if np.isfinite(b)
            else UNKNOWN
            for b in bins
        ]
    if by == "day":
        return [_day(text) for text in clean_ids(cells.tolist())]
    # One by one: a list would make 64 bits of 32, and 0.1 what it is not.
    values = cells.to_numpy() if cells.dtype.kind == "f" else cells.tolist()
    return [
        text if text and text != "nan" else UNKNOWN
        for text in clean_ids([_text(cell) for cell in values])
    ]


def _day(moment: str) -> str:
    """The day of a moment in ISO 8601, extended or basic (20260304T101010)."""
    found = _DAY.match(moment)
    try:
        return date.fromisoformat("-".join(found.group(1, 3, 4))).isoformat() if found else UNKNOWN
    except ValueError:
        return UNKNOWN


def _text(cell: Any) -> Any:
    """A number in full, whole ones without a point: a column with gaps makes 7.0 of 7."""
    if not isinstance(cell, float | np.floating):
        return cell
    return str(int(cell)) if cell.is_integer() else str(cell)


def _sorting(name: str) -> tuple[bool, list[tuple[bool, float, str]]]:
    """Numbers in names by their value, "unknown" last."""
    key = []
    for part in re.findall(r"(?:^-)?\d+(?:\.\d+)?|\D+", name):
        is_number = part[-1].isdecimal()
        key.append((not is_number, float(part) if is_number else 0.0, "" if is_number else part))
    return name == UNKNOWN, key
