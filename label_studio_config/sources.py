"""Where images come from: one reader a source, each giving a `Manifest` and what it skipped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from label_studio_config.manifest import (
    KNOWN_COLUMNS,
    MAX_PIXELS,
    NUMBER_COLUMNS,
    Manifest,
    ManifestError,
    Skipped,
    pixel_size,
)
from label_studio_config.packed import PackedImage, index_of
from label_studio_config.source_ecotaxa import ECOTAXA_EXTRAS, ecotaxa_files, ecotaxa_table
from label_studio_config.source_images import Report, check_images, find_images
from label_studio_config.source_tables import (
    ROW,
    iso_time,
    number_column,
    read_text_table,
    same_name,
)

__all__ = ["MAX_PIXELS", "Skipped", "read_ecotaxa", "read_folder"]

logger = logging.getLogger(__name__)

FILE_COLUMNS = ("filename", "file_name", "file", "image", "path", "image_id", "img_file_name")
"""Names under which a metadata table may hold the image's path or file name."""

_ALIASES = {
    "sample": "sample_id",
    "latitude": "lat",
    "longitude": "lon",
    "depth": "depth_m",
    "datetime": "captured_at",
    "timestamp": "captured_at",
}


def read_folder(
    folder: Path | str,
    metadata_csv: Path | str | None = None,
    *,
    pixel_size_um: float | None = None,
    max_pixels: int = MAX_PIXELS,
    decode: bool = True,
    report: Report | None = None,
) -> tuple[Manifest, list[Skipped]]:
    """Read every image below a folder, with an optional table of metadata.

    Parameters
    ----------
    folder
        Root of the manifest; `image_id` is an image's path relative to it.
    metadata_csv
        One row an image. A column `filename` (or one of `FILE_COLUMNS`) holds the path relative
        to the folder, or the bare file name where that is unique. Known columns: sample_id,
        captured_at (ISO 8601), lat, lon (degrees), depth_m, pixel_size_um, instrument; any other
        column is kept.
    pixel_size_um
        Pixel size of the images for which the table states none.
    max_pixels
        Larger images are skipped.
    decode
        Whether each image is decoded, to skip those that cannot be. Without, whoever decodes them
        must skip them.

    Returns
    -------
    manifest, skipped
        `skipped` lists unreadable, empty and oversized images, and rows of the table that name
        an absent image.

    Raises
    ------
    ManifestError
        No usable image, or a table that contradicts itself or holds a value that is not one.
    """
    folder = _existing_folder(folder)
    found = list(find_images(folder))
    usable, skipped = check_images(
        folder, found, max_pixels=max_pixels, decode=decode, report=report
    )
    table = pd.DataFrame({"image_id": usable, "path": usable}, dtype=object)
    if metadata_csv is not None:
        where = Path(metadata_csv)
        metadata, absent = _folder_metadata(where, found)
        skipped += absent
        without = sum(path not in metadata.index for path in usable)
        if without:
            logger.warning("%d of %d images have no row in %s", without, len(usable), where.name)
        table = table.join(metadata, on="path")
    return _finish(table, folder, skipped, pixel_size_um)


def has_images_to_read(source: Path) -> bool:
    """Whether `read_source` opens each image of a source, which takes long where they are many."""
    is_manifest = source.suffix.lower() == ".parquet"
    return index_of(source) is None and not is_manifest and source.exists()


def read_source(
    source: Path | str,
    metadata_csv: Path | str | None = None,
    *,
    pixel_size_um: float | None = None,
    decode: bool = True,
    report: Report | None = None,
) -> tuple[Manifest, list[Skipped]]:
    """Read whatever names images: a manifest, packed images, an EcoTaxa export, or a folder.

    A `.parquet` file is a manifest; a folder of shards (`label_studio_config.pack`) is what its
    index says, wherever it has been copied; a `.tsv`, or a folder that holds `ecotaxa_*.tsv`, is an
    EcoTaxa export (unless `metadata_csv` is given); any other folder is a folder of images. Images
    of folders and exports are decoded, unless `decode` is False: see `read_folder`.

    Raises
    ------
    ManifestError
        There is nothing there, or it is none of these.
    """
    source = Path(source).expanduser()
    index = index_of(source)
    if index is not None:
        if not index.is_file():
            raise ManifestError(f"{source} is not packed to its end: repeat `planktrait pack`")
        if metadata_csv is not None:
            raise ManifestError(f"{source} is packed with its metadata: pack it again with the new")
        return Manifest.read(index, index.parent.resolve()), []
    if source.suffix.lower() == ".parquet" and source.is_file():
        if metadata_csv is not None:
            raise ManifestError(
                f"{source} has its metadata already: give the folder of its images instead, or "
                "make it anew with the table (planktrait manifest)"
            )
        return Manifest.read(source), []
    is_table = source.suffix.lower() == ".tsv" and source.is_file()
    if metadata_csv is None and (is_table or any(source.glob("ecotaxa_*.tsv"))):
        return read_ecotaxa(source, pixel_size_um=pixel_size_um, decode=decode, report=report)
    if not source.is_dir():
        raise ManifestError(
            f"{source} is no folder of images, manifest (.parquet) or EcoTaxa table (.tsv)"
        )
    return read_folder(
        source, metadata_csv, pixel_size_um=pixel_size_um, decode=decode, report=report
    )


def showable(manifest: Manifest) -> tuple[Manifest, list[Skipped]]:
    """The images that a browser can show; TIFF is the one format that it cannot.

    Raises
    ------
    ManifestError
        The images are packed: a browser is served files of their own.
    """
    if any(PackedImage.of(path) for path in manifest.table["path"].iloc[:1]):
        raise ManifestError("packed images cannot be shown: give the folder of the single images")
    is_tiff = manifest.table["path"].str.lower().str.endswith((".tif", ".tiff"))
    reason = "browsers cannot show TIFF: convert it to PNG"
    skipped = [Skipped(path, reason) for path in manifest.table.loc[is_tiff, "path"]]
    return manifest.select((~is_tiff).to_numpy(bool)), skipped


def read_ecotaxa(
    tsv: Path | str,
    *,
    extras: Iterable[str] | Literal["all"] = ECOTAXA_EXTRAS,
    pixel_size_um: float | None = None,
    max_pixels: int = MAX_PIXELS,
    decode: bool = True,
    report: Report | None = None,
) -> tuple[Manifest, list[Skipped]]:
    """Read an EcoTaxa export or import: a TSV, or a folder with several, images beside them.

    `img_file_name` is relative to its own TSV; the root is the folder given, or the TSV's.
    The second row of `[t]` and `[f]` may be absent. Depth is the middle of `object_depth_min` and
    `object_depth_max`; the pixel size comes from the instrument's own column, see
    `source_ecotaxa.pixel_sizes_um`.

    Parameters
    ----------
    extras
        Further columns to keep where the table has them, or "all" (morphometric features too).
    pixel_size_um, max_pixels, decode
        As in `read_folder`.

    Raises
    ------
    ManifestError
        No TSV, no `img_file_name`, no usable image, or a value that is not one.
    """
    tsv = Path(tsv)
    if tsv.suffix.lower() == ".zip":
        raise ManifestError(f"{tsv} is a zip file: unpack it and give the folder")
    root = tsv if tsv.is_dir() else tsv.parent
    files = ecotaxa_files(tsv) if tsv.is_dir() else [tsv]
    parts = []
    skipped: list[Skipped] = []
    on_disk = {same_name(path): path for path in find_images(root)}
    for file in files:
        part, nameless = ecotaxa_table(file, root, on_disk, extras)
        parts.append(part)
        skipped += nameless
    table = pd.concat(parts, ignore_index=True)
    twice = table["path"].duplicated()
    skipped += [Skipped(path, "named by more than one row") for path in table.loc[twice, "path"]]
    table = table[~twice].reset_index(drop=True)
    usable, unusable = check_images(
        root, table["path"].tolist(), max_pixels=max_pixels, decode=decode, report=report
    )
    table = table[table["path"].isin(set(usable))]
    return _finish(table, root, skipped + unusable, pixel_size_um)


def _finish(
    table: pd.DataFrame, root: Path, skipped: list[Skipped], pixel_size_um: float | None
) -> tuple[Manifest, list[Skipped]]:
    if pixel_size_um is not None:
        if pixel_size(pixel_size_um) is None:
            raise ManifestError(f"pixel_size_um is {pixel_size_um}: it must be above 0")
        stated = (
            table["pixel_size_um"] if "pixel_size_um" in table else pd.Series(index=table.index)
        )
        table = table.assign(pixel_size_um=stated.astype(float).fillna(pixel_size_um))
    reasons = Counter(item.reason.split(":")[0] for item in skipped)
    for reason, count in reasons.most_common():
        logger.warning("skipped %d: %s", count, reason)
    if not len(table):
        said = "; ".join(f"{item.path}: {item.reason}" for item in skipped[:3])
        raise ManifestError(f"no usable image in {root}" + (f" ({said})" if said else ""))
    logger.info("%d images from %s, %d skipped", len(table), root, len(skipped))
    known = [column for column in KNOWN_COLUMNS if column in table]
    extras = [column for column in table.columns if column not in known]
    return Manifest(table[["image_id", "path", *known[2:], *extras]], root.resolve()), skipped


def _existing_folder(folder: Path | str) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise ManifestError(f"{folder} is not a folder: give the folder that holds the images")
    return folder


def _folder_metadata(where: Path, found: list[str]) -> tuple[pd.DataFrame, list[Skipped]]:
    """The metadata table by image path, and the rows that name an image that is not there."""
    table = read_text_table(where)
    key = next((column for column in FILE_COLUMNS if column in table), None)
    if key is None:
        raise ManifestError(
            f"{where} has no column that names the image: call it 'filename' "
            f"(columns: {', '.join(table.columns.drop(ROW))})"
        )
    table = table.rename(columns={a: b for a, b in _ALIASES.items() if b not in table})
    by_path = {same_name(path): path for path in found}
    by_name: dict[str, list[str]] = {}
    for path in found:
        by_name.setdefault(same_name(path).rsplit("/", 1)[-1], []).append(path)
    paths = pd.Series([None] * len(table), index=table.index, dtype=object)
    absent: list[Skipped] = []
    for row, name, line in zip(table.index, table[key], table[ROW], strict=True):
        wanted = same_name(name or "")
        candidates = [by_path[wanted]] if wanted in by_path else by_name.get(wanted, [])
        if len(candidates) > 1:
            raise ManifestError(
                f"{where}, line {line}: {name!r} is the name of {len(candidates)} images "
                f"({candidates[0]}, {candidates[1]}): give the path relative to the folder"
            )
        if candidates:
            paths[row] = candidates[0]
        else:
            reason = f"not found: named in {where.name}, line {line}"
            absent.append(Skipped(name or "", reason))
    table = table.assign(path=paths)
    table = table[table["path"].notna()]
    twice = table["path"].duplicated()
    if twice.any():
        row = table[twice].iloc[0]
        raise ManifestError(
            f"{where}, line {row[ROW]}: a second row for {row['path']!r}: keep one row an image"
        )
    table = _checked_columns(table, where)
    return table.set_index("path").drop(columns=[key, "image_id"], errors="ignore"), absent


def _checked_columns(table: pd.DataFrame, where: Path) -> pd.DataFrame:
    for column in NUMBER_COLUMNS:
        if column in table:
            table[column] = number_column(table, column, where)
    if "captured_at" in table:
        table["captured_at"] = [
            iso_time(cell, where, line)
            for cell, line in zip(table["captured_at"], table[ROW], strict=True)
        ]
    return table.drop(columns=ROW)
