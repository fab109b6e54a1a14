"""Commands of a Typer application that, instead of running, are submitted as jobs.

The job runs the same command line in a process of its own: a command and its submission cannot
differ in what they do, or in the options they take.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

_ARGUMENTS = "hpc_jobs.arguments"
_in_job: ContextVar[bool] = ContextVar("in_job", default=False)


class SubmittedCommand(TyperCommand):
    """Give it as `cls` to `app.command`; `ctx.obj` of its group is then called instead.

    It is given the command's name, its arguments as they were typed (checked already), and by name
    what they were read as.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments, so that the job is given the same."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Submit instead of running."""
        return ctx.obj(self.name, ctx.meta[_ARGUMENTS], ctx.params)


def in_job() -> bool:
    """Whether this is a command that runs as a job: its errors belong into the record."""
    return _in_job.get()


def run_command(
    application: str,
    arguments: Sequence[str],
    folder: str,
    part: tuple[int, int] | None = None,
) -> Any:
    """A job: run a command line in this process; what the command returned.

    Parameters
    ----------
    application : str
        "module:name" of a `typer.Typer`.
    arguments : sequence of str
    folder : str
        Where it was submitted: its relative paths begin there.
    part : (int, int), optional
        (k, n) of an array, for the command's option `--part`.
    """
    os.chdir(Path(folder))
    module, _, name = application.partition(":")
    command = typer.main.get_command(getattr(importlib.import_module(module), name))
    asked = [*arguments, *(() if part is None else ("--part", f"{part[0]}/{part[1]}"))]
    token = _in_job.set(True)
    try:
        return command.main(args=asked, standalone_mode=False)
    finally:
        _in_job.reset(token)


class PartError(ValueError):
    """An option `--part` that names no part."""


def read_part(text: str | None) -> tuple[int, int]:
    """Of an option `--part K/N`: (k, n), from (0, 1) on.

    >>> read_part("1/4"), read_part(None)
    ((1, 4), (0, 1))

    Raises
    ------
    PartError
        It is no such part.
    """
    if text is None:
        return 0, 1
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and int(first) < int(second):
        return int(first), int(second)
    raise PartError(f"--part {text}: give K/N with K from 0 to N - 1, e.g. 0/4")
