"""Arrow worms, appendicularians, bristle worms and larvae."""

from __future__ import annotations

import numpy as np

from label_studio_config.phantoms.curves import (
    Points,
    arc,
    beside,
    ellipse,
    frame_at,
    outline,
    place,
    wander,
    wave,
)
from label_studio_config.phantoms.scene import Phantom, Scene


def draw_chaetognath(rng: np.random.Generator) -> Phantom:
    """A clear arrow worm: head with hooks, fins, gut, ripe ovaries sometimes."""
    scene = Scene()
    length = float(rng.uniform(1800, 4200))
    centre = arc(length, rng.normal(0, 0.35), 60)
    t = np.linspace(0, 1, 60)
    half = length * 0.030 * np.interp(t, [0, 0.03, 0.07, 0.12, 0.5, 0.75, 1], _WORM)
    for start, stop, reach in ((0.42, 0.60, 1.5), (0.62, 0.80, 1.6), (0.90, 1.0, 1.9)):
        part = slice(int(start * 59), int(stop * 59) + 1)
        bulge = half[part] * (1 + (reach - 1) * np.sin(np.linspace(0.15, 2.9, len(half[part]))))
        scene.fill(outline(centre[part], bulge + 0.006 * length), 0.16)
    _tail_fan(scene, centre, length)
    body = scene.body(centre, half, 0.42, rim_um=0.005 * length, rim_depth=0.65, grain=0.2)
    scene.polygons["body"] = body
    gut = centre[5:44]
    scene.line(gut, 0.008 * length, 0.55)
    scene.ball(centre[2], 0.020 * length, 1.0, grain=0.3)
    for side in (1, -1):
        for turn in (0.5, 0.9, 1.3):
            root = beside(centre, 0.02, side * half[1] * 0.7)
            hook = place(arc(0.035 * length, -side * 1.4, 7), root, np.pi - side * turn)
            scene.taper(hook, 0.005 * length, 0.002 * length, 0.6)
    ripe = rng.random() < 0.45
    if ripe:
        for side in (1, -1):
            ovary = centre[34:45] + [0, side * 0.010 * length]
            scene.line(ovary, 0.010 * length, 1.0)
    if rng.random() < 0.22:
        position = int(rng.integers(12, 34))
        prey = scene.body(
            centre[position : position + 6], half[position : position + 6] * 0.8, 1.6, grain=0.4
        )
        scene.boxes.append(("prey", prey))
        feeding = "present"
    else:
        feeding = "absent"
    scene.key_points = [("anterior end", centre[0]), ("posterior end", centre[-1])]
    return Phantom(
        "Chaetognath",
        scene,
        {
            "feeding": feeding,
            "gut_fullness": "3" if feeding == "present" else "0",
            "life_stage": "adult" if ripe else "indeterminate",
            "view": "dorsal",
        },
        {"body_length_um": _span(centre)},
    )


def _span(centre: Points) -> float:
    """Straight distance between the ends: what two key points give."""
    return float(np.linalg.norm(centre[-1] - centre[0]))


_WORM = [0.45, 1.05, 0.95, 0.75, 1.05, 0.9, 0.12]


def _tail_fan(scene: Scene, centre: Points, length: float) -> None:
    tip, heading = frame_at(centre, 1.0)
    fan = np.array([[-0.055, 0.0], [0.012, 0.036], [0.024, 0.0], [0.012, -0.036]]) * length
    scene.fill(place(fan, tip, heading), 0.22)
    for turn in np.linspace(-0.9, 0.9, 7):
        ray = place(np.array([[-0.03, 0.0], [0.018, 0.016 * turn * 2]]) * length, tip, heading)
        scene.line(ray, 8, 0.2)


def draw_appendicularian(rng: np.random.Generator) -> Phantom:
    """A dark trunk and a waving tail, sometimes inside its house."""
    scene = Scene()
    trunk = float(rng.uniform(200, 420))
    in_house = rng.random() < 0.3
    if in_house:
        radius = trunk * rng.uniform(2.4, 3.2)
        skin = ellipse((0.8 * trunk, 0), radius, radius * 0.85, rng.uniform(0, 3))
        scene.fill(skin, 0.08, grain=0.5)
        scene.line(skin, 9, 0.28, closed=True)
        for y in (-0.45, -0.25, 0.25, 0.45):
            rib = place(arc(radius, -y, 12) - [radius / 2, 0], (0.8 * trunk, y * radius))
            scene.line(rib, 8, 0.22)
    tail = place(
        wave(
            trunk * rng.uniform(3.2, 4.6),
            rng.uniform(0.5, 1.0),
            rng.uniform(0.7, 1.2),
            rng.random(),
        ),
        (0.28 * trunk, 0.25 * trunk),
        rng.uniform(0.3, 1.0),
    )
    widths = 0.17 * trunk * np.interp(np.linspace(0, 1, 40), [0, 0.15, 0.7, 1], [0.4, 1, 0.8, 0.1])
    scene.fill(outline(tail, widths), 0.28)
    scene.line(tail, 0.10 * trunk, 0.75)
    body = arc(trunk, rng.normal(0, 0.2), 20) - [trunk / 2, 0]
    half = 0.26 * trunk * np.sin(np.linspace(0.3, 2.95, 20)) ** 0.6
    scene.body(body, half, 0.8, rim_um=0.04 * trunk, rim_depth=0.5, grain=0.3)
    scene.ball(body[13], 0.20 * trunk, 1.3, grain=0.35)
    scene.ball(body[8], 0.09 * trunk, 0.7)
    return Phantom(
        "Appendicularian",
        scene,
        {"house": "present" if in_house else "absent", "view": "side", "gut_fullness": "3"},
        {"trunk_length_um": trunk},
    )


def draw_pluteus(rng: np.random.Generator) -> Phantom:
    """A larva of a brittle star or sea urchin: arms on rods, spread like an easel."""
    scene = Scene()
    size = float(rng.uniform(260, 560))
    spread = rng.uniform(0.35, 0.75)
    web = [np.zeros(2)]
    arms = np.concatenate([np.linspace(-1, -0.3, 4), np.linspace(0.3, 1, 4)])
    for share in arms:
        heading = spread * share * 1.6
        reach = size * (0.75 + 0.5 * abs(share)) * rng.uniform(0.85, 1.1)
        limb = place(arc(reach, 0.25 * share, 10), (0.05 * size, 0.07 * size * share), heading)
        scene.taper(limb, 0.10 * size, 0.03 * size, 0.7)
        scene.line(limb, 0.018 * size, 0.6)
        web.append(limb[4])
    scene.fill(np.array(web), 0.35, soft_um=0.03 * size)
    scene.ball((0.12 * size, 0), 0.20 * size, 0.8, ry=0.15 * size, grain=0.3)
    scene.ball((0.26 * size, 0), 0.12 * size, 0.7)
    return Phantom("Echinoderm larva", scene, {"life_stage": "larva or juvenile"})


def draw_polychaete(rng: np.random.Generator) -> Phantom:
    """A swimming bristle worm."""
    scene = Scene()
    length = float(rng.uniform(900, 2200))
    centre = wave(length, rng.uniform(0.3, 0.8), rng.uniform(0.6, 1.3), rng.random(), 60)
    half = 0.036 * length * np.interp(np.linspace(0, 1, 60), [0, 0.06, 0.4, 1], [0.5, 1, 1, 0.25])
    for index in range(4, 58, 2):
        for side in (1, -1):
            _, heading = frame_at(centre, index / 59)
            root = beside(centre, index / 59, side * half[index] * 0.8)
            foot = place(
                arc(0.05 * length * np.sin(np.pi * index / 62) + 12, 0, 4),
                root,
                heading + side * 1.3,
            )
            scene.taper(foot, 0.020 * length, 0.008 * length, 0.7)
            bristle = place(arc(0.045 * length, 0, 3), foot[-1], heading + side * 1.1)
            scene.line(bristle, 7, 0.35)
    scene.body(centre, half, 1.3, rim_um=10, rim_depth=0.4, grain=0.3)
    scene.line(centre[3:-2], 0.018 * length, 0.5)
    for side in (1, -1):
        antenna = place(wander(0.09 * length, 0.1, rng, 7), centre[0], np.pi - side * 0.6)
        scene.line(antenna, 9, 0.6)
        scene.ball(beside(centre, 0.03, side * 0.014 * length), 0.009 * length, 1.2)
    scene.key_points = [("anterior end", centre[0]), ("posterior end", centre[-1])]
    return Phantom("Polychaete", scene, {"view": "dorsal"}, {"body_length_um": _span(centre)})


_FISH_BACK = [0.012, 0.05, 0.066, 0.05, 0.03, 0.004]
_FISH_BELLY = [0.01, 0.04, 0.07, 0.066, 0.028, 0.004]


def draw_fish_larva(rng: np.random.Generator) -> Phantom:
    """A young fish: head with a black eye, muscle blocks, a clear fin fold, perhaps yolk."""
    scene = Scene()
    length = float(rng.uniform(2000, 3900))
    centre = arc(length, rng.normal(0, 0.35), 60)
    t = np.linspace(0, 1, 60)
    back = length * np.interp(t, [0, 0.04, 0.12, 0.2, 0.6, 1], _FISH_BACK)
    belly = length * np.interp(t, [0, 0.05, 0.14, 0.34, 0.42, 1], _FISH_BELLY)
    fold = slice(16, 60)
    fin = 0.035 * length * np.sin(np.linspace(0.2, 2.7, 44)) + 0.012 * length
    scene.fill(outline(centre[fold], back[fold] + fin, belly[fold] + fin * 0.8), 0.14)
    scene.polygons["body"] = scene.body(
        centre, back, 1.2, other=belly, rim_um=14, rim_depth=0.4, grain=0.18
    )
    scene.ball(beside(centre, 0.22, -0.030 * length), 0.085 * length, 0.6, ry=0.035 * length)
    for index in range(20, 56, 2):
        share = index / 59
        chevron = np.stack(
            [
                beside(centre, share, back[index] * 0.9),
                beside(centre, share - 0.015, 0),
                beside(centre, share, -belly[index] * 0.9),
            ]
        )
        scene.line(chevron, 0.0035 * length, 0.35)
    scene.line(centre[12:], 0.006 * length, 0.4)
    eye = beside(centre, 0.075, 0.014 * length)
    scene.ball(eye, 0.030 * length, 2.6)
    scene.line(ellipse(eye, 0.034 * length), 0.004 * length, -0.3, closed=True)
    scene.key_points = [("anterior end", centre[0]), ("posterior end", centre[-1])]
    return Phantom(
        "Fish larva",
        scene,
        {"life_stage": "larva or juvenile", "view": "side"},
        {"body_length_um": _span(centre)},
    )
