"""The plots of a version's page, each an SVG in a data URI: nothing is fetched."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ml_backend.plot_style import ACCENT, INK, PALE, SECOND, our_style

SMALL_INCHES = (3.7, 3.5)
FEW_LABELS = 30
MOST_TICKS = 5
RECALL = "macro recall"
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Point:
    """One version on the learning curve; `low` and `high` bound its 95 % interval, if known."""

    version: str
    n_images: int
    value: float
    low: float | None = None
    high: float | None = None


def reliability_diagram(bins: Sequence[Mapping[str, float]]) -> str:
    """How often answers of each confidence are right; below, how many there are."""
    figure, (upper, lower) = _figure(rows=(4, 1))
    confidence = [entry["confidence"] for entry in bins]
    upper.plot([0, 1], [0, 1], color=PALE, linewidth=1, linestyle="--")
    upper.plot(confidence, [entry["accuracy"] for entry in bins], "o-", color=ACCENT, markersize=4)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right", xticklabels=[])
    edges = [min(int(c * 15), 14) / 15 for c in confidence]
    lower.bar(edges, [entry["n"] for entry in bins], width=1 / 15, align="edge", color=PALE)
    lower.set(xlim=(0, 1), xlabel="probability given", ylabel="n")
    lower.locator_params(axis="y", nbins=2)
    return _svg(figure)


def risk_coverage_curve(curve: Mapping[str, Any]) -> str:
    """How often the surest answers are wrong, against the share answered."""
    figure, (axes,) = _figure()
    axes.plot(curve["coverage"], curve["risk"], color=ACCENT)
    axes.fill_between(curve["coverage"], curve["risk"], color=ACCENT, alpha=0.12, linewidth=0)
    highest = max(curve["risk"], default=0.0)
    axes.set(xlim=(0, 1), ylim=(0, max(highest * 1.15, 0.05)))
    axes.set(xlabel="share answered, the surest first", ylabel="share of them wrong")
    return _svg(figure)


def learning_curve(points: Sequence[Point], current: str, measure: str) -> str:
    """A figure of merit of each version against the images that taught it.

    Only the first version, the best and this one are named: there may be many.

    Parameters
    ----------
    current : str
        Name of the version whose page it is.
    measure : str
        What the figure is: an error, in its unit, or `RECALL`.
    """
    figure, (axes,) = _figure()
    points = sorted(points, key=lambda point: (point.n_images, _number(point)))
    n_images, values = [p.n_images for p in points], [p.value for p in points]
    axes.plot(n_images, values, "o-", color=PALE, linewidth=1, markersize=4, zorder=1)
    for point in points:
        _draw_interval(axes, point, PALE)
    for point, words, color in _named(points, current, measure):
        _draw_interval(axes, point, color)
        (dot,) = axes.plot(point.n_images, point.value, "o", color=color, markersize=6)
        dot.set(label=f"v{_number(point)}: {words}", zorder=3 + (color == ACCENT), clip_on=False)
    _count_images(axes, n_images)
    highest = max([*values, *(p.high for p in points if p.high is not None)])
    axes.set_ylim(0, 1.02 if measure == RECALL else 1.1 * highest or 1.0)
    axes.set(xlabel="images that taught it", ylabel=measure)
    look = {"frameon": False, "fontsize": 8, "labelcolor": INK, "handletextpad": 0.1}
    figure.legend(loc="outside upper left", ncols=3, columnspacing=1.0, **look)
    return _svg(figure)


def _named(points: Sequence[Point], current: str, measure: str) -> Iterator[tuple[Point, str, str]]:
    """The first version, the best and this one, each once, with why and in which colour."""
    sign = 1 if measure == RECALL else -1
    first = min(points, key=_number)
    best = max(points, key=lambda p: (sign * p.value, p.version == current, _number(p)))
    why = {"first": first.version, "best": best.version, "this one": current}
    for point in sorted(points, key=_number):
        words = ", ".join(word for word, version in why.items() if version == point.version)
        if words:
            color = ACCENT if point.version == current else SECOND if point is best else INK
            yield point, words, color


def _number(point: Point) -> int:
    return int(point.version.rsplit("-v", 1)[1])


def _draw_interval(axes: Axes, point: Point, color: str) -> None:
    if point.low is not None and point.high is not None:
        axes.vlines(point.n_images, point.low, point.high, color=color, linewidth=1.5, zorder=2)


def _count_images(axes: Axes, n_images: Sequence[int]) -> None:
    """An axis of counts, logarithmic where they differ much, with few enough ticks to read."""
    axes.margins(x=0.08)
    if min(n_images) > 0 and max(n_images) > 5 * min(n_images):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(_ticks(*axes.get_xlim())))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS - 1, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _ticks(low: float, high: float) -> list[float]:
    """Of 1, 2, 5, 10, … those within an axis, or fewer a decade where that is too many."""
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        ticks = [step * 10.0**d for d in decades for step in steps if low <= step * 10**d <= high]
        if len(ticks) <= MOST_TICKS:
            break
    return ticks


def rejection_curve(rejection: Mapping[str, Any]) -> str:
    """The error of the composition against the share of images left out, by each score."""
    figure, (axes,) = _figure(inches=(6.2, 3.3))
    for score, color in (("confidence", ACCENT), ("novelty", SECOND)):
        found = rejection.get(score)
        if not found:
            continue
        curve = found["curve"]
        axes.plot(
            [point["rejected"] for point in curve],
            [point["bray_curtis"] for point in curve],
            color=color,
            label=f"by {score}",
        )
        chosen = min(curve, key=lambda point: abs(point["threshold"] - found["threshold"]))
        axes.plot(chosen["rejected"], chosen["bray_curtis"], "o", color=color, markersize=7)
    axes.set(xlim=(-0.02, 1), xlabel="share of images left out", ylabel="mean Bray-Curtis")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _svg(figure)


def confusion_plot(labels: Sequence[str], counts: np.ndarray) -> str:
    """Who is taken for whom: a row per true label, shaded by the share of its images.

    Its own width is the one at which it is readable: with many labels wider than a page.

    Parameters
    ----------
    counts : int array (k, k)
        Rows are the truth, columns what was said.
    """
    k = len(labels)
    few = k <= FEW_LABELS
    pitch, font = (0.30, 8.5) if few else (0.135, 7.0)
    margin = 0.35 + 0.075 * max(map(len, labels)) * font / 8.5
    side = max(k * pitch, 1.6)
    figure = Figure(figsize=(margin + side + 0.7, margin + side + 0.3))
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with our_style(**STYLE):
        width, height = figure.get_size_inches()
        axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
        shades = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks(range(k), labels, rotation=90, fontsize=font)
        axes.set_yticks(range(k), labels, fontsize=font)
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#e8edf0", linewidth=0.6 if few else 0.4)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("said", fontsize=font + 1)
        axes.set_ylabel("truth", fontsize=font + 1)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if few:
            _write_counts(axes, counts, share)
        scale = figure.add_axes(
            ((margin + side + 0.12) / width, margin / height, 0.1 / width, side / height)
        )
        bar = figure.colorbar(shades, cax=scale)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=2)
        return _svg(figure, bbox_inches="tight", pad_inches=0.02)


def _write_counts(axes: Axes, counts: np.ndarray, share: np.ndarray) -> None:
    for row, column in np.argwhere(counts > 0):
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=7 if counts[row, column] < 1000 else 5.5,
            color="white" if share[row, column] > 0.55 else INK,
        )


def _figure(
    inches: tuple[float, float] = SMALL_INCHES, rows: tuple[int, ...] = (1,)
) -> tuple[Figure, list[Axes]]:
    with our_style(**STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        grid = figure.add_gridspec(len(rows), 1, height_ratios=rows)
        return figure, [figure.add_subplot(grid[row, 0]) for row in range(len(rows))]


def _svg(figure: Figure, **options: Any) -> str:
    """As a data URI; letters are drawn as paths, so that it looks the same everywhere."""
    drawn = io.BytesIO()
    with our_style(**STYLE):
        figure.savefig(drawn, format="svg", metadata=NO_METADATA, **options)
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.getvalue()).decode("ascii")
