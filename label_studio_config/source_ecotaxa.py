"""EcoTaxa's tables (TSV) in the manifest's columns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd

from label_studio_config.manifest import ManifestError, Skipped
from label_studio_config.source_tables import (
    ROW,
    ecotaxa_time,
    number_column,
    read_text_table,
    same_name,
)

logger = logging.getLogger(__name__)

ECOTAXA_EXTRAS = (
    "object_id",
    "object_annotation_category",
    "object_annotation_hierarchy",
    "object_annotation_status",
    "object_annotation_person_name",
    "object_annotation_date",
    "object_depth_min",
    "object_depth_max",
    "acq_id",
    "process_id",
)
"""What else of a table is kept unless asked otherwise: no features, no e-mail addresses."""


def ecotaxa_files(folder: Path) -> list[Path]:
    """The tables of an export: `ecotaxa_*.tsv` anywhere below the folder, else any `.tsv`."""
    files = sorted(folder.rglob("ecotaxa_*.tsv")) or sorted(folder.rglob("*.tsv"))
    if not files:
        raise ManifestError(f"no .tsv file in {folder}: give the folder of an EcoTaxa export")
    return files


def ecotaxa_table(
    file: Path, root: Path, on_disk: Mapping[str, str], extras: Iterable[str] | Literal["all"]
) -> tuple[pd.DataFrame, list[Skipped]]:
    """One TSV as rows of a manifest, and the rows that name no image.

    `on_disk` holds each image's real path, relative to `root`, by its composed name.

    Raises
    ------
    ManifestError
        No `img_file_name`, or a cell that is not what its column says; names the line.
    """
    source = read_text_table(file, delimiter="\t")
    if "img_file_name" not in source:
        raise ManifestError(
            f"{file} has no column 'img_file_name': it is not an EcoTaxa table with images"
        )
    types = source["img_file_name"].isin(["[t]", "[f]"])
    source = source[~types]
    nameless = source["img_file_name"].isna()
    skipped = [
        Skipped(file.name, f"no img_file_name: line {line}") for line in source.loc[nameless, ROW]
    ]
    source = source[~nameless].reset_index(drop=True)
    here = file.parent.relative_to(root)
    written = [(here / same_name(name).lstrip("/")).as_posix() for name in source["img_file_name"]]
    paths = [on_disk.get(path, path) for path in written]
    table = pd.DataFrame({"image_id": paths, "path": paths}, dtype=object)
    outside = table["path"].str.split("/").map(lambda parts: ".." in parts)
    skipped += [
        Skipped(path, "a path that leads outside the folder") for path in table["path"][outside]
    ]
    table = table.join(_ecotaxa_columns(source, file))
    wanted = source.columns.drop(ROW) if extras == "all" else list(extras)
    kept = [column for column in wanted if column in source and column not in table]
    return table.join(source[kept])[~outside], skipped


def _ecotaxa_columns(source: pd.DataFrame, file: Path) -> pd.DataFrame:
    def numbers(column: str, known: str) -> pd.Series:
        if column not in source:
            return pd.Series(float("nan"), index=source.index)
        return number_column(source.rename(columns={column: known}), known, file)

    def text(column: str) -> pd.Series:
        return source[column] if column in source else pd.Series([None] * len(source), dtype=object)

    depths = pd.concat(
        [numbers("object_depth_min", "depth_m"), numbers("object_depth_max", "depth_m")], axis=1
    )
    moments = zip(text("object_date"), text("object_time"), source[ROW], strict=True)
    columns = {
        "sample_id": text("sample_id"),
        "captured_at": pd.Series(
            [ecotaxa_time(day, time, file, line) for day, time, line in moments], dtype=object
        ),
        "instrument": text("acq_instrument"),
        "lat": numbers("object_lat", "lat"),
        "lon": numbers("object_lon", "lon"),
        "depth_m": depths.mean(axis=1),
        "pixel_size_um": pixel_sizes_um(source, file),
    }
    return pd.DataFrame(columns)


def pixel_sizes_um(source: pd.DataFrame, file: Path) -> pd.Series:
    """Pixel size in µm from the first column that states it.

    ZooScan writes `process_particle_pixel_size_mm`, UVP `acq_pixel` (mm), IFCB
    `acq_resolution_pixel_per_micron` or `process_pixel_um`. `process_pixel` is mm in UVP's tables
    and µm in PlanktoScope's: it is used only where the instrument says which.
    """
    size = pd.Series(float("nan"), index=source.index)

    def column(name: str) -> pd.Series:
        if name not in source:
            return pd.Series(float("nan"), index=source.index)
        return number_column(source, name, file).where(lambda value: value > 0)

    size = size.fillna(column("process_pixel_um"))
    size = size.fillna(column("process_particle_pixel_size_mm") * 1000)
    size = size.fillna(column("acq_pixel") * 1000)
    for name in ("acq_resolution_pixel_per_micron", "acq_resolution_pixels_per_micron"):
        size = size.fillna(1 / column(name))
    maker = pd.Series("", index=source.index)
    for name in ("acq_instrument", "acq_software", "process_software", "process_source"):
        if name in source:
            maker = maker + " " + source[name].fillna("").str.lower()
    in_mm = maker.str.contains("uvp|zooprocess")
    in_um = maker.str.contains("planktoscope")
    size = size.fillna(column("process_pixel").where(in_um))
    size = size.fillna((column("process_pixel") * 1000).where(in_mm & ~in_um))
    if size.isna().any():
        logger.warning(
            "%s: no pixel size for %d of %d rows; lengths will be blank unless you give one",
            file.name,
            int(size.isna().sum()),
            len(size),
        )
    return size
