"""The front door: one command line, a line of help a command, no logic."""

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help=__doc__)
