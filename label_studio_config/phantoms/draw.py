"""A folder of phantom plankton images with known truth."""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from label_studio_config.phantoms.catalogue import KINDS, Kind, Sample, plan_samples
from label_studio_config.phantoms.curves import ellipse, lumpy, place
from label_studio_config.phantoms.optics import Camera, expose, optical_depth
from label_studio_config.phantoms.scene import Phantom, Scene
from label_studio_config.phantoms.truth import truth_of

logger = logging.getLogger(__name__)

QUALITIES = {"Sharp": 0.78, "Blurry": 0.10, "Cropped": 0.07, "Several organisms": 0.05}

METADATA_COLUMNS = (
    "filename",
    "sample_id",
    "captured_at",
    "lat",
    "lon",
    "depth_m",
    "pixel_size_um",
    "instrument",
)

# Raised when the same seed would no longer draw the same images.
_DRAWING = 1


@dataclass(frozen=True)
class PhantomFolder:
    """What was drawn: the folder, its metadata table (for `read_folder`) and the truth."""

    folder: Path
    metadata_csv: Path
    truth_csv: Path


def draw_phantoms(
    folder: Path | str,
    n: int = 1500,
    seed: int = 0,
    *,
    processes: int | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> PhantomFolder:
    """Draw `n` images into `folder`, the same ones for the same seed.

    Writes `images/<sample>/<name>.png`, `metadata.csv` and `truth.csv` (see `phantoms.truth`).
    What is already there from the same call is kept.

    Parameters
    ----------
    processes
        Worker processes; by default one a core, none for a few images.
    report
        Called as `report(stage, done, total)`.

    Raises
    ------
    ValueError
        `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: draw at least one image")
    folder = Path(folder)
    drawn = PhantomFolder(folder, folder / "metadata.csv", folder / "truth.csv")
    note = folder / ".phantoms.json"
    wanted = {"n": n, "seed": seed, "drawing": _DRAWING}
    if note.exists() and json.loads(note.read_text()) == wanted and drawn.truth_csv.exists():
        logger.info("%d phantoms are already in %s", n, folder)
        return drawn
    samples = plan_samples(n, np.random.default_rng([seed, 0]))
    for sample in samples:
        (folder / "images" / sample.sample_id).mkdir(parents=True, exist_ok=True)
    draw = partial(_draw_image, folder, seed, samples)
    rows = []
    for row in tqdm(
        _mapped(draw, n, processes),
        total=n,
        desc="draw phantoms",
        unit="image",
        disable=not sys.stderr.isatty(),
    ):
        rows.append(row)
        if report is not None:
            report("draw phantoms", len(rows), n)
    _write_csv(drawn.metadata_csv, [metadata for metadata, _ in rows])
    _write_csv(drawn.truth_csv, [truth for _, truth in rows])
    note.write_text(json.dumps(wanted))
    logger.info("drew %d phantoms in %d samples into %s", n, len(samples), folder)
    return drawn


def _mapped(draw: Callable[[int], Any], n: int, processes: int | None) -> Iterator[Any]:
    workers = min(os.cpu_count() or 1, 8) if processes is None else processes
    if workers <= 1 or n < 100:
        yield from map(draw, range(n))
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(draw, range(n), chunksize=16)


def _draw_image(
    folder: Path, seed: int, samples: list[Sample], index: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw one image; its row of the metadata and of the truth."""
    rng = np.random.default_rng([seed, 1, index])
    sample = samples[int(rng.integers(len(samples)))]
    quality = str(rng.choice(list(QUALITIES), p=list(QUALITIES.values())))
    phantoms = [_pick(sample, rng).draw(rng) for _ in range(1 + (quality == "Several organisms"))]
    # The image is named after the largest organism on it.
    phantoms.sort(key=lambda phantom: -np.prod(np.subtract(*phantom.scene.extent()[::-1])))
    phantom = phantoms[0]
    pixels, scene = _photograph(phantoms, quality, sample, rng)
    image_id = f"images/{sample.sample_id}/{sample.sample_id}-{index:05d}.png"
    Image.fromarray(pixels).save(folder / image_id)
    captured_at = sample.captured_at + timedelta(seconds=int(rng.integers(0, 540)))
    metadata = {"filename": image_id} | {
        name: getattr(sample, name) for name in METADATA_COLUMNS if name != "filename"
    }
    metadata["captured_at"] = captured_at.isoformat()
    return metadata, truth_of(phantom, image_id, quality, scene, pixels.shape, sample)


def _pick(sample: Sample, rng: np.random.Generator) -> Kind:
    return KINDS[int(rng.choice(len(KINDS), p=sample.composition))]


def _photograph(
    phantoms: list[Phantom], quality: str, sample: Sample, rng: np.random.Generator
) -> tuple[np.ndarray, Scene]:
    """The image, and the scene in µm from its upper left corner."""
    scene = _turned(phantoms[0].scene, rng)
    for other in phantoms[1:]:
        scene = scene.merged(_neighbour(scene, other.scene, rng))
    low, high = scene.extent()
    margin = rng.uniform(4, 11, 4) * sample.pixel_size_um
    low, high = low - margin[:2], high + margin[2:]
    if quality == "Cropped":
        axis = int(np.argmax(high - low))
        cut = rng.uniform(0.25, 0.45) * (high - low)[axis]
        if rng.random() < 0.5:
            low[axis] += cut
        else:
            high[axis] -= cut
    scene = scene.mapped(lambda points: points - low)
    width, height = np.maximum(np.ceil((high - low) / sample.pixel_size_um), 24).astype(int)
    blurry = quality == "Blurry"
    camera = Camera(
        sample.pixel_size_um,
        level=sample.water_level + rng.normal(0, 4),
        gradient=rng.uniform(0.02, 0.14),
        defocus_px=rng.uniform(1.9, 3.2) if blurry else rng.uniform(0.45, 1.0),
        fringe=rng.uniform(0.15, 0.5),
        noise=rng.uniform(2.0, 4.5),
    )
    depth = optical_depth(scene, width, height, sample.pixel_size_um, rng)
    specks = _specks(width * sample.pixel_size_um, height * sample.pixel_size_um, rng)
    if specks.shapes:
        depth += optical_depth(specks, width, height, sample.pixel_size_um, rng)
    return expose(depth, camera, rng), scene


def _turned(scene: Scene, rng: np.random.Generator) -> Scene:
    """At any angle and mirrored at random: plankton has no upright position."""
    angle, mirror = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    return scene.mapped(lambda points: place(points * [1.0, mirror], (0.0, 0.0), angle))


def _neighbour(scene: Scene, other: Scene, rng: np.random.Generator) -> Scene:
    """Another scene, moved beside the first so that they nearly touch."""
    other = _turned(other, rng)
    low, high = scene.extent()
    other_low, other_high = other.extent()
    side = int(rng.integers(2))
    shift = (low + high) / 2 - (other_low + other_high) / 2
    reach = 0.42 * ((high - low) + (other_high - other_low))[side]
    shift[side] += reach * rng.choice([-1, 1])
    return other.mapped(lambda points: points + shift)


def _specks(width_um: float, height_um: float, rng: np.random.Generator) -> Scene:
    """Small particles that drift through the picture, most of them out of focus."""
    scene = Scene()
    for _ in range(rng.poisson(width_um * height_um / 1.1e6)):
        where = rng.uniform((0, 0), (width_um, height_um))
        size = float(rng.lognormal(np.log(18), 0.5))
        if rng.random() < 0.6:
            scene.fill(ellipse(where, size * 1.8), rng.uniform(0.05, 0.25), soft_um=size)
        else:
            scene.fill(lumpy(where, size, 0.6, rng, 14), rng.uniform(0.3, 0.9), soft_um=4)
    return scene


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)
