"""Medusae and siphonophores."""

from __future__ import annotations

import numpy as np

from label_studio_config.phantoms.curves import arc, ellipse, frame_at, outline, place, wave
from label_studio_config.phantoms.scene import Phantom, Scene


def draw_medusa(rng: np.random.Generator) -> Phantom:
    """A bell from the side with trailing tentacles, or from above with radial canals."""
    scene = Scene()
    radius = float(rng.uniform(380, 950))
    view = "side" if rng.random() < 0.6 else "top"
    (_bell_from_side if view == "side" else _bell_from_above)(scene, radius, rng)
    return Phantom("Medusa", scene, {"view": view}, {"bell_diameter_um": 2 * radius})


def _bell_from_side(scene: Scene, radius: float, rng: np.random.Generator) -> None:
    t = np.linspace(0, np.pi, 30)
    tall = rng.uniform(0.8, 1.25)
    dome = np.stack([-(np.sin(t) ** 0.85) * tall, -np.cos(t)], axis=1) * radius
    inner = dome * [0.72, 0.82]
    scene.fill(dome, 0.22)
    scene.fill(inner, -0.06)
    scene.line(dome, 0.045 * radius, 0.75)
    scene.line(inner, 0.03 * radius, 0.4)
    rim = np.array([[0.0, -1.0], [0.05, 0.0], [0.0, 1.0]]) * radius
    scene.line(rim, 0.07 * radius, 0.7)
    stomach = place(arc(0.62 * radius * tall, rng.normal(0, 0.2), 8), (-0.72 * radius * tall, 0))
    scene.taper(stomach, 0.26 * radius, 0.12 * radius, 0.8)
    for y in (-0.5, -0.22, 0.22, 0.5):
        canal = np.array([[-0.70 * tall, 0.3 * y], [-0.45 * tall, 0.8 * y], [0.0, 1.3 * y]])
        scene.line(canal * radius, 0.03 * radius, 0.35)
        gonad = np.array([-0.42 * tall, 0.8 * y]) * radius
        scene.ball(gonad, 0.10 * radius, 0.5, ry=0.05 * radius)
    reach = rng.uniform(0.9, 2.2) * radius
    for y in np.linspace(-0.97, 0.97, int(rng.integers(8, 18))):
        tentacle = place(
            wave(reach * rng.uniform(0.6, 1.1), rng.uniform(0.15, 0.5), 1.6, rng.random(), 24),
            (0.02 * radius, y * radius),
            0.45 * y + rng.normal(0, 0.06),
        )
        scene.taper(tentacle, 0.045 * radius, 0.02 * radius, 0.5)
        scene.ball(tentacle[0], 0.05 * radius, 0.8)


def _bell_from_above(scene: Scene, radius: float, rng: np.random.Generator) -> None:
    bell = ellipse((0, 0), radius, radius * rng.uniform(0.85, 1.0))
    number = int(rng.integers(10, 26))
    for direction in np.linspace(0, 2 * np.pi, number, endpoint=False):
        root = 0.97 * radius * np.array([np.cos(direction), np.sin(direction)])
        tentacle = place(
            wave(rng.uniform(0.4, 1.3) * radius, 0.35, 1.2, rng.random(), 18),
            root,
            direction + rng.normal(0, 0.25),
        )
        scene.taper(tentacle, 0.045 * radius, 0.02 * radius, 0.5)
        scene.ball(root, 0.045 * radius, 0.8)
    scene.fill(bell, 0.20, grain=0.3)
    scene.line(bell, 0.06 * radius, 0.7, closed=True)
    for quarter in range(4):
        direction = quarter * np.pi / 2 + 0.3
        unit = np.array([np.cos(direction), np.sin(direction)])
        scene.line(np.stack([0.1 * unit, 0.97 * unit]) * radius, 0.035 * radius, 0.45)
        scene.ball(
            0.52 * radius * unit, 0.20 * radius, 0.75, ry=0.09 * radius, angle=direction, grain=0.3
        )
    scene.ball((0, 0), 0.2 * radius, 0.7, grain=0.4)


def draw_siphonophore(rng: np.random.Generator) -> Phantom:
    """A calycophoran: one or two bells of sharp angles, an oil body, a trailing stem."""
    scene = Scene()
    length = float(rng.uniform(800, 1900))
    width = length * rng.uniform(0.22, 0.30)
    bells = 1 + int(rng.random() < 0.45)
    for index in range(bells):
        origin = (index * 0.72 * length, index * 0.16 * length)
        tip = np.array([[0, 0], [0.16, 0.55], [0.9, 1.0], [1.0, 0.7], [1.0, -0.7], [0.9, -1.0]])
        bell = place(np.vstack([tip, [0.16, -0.55]]) * [length, width], origin)
        scene.fill(bell, 0.18)
        scene.line(bell, 0.014 * length, 0.8, closed=True)
        cavity = place(
            outline(arc(0.68 * length, 0, 12), 0.56 * width * np.linspace(0.3, 1, 12) ** 0.5),
            origin + np.array([0.30 * length, -0.12 * width]),
        )
        scene.line(cavity, 0.010 * length, 0.5, closed=True)
        for y in (-0.35, 0.4):
            ridge = np.array([[0.02 * length, 0], [0.97 * length, y * width]]) + origin
            scene.line(ridge, 0.008 * length, 0.35)
        somatocyst = np.array([0.42 * length, 0.62 * width]) + origin
        scene.ball(somatocyst, 0.20 * length, 0.6, ry=0.09 * width, angle=0.08)
    end = np.array([0.98 * length + (bells - 1) * 0.72 * length, 0.2 * width])
    stem = place(wave(length * rng.uniform(0.6, 1.8), 0.35, 1.5, rng.random()), end, 0.2)
    scene.line(stem, 0.016 * length, 0.6)
    for share in np.arange(0.08, 1.0, 0.09).tolist():
        point, heading = frame_at(stem, share)
        scene.ball(point, 0.035 * length * (1.2 - 0.6 * share), 0.8)
        tentacle = place(
            wave(length * rng.uniform(0.08, 0.25), 0.5, 1, rng.random(), 10), point, heading + 1.2
        )
        scene.line(tentacle, 0.006 * length, 0.45)
    return Phantom("Siphonophore", scene, {"view": "side"}, {"bell_length_um": length})
