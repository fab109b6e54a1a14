"""Plots stay readable with many versions, and take labels as they stand."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from ml_backend import report_plots
from ml_backend.report_plots import RECALL, Point, confusion_plot, learning_curve


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that become pictures, as matplotlib holds them."""
    figures: list[Figure] = []
    svg = report_plots._svg

    def keep(figure: Figure, **options: Any) -> str:
        figures.append(figure)
        return svg(figure, **options)

    monkeypatch.setattr(report_plots, "_svg", keep)
    return figures


def versions(n_images: list[int], values: list[float]) -> list[Point]:
    pairs = enumerate(zip(n_images, values, strict=True), 1)
    return [Point(f"p-v{k:04d}", n, value, value - 0.05, value + 0.05) for k, (n, value) in pairs]


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_of_many_versions_only_three_are_named(drawn: list[Figure]) -> None:
    points = versions(
        [50 * k for k in range(1, 41)], [0.9 - 0.002 * abs(k - 30) for k in range(40)]
    )
    learning_curve(points, "p-v0040", RECALL)
    assert names(drawn[0]) == ["v1: first", "v31: best", "v40: this one"]
    learning_curve(points, "p-v0040", "mean absolute error, px")
    assert names(drawn[1]) == ["v1: first, best", "v40: this one"]
    learning_curve(points[:1], "p-v0001", RECALL)
    assert names(drawn[2]) == ["v1: first, best, this one"]
    same = versions([70, 300, 300], [0.97] * 3)
    learning_curve(same, "p-v0002", RECALL)  # of those that are as good
    assert names(drawn[3]) == ["v1: first", "v2: best, this one"]


@pytest.mark.parametrize(
    ("low", "high"), [(70, 25_000), (70, 400), (150, 4000), (9, 1_000_000), (3, 17), (95, 197)]
)
def test_tick_labels_do_not_overprint(drawn: list[Figure], low: int, high: int) -> None:
    learning_curve(versions([low, high], [0.4, 0.6]), "p-v0002", RECALL)
    figure = drawn[0]
    figure.canvas.draw()
    axes = figure.axes[0]
    left, right = axes.get_xlim()
    labels = [
        text.get_window_extent()
        for place, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if left <= place <= right
    ]
    assert 2 <= len(labels) <= 6
    assert all(one.x1 + 3 < other.x0 for one, other in itertools.pairwise(labels))


def test_the_largest_error_is_not_cut_off(drawn: list[Figure]) -> None:
    points = [Point("p-v0001", 95, 0.44), Point("p-v0002", 197, 0.36)]
    learning_curve(points, "p-v0002", "mean absolute error, $\\px$")
    axes = drawn[0].axes[0]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.44 * 1.05
    assert axes.get_ylabel() == "mean absolute error, $\\px$"
    learning_curve([Point("p-v0001", 0, 0.0)], "p-v0001", "mean absolute error")


@pytest.mark.parametrize("label", ["$\\foo$", "cost $1$2", "a_b^c"])
def test_a_label_is_no_mathematics(label: str) -> None:
    counts = np.array([[3, 1], [0, 2]])
    assert _svg_text(confusion_plot([label, "b"], counts)).startswith("<?xml")


def _svg_text(uri: str) -> str:
    return base64.b64decode(uri.split(",", 1)[1]).decode("utf-8")
