"""What is in front of the camera: shapes of some optical depth, and the truth about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from label_studio_config.phantoms.curves import Points, ellipse, outline


@dataclass(frozen=True)
class Shape:
    """A filled outline, or a line of some width, that takes away light.

    `depth` is the optical depth: transmitted light is exp(-depth). A negative depth clears what
    lies below it (an oil sac). `grain` modulates it inside the shape; `soft_um` blurs its edge.
    """

    points: Points
    depth: float
    width_um: float | None = None
    grain: float = 0.0
    soft_um: float = 0.0
    closed: bool = False


@dataclass
class Scene:
    """Shapes in µm, and named marks on them that an annotator would set."""

    shapes: list[Shape] = field(default_factory=list)
    key_points: list[tuple[str, np.ndarray]] = field(default_factory=list)
    lines: dict[str, Points] = field(default_factory=dict)
    polygons: dict[str, Points] = field(default_factory=dict)
    boxes: list[tuple[str, Points]] = field(default_factory=list)

    def fill(
        self, points: Points, depth: float, *, grain: float = 0.0, soft_um: float = 0.0
    ) -> None:
        """Add an evenly dark area."""
        self.shapes.append(Shape(np.asarray(points, float), depth, None, grain, soft_um))

    def line(self, points: Points, width_um: float, depth: float, *, closed: bool = False) -> None:
        """Add a line of constant width."""
        self.shapes.append(Shape(np.asarray(points, float), depth, width_um, closed=closed))

    def taper(self, centre: Points, start_um: float, end_um: float, depth: float) -> None:
        """Add a line whose width runs from `start_um` to `end_um` (a limb, a tentacle)."""
        self.fill(outline(centre, np.linspace(start_um, end_um, len(centre)) / 2), depth)

    def body(
        self,
        centre: Points,
        half_widths: np.ndarray,
        depth: float,
        *,
        other: np.ndarray | None = None,
        rim_um: float = 0.0,
        rim_depth: float = 0.0,
        grain: float = 0.0,
    ) -> Points:
        """Add a rounded body around a centre line: darkest where it is thickest; its outline."""
        for share in (1.0, 0.86, 0.68, 0.42):
            second = None if other is None else other * share
            points = outline(centre, half_widths * share, second)
            self.fill(points, depth / 4, grain=grain)
        whole = outline(centre, half_widths, other)
        if rim_depth:
            self.line(whole, rim_um, rim_depth, closed=True)
        return whole

    def ball(
        self,
        centre: np.ndarray | tuple[float, float],
        rx: float,
        depth: float,
        *,
        ry: float | None = None,
        angle: float = 0.0,
        rim_um: float = 0.0,
        rim_depth: float = 0.0,
        grain: float = 0.0,
    ) -> Points:
        """Add a rounded ellipsoid; its outline."""
        across = rx if ry is None else ry
        for share in (1.0, 0.8, 0.5):
            points = ellipse(centre, rx * share, across * share, angle)
            self.fill(points, depth / 3, grain=grain)
        whole = ellipse(centre, rx, across, angle)
        if rim_depth:
            self.line(whole, rim_um, rim_depth, closed=True)
        return whole

    def mapped(self, move: Callable[[Points], Points]) -> Scene:
        """The scene with every point moved by `move`."""
        return Scene(
            [
                Shape(move(s.points), s.depth, s.width_um, s.grain, s.soft_um, s.closed)
                for s in self.shapes
            ],
            [(label, move(point[None])[0]) for label, point in self.key_points],
            {name: move(points) for name, points in self.lines.items()},
            {name: move(points) for name, points in self.polygons.items()},
            [(label, move(points)) for label, points in self.boxes],
        )

    def merged(self, other: Scene) -> Scene:
        """This scene with the shapes of another one beside it; the marks stay this one's."""
        return Scene(
            self.shapes + other.shapes, self.key_points, self.lines, self.polygons, self.boxes
        )

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (x, y) of all shapes."""
        points = np.concatenate([shape.points for shape in self.shapes])
        return points.min(axis=0), points.max(axis=0)


@dataclass
class Phantom:
    """One organism or particle: what to draw, and what is true of it.

    `traits` holds values by control name; `measures` holds lengths and areas by column name.
    """

    group: str
    scene: Scene
    traits: dict[str, str | int] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
