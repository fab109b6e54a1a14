"""The plots of a version's page, each an SVG in a data URI: nothing is fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ml_backend.plot_style import ACCENT, INK, PALE, SECOND, our_style

SMALL_INCHES = (3.7, 3.5)
FEW_LABELS = 30
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
    """A figure of merit of each version against the images that taught it."""
    figure, (axes,) = _figure()
    points = sorted(points, key=lambda point: (point.n_images, point.version))
    n_images, values = [p.n_images for p in points], [p.value for p in points]
    axes.plot(n_images, values, color=PALE, linewidth=1, zorder=1)
    for point in points:
        color = ACCENT if point.version == current else PALE
        if point.low is not None and point.high is not None:
            axes.vlines(point.n_images, point.low, point.high, color=color, linewidth=1.5)
        axes.plot(point.n_images, point.value, "o", color=color, markersize=6, zorder=2)
    for point in {p.n_images: p for p in points}.values():  # one label where several stand
        axes.annotate(
            f"v{int(point.version.rsplit('-v', 1)[1])}",
            (point.n_images, point.value),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=7.5,
        )
    if min(n_images) > 0 and max(n_images) > 5 * min(n_images):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.margins(x=0.15)
    if measure == "macro recall":
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel="images that taught it", ylabel=measure)
    return _svg(figure)


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
