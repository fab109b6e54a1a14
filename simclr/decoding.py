"""The building of an image cache: resumable, chunk by chunk.

It is written in `<fingerprint>.part` and renamed when it is whole. After each chunk the state says
how many rows are safe on the disk; a run that goes on cuts the files back to that number.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from hpc_jobs import progress
from label_studio_config.manifest import Manifest, Skipped, image_stamp
from simclr.append import RowFile
from simclr.preprocessing import Preprocessing, PreprocessingError, read_image

logger = logging.getLogger(__name__)

CHUNK_ROWS = 512
STATE_FILE = "state.json"
SKIPPED_FILE = "skipped.jsonl"
REMOVED_PREFIX = ".removed-"
_FORMAT = 1


class CacheError(ValueError):
    """A cache that cannot be built; the message says why and the remedy."""


@dataclass(frozen=True)
class DecodingPlan:
    """What is to be decoded and how."""

    image_ids: list[str]
    relative_paths: list[str]
    paths: list[Path]
    pixel_sizes_um: np.ndarray  # shape (n,), NaN where unknown
    preprocessing: Preprocessing
    extent_unit: str
    max_pixels: int
    keys: np.ndarray  # shape (n,), 16 bytes a row: the same key, the same row
    fingerprint: str

    @classmethod
    def make(
        cls,
        manifest: Manifest,
        preprocessing: Preprocessing,
        extent_unit: str | None,
        max_pixels: int,
    ) -> DecodingPlan:
        table = manifest.table
        sizes = np.array(manifest.pixel_sizes_um, dtype=float)  # NaN where unknown
        if extent_unit is None:
            extent_unit = "um" if len(sizes) and not np.isnan(sizes).any() else "px"
        if extent_unit not in ("px", "um"):
            raise CacheError(f"extent_unit {extent_unit!r}: give 'px' or 'um'")
        settings = json.dumps(
            [_FORMAT, preprocessing.decoding, extent_unit, max_pixels], sort_keys=True
        )
        used_sizes = sizes if extent_unit == "um" else np.full(len(table), np.nan)
        keys = np.array(
            [
                _key(settings, path, size)
                for path, size in zip(manifest.paths, used_sizes, strict=True)
            ],
            dtype="V16",
        )
        digest = hashlib.sha256(settings.encode())
        digest.update(keys.tobytes())
        digest.update("\n".join(manifest.image_ids).encode())
        return cls(
            image_ids=manifest.image_ids,
            relative_paths=table["path"].tolist(),
            paths=manifest.paths,
            pixel_sizes_um=used_sizes,
            preprocessing=preprocessing,
            extent_unit=extent_unit,
            max_pixels=max_pixels,
            keys=keys,
            fingerprint=digest.hexdigest()[:24],
        )


class Decoding:
    """The building of one cache."""

    def __init__(self, plan: DecodingPlan, folder: Path, workers: int) -> None:
        size, channels = plan.preprocessing.image_size_px, plan.preprocessing.channels
        self.plan, self.folder, self.workers = plan, folder, workers
        self.part = folder / f"{plan.fingerprint}.part"
        self.part.mkdir(exist_ok=True)
        self.files = {
            "images": RowFile(self.part / "images.npy", np.uint8, (channels, size, size)),
            "log_extents": RowFile(self.part / "log_extents.npy", np.float32, (2,)),
            "rows": RowFile(self.part / "rows.npy", np.int64, ()),
            "keys": RowFile(self.part / "keys.npy", "V16", ()),
        }

    def run(self) -> None:
        plan = self.plan
        start = self._resume()
        self._check_disk(len(plan.keys) - start)
        donors = _Donors(self.folder, plan)
        with ThreadPoolExecutor(self.workers) as pool:
            progress.report("decode images", start, len(plan.keys))
            for first in range(start, len(plan.keys), CHUNK_ROWS):
                last = min(first + CHUNK_ROWS, len(plan.keys))
                found = donors.rows(first, last)
                fresh = [row for row in range(first, last) if row not in found]
                found.update(zip(fresh, pool.map(self._decode, fresh), strict=True))
                self._append(sorted(found.items()), last)
                progress.report("decode images", last, len(plan.keys))
        for file in self.files.values():
            file.finish()
        remove_cache(self.folder / plan.fingerprint)  # what a deletion by hand may have left
        self.part.rename(self.folder / plan.fingerprint)
        donors.remove_contained({key.tobytes() for key in plan.keys})

    def _resume(self) -> int:
        """Cut the files back to the last whole chunk; returns the next row of the manifest."""
        state = _read_state(self.part) or {"next_row": 0, "written": 0, "skipped": 0}
        for file in self.files.values():
            file.truncate(state["written"])
        path = self.part / SKIPPED_FILE
        lines = path.read_text().splitlines()[: state["skipped"]] if path.is_file() else []
        path.write_text("".join(f"{line}\n" for line in lines))
        self.skipped_count = len(lines)
        if state["next_row"]:
            logger.info("decoding goes on at image %d", state["next_row"])
        return int(state["next_row"])

    def _decode(self, row: int) -> tuple[np.ndarray, np.ndarray] | str:
        """Pixels and log extent, or why there are none."""
        plan = self.plan
        size_um = plan.pixel_sizes_um[row]
        if plan.extent_unit == "um" and np.isnan(size_um):
            return "has no pixel_size_um, and sizes are asked for in µm"
        try:
            image = read_image(plan.paths[row], plan.max_pixels)
            return plan.preprocessing.preprocess_image(
                image, None if np.isnan(size_um) else float(size_um)
            )
        except PreprocessingError as error:
            return str(error)

    def _append(
        self, results: list[tuple[int, tuple[np.ndarray, np.ndarray] | str]], next_row: int
    ) -> None:
        good = [(row, result) for row, result in results if not isinstance(result, str)]
        if good:
            rows = np.array([row for row, _ in good])
            self.files["images"].append(np.stack([pixels for _, (pixels, _) in good]))
            self.files["log_extents"].append(np.stack([extent for _, (_, extent) in good]))
            self.files["rows"].append(rows)
            self.files["keys"].append(self.plan.keys[rows])
        with (self.part / SKIPPED_FILE).open("a") as file:
            for row, reason in results:
                if isinstance(reason, str):
                    image = asdict(Skipped(self.plan.relative_paths[row], reason))
                    file.write(json.dumps({"row": row, "image": image}) + "\n")
                    self.skipped_count += 1
        written = self.files["rows"].count
        state = {"next_row": next_row, "written": written, "skipped": self.skipped_count}
        _write_state(self.part, {**state, "settings": self.plan.preprocessing.decoding})

    def _check_disk(self, rows: int) -> None:
        need = rows * self.files["images"].row_bytes
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise CacheError(
                f"{rows} images need {need / 1e9:.1f} GB in {self.folder}, which has "
                f"{free / 1e9:.1f} GB free: make room, or choose a smaller image size"
            )


class _Donors:
    """Rows that other whole caches of the folder hold."""

    def __init__(self, folder: Path, plan: DecodingPlan) -> None:
        self.plan = plan
        self.sources: list[tuple[np.ndarray, np.ndarray, dict[bytes, int]]] = []
        self.folders: list[Path] = []
        for state in folder.glob(f"[!.]*/{STATE_FILE}"):
            source = state.parent
            if source.suffix == ".part":
                continue
            try:
                stored = _read_state(source) or {}
                if stored.get("settings") != plan.preprocessing.decoding:
                    continue
                keys = np.load(source / "keys.npy")
                images = np.load(source / "images.npy", mmap_mode="r")
                log_extents = np.load(source / "log_extents.npy")
            except (OSError, ValueError) as error:  # removed meanwhile, or damaged
                logger.warning("the cache %s cannot be read: %s", source, error)
                continue
            position = {key.tobytes(): row for row, key in enumerate(keys)}
            self.folders.append(source)
            self.sources.append((images, log_extents, position))

    def rows(self, first: int, last: int) -> dict[int, Any]:
        """Pixels and log extent by row of the manifest, for the rows that are there."""
        return dict(self._find(first, last))

    def remove_contained(self, keys: set[bytes]) -> None:
        """Remove caches that hold nothing but rows of the new one, unless one is being opened."""
        for folder, (_, _, position) in zip(self.folders, self.sources, strict=True):
            if position.keys() <= keys:
                with contextlib.suppress(Timeout), FileLock(f"{folder}.lock", timeout=0):
                    remove_cache(folder)

    def _find(self, first: int, last: int) -> Iterator[tuple[int, Any]]:
        for row in range(first, last):
            key = self.plan.keys[row].tobytes()
            for images, log_extents, position in self.sources:
                if key in position:
                    yield row, (images[position[key]], log_extents[position[key]])
                    break


def remove_cache(folder: Path) -> None:
    """Remove a cache, whole or not at all to whoever looks; and what a killed removal left."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(folder.with_name(f"{REMOVED_PREFIX}{folder.name}-{uuid.uuid4().hex[:8]}"))
    for removed in folder.parent.glob(f"{REMOVED_PREFIX}*"):
        shutil.rmtree(removed, ignore_errors=True)


def _key(settings: str, path: Path, pixel_size_um: float) -> bytes:
    """16 bytes that change with the file, its pixel size or the decoding."""
    try:
        stamp = image_stamp(path)
    except OSError:
        stamp = "absent"
    text = f"{settings}\0{path}\0{stamp}\0{pixel_size_um}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _read_state(folder: Path) -> dict[str, Any] | None:
    path = folder / STATE_FILE
    return json.loads(path.read_text()) if path.is_file() else None


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    temporary = folder / f".{STATE_FILE}"
    temporary.write_text(json.dumps(state))
    temporary.replace(folder / STATE_FILE)
