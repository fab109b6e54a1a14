"""Plots of benchmarks as files that change only when their figures do."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def write_svg(figure: Figure, path: Path) -> Path:
    """Write a figure without a date or random ids, and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"svg.hashsalt": "planktrait"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
