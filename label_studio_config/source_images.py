"""Which files are images that we can use: found, opened and decoded once, at the door."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from label_studio_config.manifest import MAX_PIXELS, Skipped

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"})

Report = Callable[[str, int, int], None]
"""Called as `report(stage, done, total)`; `hpc_jobs.progress.report` fits."""

_BATCH = 512


def find_images(folder: Path) -> Iterator[str]:
    """Paths of image files below `folder`, relative and POSIX, in a stable order.

    Files and folders whose name starts with a dot (`.DS_Store`, `._crop.png`) are no images.
    """
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(directory).relative_to(folder)
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield (here / name).as_posix()


def why_unusable(
    path: Path, root: Path, max_pixels: int = MAX_PIXELS, *, decode: bool = True
) -> str | None:
    """Why an image cannot be used, or None when it can. Decodes the whole image by default."""
    try:
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            return "a link that leads outside the folder"
        if not path.is_file():
            return "not found"
        if path.stat().st_size == 0:
            return "empty file (0 bytes)"
    except (OSError, RuntimeError) as error:  # a link that leads to itself, too
        return f"unreadable: {error}"
    return why_undecodable(path, max_pixels) if decode else None


def why_undecodable(file: Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> str | None:
    """Why the content of a file is no image that can be used, or None when it is one."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            if width * height > max_pixels:
                return (
                    f"oversized: {width} × {height} px is more than the limit of {max_pixels:,} px"
                )
            image.load()
    except Image.DecompressionBombError:
        return f"oversized: more than the limit of {max_pixels:,} px"
    except UnidentifiedImageError:
        return "unreadable: not an image"
    except Exception as error:  # Pillow's decoders raise anything on damaged files
        return f"unreadable: {error}"
    return None


def check_images(
    root: Path,
    paths: Sequence[str],
    *,
    max_pixels: int = MAX_PIXELS,
    decode: bool = True,
    report: Report | None = None,
) -> tuple[list[str], list[Skipped]]:
    """Part paths (relative to `root`) into usable ones and skipped ones, keeping their order.

    Without `decode` images that cannot be decoded are among the usable ones.
    """
    # Pillow decodes without the interpreter's lock, so threads use all cores.
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1)) as pool:
        reasons: list[str | None] = []
        batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
        for batch in _shown(batches, len(paths)):
            reasons += pool.map(
                lambda path: why_unusable(root / path, root, max_pixels, decode=decode), batch
            )
            if report is not None:
                report("check images", len(reasons), len(paths))
    usable = [path for path, reason in zip(paths, reasons, strict=True) if reason is None]
    skipped = [Skipped(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason]
    return usable, skipped


def _shown(batches: Iterable[Sequence[str]], total: int) -> Iterator[Sequence[str]]:
    with tqdm(
        total=total, desc="check images", unit="image", disable=not sys.stderr.isatty()
    ) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))
    logger.info("checked %d images", total)
