"""Long benchmarks in cells: each writes its result when done, and is skipped when repeated."""

from __future__ import annotations

import fnmatch
import json
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from benchmarks.ndsb import ENCODER
from hpc_jobs.whole_files import write_text


class Named(Protocol):
    """A cell: the file of its result bears its name."""

    @property
    def name(self) -> str: ...


Cell = TypeVar("Cell", bound=Named)


class OfResult:
    """A dataclass of a cell whose result holds its fields."""

    @classmethod
    def of(cls, result: dict[str, Any]) -> Self:
        """The cell of a result."""
        return cls(**{field.name: result[field.name] for field in fields(cls)})  # type: ignore[arg-type]


def read_options(description: str, pattern: str) -> Namespace:
    """The command line of a benchmark on `ndsb` that starts from an encoder.

    Parameters
    ----------
    description : str
        Of the module; its first line is shown.
    pattern : str
        An example for `--only`.
    """
    parser = ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("data", type=_folder, help="folder of ndsb, with labels.csv")
    parser.add_argument(
        "--encoder", type=_folder, default=ENCODER, help="SimCLR encoder of the images not held out"
    )
    add_options(parser, pattern)
    return parser.parse_args()


def _folder(text: str) -> Path:
    return Path(text).resolve()


def add_options(parser: ArgumentParser, pattern: str) -> None:
    """The options `--only` and `--list`; `pattern` is an example."""
    parser.add_argument("--only", default="*", help=f"pattern of cells: '{pattern}'")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")


def run_cells(
    cells: Iterable[Cell],
    results: Path,
    options: Namespace,
    run: Callable[[Cell], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Run the cells that are asked for and not done; yields each new result once it is written."""
    results.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        path = result_path(results, cell)
        if not fnmatch.fnmatch(cell.name, options.only):
            continue
        if options.list or path.exists():
            print("done" if path.exists() else "to do", cell.name)
            continue
        result = run(cell)
        write_text(path, json.dumps(result, indent=1) + "\n")
        yield result


def run_and_show(
    options: Namespace,
    cells: Sequence[Cell],
    results: Path,
    run: Callable[..., dict[str, Any]],
    told: Callable[[dict[str, Any]], str],
    show: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Run cells from an encoder, say each, and show all.

    Parameters
    ----------
    run : function of a cell, `folder` and `encoder`
    told : function of a result
        The line that says it is done.
    """
    logging.basicConfig(level=logging.ERROR)
    run_one = partial(run, folder=options.data, encoder=options.encoder)
    for result in run_cells(cells, results, options, run_one):
        print(told(result), flush=True)
    show(finished(cells, results))


def finished(cells: Iterable[Named], results: Path) -> list[dict[str, Any]]:
    """The results that are there, in the order of the cells."""
    paths = [result_path(results, cell) for cell in cells]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def result_path(results: Path, cell: Named) -> Path:
    """Where a cell's result stands."""
    return results / f"{cell.name}.json"
