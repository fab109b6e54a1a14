"""Marine snow (aggregates, comets, faecal pellets, houses, filaments) and artefacts."""

from __future__ import annotations

import numpy as np

from label_studio_config.phantoms.curves import (
    arc,
    ellipse,
    line_length,
    lumpy,
    outline,
    place,
    polygon_area,
    wander,
)
from label_studio_config.phantoms.scene import Phantom, Scene


def draw_marine_snow(rng: np.random.Generator) -> Phantom:
    """A particle of one of the usual kinds."""
    kinds = {
        "blob": (_aggregate, 0.34),
        "detritus": (_fragments, 0.12),
        "faecal pellet": (_faecal_pellet, 0.22),
        "comet": (_comet, 0.11),
        "filament": (_filament, 0.11),
        "house": (_house, 0.10),
    }
    kind = str(rng.choice(list(kinds), p=[share for _, share in kinds.values()]))
    scene = Scene()
    measures = kinds[kind][0](scene, rng)
    return Phantom("Marine snow", scene, {"snow_type": kind}, measures)


def _flocs(
    scene: Scene, start: np.ndarray, size: float, number: int, rng: np.random.Generator
) -> None:
    """Blobs that stuck to one another: each new one touches an earlier one."""
    places = [np.asarray(start, float)]
    for index in range(number):
        if index:
            near = places[int(rng.integers(max(0, len(places) - 6), len(places)))]
            direction = rng.uniform(0, 2 * np.pi)
            step = size * rng.uniform(0.08, 0.24)
            places.append(near + step * np.array([np.cos(direction), np.sin(direction)]))
        radius = size * rng.lognormal(np.log(0.085), 0.5)
        scene.fill(
            lumpy(places[-1], radius, 0.55, rng, 20),
            rng.uniform(0.15, 0.85),
            grain=0.6,
            soft_um=rng.uniform(4, 22),
        )


def _aggregate(scene: Scene, rng: np.random.Generator) -> dict[str, float]:
    size = float(np.clip(rng.lognormal(np.log(520), 0.4), 220, 1500))
    scene.fill(lumpy((0, 0), 0.38 * size, 0.7, rng), 0.10, grain=0.9, soft_um=35)
    _flocs(scene, np.zeros(2), size, int(rng.integers(16, 36)), rng)
    for _ in range(int(rng.integers(0, 6))):
        fibre = place(
            wander(size * rng.uniform(0.25, 0.8), 0.25, rng, 12),
            rng.normal(0, 0.22 * size, 2),
            rng.uniform(0, 6.3),
        )
        scene.line(fibre, rng.uniform(8, 16), 0.4)
    return {}


def _fragments(scene: Scene, rng: np.random.Generator) -> dict[str, float]:
    """Torn, sharp-edged pieces: moults, shells, plant matter."""
    size = float(rng.uniform(180, 520))
    for _ in range(int(rng.integers(1, 4))):
        corners = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 10))))
        reach = size * rng.uniform(0.25, 0.62, len(corners))
        piece = np.stack([np.cos(corners), 0.6 * np.sin(corners)], axis=1) * reach[:, None]
        piece = place(piece, rng.normal(0, 0.4 * size, 2), rng.uniform(0, 6.3))
        scene.fill(piece, rng.uniform(0.3, 1.3), grain=0.7)
        scene.line(piece, 10, 0.4, closed=True)
        for _ in range(int(rng.integers(0, 4))):
            vein = piece[rng.permutation(len(piece))[:2]]
            scene.line(vein, 8, rng.choice([-0.3, 0.4]))
    return {}


def _comet(scene: Scene, rng: np.random.Generator) -> dict[str, float]:
    size = float(rng.uniform(170, 330))
    _flocs(scene, np.zeros(2), size, int(rng.integers(10, 18)), rng)
    tail = place(wander(size * rng.uniform(3.0, 5.5), 0.07, rng, 30), (0, 0), rng.normal(0, 0.1))
    for share in (1.0, 0.55, 0.3):
        part = tail[: int(30 * (0.5 + share / 2))]
        widths = 0.32 * size * share * np.linspace(1, 0.12, len(part)) ** 0.8
        scene.fill(outline(part, widths), 0.16, grain=1.0, soft_um=14)
    for _ in range(8):
        point = tail[int(rng.integers(2, 26))] + rng.normal(0, 0.08 * size, 2)
        scene.fill(lumpy(point, size * rng.uniform(0.03, 0.08), 0.5, rng, 14), 0.6, soft_um=5)
    return {}


def _faecal_pellet(scene: Scene, rng: np.random.Generator) -> dict[str, float]:
    length = float(rng.uniform(260, 900))
    half = float(length * rng.uniform(0.075, 0.15))
    centre = arc(length, rng.normal(0, 0.5), 24)
    t = np.linspace(-1, 1, 24)
    widths = half * np.sqrt(np.clip(1 - np.abs(t) ** 7, 0.02, 1))
    ragged = 1 + 0.06 * rng.normal(size=24)
    body = scene.body(centre, widths * ragged, 1.9, rim_um=9, rim_depth=0.4, grain=0.3)
    if rng.random() < 0.4:
        for share in rng.uniform(0.2, 0.8, 2):
            crack = body[int(share * 24)], body[47 - int(share * 24)]
            scene.line(np.stack(crack), 10, -0.6)
    scene.polygons["body"] = body
    return {"pellet_length_um": line_length(centre), "body_area_um2": polygon_area(body)}


def _filament(scene: Scene, rng: np.random.Generator) -> dict[str, float]:
    length = float(rng.uniform(600, 1800))
    for _ in range(int(rng.integers(1, 4))):
        fibre = place(wander(length, 0.10, rng, 40), rng.normal(0, 30, 2), rng.normal(0, 0.12))
        scene.line(fibre, rng.uniform(9, 20), rng.uniform(0.3, 0.6))
        for _ in range(int(rng.integers(3, 10))):
            point = fibre[int(rng.integers(0, 40))]
            radius = rng.uniform(10, 34)
            scene.fill(lumpy(point, radius, 0.6, rng, 14), 0.6, soft_um=6)
    return {}


def _house(scene: Scene, rng: np.random.Generator) -> dict[str, float]:
    """A discarded house of an appendicularian: pleats in a collapsing balloon."""
    radius = float(rng.uniform(330, 700))
    skin = lumpy((0, 0), radius, 0.35, rng)
    scene.fill(skin, 0.10, grain=0.9, soft_um=20)
    scene.line(skin, 12, 0.22, closed=True)
    for fold in np.linspace(-0.7, 0.7, int(rng.integers(5, 9))):
        pleat = place(
            wander(1.1 * radius, 0.07, rng, 14) - [0.55 * radius, 0], (0, fold * radius), 0.3 * fold
        )
        scene.line(pleat, 10, 0.28)
    for _ in range(int(rng.integers(18, 40))):
        speck = rng.normal(0, 0.38 * radius, 2)
        scene.fill(lumpy(speck, rng.uniform(8, 30), 0.5, rng, 12), 0.6, soft_um=5)
    return {}


def draw_bubble(rng: np.random.Generator) -> Phantom:
    """A gas bubble: a black ring with a bright centre."""
    scene = Scene()
    for _ in range(1 + int(rng.random() < 0.2)):
        radius = float(rng.uniform(90, 380))
        centre = rng.normal(0, 260, 2)
        scene.ball(centre, radius, 3.2)
        scene.fill(ellipse(centre, 0.93 * radius), 0.9)
        scene.fill(ellipse(centre, 0.42 * radius), -6.5, soft_um=0.05 * radius)
    return Phantom("Artefact", scene, {"artefact_type": "bubble"})


def draw_streaks(rng: np.random.Generator) -> Phantom:
    """Schlieren: wisps of water of another density."""
    scene = Scene()
    heading = rng.uniform(-0.4, 0.4)
    for _ in range(int(rng.integers(9, 22))):
        wisp = place(wander(rng.uniform(250, 900), 0.06, rng, 12), rng.normal(0, 330, 2), heading)
        sign = 1 if rng.random() < 0.7 else -0.6
        scene.fill(
            outline(wisp, rng.uniform(8, 26) * np.sin(np.linspace(0.1, 3.04, 12))),
            sign * rng.uniform(0.10, 0.26),
            soft_um=14,
        )
    return Phantom("Artefact", scene, {"artefact_type": "schlieren"})
