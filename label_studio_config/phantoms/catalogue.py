"""Which phantoms there are, how common each is, and the cruise they were seen on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from label_studio_config.phantoms.animals import (
    draw_appendicularian,
    draw_chaetognath,
    draw_fish_larva,
    draw_pluteus,
    draw_polychaete,
)
from label_studio_config.phantoms.copepod import draw_copepod
from label_studio_config.phantoms.jellies import draw_medusa, draw_siphonophore
from label_studio_config.phantoms.protists import (
    colony_of_collodaria,
    draw_acantharian,
    draw_diatom_chain,
    draw_noctiluca,
    draw_trichodesmium,
)
from label_studio_config.phantoms.scene import Phantom
from label_studio_config.phantoms.snow import draw_bubble, draw_marine_snow, draw_streaks

Draw = Callable[[np.random.Generator], Phantom]


@dataclass(frozen=True)
class Kind:
    """A kind of phantom: its share of all images, and how it changes from 0 to 100 m depth."""

    draw: Draw
    share: float
    deep: float = 1.0


KINDS = (
    Kind(draw_copepod, 0.265, 0.9),
    Kind(draw_marine_snow, 0.225, 1.7),
    Kind(draw_diatom_chain, 0.160, 0.35),
    Kind(draw_noctiluca, 0.105, 0.2),
    Kind(draw_appendicularian, 0.055, 0.8),
    Kind(draw_chaetognath, 0.045, 1.4),
    Kind(draw_trichodesmium, 0.045, 0.2),
    Kind(draw_medusa, 0.027, 1.0),
    Kind(draw_bubble, 0.020, 0.1),
    Kind(draw_pluteus, 0.018, 0.8),
    Kind(draw_acantharian, 0.012, 1.5),
    Kind(draw_siphonophore, 0.012, 1.4),
    Kind(draw_streaks, 0.009, 1.0),
    Kind(colony_of_collodaria, 0.006, 1.2),
    Kind(draw_polychaete, 0.003, 1.0),
    Kind(draw_fish_larva, 0.003, 0.8),
)


@dataclass(frozen=True)
class Sample:
    """One stop of the towed camera: where and when, its pixel size, and what was there."""

    sample_id: str
    captured_at: datetime
    lat: float
    lon: float
    depth_m: float
    pixel_size_um: float
    instrument: str
    water_level: float
    composition: tuple[float, ...]


def plan_samples(n_images: int, rng: np.random.Generator) -> list[Sample]:
    """The samples of a phantom cruise in the Arabian Sea: stations, four depths at each."""
    stations = int(np.clip(round(n_images / 400), 1, 8))
    samples = []
    for station in range(stations):
        lat, lon = 22.6 + 0.45 * station, 60.4 - 0.30 * station + rng.normal(0, 0.03)
        start = datetime(2025, 3, 4, 6, 20, tzinfo=UTC) + timedelta(hours=9.5 * station)
        pixel_size_um = (14.0, 16.0)[station % 2]
        regional = rng.normal(0, 0.4, len(KINDS))
        for stop, depth_m in enumerate((5.0, 20.0, 50.0, 100.0)):
            shares = np.array([kind.share * kind.deep ** (depth_m / 100) for kind in KINDS])
            shares *= np.exp(regional + rng.normal(0, 0.3, len(KINDS)))
            samples.append(
                Sample(
                    sample_id=f"AS25-{station + 1:02d}-{int(depth_m):03d}m",
                    captured_at=start + timedelta(minutes=11 * stop),
                    lat=round(lat, 4),
                    lon=round(float(lon), 4),
                    depth_m=depth_m,
                    pixel_size_um=pixel_size_um,
                    instrument=f"phantom shadowgraph {'AB'[station % 2]}",
                    water_level=float(rng.uniform(192, 222)),
                    composition=tuple(float(share) for share in shares / shares.sum()),
                )
            )
    return samples
