"""Long benchmarks in cells: each writes its result when done, and is skipped when repeated."""

from __future__ import annotations

import fnmatch
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ml_backend.whole_files import write_text


class Named(Protocol):
    """A cell: the file of its result bears its name."""

    @property
    def name(self) -> str: ...


Cell = TypeVar("Cell", bound=Named)


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


def finished(cells: Iterable[Named], results: Path) -> list[dict[str, Any]]:
    """The results that are there, in the order of the cells."""
    paths = [result_path(results, cell) for cell in cells]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def result_path(results: Path, cell: Named) -> Path:
    """Where a cell's result stands."""
    return results / f"{cell.name}.json"
