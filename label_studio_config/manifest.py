"""The table of images: one row an image, one copy of the images, never moved."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

# How the images that `paths` names are opened, packed or not.
from label_studio_config.packed import image_stamp as image_stamp
from label_studio_config.packed import index_of
from label_studio_config.packed import open_image as open_image

REQUIRED_COLUMNS = ("image_id", "path")
"""`image_id`: unique and stable; `path`: POSIX path relative to the manifest's root."""

TEXT_COLUMNS = ("image_id", "path", "sample_id", "captured_at", "instrument")
NUMBER_COLUMNS = ("lat", "lon", "depth_m", "pixel_size_um")
KNOWN_COLUMNS = TEXT_COLUMNS + NUMBER_COLUMNS

MAX_PIXELS = 40_000_000
"""Larger images are whole camera lines or mosaics, not crops, and would fill the memory: whoever
decodes images, or shows them, leaves them out."""


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names the row and the remedy."""


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, and why."""

    path: str
    reason: str


def pixel_size(value: Any) -> float | None:
    """The pixel size in µm that a value from outside states; None where it states none.

    Nothing, text, NaN, infinity, zero and less are no pixel size.
    """
    try:
        size = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if math.isfinite(size) and size > 0 else None


class Manifest:
    """Images and what is known of them.

    Parameters
    ----------
    table
        One row an image. `image_id` and `path` are required; `sample_id`, `captured_at`
        (ISO 8601), `lat`, `lon` (degrees), `depth_m`, `pixel_size_um` and `instrument` are the
        known columns; every other column of the source is kept as it is.
    root
        The folder that `path` is relative to.

    Raises
    ------
    ManifestError
        A required column is missing, an `image_id` stands twice, a path leaves the root, a known
        number is not a number, or a pixel size is not above 0 (unknown ones are left empty).

    Examples
    --------
    >>> manifest = Manifest(pd.DataFrame({"image_id": ["a"], "path": ["a.png"]}), Path("/tmp"))
    >>> len(manifest), manifest.paths[0].name
    (1, 'a.png')
    """

    def __init__(self, table: pd.DataFrame, root: Path | str) -> None:
        self.table = _checked(table.reset_index(drop=True))
        self.root = Path(root)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} images under {self.root})"

    @property
    def image_ids(self) -> list[str]:
        """The ids, in the order of the table."""
        return self.table["image_id"].tolist()

    @property
    def paths(self) -> list[Path]:
        """Absolute paths, in the order of the table."""
        return [self.root / path for path in self.table["path"]]

    @property
    def pixel_sizes_um(self) -> list[float | None]:
        """The side of a pixel in µm, one an image; None where it is not known."""
        if "pixel_size_um" not in self.table:
            return [None] * len(self)
        return [pixel_size(size) for size in self.table["pixel_size_um"]]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over ids and paths: two manifests with the same images have the same one."""
        digest = hashlib.sha256()
        for image_id, path in zip(self.table["image_id"], self.table["path"], strict=True):
            digest.update(f"{image_id}\0{path}\n".encode())
        return digest.hexdigest()

    def select(self, keep: Iterable[str] | np.ndarray | pd.Series) -> Manifest:
        """The rows of a boolean mask, or of some image ids (in their own order).

        Raises
        ------
        ManifestError
            An id is not in the manifest.
        """
        if isinstance(keep, (np.ndarray, pd.Series)) and keep.dtype == bool:
            return Manifest(self.table[np.asarray(keep)], self.root)
        ids = list(keep)
        position = {image_id: row for row, image_id in enumerate(self.table["image_id"])}
        absent = [image_id for image_id in ids if image_id not in position]
        if absent:
            raise ManifestError(f"{len(absent)} images are not in the manifest, e.g. {absent[0]!r}")
        return Manifest(self.table.iloc[[position[image_id] for image_id in ids]], self.root)

    def spread(self, most: int) -> Manifest:
        """At most so many of the rows, spread evenly over all."""
        some = np.zeros(len(self), dtype=bool)
        n_some = min(len(self), most)
        some[np.linspace(0, len(self) - 1, n_some).round().astype(int)] = True
        return self.select(some)

    def write(self, path: Path | str) -> Path:
        """Write as Parquet, the root in the file's metadata; replaces the file atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        note = json.dumps({"root": str(self.root)}).encode()
        metadata = {**(table.schema.metadata or {}), b"planktrait": note}
        table = table.replace_schema_metadata(metadata)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table, temporary)
        temporary.replace(path)
        return path

    @classmethod
    def read(cls, path: Path | str, root: Path | str | None = None) -> Manifest:
        """Read what `write` wrote; `root` overrides the recorded one (images moved, other mount).

        Raises
        ------
        ManifestError
            Not a Parquet file, or not one of ours and no `root` given.
        """
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ManifestError(f"{path} is not a Parquet manifest: {error}") from error
        note = (table.schema.metadata or {}).get(b"planktrait")
        if root is None:
            if note is None:
                raise ManifestError(f"{path} does not say where its images are: give the root")
            root = json.loads(note)["root"]
        return cls(table.to_pandas(), root)


def known_count(source: Path | str) -> int | None:
    """How many images a manifest or a packed folder names; None where only reading tells.

    Nothing but the end of the table is read, and nothing is refused.
    """
    source = Path(source).expanduser()
    table = index_of(source) or source
    if table.suffix.lower() != ".parquet" or not table.is_file():
        return None
    try:
        return int(pq.read_metadata(table).num_rows)
    except (pa.ArrowException, OSError):
        return None


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    for column in REQUIRED_COLUMNS:
        if column not in table:
            raise ManifestError(f"the manifest has no column {column!r}: add it to the table")
    table = table.copy()
    for column in TEXT_COLUMNS:
        if column in table:
            present = table[column].notna()
            table[column] = table[column].astype(object).where(present, None)
            table.loc[present, column] = table.loc[present, column].astype(str)
    for column in NUMBER_COLUMNS:
        if column in table:
            numbers = pd.to_numeric(table[column], errors="coerce")
            wrong = numbers.isna() & table[column].notna()
            if wrong.any():
                row = table[wrong].iloc[0]
                raise ManifestError(
                    f"image {row['image_id']!r}: {column} is {row[column]!r}, not a number"
                )
            table[column] = numbers.astype(float)
    if "pixel_size_um" in table:
        sizes = table["pixel_size_um"]
        wrong = sizes.notna() & ~((sizes > 0) & np.isfinite(sizes))
        if wrong.any():
            row = table[wrong].iloc[0]
            raise ManifestError(
                f"image {row['image_id']!r}: pixel_size_um is {row['pixel_size_um']:g}: leave it "
                "empty where it is unknown"
            )
    for column in REQUIRED_COLUMNS:
        if table[column].isna().any():
            raise ManifestError(f"a row of the manifest has no {column}: fill it or drop the row")
    twice = table["image_id"][table["image_id"].duplicated()]
    if len(twice):
        raise ManifestError(f"image_id {twice.iloc[0]!r} stands twice: ids must be unique")
    for path in table["path"]:
        if path.startswith("/") or ".." in path.split("/"):
            raise ManifestError(f"path {path!r} leaves the root: give paths below the root folder")
    return table
