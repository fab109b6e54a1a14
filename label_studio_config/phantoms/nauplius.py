"""Nauplii of copepods."""

from __future__ import annotations

import numpy as np

from label_studio_config.phantoms.curves import arc, beside, frame_at, outline, place, wander
from label_studio_config.phantoms.scene import Phantom, Scene


def draw_nauplius(rng: np.random.Generator) -> Phantom:
    """A copepod nauplius: pear-shaped, three pairs of limbs, a red eye."""
    scene = Scene()
    length = float(rng.uniform(240, 480))
    centre = arc(length, rng.normal(0, 0.1), 20)
    t = np.linspace(0, 1, 20)
    half = 0.30 * length * np.clip(np.sin(np.pi * t**0.62), 0, None) ** 0.6 * (1 - 0.25 * t)
    scene.body(centre, half, 0.9, rim_um=0.03 * length, rim_depth=0.6, grain=0.2)
    scene.ball(beside(centre, 0.14, 0), 0.05 * length, 1.0)
    gut = centre[8:16]
    scene.fill(outline(gut, 0.07 * length * np.sin(np.linspace(0.4, 2.8, 8))), 0.6, soft_um=10)
    for share, angle, reach in ((0.12, 0.95, 0.75), (0.26, 1.45, 0.7), (0.42, 2.0, 0.55)):
        for side in (1, -1):
            swing = rng.normal(0, 0.18)
            root = beside(centre, share, side * half[int(share * 19)] * 0.85)
            limb = place(arc(reach * length, side * 0.5, 8), root, side * (angle + swing))
            scene.taper(limb, 0.09 * length, 0.03 * length, 0.75)
            for turn in (-0.35, 0.0, 0.35):
                tip, heading = frame_at(limb, 1.0)
                seta = place(arc(0.32 * length, turn * 0.5, 5), tip, heading + turn)
                scene.taper(seta, 0.025 * length, 0.01 * length, 0.3)
    for side in (1, -1):
        seta = place(wander(0.35 * length, 0.05, rng, 6), centre[-1], side * 0.25)
        scene.taper(seta, 0.03 * length, 0.01 * length, 0.4)
    scene.key_points = [("anterior end", centre[0]), ("urosome end", centre[-1])]
    traits: dict[str, str | int] = {
        "life_stage": "nauplius",
        "sex": "indeterminate",
        "egg_sac": "absent",
        "view": "dorsal",
        "antennae": "spread",
        "gut_fullness": "1",
    }
    span = float(np.linalg.norm(centre[-1] - centre[0]))
    return Phantom("Copepod", scene, traits, {"body_length_um": span})
