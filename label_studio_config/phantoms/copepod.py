"""Calanoid-like copepods: copepodites and adults, from above or from the side."""

from __future__ import annotations

import numpy as np

from label_studio_config.phantoms.curves import (
    arc,
    beside,
    ellipse,
    frame_at,
    outline,
    place,
    polygon_area,
)
from label_studio_config.phantoms.nauplius import draw_nauplius
from label_studio_config.phantoms.scene import Phantom, Scene


def draw_copepod(rng: np.random.Generator) -> Phantom:
    """A copepod; one in nine is a nauplius."""
    if rng.random() < 0.11:
        return draw_nauplius(rng)
    stage = "adult" if rng.random() < 0.62 else "copepodite"
    prosome_um = float(np.clip(rng.lognormal(np.log(880), 0.32), 450, 1900))
    if stage == "copepodite":
        prosome_um *= rng.uniform(0.5, 0.75)
    view = str(rng.choice(["dorsal", "side", "oblique"], p=[0.46, 0.36, 0.18]))
    posture = "spread" if rng.random() < 0.58 else "tucked"
    sex = (
        str(rng.choice(["female", "male"], p=[0.74, 0.26])) if stage == "adult" else "indeterminate"
    )
    sacs = 0
    if sex == "female":
        sacs = int(rng.choice([0, 1, 2], p=[0.5, 0.28, 0.22]))
    lipid = rng.random() < 0.4
    gut = int(rng.choice(4, p=[0.3, 0.27, 0.25, 0.18]))

    scene = Scene()
    carcass = rng.random() < 0.05
    body = _Body(scene, prosome_um, view, stage, 0.45 if carcass else 1.0, rng)
    if not carcass:
        body.gut(gut)
        if lipid:
            body.lipid_sac()
    broken = rng.random() < 0.12
    tips = body.antennules(posture, geniculate=sex == "male", broken=broken)
    body.legs()
    eggs = body.egg_sacs(sacs)
    epibionts = body.epibionts(int(rng.integers(2, 7))) if rng.random() < 0.07 else 0
    scene.key_points = [
        ("anterior end", body.anterior),
        ("prosome end", body.prosome_end),
        ("urosome end", body.urosome_end),
        *(("antenna tip", tip) for tip in tips),
    ]
    traits: dict[str, str | int] = {
        "life_stage": stage,
        "sex": sex,
        "egg_sac": "present" if sacs else "absent",
        "antennae": posture,
        "view": view,
        "gut_fullness": "0" if carcass else str(gut),
        "lipid_sac": "present" if lipid and not carcass else "absent",
        "carcass": "present" if carcass else "absent",
        "damage": "2" if carcass else "1" if broken else "0",
        "epibionts": "present" if epibionts else "absent",
    }
    if sacs:
        traits |= {"egg_sac_count": sacs, "egg_count": eggs}
    if epibionts:
        traits["epibiont_count"] = epibionts
    return Phantom("Copepod", scene, traits, body.measures)


class _Body:
    def __init__(
        self,
        scene: Scene,
        prosome_um: float,
        view: str,
        stage: str,
        darkness: float,
        rng: np.random.Generator,
    ) -> None:
        self.scene, self.rng, self.view, self.dark = scene, rng, view, darkness
        self.length = prosome_um
        self.breadth = rng.uniform(0.17, 0.215) * prosome_um
        from_side = view == "side"
        self.centre = arc(prosome_um, rng.normal(0, 0.10 if from_side else 0.04), 30)
        t = np.linspace(0, 1, 30)
        profile = np.clip(np.sin(np.pi * t**0.72), 0, None) ** 0.55
        profile *= 1 - 0.22 * t
        profile[0], profile[-1] = 0.06, max(profile[-1], 0.30)
        self.half = self.breadth * profile
        # From the side the back is an even arch and the belly flatter, with the mouthparts.
        self.belly = self.half * (0.72 if from_side else 0.9 if view == "oblique" else 1.0)
        depth = darkness * rng.uniform(0.55, 0.95)
        self.outline = scene.body(
            self.centre,
            self.half,
            depth,
            other=self.belly,
            rim_um=0.018 * prosome_um,
            rim_depth=0.75,
            grain=0.16,
        )
        scene.polygons["prosome"] = self.outline
        for share in (0.42, 0.57, 0.70, 0.82):
            across = np.stack(
                [
                    beside(self.centre, share, self.half[int(share * 29)] * 0.97),
                    beside(self.centre, share + 0.02, 0),
                    beside(self.centre, share, -self.belly[int(share * 29)] * 0.97),
                ]
            )
            scene.line(across, 0.012 * prosome_um, 0.45)
        self._head()
        self._urosome(stage)
        self.measures = {
            "prosome_length_um": float(np.linalg.norm(self.prosome_end - self.anterior)),
            "body_length_um": float(np.linalg.norm(self.urosome_end - self.anterior)),
            "prosome_area_um2": polygon_area(self.outline),
        }

    def _head(self) -> None:
        self.anterior = self.centre[0].copy()
        eye = beside(self.centre, 0.07, self.half[2] * (0.2 if self.view == "side" else 0))
        self.scene.ball(eye, 0.022 * self.length, 0.9 * self.dark)
        # Muscles of the head and thorax: darker oblique bands.
        for share in np.linspace(0.12, 0.36, 4):
            a = beside(self.centre, share, self.half[int(share * 29)] * 0.55)
            b = beside(self.centre, share + 0.10, -self.belly[int(share * 29)] * 0.45)
            self.scene.line(np.stack([a, b]), 0.03 * self.length, 0.13 * self.dark)

    def _urosome(self, stage: str) -> None:
        start, heading = frame_at(self.centre, 1.0)
        bend = self.rng.normal(0, 0.35 if self.view == "side" else 0.15)
        length = self.length * self.rng.uniform(0.30, 0.42)
        centre = place(arc(length, bend, 16), start, heading + bend / 3)
        segments = 4 if stage == "adult" else 3
        half = 0.062 * self.length * np.interp(np.linspace(0, 1, 16), [0, 0.25, 1], [0.9, 1, 0.6])
        ripple = 1 - 0.10 * np.abs(np.sin(np.pi * segments * np.linspace(0, 1, 16)))
        self.scene.body(
            centre, half * ripple, 0.7 * self.dark, rim_um=0.015 * self.length, rim_depth=0.6
        )
        self.urosome = centre
        self.prosome_end, self.urosome_end = start, centre[-1]
        tail, tail_heading = frame_at(centre, 1.0)
        for side in (-1, 1):
            root = tail + 0.03 * self.length * side * np.array(
                [-np.sin(tail_heading), np.cos(tail_heading)]
            )
            ramus = place(arc(0.10 * self.length, 0, 4), root, tail_heading + 0.12 * side)
            self.scene.taper(ramus, 0.035 * self.length, 0.025 * self.length, 0.8 * self.dark)
            for spread in (-0.35, -0.1, 0.15, 0.4):
                seta = place(
                    arc(self.length * self.rng.uniform(0.16, 0.30), spread * 0.8, 8),
                    ramus[-1],
                    tail_heading + 0.16 * side + spread * 0.6,
                )
                self.scene.taper(seta, 0.012 * self.length, 0.004 * self.length, 0.35)

    def antennules(self, posture: str, *, geniculate: bool, broken: bool) -> list[np.ndarray]:
        """First antennae, held out to the sides or laid along the body; their unbroken tips."""
        tips = []
        sides = (1, -1) if self.view != "side" or posture == "spread" else (-1,)
        reach = self.length * self.rng.uniform(0.95, 1.25)
        for side in sides:
            flank = self.half[2] if side > 0 else self.belly[2]
            root = beside(self.centre, 0.07, side * flank * 0.85)
            if posture == "spread":
                angle, turn = self.rng.uniform(1.15, 1.65), self.rng.uniform(-0.2, 0.5)
            else:
                angle, turn = self.rng.uniform(0.35, 0.55), -self.rng.uniform(0.35, 0.6)
            if self.view == "side" and posture == "spread" and side > 0:
                reach *= 0.6  # foreshortened: it points at the camera
            centre = place(arc(reach, side * turn, 20), root, side * angle)
            width = np.linspace(0.042, 0.012, 20) * self.length
            if geniculate and side == 1:
                centre[13:] = place(centre[13:] - centre[13], centre[13], -side * 0.9)
                width[9:13] *= 1.9
            if broken and side == -1:
                left = int(self.rng.integers(7, 12))
                centre, width = centre[:left], width[:left]
            else:
                tips.append(centre[-1])
            self.scene.fill(outline(centre, width / 2), 0.75 * self.dark)
            for share in np.linspace(0.25, 1.0, 9):
                root_of_seta, heading = frame_at(centre, share)
                seta = place(
                    arc(0.07 * self.length * self.rng.uniform(0.6, 1.6), 0.3, 5),
                    root_of_seta,
                    heading - side * 1.0,
                )
                self.scene.taper(seta, 0.010 * self.length, 0.004 * self.length, 0.3)
        return tips

    def epibionts(self, number: int) -> int:
        """Stalked cells that sit on the shell."""
        for share in self.rng.uniform(0.1, 0.9, number):
            side = int(self.rng.choice([-1, 1]))
            flank = (self.belly if side < 0 else self.half)[int(share * 29)]
            foot = beside(self.centre, share, side * flank)
            cell = beside(self.centre, share, side * (flank + 0.075 * self.length))
            self.scene.line(np.stack([foot, cell]), 0.014 * self.length, 0.5)
            head = self.scene.ball(
                cell, 0.034 * self.length, 0.8, rim_um=0.012 * self.length, rim_depth=0.6
            )
            self.scene.boxes.append(("epibiont", head))
        return number

    def legs(self) -> None:
        """Mouthparts and swimming legs: under the belly from the side, tips at the flanks above."""
        from_side = self.view == "side"
        for share in np.linspace(0.2, 0.92, 9 if from_side else 5):
            for side in (-1,) if from_side else (-1, 1):
                flank = (self.belly if side < 0 else self.half)[int(share * 29)]
                if not from_side and self.rng.random() < 0.45:
                    continue
                root = beside(self.centre, share, side * flank * (0.85 if from_side else 0.92))
                reach = self.length * self.rng.uniform(0.11, 0.2) * (1.0 if from_side else 0.55)
                limb = place(arc(reach, -side * 0.5, 7), root, side * self.rng.uniform(0.55, 1.2))
                self.scene.taper(limb, 0.03 * self.length, 0.008 * self.length, 0.55 * self.dark)

    def gut(self, fullness: int) -> None:
        """A dark strip along the body, longer and darker the fuller the gut."""
        if fullness == 0:
            return
        inner = self.centre[5 : 12 + 5 * fullness]
        half = 0.030 * self.length * (0.7 + 0.28 * fullness)
        widths = half * np.sin(np.linspace(0.25, np.pi - 0.2, len(inner))) ** 0.5
        offset = 0.12 * self.breadth if self.view == "side" else 0.0
        normal = np.array([0.0, offset])
        self.scene.fill(
            outline(inner + normal, widths), 0.45 + 0.33 * fullness, grain=0.35, soft_um=12
        )

    def lipid_sac(self) -> None:
        """Oil: clearer than the tissue around it, with a sharp dark edge."""
        start = int(self.rng.integers(9, 13))
        inner = self.centre[start : start + int(self.rng.integers(10, 15))]
        offset = self.rng.uniform(0.25, 0.4) * self.breadth
        inner = inner + [0, offset if self.view == "side" else offset * 0.6]
        widths = (
            self.breadth
            * self.rng.uniform(0.20, 0.32)
            * np.sin(np.linspace(0.25, np.pi - 0.15, len(inner)))
        )
        sac = outline(inner, widths)
        self.scene.fill(sac, -0.55)
        self.scene.line(sac, 0.016 * self.length, 0.5, closed=True)
        self.scene.polygons["lipid sac"] = sac
        self.measures["lipid_sac_area_um2"] = polygon_area(sac)

    def egg_sacs(self, number: int) -> int:
        """Clusters of eggs at the genital segment; the number of eggs in all of them."""
        eggs = 0
        radius = self.rng.uniform(0.040, 0.052) * self.length
        for sac in range(number):
            side = (1, -1)[sac] if number == 2 else (-1 if self.view == "side" else 0)
            root, heading = frame_at(self.urosome, 0.22)
            long, across = 0.26 * self.length, 0.10 * self.length
            if number == 1:
                across *= 1.25
            angle = heading + side * self.rng.uniform(0.35, 0.6)
            centre = root + np.array([np.cos(angle), np.sin(angle)]) * long * 0.62
            centre += side * 0.055 * self.length * np.array([-np.sin(heading), np.cos(heading)])
            self.scene.fill(ellipse(centre, long * 0.55, across, angle), 0.55 * self.dark)
            eggs += self._eggs(centre, long * 0.5, across * 0.9, angle, radius)
            box = ellipse(centre, long * 0.55 + radius, across + radius, angle)
            self.scene.boxes.append(("egg sac", box))
        return eggs

    def _eggs(
        self, centre: np.ndarray, long: float, across: float, angle: float, radius: float
    ) -> int:
        number = 0
        for row, y in enumerate(np.arange(-across, across + 1, 1.7 * radius)):
            for x in np.arange(-long, long + 1, 1.95 * radius) + (row % 2) * radius:
                if (x / long) ** 2 + (y / across) ** 2 > 1.05:
                    continue
                jitter = self.rng.normal(0, 0.12 * radius, 2)
                egg = place(np.array([[x, y]]) + jitter, centre, angle)[0]
                self.scene.ball(egg, radius, 0.9, rim_um=0.25 * radius, rim_depth=0.5)
                number += 1
        return number
