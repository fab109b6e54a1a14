"""The page of a version: one HTML file that holds its plots and images and fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Undefined
from markdown_it import MarkdownIt

from hpc_jobs.whole_files import write_text
from ml_backend.registry import CARD_FILE, REPORT_FILE, ModelVersion, Registry
from ml_backend.report import plain
from ml_backend.report_context import CALIBRATION, controls_of, primary_of
from ml_backend.report_plots import rejection_curve
from ml_backend.taught import images_that_taught, who_taught

HERE = Path(__file__).parent
UNKNOWN = "–"


class ReportError(ValueError):
    """A page that cannot be written where it is asked for."""


def write_report(registry: Registry, version: ModelVersion, output: Path | None = None) -> Path:
    """Write the page of a version anew, with today's learning curve.

    Parameters
    ----------
    output : Path, optional
        By default report.html in the version's folder.

    Returns
    -------
    Path
        Of the file written.

    Raises
    ------
    ReportError
        It cannot be written there.
    """
    output = output or version.folder / REPORT_FILE
    if output.is_dir():
        raise ReportError(f"{output} is a folder: name a file, such as {output / REPORT_FILE}")
    card = version.folder / CARD_FILE
    page = report_html(
        version.name,
        version.metrics,
        card.read_text(encoding="utf-8") if card.exists() else "",
        [other for other in registry.readable() if other.name != version.name],
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, page)
    except OSError as error:
        raise ReportError(f"{output} cannot be written ({error}): name another file") from error
    return output


def report_html(
    name: str, record: Mapping[str, Any], card: str, others: Sequence[ModelVersion]
) -> str:
    """The page as HTML.

    Parameters
    ----------
    name : str
        The version's.
    record : mapping
        As in metrics.json, of this version or an old one: what it lacks, the page says.
    card : str
        The model card, as Markdown.
    others : sequence of ModelVersion
        The registry's other versions, for the learning curve.
    """
    record = plain(dict(record))
    controls = controls_of(name, record, others)
    rejection = record.get("rejection") or {}
    tried = any(rejection.get(score) for score in ("confidence", "novelty"))
    return (
        _environment()
        .get_template("report_page.html")
        .render(
            name=name,
            record=record,
            controls=controls,
            primary=primary_of(record, controls),
            labelled=[control for control in controls if control["kind"] != "number"],
            calibration=CALIBRATION,
            rejection=rejection,
            rejection_plot=rejection_curve(rejection) if tried else None,
            settings=json.dumps(record.get("settings", {}), indent=2, ensure_ascii=False),
            card=_from_markdown(card),
            style=(HERE / "report_page.css").read_text(encoding="utf-8"),
            script=(HERE / "report_page.js").read_text(encoding="utf-8"),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FORMATS)
    environment.filters |= {"who_taught": who_taught, "images_that_taught": images_that_taught}
    environment.filters |= {"answer": _answer, "error": _error}
    environment.filters["written"] = lambda value, how: FORMATS[how](value)
    return environment


def _from_markdown(text: str) -> str:
    """The card comes with labels that people typed: no HTML, images or links of theirs."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    return markdown.disable(["image", "link", "autolink", "reference"]).render(text)


def _known(write: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: UNKNOWN if value is None or isinstance(value, Undefined) else write(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _answer(value: Any, unit: str | None = None) -> str:
    """A label, or a number in its unit."""
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{_number(value)} {unit}" if unit else _number(value)


def _error(measured: Mapping[str, Any]) -> str:
    """The mean absolute error of a number, in its unit; nothing for labels."""
    mae = measured.get("mae")
    return "" if mae is None else _answer(mae, measured.get("unit"))


def _interval(bounds: Sequence[float | None] | None) -> str:
    if not bounds or None in bounds:
        return ""
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _moment(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%d %B %Y, %H:%M %Z").lstrip("0")
    except ValueError:
        return text


FORMATS: dict[str, Callable[[Any], str]] = {
    "share": _known(lambda value: f"{value:.3f}"),
    "percent": _known(lambda value: f"{100 * value:.{0 if value in (0, 1) else 1}f}\u00a0%"),
    "count": _known(lambda value: f"{value:,.0f}"),
    "number": _known(_number),
    "measured": _known(_number),
    "interval": _interval,
    "moment": _known(_moment),
}
