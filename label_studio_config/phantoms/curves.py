"""Curves and outlines, in µm: what bodies are made of."""

from __future__ import annotations

import numpy as np

Points = np.ndarray
"""Float array (n, 2) of x and y in µm, the anterior end at the left before rotation."""


def arc(length_um: float, curvature: float = 0.0, n: int = 24) -> Points:
    """A centre line from (0, 0) towards +x that turns by `curvature` radians over its length."""
    heading = curvature * np.linspace(0, 1, n)
    return _follow(heading, length_um)


def spiral(length_um: float, turn: float, n: int = 60) -> Points:
    """A centre line that winds up: it turns by `turn` radians, ever more tightly."""
    return _follow(turn * np.linspace(0, 1, n) ** 1.8, length_um)


def wave(
    length_um: float, amplitude: float, cycles: float, phase: float = 0.0, n: int = 40
) -> Points:
    """A centre line that undulates: its heading swings by `amplitude` radians."""
    t = np.linspace(0, 1, n)
    return _follow(amplitude * np.sin(2 * np.pi * (cycles * t + phase)), length_um)


def wander(length_um: float, roughness: float, rng: np.random.Generator, n: int = 30) -> Points:
    """A centre line whose heading walks at random."""
    return _follow(np.cumsum(rng.normal(0, roughness, n)), length_um)


def _follow(heading: np.ndarray, length_um: float) -> Points:
    step = length_um / (len(heading) - 1)
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1)[:-1] * step
    return np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])


def place(points: Points, origin: tuple[float, float] | Points, angle: float = 0.0) -> Points:
    """Turn about (0, 0) by `angle` radians, then move to `origin`."""
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.asarray(points, float) @ np.array([[cos, sin], [-sin, cos]])
    return turned + np.asarray(origin, float)


def frame_at(centre: Points, t: float) -> tuple[np.ndarray, float]:
    """Position and heading (radians) at share `t` of a centre line's vertices."""
    position = t * (len(centre) - 1)
    low = int(np.clip(np.floor(position), 0, len(centre) - 2))
    step = centre[low + 1] - centre[low]
    return centre[low] + (position - low) * step, float(np.arctan2(step[1], step[0]))


def beside(centre: Points, t: float, offset_um: float) -> np.ndarray:
    """The point at share `t`, moved sideways."""
    point, heading = frame_at(centre, t)
    return point + offset_um * np.array([-np.sin(heading), np.cos(heading)])


def outline(
    centre: Points, half_widths: np.ndarray | float, other: np.ndarray | None = None
) -> Points:
    """The outline of a body around a centre line; `other` is the second side, if it differs."""
    tangent = np.gradient(centre, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    left = np.zeros((len(centre), 1)) + np.reshape(half_widths, (-1, 1))
    right = left if other is None else np.reshape(other, (-1, 1))
    return np.concatenate([centre + left * normal, (centre - right * normal)[::-1]])


def ellipse(
    centre: tuple[float, float] | np.ndarray,
    rx: float,
    ry: float | None = None,
    angle: float = 0.0,
    n: int = 36,
) -> Points:
    """The outline of an ellipse (a circle without `ry`)."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    points = np.stack([rx * np.cos(t), (rx if ry is None else ry) * np.sin(t)], axis=1)
    return place(points, np.asarray(centre, float), angle)


def lumpy(
    centre: tuple[float, float] | np.ndarray,
    radius: float,
    roughness: float,
    rng: np.random.Generator,
    n: int = 40,
) -> Points:
    """A closed irregular outline: a circle whose radius has a few random harmonics."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    factor: np.ndarray = np.ones(n)
    for k in range(2, 8):
        factor += roughness * rng.normal() / k * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    factor = np.maximum(factor, 0.25)
    points = np.stack([np.cos(t), np.sin(t)], axis=1) * (radius * factor)[:, None]
    return points + np.asarray(centre, float)


def polygon_area(points: Points) -> float:
    """Area of a closed outline by the shoelace formula, in the square of its unit."""
    x, y = np.asarray(points, float).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def line_length(points: Points) -> float:
    """Length of a polyline, in its own unit."""
    return float(np.linalg.norm(np.diff(np.asarray(points, float), axis=0), axis=1).sum())
