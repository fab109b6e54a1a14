"""Diatom chains, Noctiluca, Trichodesmium and Acantharia."""

from __future__ import annotations

import numpy as np

from label_studio_config.phantoms.curves import (
    arc,
    beside,
    ellipse,
    frame_at,
    line_length,
    outline,
    place,
    polygon_area,
    spiral,
    wander,
)
from label_studio_config.phantoms.scene import Phantom, Scene


def draw_diatom_chain(rng: np.random.Generator) -> Phantom:
    """A chain of n cells: abutting, with setae, or discs on a thread."""
    scene = Scene()
    form = str(rng.choice(["abutting", "setae", "thread"], p=[0.4, 0.38, 0.22]))
    cells = int(np.clip(rng.geometric(0.13) + 1, 2, 22))
    width = float(rng.uniform(70, 150))
    pitch = {"abutting": 1.0, "setae": 1.15, "thread": 1.25}[form] * max(
        width * rng.uniform(0.6, 1.1), 75
    )
    cell = pitch * {"abutting": 0.94, "setae": 0.72, "thread": 0.55}[form]
    coiled = cells >= 12 and rng.random() < 0.25
    curvature = float(np.clip(rng.normal(0, 0.09) * cells, -3.6, 3.6))
    bend = spiral if coiled else arc
    centre = bend(pitch * cells, 9.0 if coiled else curvature, 6 * cells + 1)
    if form == "thread":
        scene.line(centre, 7, 0.35)
    darkness = rng.uniform(0.35, 0.7)
    for index in range(cells):
        point, heading = frame_at(centre, (index + 0.5) / cells)
        _diatom_cell(scene, point, heading, cell, width, form, darkness, rng)
    vertices = 2 + (cells // 2 if coiled else cells // 3)
    scene.lines["chain"] = np.stack(
        [frame_at(centre, t)[0] for t in np.linspace(0, 1, vertices).tolist()]
    )
    traits: dict[str, str | int] = {
        "chain_cell_count": cells,
        "chain_shape": "coiled" if coiled else "straight" if abs(curvature) < 0.5 else "curved",
        "colony_form": "chain",
    }
    return Phantom("Diatom chain", scene, traits, {"chain_length_um": line_length(centre)})


def _diatom_cell(
    scene: Scene,
    point: np.ndarray,
    heading: float,
    length: float,
    width: float,
    form: str,
    darkness: float,
    rng: np.random.Generator,
) -> None:
    half = np.array([length, width]) / 2
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    power = 0.35 if form == "abutting" else 0.5
    box = np.stack([np.cos(t), np.sin(t)], axis=1)
    box = np.sign(box) * np.abs(box) ** power * half
    shell = place(box, point, heading)
    scene.fill(shell, 0.28 * darkness)
    scene.line(shell, 11, 1.5 * darkness, closed=True)
    content = place(box * [0.62, 0.68], point, heading)
    scene.fill(content, 1.3 * darkness, grain=0.5, soft_um=8)
    if form == "setae":
        for corner in (box[3], box[11], box[17], box[25]):
            root = place(corner[None], point, heading)[0]
            out = np.sign(corner[1]) * rng.uniform(1.05, 1.5)
            seta = place(arc(width * rng.uniform(1.1, 2.0), rng.normal(0, 0.3), 8), root, heading)
            seta = place(seta - root, root, out if corner[0] > 0 else np.pi - out - 0.25)
            scene.line(seta, 7, 0.55 * darkness)


def draw_noctiluca(rng: np.random.Generator) -> Phantom:
    """A clear balloon with strands, a dark centre at the groove, a tentacle and perhaps prey."""
    scene = Scene()
    radius = float(np.clip(rng.lognormal(np.log(270), 0.28), 130, 560))
    squeeze = rng.uniform(0.9, 1.0)
    angle = rng.uniform(0, np.pi)
    scene.ball((0, 0), radius, 0.18, ry=radius * squeeze, angle=angle)
    body = ellipse((0, 0), radius, radius * squeeze, angle)
    scene.fill(body, 0.06, grain=0.8)
    scene.line(body, max(14, 0.05 * radius), 0.85, closed=True)
    groove = 0.62 * radius * np.array([1.0, 0.0])
    scene.ball(groove, 0.19 * radius, 1.0, ry=0.14 * radius, grain=0.4)
    for direction in rng.uniform(0, 2 * np.pi, 13):
        end = 0.93 * radius * np.array([np.cos(direction), squeeze * np.sin(direction)])
        strand = groove + (end - groove) * np.linspace(0, 1, 9)[:, None]
        strand[1:-1] += rng.normal(0, 0.035 * radius, (7, 2))
        scene.line(strand, 0.022 * radius, 0.22)
    tentacle = place(
        arc(radius * rng.uniform(0.7, 1.15), rng.uniform(0.8, 2.2) * rng.choice([-1, 1]), 14),
        (0.9 * radius, 0.0),
        rng.normal(0, 0.4),
    )
    scene.taper(tentacle, 0.085 * radius, 0.04 * radius, 0.7)
    prey = int(rng.choice(5, p=[0.42, 0.26, 0.17, 0.10, 0.05]))
    for _ in range(prey):
        _prey(scene, radius, rng)
    traits: dict[str, str | int] = {"noctiluca_gut_content": "prey" if prey else "empty"}
    if prey:
        traits["prey_count"] = prey
    scene.polygons["body"] = body
    measures = {"diameter_um": radius * (1 + squeeze), "body_area_um2": polygon_area(body)}
    return Phantom("Noctiluca scintillans", scene, traits, measures)


def _prey(scene: Scene, radius: float, rng: np.random.Generator) -> None:
    where, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.6) * radius
    place_um = distance * np.array([np.cos(where), np.sin(where)])
    size = rng.uniform(0.11, 0.17) * radius
    if rng.random() < 0.35:
        chain = place(arc(3.2 * size, rng.normal(0, 0.4), 9), place_um, rng.uniform(0, 6.3))
        for share in (0.0, 0.33, 0.66, 1.0):
            scene.ball(frame_at(chain, share)[0], 0.55 * size, 1.4)
        outline_um = outline(chain, 0.7 * size)
    else:
        outline_um = scene.ball(place_um, size, 1.7, ry=size * rng.uniform(0.7, 1), grain=0.35)
    vacuole = ellipse(outline_um.mean(axis=0), 1.35 * np.ptp(outline_um, axis=0).max() / 2)
    scene.line(vacuole, 0.025 * radius, 0.3, closed=True)
    scene.boxes.append(("prey", outline_um))


def draw_trichodesmium(rng: np.random.Generator) -> Phantom:
    """A colony of threads: side by side (tuft), from one point (puff), or tied (bowtie)."""
    scene = Scene()
    form = str(rng.choice(["puff", "tuft", "bowtie"], p=[0.5, 0.28, 0.22]))
    size = float(rng.uniform(450, 1100))
    number = int(rng.integers(70, 130))
    for _ in range(number):
        if form == "puff":
            heading, reach = rng.uniform(0, 2 * np.pi), size * 0.5 * rng.uniform(0.45, 1.0)
            thread = place(wander(reach, 0.05, rng, 8), rng.normal(0, 0.05 * size, 2), heading)
        elif form == "tuft":
            heading = rng.normal(0, 0.10)
            start = np.array([rng.normal(0, 0.09) * size, rng.normal(0, 0.075) * size])
            reach = size * rng.uniform(0.6, 1.05)
            thread = place(wander(reach, 0.03, rng, 8) - [reach / 2, 0], start, heading)
        else:
            heading = rng.normal(0, 0.36)
            reach = size * rng.uniform(0.6, 1.1)
            thread = place(
                wander(reach, 0.03, rng, 8) - [reach / 2, 0], rng.normal(0, 0.03 * size, 2), heading
            )
        scene.line(thread, rng.uniform(9, 16), rng.uniform(0.3, 0.55))
    if form == "puff":
        scene.ball((0, 0), 0.22 * size, 1.2, grain=0.3)
    return Phantom("Trichodesmium", scene, {"colony_form": form})


def draw_acantharian(rng: np.random.Generator) -> Phantom:
    """A star of spines around a dark centre."""
    scene = Scene()
    radius = float(rng.uniform(180, 420))
    spines = int(rng.integers(8, 18))
    for direction in np.linspace(0, 2 * np.pi, spines, endpoint=False):
        reach = radius * rng.uniform(0.6, 1.1)
        spine = place(arc(reach, 0, 6), (0, 0), direction + rng.normal(0, 0.12))
        scene.taper(spine, 0.06 * radius, 0.02 * radius, 0.8)
    scene.ball((0, 0), 0.27 * radius, 1.3, grain=0.5)
    scene.ball((0, 0), 0.45 * radius, 0.3, grain=0.4)
    for _ in range(int(rng.integers(4, 14))):
        symbiont = rng.normal(0, 0.24 * radius, 2)
        scene.ball(symbiont, 0.045 * radius, 0.7)
    return Phantom("Rhizaria", scene, {"colony_form": "solitary"})


def colony_of_collodaria(rng: np.random.Generator) -> Phantom:
    """Radiolarian cells in a string of clear jelly."""
    scene = Scene()
    cells = int(rng.integers(5, 14))
    size = float(rng.uniform(60, 100))
    centre = wander(cells * size * 2.1, 0.16, rng, 4 * cells)
    scene.fill(outline(centre, size * 1.15), 0.10, soft_um=15)
    for index in range(cells):
        point = beside(centre, (index + 0.5) / cells, rng.normal(0, 0.12 * size))
        scene.ball(point, size * rng.uniform(0.72, 0.92), 0.3, rim_um=14, rim_depth=0.65)
        scene.ball(point, size * 0.3, 0.9)
    return Phantom("Rhizaria", scene, {"colony_form": "chain"})
