"""The features of a project's images for one encoder: a folder that grows as images come.

| file | content |
|---|---|
| `encoder/` | the encoder, so that what comes later is measured by the same one |
| `features.npy` | float16, one row an image, of unit length |
| `images.jsonl` | a line an image: id, stamp of its file, why it cannot be read (or null) |
| `state.json` | how much of both is whole; replaced last |

A writer that is killed leaves surplus at the end of the files, which nobody reads and the next one
cuts off. An image whose file has changed gets a new row; the older one is read no more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from hpc_jobs import progress
from hpc_jobs.files import read_json, write_json
from label_studio_config.manifest import Manifest, Skipped, image_stamp
from simclr.append import RowFile
from simclr.cache import ImageCache
from simclr.embed import features_of
from simclr.encoder import Encoder

logger = logging.getLogger(__name__)

ENCODER_FOLDER = "encoder"
FEATURES_FILE = "features.npy"
IMAGES_FILE = "images.jsonl"
STATE_FILE = "state.json"
LOCK_FILE = ".lock"
CHUNK_ROWS = 2048
_NOT_FINITE = "the encoder's features of it are not finite"


class FeatureStoreError(ValueError):
    """A folder that holds no features, or another encoder's; the message says the remedy."""


@dataclass(frozen=True)
class Added:
    """What came of adding images.

    Attributes
    ----------
    added : int
        Images whose features are new.
    bad : list of Skipped
        Images that cannot be read.
    """

    added: int
    bad: list[Skipped]


class FeatureStore:
    """Features by image id; open it with `create` or `open`.

    Attributes
    ----------
    folder : Path
    fingerprint : str
        Of the encoder.
    feature_count : int
    """

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        self.folder = folder
        self.fingerprint = str(state["fingerprint"])
        self.feature_count = int(state["feature_count"])
        self._rows: dict[str, int] = {}
        self._stamps: dict[str, int] = {}
        self._bad: dict[str, str] = {}
        self._journal_bytes_read = 0
        self._rows_read = 0

    @classmethod
    def create(cls, folder: Path | str, encoder: Encoder) -> FeatureStore:
        """Open the store of an encoder; begin it where there is none.

        Raises
        ------
        FeatureStoreError
            The folder holds the features of another encoder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        fingerprint = encoder.fingerprint
        with FileLock(folder / LOCK_FILE):
            if not (folder / STATE_FILE).is_file():
                encoder.save(folder / ENCODER_FOLDER)
                state = {
                    "fingerprint": fingerprint,
                    "feature_count": encoder.feature_count,
                    "rows": 0,
                    "journal_bytes": 0,
                }
                write_json(folder / STATE_FILE, state)
        store = cls.open(folder)
        if store.fingerprint != fingerprint:
            raise FeatureStoreError(f"{folder} holds features of another encoder: choose another")
        return store

    @classmethod
    def open(cls, folder: Path | str) -> FeatureStore:
        """Open a store that is there.

        Raises
        ------
        FeatureStoreError
            The folder holds none.
        """
        folder = Path(folder)
        state = read_json(folder / STATE_FILE)
        if not isinstance(state, dict):
            raise FeatureStoreError(f"{folder} holds no features: `create` begins them")
        return cls(folder, state)

    def __len__(self) -> int:
        """Rows that are whole on the disk now, whoever wrote them."""
        return int(self._state()["rows"])

    @property
    def features(self) -> np.ndarray:
        """float16 memmap, shape (n, feature_count): rows of unit length, or 0 for no feature."""
        n_rows = len(self)
        if not n_rows:
            return np.zeros((0, self.feature_count), dtype=np.float16)
        rows: np.ndarray = np.load(self.folder / FEATURES_FILE, mmap_mode="r")[:n_rows]
        return rows

    @property
    def rows(self) -> dict[str, int]:
        """By image id, its row."""
        self._read_journal()
        return self._rows

    @property
    def bad(self) -> dict[str, str]:
        """By image id, why an image has no features."""
        self._read_journal()
        return self._bad

    def load_encoder(self) -> Encoder:
        """The encoder, in evaluation mode."""
        return Encoder.load(self.folder / ENCODER_FOLDER).eval()

    def missing(self, manifest: Manifest) -> Manifest:
        """The images of a manifest that are not here, or whose file has changed since."""
        return self._absent(manifest)[0]

    def add(
        self,
        manifest: Manifest,
        encoder: Encoder | None = None,
        *,
        chunk_rows: int = CHUNK_ROWS,
        threads: int | None = None,
    ) -> Added:
        """Add the images of a manifest that are missing; a killed run is gone on with.

        Parameters
        ----------
        manifest : Manifest
        encoder : Encoder, optional
            The store's own, where the caller has loaded it already.
        chunk_rows : int
            So many images are written at once.
        threads : int, optional
            That decode; one a core by default.
        """
        absent = self.missing(manifest)
        added, bad = 0, []
        for first in range(0, len(absent), chunk_rows):
            encoder = encoder or self.load_encoder()
            mask = np.zeros(len(absent), dtype=bool)
            mask[first : first + chunk_rows] = True
            # Held for one chunk only: two that write share the work, and nobody waits for long.
            with FileLock(self.folder / LOCK_FILE):
                rest, stamps = self._absent(absent.select(mask))
                chunk = _embed(encoder, rest, threads) if len(rest) else _Chunk.empty(encoder)
                self._append(chunk, stamps)
            added += len(chunk.image_ids)
            bad += [Skipped(path, reason) for _, path, reason in chunk.bad]
            done = min(first + chunk_rows, len(absent))
            progress.report("features", done, len(absent), f"{len(bad)} cannot be read")
        for skip in bad[:20]:
            logger.warning("no features of %s: %s", skip.path, skip.reason)
        return Added(added, bad)

    def _absent(self, manifest: Manifest) -> tuple[Manifest, dict[str, int]]:
        """What is missing, and the stamps of those images."""
        self._read_journal()
        pairs = zip(manifest.image_ids, manifest.paths, strict=True)
        stamps = {image_id: _stamp(path) for image_id, path in pairs}
        stamps = {i: stamp for i, stamp in stamps.items() if self._stamps.get(i) != stamp}
        mask = np.array([image_id in stamps for image_id in manifest.image_ids], dtype=bool)
        return manifest.select(mask), stamps

    def _state(self) -> dict[str, Any]:
        state = read_json(self.folder / STATE_FILE)
        if not isinstance(state, dict):
            raise FeatureStoreError(f"{self.folder} is gone: start a job that makes it again")
        return state

    def _read_journal(self) -> None:
        whole_bytes = int(self._state()["journal_bytes"])
        if whole_bytes == self._journal_bytes_read:
            return
        with (self.folder / IMAGES_FILE).open("rb") as file:
            file.seek(self._journal_bytes_read)
            lines = file.read(whole_bytes - self._journal_bytes_read).decode().splitlines()
        for image_id, stamp, reason in map(json.loads, lines):
            self._stamps[image_id] = stamp
            if reason is None:
                self._rows[image_id] = self._rows_read
                self._rows_read += 1
                self._bad.pop(image_id, None)
            else:
                self._bad[image_id] = reason
                self._rows.pop(image_id, None)
        self._journal_bytes_read = whole_bytes

    def _append(self, chunk: _Chunk, stamps: dict[str, int]) -> None:
        state = self._state()
        file = RowFile(self.folder / FEATURES_FILE, np.float16, (self.feature_count,))
        file.truncate(int(state["rows"]))  # what a killed writer left
        file.append(chunk.features)
        file.finish()
        lines = [[image_id, stamps[image_id], None] for image_id in chunk.image_ids]
        lines += [[image_id, stamps[image_id], reason] for image_id, _, reason in chunk.bad]
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with (self.folder / IMAGES_FILE).open("ab") as journal:
            journal.truncate(int(state["journal_bytes"]))
            journal.write(text)
            journal.flush()
            os.fsync(journal.fileno())
        grown = {"rows": file.count, "journal_bytes": int(state["journal_bytes"]) + len(text)}
        write_json(self.folder / STATE_FILE, state | grown)


@dataclass(frozen=True)
class _Chunk:
    image_ids: list[str]
    features: np.ndarray
    bad: list[tuple[str, str, str]]  # image id, path, reason

    @classmethod
    def empty(cls, encoder: Encoder) -> _Chunk:
        return cls([], np.zeros((0, encoder.feature_count), dtype=np.float32), [])


def unit_length(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; a row of zeros stays one."""
    features = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def _embed(encoder: Encoder, manifest: Manifest, threads: int | None) -> _Chunk:
    with tempfile.TemporaryDirectory() as scratch, progress.quiet():
        cache = ImageCache.build(manifest, encoder.preprocessing, scratch, workers=threads)
        features = unit_length(features_of(encoder, cache.images))
        image_ids = cache.image_ids
        reasons = {skip.path: skip.reason for skip in cache.skipped}
    finite = np.isfinite(features).all(axis=1)
    kept = [image_id for image_id, good in zip(image_ids, finite, strict=True) if good]
    readable = set(kept)
    rows = zip(manifest.image_ids, manifest.table["path"], strict=True)
    bad = [(i, path, reasons.get(path, _NOT_FINITE)) for i, path in rows if i not in readable]
    return _Chunk(kept, features[finite], bad)


def _stamp(path: Path) -> int:
    """A number that changes with the file; below 2**53, exact in any JSON."""
    try:
        text = f"{path}\0{image_stamp(path).replace(':', chr(0))}"
    except OSError:
        text = f"{path}\0absent"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")
