"""From a version's record to what its page shows; any key may be absent in an old version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ml_backend.registry import ModelVersion
from ml_backend.report_images import with_thumbnails
from ml_backend.report_plots import (
    FEW_LABELS,
    RECALL,
    Point,
    confusion_plot,
    learning_curve,
    reliability_diagram,
    risk_coverage_curve,
)
from ml_backend.taught import images_that_taught

MOST_PAIRS = 12
SIDE_WORDS = {"test": "held-out", "blind": "blind"}
# Key, name, and how it is written: "measured" is a number in the control's own unit.
FIGURES = (
    ("macro_recall", "macro recall", "share"),
    ("majority_macro_recall", "… of always the commonest", "share"),
    ("micro_accuracy", "micro accuracy", "share"),
    ("macro_precision", "macro precision", "share"),
    ("macro_f1", "macro F1", "share"),
    ("agreement", "agreement with annotators", "share"),
    ("mae_steps", "mean error in steps", "number"),
    ("quadratic_kappa", "quadratic weighted kappa", "number"),
    ("mae", "mean absolute error", "measured"),
    ("rmse", "root mean square error", "measured"),
    ("r2", "R²", "share"),
    ("interval_95_width", "width of the 95 % interval", "measured"),
    ("interval_95_coverage", "95 % interval holds", "percent"),
    ("interval_90_coverage", "90 % interval holds", "percent"),
)
CALIBRATION = (
    ("ece", "ECE"),
    ("ece_before_correction", "before prior correction"),
    ("ece_adaptive", "adaptive"),
    ("ece_classwise", "classwise"),
    ("brier", "Brier"),
    ("nll", "NLL"),
    ("kl", "KL to votes"),
)

Record = Mapping[str, Any]


def controls_of(
    name: str, record: Record, versions: Sequence[ModelVersion]
) -> list[dict[str, Any]]:
    """What the page says of each control, in the order of the config.

    Parameters
    ----------
    name : str
        The version's.
    record : mapping
        As in metrics.json.
    versions : sequence of ModelVersion
        For the learning curve, without this one.
    """
    heads = {head["control"]: head for head in record.get("heads", [])}
    measured = record.get("metrics", {})
    names = list(heads) or list(measured.get("test", {}))
    found = []
    for number, control in enumerate(names):
        head = heads.get(control, {})
        side = next((s for s in SIDE_WORDS if measured.get(s, {}).get(control)), None)
        metrics = measured[side][control] if side else {}
        found.append(
            {
                "name": control,
                "anchor": f"control-{number + 1}",
                "kind": metrics.get("kind") or head.get("kind", ""),
                "head": head,
                "side": SIDE_WORDS.get(side or ""),
                "metrics": metrics,
                "blind": measured.get("blind", {}).get(control, {}),
                "figures": [
                    (title, metrics[key], how)
                    for key, title, how in FIGURES
                    if metrics.get(key) is not None
                ],
                "plots": _plots(name, control, metrics, record, versions),
                "labels": _labels(metrics, head),
                **_confusion(metrics),
                "mistakes": with_thumbnails(record.get("mistakes", {}).get(control, [])),
                "mistakes_known": "mistakes" in record,
            }
        )
    return found


def primary_of(record: Record, controls: Iterable[Record]) -> Record | None:
    """The control whose figures head the page."""
    controls = list(controls)
    named = (record.get("rejection") or {}).get("control")
    for wanted in (
        lambda c: c["name"] == named,
        lambda c: c["kind"] == "one of" and c["metrics"],
        lambda c: c["metrics"],
    ):
        found = next((control for control in controls if wanted(control)), None)
        if found is not None:
            return found
    return controls[0] if controls else None


def learning_points(
    control: str, name: str, record: Record, versions: Sequence[ModelVersion]
) -> tuple[list[Point], str]:
    """Each version's figure of merit for a control, and what that figure is."""
    records = {version.name: version.metrics for version in versions} | {name: record}
    measured = [found for r in records.values() if (found := _measured(r, control))]
    latest = _measured(record, control) or (measured[-1] if measured else {})
    key, measure, unit = "macro_recall", RECALL, latest.get("unit")
    if latest.get("kind") == "number":
        key, measure = "mae", "mean absolute error" + (f" ({unit})" if unit else "")
    points = []
    for version, one in records.items():
        metrics = _measured(one, control)
        value, n_images = metrics.get(key), images_that_taught(one, control)
        if value is None or n_images is None or metrics.get("unit") != unit:
            continue
        low, high = metrics.get("macro_recall_interval") or (None, None)
        points.append(Point(version, n_images, value, low, high))
    return points, measure


def _measured(record: Record, control: str) -> Record:
    return record.get("metrics", {}).get("test", {}).get(control, {})


def _plots(
    name: str, control: str, metrics: Record, record: Record, versions: Sequence[ModelVersion]
) -> list[dict[str, str]]:
    plots = []
    if metrics.get("reliability"):
        plots.append(
            {
                "title": "Reliability",
                "uri": reliability_diagram(metrics["reliability"]),
                "caption": "On the dashed line a probability means what it says; below it the "
                "model is too sure. The bars are how many answers there are.",
            }
        )
    curve = metrics.get("risk_coverage")
    if curve and curve["coverage"]:
        aurc = "" if curve.get("aurc") is None else f" Area under the curve: {curve['aurc']:.3f}."
        plots.append(
            {
                "title": "Risk and coverage",
                "uri": risk_coverage_curve(curve),
                "caption": f"If only the surest answers are taken, this share of them is "
                f"wrong.{aurc}",
            }
        )
    points, measure = learning_points(control, name, record, versions)
    if points:
        only = " So far there is one version." if len(points) == 1 else ""
        plots.append(
            {
                "title": "Learning curve",
                "uri": learning_curve(points, name, measure),
                "caption": f"{measure[0].upper()}{measure[1:]} of each version on the held-out "
                f"images of its day.{only}",
            }
        )
    return plots


def _labels(metrics: Record, head: Record) -> list[dict[str, Any]]:
    taught = dict(zip(head.get("labels", ()), head.get("n_per_label", ()), strict=False))
    return [
        {"label": label, "votes": taught.get(label, 0 if taught else None), **figures}
        for label, figures in metrics.get("per_label", {}).items()
    ]


def _confusion(metrics: Record) -> dict[str, Any]:
    """The plot, without labels that neither occur nor are said, and the commonest confusions."""
    if not metrics.get("confusion"):
        return {"confusion": None, "pairs": []}
    counts, labels = np.array(metrics["confusion"]), list(metrics["per_label"])
    there = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    uri = confusion_plot([labels[k] for k in there], counts[np.ix_(there, there)])
    support = counts.sum(axis=1)
    off = counts * ~np.eye(len(labels), dtype=bool)
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [divmod(int(position), len(labels)) for position in order]
    return {
        "confusion": {
            "uri": uri,
            "wide": len(there) > FEW_LABELS,
            "absent": len(labels) - len(there),
        },
        "pairs": [
            {
                "truth": labels[row],
                "said": labels[column],
                "n": int(off[row, column]),
                "share": float(off[row, column] / support[row]),
            }
            for row, column in pairs
            if off[row, column]
        ],
    }
