"""Many small files in a few large ones, as parallel file systems want them.

The folder holds `shard-00000.tar`, …, which WebDataset reads as they are (one sample an image, its
key the path without ending), and `index.parquet`: the manifest, with shard, offset and length of
each image. The single images stay where they are, for Label Studio to serve.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from filelock import FileLock

from label_studio_config.manifest import Manifest, Skipped
from label_studio_config.packed import INDEX_FILE, PLAN_FILE, PackedImage, open_image
from label_studio_config.skipped_file import write_skipped
from label_studio_config.source_images import Report, why_undecodable

SHARD_BYTES = 256_000_000
SKIPPED_FILE = "skipped.csv"
_AT_ONCE = 256


class PackError(ValueError):
    """Images that cannot be packed; the message says why and the remedy."""


@dataclass(frozen=True)
class Packed:
    """What lies in a folder.

    Attributes
    ----------
    folder : Path
    images, shards : int
    skipped : list of Skipped
        Images that cannot be read or are oversized, which are left out.
    """

    folder: Path
    images: int
    shards: int
    skipped: list[Skipped]


def pack(
    manifest: Manifest,
    folder: Path | str,
    *,
    shard_bytes: int = SHARD_BYTES,
    report: Report | None = None,
) -> Packed:
    """Pack the images of a manifest, in its order.

    A shard bears its name once it is whole. Called again with the same arguments, a killed run
    goes on after its last whole shard, and a finished one returns at once.

    Parameters
    ----------
    manifest : Manifest
        Its images need not have been decoded: those that cannot be used are left out.
    folder : Path or str
        Of the shards.
    shard_bytes : int
        A shard ends with the image that reaches this size.
    report : function of (stage, done, total), optional

    Raises
    ------
    PackError
        The folder holds something else, no image can be read, or the disk is full.
    """
    folder = Path(folder)
    if shard_bytes < 1:
        raise PackError(f"a shard of {shard_bytes} bytes: give 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        _claim(folder, manifest, shard_bytes)
        if not (folder / INDEX_FILE).is_file():
            try:
                _write_shards(folder, manifest, shard_bytes, report)
                _write_index(folder, manifest)
            except OSError as error:
                raise PackError(
                    f"{folder} cannot be written ({error}): make room, call again, and it goes on"
                ) from error
    skipped = pd.read_csv(folder / SKIPPED_FILE, keep_default_na=False)
    return Packed(
        folder=folder,
        images=len(manifest) - len(skipped),
        shards=len(list(folder.glob("shard-*.tar"))),
        skipped=[Skipped(*row) for row in skipped.itertuples(index=False)],
    )


def sample_names(paths: list[str]) -> list[str]:
    """Names in a shard: the paths, so that no two images are one sample of WebDataset.

    WebDataset takes what stands before the first dot of a file name for the sample's key.

    Examples
    --------
    >>> sample_names(["a/x.1.PNG", "a/x.png", "a/x.jpg"])
    ['a/x_1.png', 'a/x.png', 'a/x_2.jpg']
    """
    taken: set[str] = set()
    names = []
    for text in paths:
        path = PurePosixPath(text)
        stem = path.stem.replace(".", "_") or "_"
        keys = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        key = next(key for key in keys if str(path.parent / key) not in taken)
        taken.add(str(path.parent / key))
        names.append(str(path.parent / f"{key}{path.suffix.lower()}"))
    return names


def _claim(folder: Path, manifest: Manifest, shard_bytes: int) -> None:
    """Make the folder this call's, or go on with it if it is already."""
    plan = {
        "images": manifest.fingerprint,
        "root": str(manifest.root.resolve()),
        "shard_bytes": shard_bytes,
    }
    path = folder / PLAN_FILE
    if path.is_file() and json.loads(path.read_text()) != plan:
        raise PackError(f"{folder} holds other images or shards of another size: give a new folder")
    if not path.is_file() and list(folder.glob("*.tar")):
        raise PackError(f"{folder} holds tar files that are not from here: give a new folder")
    temporary = folder / f".{PLAN_FILE}"
    temporary.write_text(json.dumps(plan))
    temporary.replace(path)


def _write_shards(
    folder: Path, manifest: Manifest, shard_bytes: int, report: Report | None
) -> None:
    number, first = 0, 0
    while (part := _part_file(folder, number)).is_file():
        first = int(pd.read_json(part, lines=True)["row"].iloc[-1]) + 1
        number += 1
    names, paths = sample_names(manifest.table["path"].tolist()), manifest.paths
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        images = _read_in_order(pool, paths, first)
        while first < len(paths):
            first = _write_shard(folder, number, images, names, shard_bytes, report)
            number += 1


def _read_in_order(
    pool: ThreadPoolExecutor, paths: list[Path], first: int
) -> Iterator[tuple[int, bytes, str | None]]:
    """Row, content, and why it cannot be used."""
    for start in range(first, len(paths), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(paths)))
        for row, (content, reason) in zip(
            rows, pool.map(_read, [paths[row] for row in rows]), strict=True
        ):
            yield row, content, reason


def _read(path: Path) -> tuple[bytes, str | None]:
    try:
        with open_image(path) as file:
            content = file.read()
    except OSError as error:
        return b"", f"cannot be read: {error.strerror or error}"
    if not content:
        return content, "empty file (0 bytes)"
    return content, why_undecodable(io.BytesIO(content))


def _write_shard(
    folder: Path,
    number: int,
    images: Iterator[tuple[int, bytes, str | None]],
    names: list[str],
    shard_bytes: int,
    report: Report | None,
) -> int:
    """Write one shard, and beside it what it holds; returns the row after its last."""
    shard = folder / f"shard-{number:05d}.tar"
    temporary = folder / f".{shard.name}.part"
    rows: list[dict[str, Any]] = []
    with temporary.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for row, content, reason in images:
                note: dict[str, Any] = {"row": row, "reason": reason, "length": len(content)}
                if reason is None:
                    entry = tarfile.TarInfo(names[row])
                    entry.size, entry.mode = len(content), 0o644
                    tar.addfile(entry, io.BytesIO(content))
                    # Contents are filled up to whole blocks.
                    blocks = -(-len(content) // tarfile.BLOCKSIZE)
                    note["offset"] = file.tell() - blocks * tarfile.BLOCKSIZE
                rows.append(note)
                if report is not None:
                    report("pack", row + 1, len(names))
                if file.tell() >= shard_bytes:
                    break
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(shard)
    part = _part_file(folder, number)
    beside = folder / f"{part.name}.new"
    beside.write_text("".join(json.dumps(note) + "\n" for note in rows))
    beside.replace(part)
    return int(rows[-1]["row"]) + 1


def _part_file(folder: Path, number: int) -> Path:
    return folder / f".shard-{number:05d}.jsonl"


def _write_index(folder: Path, manifest: Manifest) -> None:
    names = sample_names(manifest.table["path"].tolist())
    parts = sorted(folder.glob(".shard-*.jsonl"))
    notes = [
        json.loads(line) | {"shard": f"{part.stem[1:]}.tar"}
        for part in parts
        for line in part.read_text().splitlines()
    ]
    skipped = [
        Skipped(manifest.table["path"].iloc[note["row"]], note["reason"])
        for note in notes
        if note["reason"] is not None
    ]
    kept = [note for note in notes if note["reason"] is None]
    if not kept:
        raise PackError(f"none of {len(notes)} images can be read, e.g. {skipped[:1]}")
    table = manifest.table.iloc[[note["row"] for note in kept]].reset_index(drop=True)
    places = [
        PackedImage(note["shard"], note["offset"], note["length"], names[note["row"]])
        for note in kept
    ]
    table = table.assign(
        path=list(map(str, places)),
        unpacked_path=table["path"],
        shard=[place.shard for place in places],
        offset=[place.offset for place in places],
        length=[place.length for place in places],
    )
    write_skipped(folder / SKIPPED_FILE, skipped)
    Manifest(table, folder.resolve()).write(folder / INDEX_FILE)
    for part in parts:
        part.unlink()
