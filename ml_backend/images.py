"""Images in batches, decoded while the model computes; a bad image is skipped and listed.

Many images are decoded by processes of their own: Pillow holds Python's lock for half of its work
on small images, so that two threads are slower than one.
"""

from __future__ import annotations

import logging
import mmap
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import DataLoader, Dataset

from hpc_jobs.processors import our_share
from label_studio_config.manifest import Manifest, Skipped
from simclr.preprocessing import Preprocessing, PreprocessingError, read_image

logger = logging.getLogger(__name__)

DECODERS = 2
BATCHES_AHEAD = 2
BYTES_AHEAD = 96 * 2**20
"""So many pixels processes may decode ahead: what they can while a network is made ready."""
FEW_IMAGES = 2000
"""Up to these the start of processes costs more than it saves."""

LONGEST_BATCH_S = 300
SECONDS_BETWEEN_LOOKS = 5
"""Whether the parent of a process that decodes is still there."""
_DEATHS = re.compile(r"DataLoader worker \(pid.* (killed|exited)|DataLoader timed out")

Decoded = tuple[np.ndarray, np.ndarray] | str


class DecodingError(RuntimeError):
    """The processes that decode have died; what they did is lost, a repetition goes on."""


@dataclass(frozen=True)
class ImageBatch:
    """Some images of a manifest, ready for an encoder.

    Attributes
    ----------
    rows : int array (n,)
        Their rows in the manifest.
    pixels : uint8 array (n, c, s, s)
    log_extents : float32 array (n, 2)
    skipped : list of Skipped
        Images of this stretch of the manifest that could not be read.
    """

    rows: np.ndarray
    pixels: np.ndarray
    log_extents: np.ndarray
    skipped: list[Skipped]

    def __len__(self) -> int:
        """Images of this stretch, read or skipped."""
        return len(self.rows) + len(self.skipped)


def read_batches(
    manifest: Manifest,
    preprocessing: Preprocessing,
    batch_size: int,
    extent_unit: str = "px",
    processes: int | None = None,
    borders: Sequence[int] = (),
) -> Iterator[ImageBatch]:
    """The images of a manifest in its order, at most `batch_size` at a time.

    Processes begin at once, before the first batch is asked for, and decode ahead as far as
    `BYTES_AHEAD` allows, in any case two batches each.

    Parameters
    ----------
    extent_unit : {"px", "um"}
        With "um", images without a pixel size are skipped: their size would be read as if a pixel
        were a micrometre.
    processes : int, optional
        That decode; 0 decodes in threads of this process. By default one a processor that is ours
        for more than 2,000 images, of a job or a command.
    borders : sequence of int
        Rows in ascending order that begin a new batch.
    """
    decoder = _Decoder(manifest, preprocessing, extent_unit, batch_size, borders)
    if processes is None:
        # A web server's other threads may hold a lock that a child would wait for.
        forks = threading.current_thread() is threading.main_thread()
        many = len(manifest) > FEW_IMAGES and forks
        processes = our_share() if many else 0
    return _logged(_in_processes(decoder, processes) if processes else _in_threads(decoder))


def _logged(batches: Iterator[ImageBatch]) -> Iterator[ImageBatch]:
    for batch in batches:
        for skip in batch.skipped:
            logger.warning("skipped %s: %s", skip.path, skip.reason)
        yield batch


@contextmanager
def decoding() -> Iterator[None]:
    """Say in words that a decoding process was killed: PyTorch raises it wherever one is just then.

    Raises
    ------
    DecodingError
    """
    try:
        yield
    except DecodingError:
        raise
    except RuntimeError as error:
        if not _DEATHS.search(str(error)):
            raise
        raise DecodingError(
            f"a process that decodes images was killed, or gave nothing for {LONGEST_BATCH_S} s "
            f"({error}): is the memory full? A repetition goes on where this run stopped"
        ) from error


@contextmanager
def deaths_told_later() -> Iterator[None]:
    """Hold back that a decoding process was killed, for code that would take it for its own fault.

    PyTorch raises it wherever the main thread is just then; so it is raised at the end instead.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    tell = signal.getsignal(signal.SIGCHLD)
    deaths: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGCHLD, lambda *death: deaths.append(death))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, tell)
    if deaths and callable(tell):
        tell(*deaths[-1])


class _Decoder(Dataset):
    """The batches by number, as PyTorch's loader takes them."""

    def __init__(
        self,
        manifest: Manifest,
        preprocessing: Preprocessing,
        extent_unit: str,
        batch_size: int,
        borders: Sequence[int] = (),
    ) -> None:
        self.root = os.fspath(manifest.root)
        # Of Python's own strings each process would copy the memory when it counts a reference.
        self.paths = pa.array(manifest.table["path"], pa.large_string())
        known = manifest.pixel_sizes_um if extent_unit == "um" else [None] * len(manifest)
        self.sizes_um = np.array(known, dtype=np.float64)  # NaN where unknown
        self.preprocessing = preprocessing
        self.extent_unit = extent_unit
        self.batch_size = batch_size
        self.places = np.zeros((0, *self.shape(batch_size)), dtype=np.uint8)
        ends = [*borders, len(manifest)]
        stretches = list(pairwise([0, *ends]))
        firsts = [np.arange(first, last, batch_size) for first, last in stretches]
        self.firsts = np.concatenate(firsts)
        self.ends = np.minimum(
            self.firsts + batch_size, np.repeat(ends, [len(numbers) for numbers in firsts])
        )

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        rows = self.rows(number)
        batch = self.gather(rows, [self.decode(int(row)) for row in rows])
        self.place(number)[: len(batch.rows)] = batch.pixels
        return batch.rows, batch.log_extents, [s.reason for s in batch.skipped]

    def share_places(self, count: int) -> None:
        """Room for the pixels of so many batches, which processes forked from now on share.

        PyTorch's own way, a tensor, has a thread of the child hand over each batch, which waits
        for Python's lock while the child decodes: a tenth of the time for small images.
        """
        shape = (count, *self.shape(self.batch_size))
        room = mmap.mmap(-1, int(np.prod(shape)))
        self.places = np.frombuffer(room, dtype=np.uint8).reshape(shape)

    def place(self, number: int) -> np.ndarray:
        """Where the pixels of a batch lie."""
        return self.places[number % len(self.places)]

    def shape(self, n_images: int) -> tuple[int, int, int, int]:
        settings = self.preprocessing
        return n_images, settings.channels, settings.image_size_px, settings.image_size_px

    def rows(self, number: int) -> np.ndarray:
        return np.arange(self.firsts[number], self.ends[number])

    def skipped(self, row: int, reason: str) -> Skipped:
        return Skipped(str(Path(self.root, self.paths[row].as_py())), reason)

    def decode(self, row: int) -> Decoded:
        size_um = None if np.isnan(self.sizes_um[row]) else float(self.sizes_um[row])
        if self.extent_unit == "um" and size_um is None:
            return "has no pixel_size_um, and the model measures sizes in µm"
        try:
            # A Path for each would take a twentieth of the time.
            path = os.path.join(self.root, self.paths[row].as_py())
            return self.preprocessing.preprocess_image(read_image(path), size_um)
        except (PreprocessingError, OSError) as error:
            return str(error)

    def gather(self, rows: np.ndarray, decoded: list[Decoded]) -> ImageBatch:
        kept, pixels, extents, skipped = [], [], [], []
        for row, result in zip(rows, decoded, strict=True):
            if isinstance(result, str):
                skipped.append(self.skipped(row, result))
                continue
            kept.append(row)
            pixels.append(result[0])
            extents.append(result[1])
        return ImageBatch(
            np.array(kept, dtype=int),
            np.stack(pixels) if pixels else np.zeros(self.shape(0), dtype=np.uint8),
            np.stack(extents) if extents else np.zeros((0, 2), dtype=np.float32),
            skipped,
        )


def _in_threads(decoder: _Decoder) -> Iterator[ImageBatch]:
    with ThreadPoolExecutor(DECODERS) as pool:
        ahead: deque[tuple[np.ndarray, list[Future[Decoded]]]] = deque()
        for number in range(len(decoder)):
            rows = decoder.rows(number)
            ahead.append((rows, [pool.submit(decoder.decode, int(row)) for row in rows]))
            if len(ahead) > BATCHES_AHEAD:
                rows, futures = ahead.popleft()
                yield decoder.gather(rows, [future.result() for future in futures])
        for rows, futures in ahead:
            yield decoder.gather(rows, [future.result() for future in futures])


def _in_processes(decoder: _Decoder, processes: int) -> Iterator[ImageBatch]:
    bytes_a_batch = int(np.prod(decoder.shape(decoder.batch_size)))
    ahead = max(BATCHES_AHEAD, BYTES_AHEAD // (bytes_a_batch * processes))
    ahead = min(ahead, -(-len(decoder) // processes))
    # While a batch is taken the loader has asked for so many after it.
    decoder.share_places(ahead * processes + 1)
    loader = DataLoader(
        decoder,
        batch_size=None,
        shuffle=False,
        num_workers=processes,
        prefetch_factor=ahead,
        multiprocessing_context="fork",  # the children only decode, and start at once
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_parent,
        timeout=LONGEST_BATCH_S,
    )
    return _taken(decoder, iter(loader))


def _taken(decoder: _Decoder, loaded: Iterator[Any]) -> Iterator[ImageBatch]:
    for number, (rows, log_extents, reasons) in enumerate(loaded):
        pixels = decoder.place(number)[: len(rows)].copy()
        bad = sorted(set(decoder.rows(number).tolist()) - set(rows.tolist()))
        skipped = [decoder.skipped(row, why) for row, why in zip(bad, reasons, strict=True)]
        yield ImageBatch(rows, pixels, log_extents, skipped)


def _leave_signals_to_the_parent(worker: int) -> None:
    """A scheduler's signals reach every process of a job: its handlers are the parent's to run."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        # Not ignored: a Python that ends terminates those that decode, and waits for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        parent = os.getppid()
        threading.Thread(target=_end_with_the_parent, args=[parent], daemon=True).start()


def _end_with_the_parent(parent: int) -> None:
    """End this process when the parent terminates it, or is gone; not when others do."""
    while os.getppid() == parent:
        told = signal.sigtimedwait({signal.SIGTERM}, SECONDS_BETWEEN_LOOKS)
        if told is not None and told.si_pid == parent:
            break
    os._exit(0)


def _as_it_is(batch: object) -> object:
    return batch
