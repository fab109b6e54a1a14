"""Shards of a folder, each marked with what it holds: what is whole is kept, the rest made anew."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from label_studio_config.manifest import Manifest, Skipped, image_stamp

logger = logging.getLogger(__name__)

RECORD_KEY = "planktrait"
"""In a shard's metadata: JSON with its `mark` and, as pairs of path and reason, its `skipped`."""


class ShardsError(ValueError):
    """Shards that belong to something else, or hold nothing; the message says the remedy."""


def only(manifest: Manifest, *places: range) -> Manifest:
    """The images of some shards."""
    mask = np.zeros(len(manifest), dtype=bool)
    for some in places:
        mask[some.start : some.stop] = True
    return manifest if mask.all() else manifest.select(mask)


def shards_of_part(
    folder: Path, manifest: Manifest, shard_size: int, part: tuple[int, int]
) -> range:
    """The numbers of the shards that call k of n makes in a folder; whoever gets none is told.

    Raises
    ------
    ShardsError
        The folder holds shards of another size, or more of them than these images give.
    """
    n_shards = -(-len(manifest) // shard_size)
    numbers = range(part[0], n_shards, part[1])
    if n_shards and not numbers:
        logger.warning(
            "--part %d/%d: there are %d shard(s), and others make them: nothing to do here",
            *part,
            n_shards,
        )
    _refuse_other_size(folder, manifest, shard_size)
    _refuse_surplus(folder, n_shards)
    return numbers


def _refuse_other_size(folder: Path, manifest: Manifest, shard_size: int) -> None:
    """Shards of these images, but of more or fewer each, belong to nothing else: say so.

    Raises
    ------
    ShardsError
    """
    held = ((path, _image_ids(path)) for path in sorted(folder.glob("part-*.parquet")))
    path, found = next((one for one in held if one[1] is not None), (folder, None))
    if found is None:
        return
    image_ids, n_skipped = found
    row_of = {image_id: row for row, image_id in enumerate(manifest.image_ids)}
    rows = [row_of.get(image_id, -1) for image_id in image_ids]
    if min(rows) < 0:
        return
    number, n, n_all = int(path.stem.removeprefix("part-")), len(rows) + n_skipped, len(manifest)
    places = range(number * shard_size, min((number + 1) * shard_size, n_all))
    if n == len(places) and rows[0] in places and rows[-1] in places:
        return
    if number * n <= rows[0] and rows[-1] < (number + 1) * n:
        size = n
    elif number and n_all - n <= rows[0] and (n_all - n) % number == 0:
        size = (n_all - n) // number  # the last one
    else:
        return
    is_last = not path.with_name(f"part-{number + 1:05d}.parquet").exists()
    may_be_fewer = is_last and size == n and n < len(places)
    cause = ", or of fewer images" if may_be_fewer else ""
    remedy = "" if may_be_fewer else f"give --shard-size {size}, "
    raise ShardsError(
        f"{path} is of another --shard-size{cause}: it holds {n} of these images, and "
        f"--shard-size {shard_size} puts {len(places)} there: {remedy}choose an empty folder, or "
        "remove the old shards"
    )


def _image_ids(path: Path) -> tuple[list[str], int] | None:
    """The images of a shard and how many it left out; None where it has none, or is damaged."""
    if not path.stem.removeprefix("part-").isdecimal():
        return None
    try:
        file = pq.ParquetFile(path)
        record = json.loads((file.metadata.metadata or {}).get(RECORD_KEY.encode(), b"{}"))
        image_ids = file.read(["image_id"]).column("image_id").to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    return (image_ids, len(record["skipped"])) if image_ids and "skipped" in record else None


def _refuse_surplus(folder: Path, n_shards: int) -> None:
    """A longer earlier run left shards that a reader of the folder would take for these images.

    Raises
    ------
    ShardsError
    """
    ours = {f"part-{number:05d}.parquet" for number in range(n_shards)}
    surplus = sorted(path for path in folder.glob("part-*.parquet") if path.name not in ours)
    if surplus:
        raise ShardsError(
            f"{surplus[0]} is left from a run with more images (these give {n_shards} shard(s)): "
            "choose an empty folder, or remove the old shards"
        )


def read_mark(path: Path, mark: str, others: str) -> list[Skipped] | None:
    """The skipped images of a shard that is there; None where it has to be made (anew).

    That is also where none of its images could be read: the folder of the images may have been
    missing on that machine. And where it does not say what was skipped, as earlier versions wrote.

    Parameters
    ----------
    others : str
        What a shard with another mark holds, e.g. "features of other images".

    Raises
    ------
    ShardsError
        It belongs to something else, or may not be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ShardsError(f"{path} cannot be read ({error}): mend that, or remove it") from error
    try:
        # All of it: each page has a checksum.
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        file.read()
        record = json.loads((file.metadata.metadata or {}).get(RECORD_KEY.encode(), b"{}"))
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        logger.warning("%s is damaged (%s): made anew", path, error)
        return None
    if record.get("mark") != mark:
        raise ShardsError(
            f"{path} holds {others}: choose an empty folder, or remove the old shards"
        )
    if not file.metadata.num_rows or "skipped" not in record:
        return None
    return [Skipped(*entry) for entry in record["skipped"]]


def count_rows(
    shards: Sequence[Path],
    skipped: Sequence[Skipped],
    manifest: Manifest,
    part: tuple[int, int] = (0, 1),
) -> int:
    """Images that the shards of a call hold.

    Parameters
    ----------
    manifest : Manifest
        All images, also those of other calls.
    part : (int, int)
        (k, n): one of n calls. Its few images may all be bad: that is an error only where no image
        of the manifest is there, as on a machine without their disk.

    Raises
    ------
    ShardsError
        None of them could be read. The shards are removed, so that a repetition reads them again.
    """
    count = sum(pq.read_metadata(path).num_rows for path in shards)
    if count or not skipped:
        return count
    none = f"none of {len(skipped)} images can be read"
    if part[1] > 1 and any(_is_there(manifest.root / path) for path in manifest.table["path"]):
        logger.warning("--part %d/%d: %s", *part, none)
        return 0
    for path in shards:
        path.unlink()
    said = "; ".join(f"{one.path}: {one.reason}" for one in skipped[:3])
    raise ShardsError(
        f"{none} ({said}): see that these are images and that "
        "you may read them, and repeat this command"
    )


def _is_there(image: Path) -> bool:
    try:
        image_stamp(image)
    except OSError:
        return False
    return True
